"""The caller's end of tunnels: a control connection that is a stream, and what becomes of both at an end."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from protocol.control_tunnels import PathView, TunnelEnd
from protocol.errors import PeerRefused, QubixError, StreamBroken
from protocol.paths import PathKind
from qubixd.link import LinkView
from qubixd.link.stream import LinkStream
from qubixd.tunnels import local
from tests.support.lease_play import new_caller
from tests.support.link_pairs import link_pair


@dataclass
class Carried:
    """A front end's socket, the stream at the provider's side, and how it ended."""

    front: trio.SocketStream
    there: LinkStream
    end: TunnelEnd | None = None
    over: trio.Event = field(default_factory=trio.Event)


@asynccontextmanager
async def carried(*, hasty: bool) -> AsyncIterator[Carried]:
    async with link_pair() as pair:
        stream, there = await pair.open()
        ours, front = (
            trio.SocketStream(trio.socket.from_stdlib_socket(one))
            for one in socket.socketpair(socket.AF_UNIX)
        )
        one = Carried(front, there)

        async def carry() -> None:
            one.end = await local.carry(stream, ours, hasty=hasty)
            one.over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry)
            with trio.fail_after(30):
                yield one
            nursery.cancel_scope.cancel()


async def test_each_direction_has_its_own_end() -> None:
    async with carried(hasty=False) as one:
        await one.front.send_all(b"question")
        await one.front.send_eof()
        assert await one.there.receive_some() == b"question"
        assert await one.there.receive_some() == b""
        await one.there.send_all(b"answer")
        await one.there.send_eof()
        assert await one.front.receive_some() == b"answer"
        assert await one.front.receive_some() == b""
        await one.over.wait()
        assert one.end == TunnelEnd()


async def test_an_abort_is_told_with_its_code() -> None:
    async with carried(hasty=False) as one:
        await one.there.send_all(b"so far")
        assert await one.front.receive_some() == b"so far"
        one.there.abort("tunnel.lease_ended", "the job has ended")
        assert await one.front.receive_some() == b""
        await one.over.wait()
        assert one.end == TunnelEnd("tunnel.lease_ended", "the job has ended")


async def test_a_front_end_that_is_killed_ends_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "HASTY_SECONDS", 0.01)
    async with carried(hasty=True) as one:
        await one.front.send_all(b"typed")
        assert await one.there.receive_some() == b"typed"
        await one.front.aclose()
        with pytest.raises(QubixError) as caught:
            await one.there.wait_broken()
        assert isinstance(caught.value, PeerRefused)
        assert str(caught.value) == local.GONE
        await one.over.wait()


async def test_a_port_may_still_end_by_itself_when_its_front_end_has_gone() -> None:
    async with carried(hasty=False) as one:
        await one.front.send_all(b"the last word")
        await one.front.aclose()
        assert await one.there.receive_some() == b"the last word"
        assert await one.there.receive_some() == b""
        await one.there.send_eof()
        await one.over.wait()
        assert one.end == TunnelEnd()


async def test_a_hang_up_is_seen_without_reading_and_half_of_one_is_none() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    sock, seen = trio.socket.from_stdlib_socket(ours), trio.Event()

    async def watch() -> None:
        with local.hang_up_of(sock) as hung_up:
            await hung_up()
        seen.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        theirs.send(b"unread")
        theirs.shutdown(socket.SHUT_WR)
        with trio.move_on_after(0.05):
            await seen.wait()
        assert not seen.is_set()
        theirs.close()
        with trio.fail_after(30):
            await seen.wait()
    assert await sock.recv(100) == b"unread"
    sock.close()


async def test_opening_ends_with_its_front_end_and_tells_its_errors() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    sock = trio.socket.from_stdlib_socket(ours)

    async def refused() -> int:
        raise StreamBroken("no")

    async def answer() -> int:
        return 7

    async def never() -> int:
        await trio.sleep_forever()

    with pytest.raises(StreamBroken):
        await local.unless_hung_up(sock, refused)
    assert await local.unless_hung_up(sock, answer) == 7
    theirs.close()
    with trio.fail_after(30):
        assert await local.unless_hung_up(sock, never) is None
    sock.close()


async def test_ends_are_kept_for_a_while() -> None:
    tunnels = local.LocalTunnels()
    lease = new_caller()
    first, still_open = tunnels.add(lease), tunnels.add(lease)
    tunnels.ended(first, TunnelEnd("a", "b"))
    assert tunnels.get(first.name) is first and first.end == TunnelEnd("a", "b")
    for _ in range(local.KEPT_ENDS):
        tunnels.ended(tunnels.add(lease), TunnelEnd())
    assert tunnels.get(first.name) is None
    assert tunnels.get(still_open.name) is still_open


def test_a_path_that_is_gone_is_told_with_what_it_was() -> None:
    view = LinkView(PathKind.PUNCHED, 12.5, 1, 2, 3, 4, 1, "198.51.100.7:4001")
    told = local.path_view(view)
    assert told == PathView("punched", False, 12.5, 3, 4, "198.51.100.7:4001")
    assert local.path_view(None, told) == PathView("punched", False, None, 0, 0, "198.51.100.7:4001")
    assert local.path_view(None) == PathView("")
