"""A stream of the wire as a carrier: slower than TLS, but there whenever two daemons can talk at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from protocol.errors import StreamBroken
from protocol.paths import PathKind

_READ_BYTES: Final = 256 * 1024


class StreamCarrier:
    """`stream` is one of the wire, or any other of trio's; `kind` and `address` as in Carrier."""

    def __init__(self, stream: trio.abc.Stream, kind: PathKind, address: str) -> None:
        self._stream, self.kind, self.address = stream, kind, address

    async def send_parts(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        try:
            await self._stream.send_all(b"".join(parts) if len(parts) > 1 else parts[0])
        except trio.BrokenResourceError as error:
            raise StreamBroken("the connection broke") from error

    async def receive_some(self) -> bytes | bytearray:
        try:
            return await self._stream.receive_some(_READ_BYTES)
        except trio.BrokenResourceError as error:
            raise StreamBroken("the connection broke") from error

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)
