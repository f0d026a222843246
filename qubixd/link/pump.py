"""Bytes between a stream of a link and a socket of this machine."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from protocol.errors import MessageInvalid, QubixError
from qubixd.link.stream import CHUNK_BYTES, LinkStream

MAX_DATAGRAM_BYTES: Final = 65_507
DATAGRAM_BACKLOG_BYTES: Final = 128 * 1024
"""Datagrams are dropped while more than this is on its way: late ones are worth less than none."""
_NO_LINGER: Final = struct.pack("ii", 1, 0)

Socket = trio.SocketStream | trio.abc.HalfCloseableStream


async def carry(stream: LinkStream, sock: Socket) -> tuple[int, int]:
    """Both ways until both have ended, each with its end of stream; closes both. A reset of the socket
    aborts the stream, and the other way round; `stream.failure` says why, and is None if all went well.
    Returns the bytes (sent over the stream, received from it)."""
    counts, through = [0, 0], False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, stream, nursery.cancel_scope)
            async with trio.open_nursery() as both:
                both.start_soon(_outwards, stream, sock, counts)
                both.start_soon(_inwards, stream, sock, counts)
            await stream.aclose()
            through = stream.failure is None
            nursery.cancel_scope.cancel()
    except* trio.BrokenResourceError:
        stream.abort("tunnel.reset", "the program at the other end has reset the connection")
    except* QubixError:
        pass  # it is the stream's, which keeps it
    finally:
        if not through:
            _reset(sock)
        await trio.aclose_forcefully(sock)
        await trio.aclose_forcefully(stream)
    return counts[0], counts[1]


async def _watch(stream: LinkStream, scope: trio.CancelScope) -> None:
    """A failure of the stream ends the wait for a socket that says and takes nothing."""
    try:
        await stream.wait_broken()
    except QubixError:
        scope.cancel()


async def _outwards(stream: LinkStream, sock: Socket, counts: list[int]) -> None:
    while data := await sock.receive_some(CHUNK_BYTES):
        counts[0] += len(data)
        await stream.send_all(data)
    await stream.send_eof()


async def _inwards(stream: LinkStream, sock: Socket, counts: list[int]) -> None:
    while data := await stream.receive_some():
        await sock.send_all(data)
        counts[1] += len(data)
    await sock.send_eof()


def _reset(sock: Socket) -> None:
    """Let the close that follows tell the local program that not all was said."""
    if isinstance(sock, trio.SocketStream) and sock.socket.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


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
        if stream.backlog_bytes > DATAGRAM_BACKLOG_BYTES or len(data) > MAX_DATAGRAM_BYTES:
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
