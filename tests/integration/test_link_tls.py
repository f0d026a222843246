"""Links over real sockets: TLS with the right and wrong certificates, and the pump between local sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from protocol.errors import StreamBroken
from protocol.paths import PathKind
from protocol.units import PeerKey
from qubixd.link import Carrier
from qubixd.link.links import Links
from qubixd.link.pump import carry, carry_datagrams
from qubixd.link.stream import LinkStream
from qubixd.link.tls import Identity, TlsCarrier, TlsDoor, tls_client
from tests.support.link_pairs import CALLER, OPENING, PROVIDER, Between

BLOB = bytes(range(256)) * 12_000


@asynccontextmanager
async def listening(handler: Callable[[trio.SocketStream], Awaitable[object]]) -> AsyncIterator[int]:
    """The port of a listener on loopback."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handler, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class _ToPort:
    """Dials TLS to whatever port it is told."""

    def __init__(self, identity: Identity, certificate: bytes) -> None:
        self.identity, self.certificate, self.port = identity, certificate, 0
        self.made: list[TlsCarrier] = []

    async def carrier(
        self, peer: PeerKey, addresses: Sequence[str], *, better_than: PathKind | None = None
    ) -> Carrier:
        sock = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.made.append(await tls_client(sock, self.identity, self.certificate, PathKind.DIRECT))
        return self.made[-1]


@asynccontextmanager
async def daemons(handler: Callable[[LinkStream], Awaitable[None]]) -> AsyncIterator[tuple[Links, _ToPort]]:
    """The caller's links, which reach a provider that serves with `handler`, and their dialler."""
    mine, theirs = Identity(CALLER), Identity(PROVIDER)
    door, dialler = TlsDoor(theirs), _ToPort(mine, theirs.certificate)
    door.expect(CALLER, mine.certificate)
    caller, provider = Links(CALLER, dialler), Links(PROVIDER, Between(PROVIDER, open=False))
    provider.serve(handler)

    async def enter(sock: trio.SocketStream) -> None:
        provider.take(*await door.accept(sock, PathKind.DIRECT))

    async with trio.open_nursery() as nursery, listening(enter) as port:
        dialler.port = port
        await nursery.start(caller.run)
        await nursery.start(provider.run)
        yield caller, dialler
        nursery.cancel_scope.cancel()


def to_port(port: int) -> Callable[[LinkStream], Awaitable[None]]:
    """Serve streams by carrying them to a port."""

    async def handler(stream: LinkStream) -> None:
        sock = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.accept()
        await carry(stream, sock)

    return handler


async def _shout_back(sock: trio.SocketStream) -> None:
    """Take all until the end, then answer with all of it: only half-close can carry that."""
    heard = bytearray()
    async for data in sock:
        heard += data
    await sock.send_all(heard)
    await sock.aclose()


async def test_both_ends_of_stream_reach_both_programs_and_a_broken_carrier_is_no_matter() -> None:
    async with listening(_shout_back) as job, daemons(to_port(job)) as (links, dialler):

        async def forward(sock: trio.SocketStream) -> None:
            await carry(await links.open(PROVIDER, OPENING), sock)

        async with listening(forward) as port:
            sock = await trio.open_tcp_stream("127.0.0.1", port)
            await sock.send_all(BLOB[: len(BLOB) // 2])
            for carrier in list(dialler.made):
                await carrier.aclose()
            await sock.send_all(BLOB[len(BLOB) // 2 :])
            await sock.send_eof()
            heard = bytearray()
            async for data in sock:
                heard += data
        assert heard == BLOB
        assert len(dialler.made) > 1


async def test_a_reset_on_one_side_is_a_reset_on_the_other() -> None:
    async def slam(sock: trio.SocketStream) -> None:
        await sock.receive_some(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await sock.aclose()

    told, failures = trio.open_memory_channel[str](1)
    async with listening(slam) as job, daemons(to_port(job)) as (links, _):

        async def forward(sock: trio.SocketStream) -> None:
            stream = await links.open(PROVIDER, OPENING)
            await carry(stream, sock)
            await told.send(str(stream.failure))

        async with listening(forward) as port:
            sock = await trio.open_tcp_stream("127.0.0.1", port)
            await sock.send_all(b"x")
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(10):
                await sock.receive_some(1)
                await sock.receive_some(1)
            with trio.fail_after(10):
                assert await failures.receive() == "the program at the other end has reset the connection"


async def test_a_program_that_never_reads_stops_who_sends_and_an_abort_frees_both() -> None:
    sent, over = 0, trio.Event()
    async with listening(lambda sock: trio.sleep_forever()) as job:
        served: list[LinkStream] = []

        async def handler(stream: LinkStream) -> None:
            served.append(stream)
            await to_port(job)(stream)
            over.set()

        async with daemons(handler) as (links, _):
            stream = await links.open(PROVIDER, OPENING)
            with trio.move_on_after(1):
                while True:
                    await stream.send_all(bytes(1 << 18))
                    sent += 1 << 18
            assert sent < 40 << 20
            served[0].abort("lease.ended", "the lease has ended")
            with trio.fail_after(10):
                await over.wait()
                with pytest.raises(Exception, match="the lease has ended"):
                    await stream.send_all(b"more")


async def test_datagrams_keep_their_edges() -> None:
    with trio.socket.socket(type=socket.SOCK_DGRAM) as echo:
        await echo.bind(("127.0.0.1", 0))

        async def handler(stream: LinkStream) -> None:
            with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
                await sock.connect(echo.getsockname())
                await stream.accept()
                await carry_datagrams(stream, lambda: sock.recv(65_535), sock.send)

        async def answer() -> None:
            while True:
                data, sender = await echo.recvfrom(65_535)
                await echo.sendto(data[::-1], sender)

        async with daemons(handler) as (links, _), trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            stream = await links.open(PROVIDER, OPENING)
            said_send, said = trio.open_memory_channel[bytes](10)
            heard_send, heard = trio.open_memory_channel[bytes](10)
            nursery.start_soon(carry_datagrams, stream, said.receive, heard_send.send)
            with trio.fail_after(10):
                for data in (b"one", b"", bytes(9_000), b"last"):
                    await said_send.send(data)
                    assert await heard.receive() == data[::-1]
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wrong", ["my certificate", "theirs", "forgotten"])
async def test_only_the_expected_certificates_open_the_door(wrong: str) -> None:
    mine, theirs, door_failures = Identity(CALLER), Identity(PROVIDER), []
    door = TlsDoor(theirs)
    door.expect(CALLER, (Identity(CALLER) if wrong == "my certificate" else mine).certificate)
    if wrong == "forgotten":
        door.forget(CALLER)

    async def enter(sock: trio.SocketStream) -> None:
        try:
            await door.accept(sock, PathKind.DIRECT)
        except StreamBroken as error:
            door_failures.append(error)

    expected = Identity(PROVIDER).certificate if wrong == "theirs" else theirs.certificate
    async with listening(enter) as port:
        with pytest.raises(StreamBroken), trio.fail_after(10):
            await tls_client(await trio.open_tcp_stream("127.0.0.1", port), mine, expected, PathKind.DIRECT)
        with trio.fail_after(10):
            while not door_failures:
                await trio.testing.wait_all_tasks_blocked()


async def test_something_else_than_a_certificate_is_no_anchor() -> None:
    with pytest.raises(StreamBroken, match="cannot be read"):
        TlsDoor(Identity(PROVIDER)).expect(CALLER, b"\x30\x03\x02\x01\x01")
