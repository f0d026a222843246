"""One yamux stream and the frame layout: flow control, half-close, reset."""

from __future__ import annotations

import struct
from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

if TYPE_CHECKING:
    from qubixd.wire_libp2p.yamux import Yamux

HEADER: Final = struct.Struct("!BBHII")
"""version, type, flags, stream id, length: 12 bytes."""
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
INITIAL_WINDOW: Final = 256 * 1024
"""What either side may send before it hears of the other (fixed by the specification)."""
LARGE_WINDOW: Final = 1024 * 1024
_GROW_AFTER: Final = 1024 * 1024
"""A reader that has taken so much from a stream gets the large window."""
MAX_BODY: Final = 65_507
"""With its header, one noise message."""


def frame(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """A frame without a body."""
    return HEADER.pack(0, kind, flags, stream_id, length)


class YamuxStream(IMuxedStream):
    """`receive` and `send` are the work; `read`, `write` and the closes are libp2p's names for it."""

    def __init__(self, stream_id: int, conn: Yamux, *, inbound: bool) -> None:
        self.stream_id = stream_id
        self.muxed_conn = conn
        self.conn = conn
        self.inbound = inbound
        self.recv_window = self.send_window = INITIAL_WINDOW
        self.broken: str | None = None
        self.fin_sent = self.fin_received = False
        self._closed_at: float | None = None
        self._active_at = trio.current_time()
        self._unread = bytearray()
        self._taken = 0
        self._credit = 0
        self._grown = False
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    # The work

    async def receive(self, max_bytes: int) -> bytes:
        """The next bytes, b"" at the end; MuxedStreamReset when broken, MuxedStreamClosed after close."""
        await trio.lowlevel.checkpoint()
        while not self._unread:
            if self._closed_at is not None or not self.fin_received:
                self._raise_if_over()
            if self.fin_received:
                return b""
            await self._readers.park()
        with memoryview(self._unread) as view:
            chunk = bytes(view[:max_bytes])
        del self._unread[:max_bytes]
        self._give_credit(len(chunk))
        return chunk

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """All bytes, in frames of one noise message; waits as long as the peer's reader does."""
        await trio.lowlevel.checkpoint()
        with memoryview(data) as view:
            start = 0
            while start < len(view):
                await self._until_sendable()
                body = view[start : start + min(MAX_BODY, self.send_window)]
                self.send_window -= len(body)
                start += len(body)
                self._active_at = trio.current_time()
                self.conn.enqueue(HEADER.pack(0, DATA, 0, self.stream_id, len(body)) + body)

    async def _until_sendable(self) -> None:
        await self.conn.writable()
        while self.send_window <= 0 and not (self.broken or self.fin_sent):
            await self._writers.park()
            await self.conn.writable()
        self._raise_if_over()
        if self.fin_sent:
            raise MuxedStreamClosed("this side of the stream is closed")

    def _raise_if_over(self) -> None:
        if self._closed_at is not None:
            raise MuxedStreamClosed("the stream is closed")
        if self.broken:
            raise MuxedStreamReset(self.broken)

    def _give_credit(self, count: int) -> None:
        """Let the peer send more, half a window at a time (an update per read costs more than the read)."""
        self.conn.budget.used -= count
        self._taken += count
        self._credit += count
        if not self._grown and self._taken >= _GROW_AFTER and self.conn.may_grow():
            self._grown = True
            self._credit += LARGE_WINDOW - INITIAL_WINDOW
        if self._credit >= (LARGE_WINDOW if self._grown else INITIAL_WINDOW) // 2 and not self.fin_received:
            self.conn.enqueue(frame(WINDOW_UPDATE, 0, self.stream_id, self._credit))
            self.recv_window += self._credit
            self._credit = 0

    # What arrives and what time does

    def on_frame(self, flags: int, window: int, body: memoryview) -> None:
        """A frame of this stream, its size already checked."""
        self._active_at = trio.current_time()
        self.send_window += window
        self.recv_window -= len(body)
        if flags & RST:
            self.cut("the peer reset the stream")
            return
        if body and self._closed_at is None and not self.fin_received:
            self._keep(body)
        if flags & FIN:
            self.fin_received = True
            self._forget_if_done()
        self._readers.unpark_all()
        self._writers.unpark_all()

    def _keep(self, body: memoryview) -> None:
        budget = self.conn.budget
        if budget.used + len(body) > budget.limit:
            self.reset_now("the node holds too much unread data")
            return
        budget.used += len(body)
        self._unread += body

    def sweep(self, now: float) -> None:
        """Reset a stream that idles, or that the peer does not close after us."""
        limits = self.conn.limits
        if self._closed_at is not None and now - self._closed_at > limits.linger_seconds:
            self.reset_now("the peer did not close its half")
        elif now - self._active_at > limits.stream_idle_seconds:
            self.reset_now("nothing was sent for too long")

    # Endings

    def finish(self) -> None:
        """Half-close: nothing more will be sent."""
        if not (self.fin_sent or self.broken):
            self.fin_sent = True
            self.conn.enqueue(frame(WINDOW_UPDATE, FIN, self.stream_id, 0))
            self._forget_if_done()

    def close_now(self) -> None:
        """Close both halves: what was sent still arrives, what arrives is dropped."""
        if self._closed_at is None:
            self._closed_at = trio.current_time()
            self.finish()
            self._drop_unread()
            self._wake()

    def reset_now(self, reason: str) -> None:
        """Tell the peer the stream is over, now."""
        if not self.broken and self.stream_id in self.conn.streams:
            self.conn.enqueue(frame(WINDOW_UPDATE, RST, self.stream_id, 0))
        self.cut(reason)

    def cut(self, reason: str) -> None:
        """The stream is over; whoever waits on it hears why. What came whole stays readable."""
        self.broken = self.broken or reason
        if not self.fin_received:
            self._drop_unread()
        self.conn.streams.pop(self.stream_id, None)
        self._release_growth()
        self._wake()

    def _forget_if_done(self) -> None:
        if self.fin_sent and self.fin_received:
            self.conn.streams.pop(self.stream_id, None)
            self._release_growth()

    def _release_growth(self) -> None:
        if self._grown:
            self._grown = False
            self.conn.grown -= 1

    def _drop_unread(self) -> None:
        self.conn.budget.used -= len(self._unread)
        self._unread.clear()

    def _wake(self) -> None:
        self._readers.unpark_all()
        self._writers.unpark_all()

    # libp2p's names

    async def read(self, n: int | None = None) -> bytes:
        if n == 0:
            return b""
        chunk = await self.receive(n if n is not None and n > 0 else LARGE_WINDOW)
        if not chunk:
            raise MuxedStreamEOF("the peer has sent everything")
        return chunk

    async def write(self, data: bytes) -> None:
        await self.send(data)

    async def close_write(self) -> None:
        self.finish()
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        self.close_now()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        self.reset_now("the stream was reset here")
        await trio.lowlevel.checkpoint()

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("use a trio cancel scope")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.conn.get_remote_address()

    async def __aenter__(self) -> YamuxStream:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()
