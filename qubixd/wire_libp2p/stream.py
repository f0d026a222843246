"""A wire stream: the trio face of one yamux stream, with our errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamError

from qubixd.wire import StreamCut
from qubixd.wire_libp2p.yamux_stream import YamuxStream

_DEFAULT_READ: Final = 65_536


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except MuxedStreamClosed as error:
        raise trio.ClosedResourceError(str(error)) from error
    except MuxedStreamError as error:
        raise StreamCut(f"the stream to the peer broke: {error}") from error


class WireStream(trio.abc.HalfCloseableStream):
    """After `send_eof` the other direction stays open; `aclose` without `send_eof` resets."""

    def __init__(self, inner: YamuxStream, on_close: Callable[[], None]) -> None:
        self._inner = inner
        self._on_close = on_close
        self._closed = False
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
        with self._alone("sending"), _translated():
            await self._inner.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            await self._inner.conn.writable()

    async def send_eof(self) -> None:
        with self._alone("sending"):
            if self._closed:
                raise trio.ClosedResourceError("the stream is closed")
            self._inner.finish()
            await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._alone("receiving"), _translated():
            return await self._inner.receive(max_bytes or _DEFAULT_READ)

    async def aclose(self) -> None:
        if self._inner.fin_sent:
            self.finish()
        else:
            self.abort("the stream was closed before its end")
        await trio.lowlevel.checkpoint()

    def finish(self) -> None:
        """Close both halves in good order: all that was sent arrives."""
        self._close_once()
        self._inner.close_now()

    def abort(self, reason: str) -> None:
        """Reset: the peer's reads and writes fail from now on."""
        self._close_once()
        self._inner.reset_now(reason)
        self._inner.close_now()

    def _close_once(self) -> None:
        if not self._closed:
            self._closed = True
            self._on_close()
