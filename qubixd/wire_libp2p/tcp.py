"""TCP as libp2p's transport, read 128 KiB at a time.

libp2p reads a 2-byte length and then the message, each a system call, and gives up when one message
takes more than 100 reads, as it does on a slow path; here a read returns all that was asked for.
"""

from __future__ import annotations

from typing import Final

from libp2p.abc import IRawConnection
from libp2p.custom_types import THandler
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.tcp.tcp import TCP, TCPListener
from multiaddr import Multiaddr

_CHUNK: Final = 131_072


class BufferedTcp(TrioTCPStream):
    """A TCP stream whose `read(n)` returns exactly n bytes, or raises at the end of the stream.

    Nobody asks for more than a noise message (65,535) or a line of multistream-select.
    """

    def __init__(self, inner: TrioTCPStream) -> None:
        super().__init__(inner.stream)
        self._buffer = bytearray()

    def get_remote_address(self) -> tuple[str, int] | None:
        """IP and port; libp2p's own knows no IPv6."""
        if self._cached_remote_address is None:
            try:
                ip, port = self.stream.socket.getpeername()[:2]
            except OSError:  # it is gone already
                return None
            self._cached_remote_address = (str(ip).removeprefix("::ffff:"), int(port))
        return self._cached_remote_address

    async def read(self, n: int | None = None) -> bytes:
        while len(self._buffer) < (n or 1):
            chunk = await super().read(_CHUNK)
            if not chunk:
                raise ConnectionClosedError("the peer closed the connection", transport="tcp")
            self._buffer += chunk
        size = n or len(self._buffer)
        with memoryview(self._buffer) as view:
            data = bytes(view[:size])
        del self._buffer[:size]
        return data


def _buffered(stream: ReadWriteCloser) -> BufferedTcp:
    assert isinstance(stream, TrioTCPStream)
    return BufferedTcp(stream)


class BufferedTcpTransport(TCP):
    """libp2p's TCP with buffered reads on both ends."""

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        raw = await super().dial(maddr)
        assert isinstance(raw, RawConnection)
        return RawConnection(_buffered(raw.stream), True)

    def create_listener(self, handler_function: THandler) -> TCPListener:
        async def handle(stream: ReadWriteCloser) -> None:
            await handler_function(_buffered(stream))

        return super().create_listener(handle)
