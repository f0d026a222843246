"""Bytes between a stream of a link and a socket of this machine."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import trio

from protocol.errors import MessageInvalid, QubixError
from qubixd.link.bulk import clock, spent
from qubixd.link.stream import CHUNK_BYTES, LinkStream

MAX_DATAGRAM_BYTES: Final = 65_507
DATAGRAM_BACKLOG_BYTES: Final = 1024 * 1024
DATAGRAM_QUEUE_BYTES: Final = 64 * 1024
"""Datagrams are dropped while more than the one is on its way, or more than the other still waits here: late
ones are worth less than none."""
_MAX_PIECES: Final = 64
"""For one system call, which takes no more than 1,024."""
_NO_LINGER: Final = struct.pack("ii", 1, 0)


async def carry(
    stream: LinkStream, sock: trio.SocketStream | trio.abc.HalfCloseableStream
) -> tuple[int, int]:
    """Both ways until both have ended, each with its end of stream; closes both. A reset of the socket
    aborts the stream, and the other way round; `stream.failure` says why, and is None if all went well.
    Returns the bytes (sent over the stream, received from it)."""
    local = _Plain(sock) if isinstance(sock, trio.SocketStream) else _Other(sock)
    counts, through = [0, 0], False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, stream, nursery.cancel_scope)
            async with trio.open_nursery() as both:
                both.start_soon(_outwards, stream, local, counts)
                both.start_soon(_inwards, stream, local, counts)
            await stream.aclose()
            through = stream.failure is None
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, OSError):
        stream.abort("tunnel.reset", "the program at the other end has reset the connection")
    except* QubixError:
        pass  # it is the stream's, which keeps it
    finally:
        local.close(through)
        await trio.aclose_forcefully(sock)
        await trio.aclose_forcefully(stream)
    return counts[0], counts[1]


async def _watch(stream: LinkStream, scope: trio.CancelScope) -> None:
    """A failure of the stream ends the wait for a socket that says and takes nothing."""
    try:
        await stream.wait_broken()
    except QubixError:
        scope.cancel()


async def _outwards(stream: LinkStream, local: _Local, counts: list[int]) -> None:
    while data := await local.receive():
        counts[0] += len(data)
        await stream.send_all(data)
    await stream.send_eof()


async def _inwards(stream: LinkStream, local: _Local, counts: list[int]) -> None:
    def sink(pieces: Sequence[bytes | memoryview]) -> int:
        taken = local.offer(pieces)
        counts[1] += taken
        return taken

    while data := await stream.pour(sink):
        await local.send(data)
        counts[1] += len(data)
    await local.end()


class _Local(Protocol):
    """The local side of a tunnel. OSError or BrokenResourceError when it breaks."""

    async def receive(self) -> bytes | bytearray: ...
    async def send(self, data: bytes | bytearray) -> None: ...
    def offer(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Take as much as goes without waiting. Never fails: what is wrong shows at the next `send`."""
        ...

    async def end(self) -> None: ...
    def close(self, through: bool) -> None:
        """Tell the local program whether all was said."""
        ...


class _Plain:
    """A socket without trio's stream around it, whose every call costs a pass of the event loop."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._sock = socket.socket(fileno=stream.socket.detach())
        self._sock.setblocking(False)
        if self._is_tcp():
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _is_tcp(self) -> bool:
        return self._sock.family in (socket.AF_INET, socket.AF_INET6)

    async def receive(self) -> bytes:
        while True:
            try:
                begun = clock()
                data = self._sock.recv(CHUNK_BYTES)
                spent[0] += clock() - begun
                return data
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)

    async def send(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            try:
                begun = clock()
                view = view[self._sock.send(view) :]
                spent[0] += clock() - begun
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)

    def offer(self, pieces: Sequence[bytes | memoryview]) -> int:
        try:
            return self._sock.sendmsg(pieces[:_MAX_PIECES])
        except OSError:
            return 0

    async def end(self) -> None:
        await trio.lowlevel.checkpoint()
        self._sock.shutdown(socket.SHUT_WR)

    def close(self, through: bool) -> None:
        if not through and self._is_tcp():
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)  # so it is a reset
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


class _Other:
    """Any other stream of trio's."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream

    async def receive(self) -> bytes | bytearray:
        return await self._stream.receive_some(CHUNK_BYTES)

    async def send(self, data: bytes | bytearray) -> None:
        await self._stream.send_all(data)

    def offer(self, pieces: Sequence[bytes | memoryview]) -> int:
        return 0

    async def end(self) -> None:
        await self._stream.send_eof()

    def close(self, through: bool) -> None:
        """`carry` closes it; there is no more that it could say."""


async def carry_datagrams(
    stream: LinkStream,
    receive: Callable[[], Awaitable[bytes]],
    send: Callable[[bytes], Awaitable[object]],
) -> tuple[int, int]:
    """Datagrams both ways, each as a u16 big-endian length and so many bytes, until the stream ends or
    this is cancelled. What comes faster than it can go is dropped. Returns the datagrams (sent, dropped).

    For a connected socket: `carry_datagrams(stream, lambda: sock.recv(65_535), sock.send)`."""
    counts = [0, 0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_datagrams_out, stream, receive, counts)
        await _datagrams_in(stream, send)
        nursery.cancel_scope.cancel()
    return counts[0], counts[1]


async def _datagrams_out(
    stream: LinkStream, receive: Callable[[], Awaitable[bytes]], counts: list[int]
) -> None:
    while True:
        try:
            data = await receive()
        except ConnectionRefusedError:
            continue  # nobody listens at the port yet: so says the answer to an earlier one
        late = stream.backlog_bytes > DATAGRAM_BACKLOG_BYTES or stream.unsent_bytes > DATAGRAM_QUEUE_BYTES
        if late or len(data) > MAX_DATAGRAM_BYTES:
            counts[1] += 1
            continue
        await stream.send_all(len(data).to_bytes(2, "big") + data)
        counts[0] += 1


async def _datagrams_in(stream: LinkStream, send: Callable[[bytes], Awaitable[object]]) -> None:
    held = bytearray()
    while data := await stream.receive_some():
        held += data
        at = 0
        while len(held) - at >= 2 and len(held) - at - 2 >= (
            size := int.from_bytes(held[at : at + 2], "big")
        ):
            if size > MAX_DATAGRAM_BYTES:
                raise MessageInvalid("a peer sent a datagram larger than there are")
            await _send_datagram(send, bytes(held[at + 2 : at + 2 + size]))
            at += 2 + size
        del held[:at]


async def _send_datagram(send: Callable[[bytes], Awaitable[object]], data: bytes) -> None:
    try:
        await send(data)
    except OSError:
        await trio.lowlevel.checkpoint()  # lost, as datagrams are
