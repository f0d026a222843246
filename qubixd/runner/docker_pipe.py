"""The pipe to a program that an engine runs in a container: one connection to the engine, hijacked for bytes.

Where the SDK talks through a plain socket, that socket is waited for as any other here. Through TLS or SSH
its calls block, so they go to worker threads; what a thread has read after its reader gave up waits for
the next one, so that a cancelled read loses nothing.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, Protocol

import trio
from docker.errors import DockerException
from requests.exceptions import RequestException

from protocol.errors import StreamBroken
from qubixd.runner.common import in_thread

CHUNK_BYTES: Final = 65_536
_HEADER: Final = struct.Struct(">BxxxL")
"""Before each piece of output: which stream, and how many bytes."""


class Pipe(Protocol):
    """Errors: StreamBroken, and trio's ClosedResourceError after `aclose`."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None: ...

    async def send_eof(self) -> None: ...

    async def receive_some(self) -> bytes:
        """What has come; empty at the end."""
        ...

    async def aclose(self) -> None: ...


class Demultiplexer:
    """Takes the streams of a program without a terminal apart."""

    def __init__(self) -> None:
        self._stream = 0
        self._left = 0
        """Bytes of the present piece that have not come yet."""
        self._header = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(stream, bytes), as far as they have come."""
        while data:
            if not self._left:
                missing = _HEADER.size - len(self._header)
                self._header, data = self._header + data[:missing], data[missing:]
                if len(self._header) == _HEADER.size:
                    self._stream, self._left = _HEADER.unpack(self._header)
                    self._header = b""
                continue
            piece, data = data[: self._left], data[self._left :]
            self._left -= len(piece)
            yield self._stream, piece


def pipe_of(attached: Any, blocking: trio.CapacityLimiter) -> Pipe:
    """Of what the SDK's `exec_start(..., socket=True)` gave. In the daemon's thread."""
    # The SDK wraps a plain socket for some transports and not for others.
    sock = getattr(attached, "_sock", attached)
    # Where it has read the answer's head through a buffer, the first output may lie in there already.
    answer = getattr(getattr(attached, "_response", None), "raw", None)
    file = getattr(getattr(answer, "_fp", None), "fp", None)
    if _is_plain(sock):
        sock.settimeout(0)
        early = bytes(file.peek()) if file is not None else b""
        return _SocketPipe(trio.socket.from_stdlib_socket(sock.dup()), early, attached)
    sock.settimeout(None)
    read: Callable[[int], bytes] = getattr(file, "read1", sock.recv)
    return _ThreadPipe(attached, sock, read, blocking)


def _is_plain(sock: Any) -> bool:
    return isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket)


class _SocketPipe:
    def __init__(self, sock: trio.socket.SocketType, early: bytes, attached: Any) -> None:
        self._stream = trio.SocketStream(sock)
        self._early = early
        self._attached = attached

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise _broken(error) from error

    async def send_eof(self) -> None:
        try:
            await self._stream.send_eof()
        except trio.BrokenResourceError as error:
            raise _broken(error) from error

    async def receive_some(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        try:
            return bytes(await self._stream.receive_some(CHUNK_BYTES))
        except trio.BrokenResourceError as error:
            raise _broken(error) from error

    async def aclose(self) -> None:
        with suppress(OSError):
            self._stream.socket.shutdown(socket.SHUT_RDWR)
        _close(self._attached)
        await self._stream.aclose()


class _ThreadPipe:
    def __init__(
        self, attached: Any, sock: Any, read: Callable[[int], bytes], blocking: trio.CapacityLimiter
    ) -> None:
        self._attached, self._socket, self._read, self._blocking = attached, sock, read, blocking
        self._reading = threading.Lock()
        self._ready = b""
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._in_thread(lambda: self._socket.sendall(data))

    async def send_eof(self) -> None:
        await self._in_thread(lambda: self._socket.shutdown(1))

    async def receive_some(self) -> bytes:
        await self._in_thread(self._fill)
        ready, self._ready = self._ready, b""
        return ready

    async def aclose(self) -> None:
        self._closed = True
        await in_thread(self._hang_up, self._blocking)

    async def _in_thread(self, work: Callable[[], object]) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this program was ended")
        try:
            await in_thread(work, self._blocking)
        except (OSError, ValueError) as error:
            raise _broken(error) from error

    def _fill(self) -> None:
        """Have something ready, unless the output has ended. One thread at a time."""
        with self._reading:
            if not self._ready:
                self._ready = self._read(CHUNK_BYTES)

    def _hang_up(self) -> None:
        with suppress(OSError):  # wakes whoever still reads
            self._socket.shutdown(2)
        _close(self._attached)


def _close(attached: Any) -> None:
    with suppress(OSError, DockerException, RequestException):
        attached.close()


def _broken(error: Exception) -> StreamBroken:
    return StreamBroken(f"the pipe to a program beside the job broke: {error}")
