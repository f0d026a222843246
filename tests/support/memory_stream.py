"""Streams of the wire in memory: two pipes over a link that can be slow, cut or unkind to gossip."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from qubixd.wire import StreamCut

_PIPE_BYTES: Final = 256 * 1024
"""Sent and not yet read, as in the real wire's window."""


@dataclass
class Link:
    """How the path between two nodes behaves; change the fields at any time."""

    delay_seconds: float = 0.0
    duplicate: float = 0.0
    """Chance that a gossip message is seen by the validator twice, as after the real wire forgot it."""
    reorder_seconds: float = 0.0
    """Gossip is delayed by up to this much more, each message on its own."""
    is_cut: bool = False
    is_dumb: bool = False
    """Bytes vanish on the way, and nobody is told."""


class Pipe:
    """One direction of a stream."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.chunks: deque[tuple[float, bytes]] = deque()
        """(when it may be read, bytes); b"" is the end."""
        self.size = 0
        self.broken: str | None = None
        self.changed = trio.lowlevel.ParkingLot()

    def put(self, data: bytes) -> None:
        if self.link.is_dumb:
            return
        self.chunks.append((trio.current_time() + self.link.delay_seconds, data))
        self.size += len(data)
        self.changed.unpark_all()

    def cut(self, reason: str) -> None:
        self.broken = self.broken or reason
        self.changed.unpark_all()

    async def wait_readable(self) -> None:
        while not self.broken:
            if not self.chunks:
                await self.changed.park()
            elif self.chunks[0][0] > trio.current_time():
                with trio.move_on_at(self.chunks[0][0]):
                    await self.changed.park()
            else:
                return

    def take(self, most: int) -> bytes:
        """From the head chunk; the end stays there to be read again."""
        at, data = self.chunks[0]
        if data:
            self.chunks.popleft()
            if len(data) > most:
                self.chunks.appendleft((at, data[most:]))
        self.size -= len(data[:most])
        self.changed.unpark_all()
        return data[:most]


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end; `aclose` without `send_eof` resets the other end."""

    def __init__(self, outgoing: Pipe, incoming: Pipe) -> None:
        self._out, self._in = outgoing, incoming
        self._closed = self._eof_sent = False
        self._busy: set[str] = set()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if what in self._busy:
            raise trio.BusyResourceError(f"another task is {what} on this stream")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            self._check_writable()
            rest = bytes(data)
            while rest:
                while (room := _PIPE_BYTES - self._out.size) <= 0 and not self._out.broken:
                    await self._out.changed.park()
                self._check_writable()
                self._out.put(rest[:room])
                rest = rest[room:]

    def _check_writable(self) -> None:
        if self._closed or self._eof_sent:
            raise trio.ClosedResourceError("this side of the stream is closed")
        self._check_broken(self._out)

    def _check_broken(self, pipe: Pipe) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the stream is closed")
        if pipe.broken:
            raise StreamCut(f"the stream to the peer broke: {pipe.broken}")

    async def wait_send_all_might_not_block(self) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            while self._out.size >= _PIPE_BYTES and not (self._closed or self._out.broken):
                await self._out.changed.park()

    async def send_eof(self) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("the stream is closed")
            if not self._eof_sent:
                self._eof_sent = True
                self._out.put(b"")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._alone("receiving"):
            await trio.lowlevel.checkpoint()
            self._check_broken(self._in)
            await self._in.wait_readable()
            self._check_broken(self._in)
            return self._in.take(max_bytes or 65_536)

    async def aclose(self) -> None:
        self.finish() if self._eof_sent else self.abort("the peer reset the stream")
        await trio.lowlevel.checkpoint()

    def finish(self) -> None:
        """Close in good order: what was sent still arrives."""
        if not (self._eof_sent or self._closed):
            self._out.put(b"")
        self._eof_sent = self._closed = True
        self._in.changed.unpark_all()
        self._out.changed.unpark_all()

    def abort(self, reason: str) -> None:
        """Reset both directions; nothing happens to a stream that is finished."""
        if not self._closed:
            self._closed = True
            self._out.cut(reason)
            self._in.cut(reason)
