"""Ports of this machine that lead into a job: each connection has a stream of its own, and so has each sender
of datagrams (local_udp).

They listen on 127.0.0.1 only, for whoever can open them can speak with the job. All ports of a request are
taken before any is announced, or none is.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Final, Literal

import trio

from protocol.control_tunnels import ForwardEvent, ForwardPort, PathView, TunnelEnd
from protocol.errors import ConfigInvalid, PortBusy, QubixError, StreamBroken
from protocol.lease_state import Lease
from protocol.messages import OpenTcp
from qubixd.link import pump
from qubixd.link.stream import LinkStream
from qubixd.tunnels.local import GONE, Ways, end_of
from qubixd.why import code_of

HOST: Final = "127.0.0.1"
MAX_CONNECTIONS: Final = 64
"""Of one port at a time, as many as a provider takes; further ones wait until it is their turn."""
QUEUED_EVENTS: Final = 256
_NO_LINGER: Final = struct.pack("ii", 1, 0)

Bound = tuple[ForwardPort, socket.socket]
What = Literal["listening", "opened", "closed", "refused", "path"]


@contextmanager
def bound(ports: Sequence[ForwardPort]) -> Iterator[list[Bound]]:
    """All of them, with the numbers that they really have. PortBusy, ConfigInvalid."""
    with ExitStack() as stack:
        yield [_bind(port, stack) for port in ports]


def _bind(port: ForwardPort, stack: ExitStack) -> Bound:
    tcp = port.protocol == "tcp"
    sock = stack.enter_context(
        socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    )
    if tcp:  # the port of a connection that has just ended is no reason to wait
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port.local))
        if tcp:
            sock.listen(128)
    except OSError as error:
        raise _not_bound(port, error) from error
    return replace(port, local=sock.getsockname()[1]), sock


def _not_bound(port: ForwardPort, error: OSError) -> QubixError:
    suffix = "" if port.protocol == "tcp" else "/udp"
    other = f"{port.local % 50_000 + 10_000}:{port.remote}{suffix}"
    advice = f"give it another number here, e.g. {other}, or 0:{port.remote}{suffix} for any that is free"
    if error.errno == errno.EADDRINUSE:
        return PortBusy(f"{port.protocol} port {port.local} of this machine is taken; {advice}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigInvalid(f"the daemon may not listen on port {port.local}; {advice}")
    return ConfigInvalid(f"port {port.local} of this machine cannot be had: {error.strerror}; {advice}")


class Forwarding:
    """One request's ports. `events` are what happens to them; a front end that is too slow loses some, for no
    connection waits for it."""

    def __init__(self, ways: Ways, lease: Lease) -> None:
        self.ways, self.lease = ways, lease
        self._put, self.events = trio.open_memory_channel[ForwardEvent](QUEUED_EVENTS)
        self.open = 0

    def tell(
        self, what: What, *ports: ForwardPort, end: TunnelEnd | None = None, path: PathView | None = None
    ) -> None:
        end = end or TunnelEnd()
        with suppress(trio.WouldBlock):
            self._put.send_nowait(ForwardEvent(what, list(ports), self.open, path, end.code, end.sentence))

    async def stream(self, port: ForwardPort, opening: object) -> LinkStream | None:
        """None if it was refused, which is told."""
        try:
            return await self.ways.open(self.lease, opening)
        except QubixError as error:
            self.tell("refused", port, end=TunnelEnd(code_of(error), str(error)))
            return None

    async def follow(
        self, port: ForwardPort, stream: LinkStream, carry: Callable[[], Awaitable[object]]
    ) -> None:
        """Count and tell a stream from its first byte to its last."""
        self.open += 1
        self.tell("opened", port)
        try:
            await carry()
        finally:
            stream.abort(StreamBroken.code, GONE)  # nothing happens to one that has ended
            self.open -= 1
            self.tell("closed", port, end=end_of(stream))

    async def serve_tcp(self, port: ForwardPort, listening: socket.socket) -> None:
        """Until cancelled."""
        room = trio.Semaphore(MAX_CONNECTIONS)

        async def serve(sock: trio.SocketStream) -> None:
            async with room:
                stream = await self.stream(port, OpenTcp(self.lease.lease_id, port.remote))
                if stream is None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                    return
                await self.follow(port, stream, partial(pump.carry, stream, sock))

        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        await trio.serve_listeners(serve, [listener])
