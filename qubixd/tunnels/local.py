"""The caller's end of tunnels: a control connection that is the bytes of one stream now, and how it ended.

A front end that goes away without a word ends its program or its copying at once; to a port it may have said
all it had to say, so there the other side has some time to finish.
"""

from __future__ import annotations

import os
import select
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol, TypeVar

import trio

from protocol.control_tunnels import PathView, TunnelEnd
from protocol.errors import QubixError, StreamBroken
from protocol.lease_state import Lease
from qubixd.link import LinkView, pump
from qubixd.link.stream import LinkStream
from qubixd.why import code_of

HUNG_UP_SECONDS: Final = 60.0
"""A port whose front end has gone away has so long to end its direction, too."""
HASTY_SECONDS: Final = 1.0
"""The same for programs and files: long enough for an end that is under way."""
GONE: Final = "the program at the caller's end of the tunnel has gone away"
KEPT_ENDS: Final = 256
"""Ended tunnels whose reason can still be asked for."""
T = TypeVar("T")


class Ways(Protocol):
    """Streams to the job of a lease: qubixd/connections.py, or a test."""

    async def open(self, lease: Lease, opening: object) -> LinkStream: ...

    async def reach(self, lease: Lease) -> None:
        """Make sure there is a path, though nothing travels yet. PeerUnreachable."""
        ...

    def view(self, lease: Lease) -> LinkView | None: ...


@dataclass
class Tunnel:
    """One that a front end has asked for by `connect`."""

    name: str
    lease: Lease
    end: TunnelEnd | None = None
    ended: trio.Event = field(default_factory=trio.Event)


class LocalTunnels:
    """Those that are open, and the last that have ended, by name."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Tunnel] = OrderedDict()

    def get(self, name: str) -> Tunnel | None:
        return self._known.get(name)

    def add(self, lease: Lease) -> Tunnel:
        tunnel = Tunnel(os.urandom(8).hex(), lease)
        self._known[tunnel.name] = tunnel
        return tunnel

    def ended(self, tunnel: Tunnel, end: TunnelEnd) -> None:
        """Its reason is kept for a while: a front end asks for it when it finds its bytes cut off."""
        tunnel.end = end
        tunnel.ended.set()
        self._known.move_to_end(tunnel.name)
        over = [name for name, one in self._known.items() if one.end is not None]
        for name in over[:-KEPT_ENDS]:
            del self._known[name]


async def carry(stream: LinkStream, local: trio.SocketStream, *, hasty: bool) -> TunnelEnd:
    """Bytes both ways until both directions have ended or something breaks; closes both.

    `hasty`: a front end that has hung up is hardly waited for.
    """

    async def give_up(hung_up: Callable[[], Awaitable[None]]) -> None:
        await hung_up()
        await trio.sleep(HASTY_SECONDS if hasty else HUNG_UP_SECONDS)
        stream.abort(StreamBroken.code, GONE)

    with hang_up_of(local.socket) as hung_up:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up, hung_up)
            await pump.carry(stream, local)
            nursery.cancel_scope.cancel()
    return end_of(stream)


def end_of(stream: LinkStream) -> TunnelEnd:
    error = stream.failure
    return TunnelEnd(code_of(error), str(error)) if error else TunnelEnd()


@contextmanager
def hang_up_of(sock: trio.socket.SocketType) -> Iterator[Callable[[], Awaitable[None]]]:
    """What waits until the other end of a unix socket is closed altogether, not one direction of it; without
    reading, and also if the socket gets another owner meanwhile."""
    if not hasattr(select, "epoll"):  # elsewhere than on Linux it is noticed with the next byte
        yield trio.sleep_forever
        return
    with select.epoll(1) as watch:
        watch.register(sock.fileno(), 0)  # a hang-up is told in any case, and nothing else
        yield partial(trio.lowlevel.wait_readable, watch.fileno())


async def unless_hung_up(sock: trio.socket.SocketType, work: Callable[[], Awaitable[T]]) -> T | None:
    """What `work` comes to; None if the front end was gone before."""
    result: T | None = None
    failure: QubixError | None = None

    async def watch(hung_up: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        await hung_up()
        scope.cancel()

    with hang_up_of(sock) as hung_up:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, hung_up, nursery.cancel_scope)
            try:
                result = await work()
            except QubixError as error:
                failure = error
            nursery.cancel_scope.cancel()
    if failure:
        raise failure
    return result


def path_view(view: LinkView | None, before: PathView | None = None) -> PathView:
    """`before`: what was told last, for where there is no path any more."""
    if view is None:
        return (
            replace(before, rtt_ms=None, sent_per_second=0, received_per_second=0) if before else PathView("")
        )
    return PathView(
        kind=view.kind,
        waiting=view.waiting,
        rtt_ms=view.rtt_ms,
        sent_per_second=view.sent_per_second,
        received_per_second=view.received_per_second,
        address=view.address,
    )
