"""Ports of this machine that lead into a job: connections and senders of datagrams, each with its stream."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from protocol.control_tunnels import ForwardEvent, ForwardPort
from protocol.errors import PeerRefused, PortBusy
from protocol.lease_state import Lease
from qubixd.link import LinkView, pump
from qubixd.link.stream import LinkStream
from qubixd.tunnels import local_udp
from qubixd.tunnels.local_forward import QUEUED_EVENTS, Forwarding, bound
from tests.support.lease_play import new_caller
from tests.support.link_pairs import PROVIDER, Pair, link_pair

Serve = Callable[[LinkStream], Awaitable[None]]


@dataclass
class Way:
    """The way to a job whose provider is the other end of a pair of links."""

    pair: Pair

    async def open(self, lease: Lease, opening: object) -> LinkStream:
        return await self.pair.caller.open(PROVIDER, opening)

    async def reach(self, lease: Lease) -> None:
        await trio.lowlevel.checkpoint()

    def view(self, lease: Lease) -> LinkView | None:
        return self.pair.caller.view(PROVIDER)


@dataclass
class Town:
    forwarding: Forwarding
    ports: list[ForwardPort]
    events: list[ForwardEvent] = field(default_factory=list)

    async def until(self, what: str, count: int = 1) -> None:
        while sum(event.what == what for event in self.events) < count:
            self.events.append(await self.forwarding.events.receive())


@asynccontextmanager
async def forwarded(serve: Serve, *ports: ForwardPort) -> AsyncIterator[Town]:
    async with link_pair() as pair:
        pair.provider.serve(serve)
        with bound(ports) as taken:
            town = Town(Forwarding(Way(pair), new_caller()), [port for port, _ in taken])
            async with trio.open_nursery() as nursery:
                for port, sock in taken:
                    if port.protocol == "tcp":
                        nursery.start_soon(town.forwarding.serve_tcp, port, sock)
                    else:
                        nursery.start_soon(local_udp.serve_udp, town.forwarding, port, sock)
                with trio.fail_after(30):
                    yield town
                nursery.cancel_scope.cancel()


async def echo(stream: LinkStream) -> None:
    """The job's side: says everything back, in capitals."""
    await stream.accept()
    while data := await stream.receive_some():
        await stream.send_all(bytes(data).upper())
    await stream.send_eof()


async def echo_datagrams(stream: LinkStream) -> None:
    await stream.accept()
    send, receive = trio.open_memory_channel[bytes](100)

    async def keep(data: bytes) -> None:
        send.send_nowait(data.upper())

    await pump.carry_datagrams(stream, receive.receive, keep)
    await stream.send_eof()


async def answer_to(sock: trio.socket.SocketType, data: bytes) -> bytes:
    """Said again and again, as who speaks in datagrams has to."""
    while True:
        await sock.send(data)
        with trio.move_on_after(0.2):
            return await sock.recv(100)


async def test_each_connection_has_its_stream() -> None:
    async with forwarded(echo, ForwardPort(0, 8888)) as town:
        address = ("127.0.0.1", town.ports[0].local)
        first, second = await trio.open_tcp_stream(*address), await trio.open_tcp_stream(*address)
        for stream, word in ((first, b"one"), (second, b"two")):
            await stream.send_all(word)
            await stream.send_eof()
        assert await second.receive_some() == b"TWO"
        assert await first.receive_some() == b"ONE"
        assert await first.receive_some() == b""
        await town.until("closed", 2)
        assert [event.open for event in town.events if event.what == "closed"][-1] == 0


async def test_a_front_end_that_reads_nothing_holds_no_connection_up() -> None:
    async with forwarded(echo, ForwardPort(0, 8888)) as town:
        for _ in range(QUEUED_EVENTS):
            town.forwarding.tell("path")
        stream = await trio.open_tcp_stream("127.0.0.1", town.ports[0].local)
        await stream.send_all(b"one")
        assert await stream.receive_some() == b"ONE"


async def test_nobody_inside_is_a_reset_and_told() -> None:
    async def refuse(stream: LinkStream) -> None:
        await stream.refuse(PeerRefused("tunnel.port_closed", "nothing listens there"))

    async with forwarded(refuse, ForwardPort(0, 8888)) as town:
        stream = await trio.open_tcp_stream("127.0.0.1", town.ports[0].local)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await town.until("refused")
        assert (town.events[0].code, town.events[0].sentence) == (
            "tunnel.port_closed",
            "nothing listens there",
        )


async def test_a_stream_that_is_cut_off_is_a_reset_and_told() -> None:
    async def cut(stream: LinkStream) -> None:
        await stream.accept()
        await stream.receive_some()
        stream.abort("tunnel.lease_ended", "the job has ended")

    async with forwarded(cut, ForwardPort(0, 8888)) as town:
        stream = await trio.open_tcp_stream("127.0.0.1", town.ports[0].local)
        await stream.send_all(b"?")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await town.until("closed")
        assert town.events[-1].code == "tunnel.lease_ended"


async def test_answers_to_datagrams_find_back_to_who_sent_them() -> None:
    async with forwarded(echo_datagrams, ForwardPort(0, 53, "udp")) as town:
        senders = [trio.socket.socket(type=socket.SOCK_DGRAM) for _ in range(3)]
        for number, sock in enumerate(senders):
            await sock.connect(("127.0.0.1", town.ports[0].local))
            await sock.send(b"from %d" % number)
        for number, sock in enumerate(senders):
            assert await sock.recv(100) == b"FROM %d" % number
            sock.close()
        assert town.forwarding.open == 3


async def test_a_conversation_that_is_cut_off_is_told_and_begun_anew() -> None:
    cut = trio.Event()

    async def serve(stream: LinkStream) -> None:
        if cut.is_set():
            return await echo_datagrams(stream)
        await stream.accept()
        await stream.receive_some()
        stream.abort("net.stream_broken", "lost")
        cut.set()

    async with forwarded(serve, ForwardPort(0, 53, "udp")) as town:
        with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", town.ports[0].local))
            await sock.send(b"once")
            await town.until("closed")
            assert town.events[-1].sentence == "lost"
            assert await answer_to(sock, b"again") == b"AGAIN"


async def test_a_sender_that_is_idle_loses_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_udp, "IDLE_SECONDS", 0.02)
    async with forwarded(echo_datagrams, ForwardPort(0, 53, "udp")) as town:
        with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", town.ports[0].local))
            await sock.send(b"once")
            assert await sock.recv(100) == b"ONCE"
            await town.until("closed")
            assert town.forwarding.open == 0
            assert await answer_to(sock, b"again") == b"AGAIN"


def test_a_port_that_is_taken_leaves_none_open() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with bound([ForwardPort(0, 1)]) as free:
            number = free[0][0].local
        wanted = [ForwardPort(number, 1), ForwardPort(taken, 8888)]
        with pytest.raises(PortBusy, match=rf"port {taken} .* is taken.*:8888"), bound(wanted):
            pass
        with bound([ForwardPort(number, 1)]):
            pass  # it was let go
