"""A stream of the wire as a carrier: slower than TLS, but there whenever two daemons can talk at all."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from protocol.errors import StreamBroken
from protocol.paths import PathKind


class StreamCarrier:
    """`stream` is one of the wire, or any other of trio's; `kind` and `address` as in Carrier."""

    def __init__(self, stream: trio.abc.Stream, kind: PathKind, address: str) -> None:
        self._stream, self.kind, self.address = stream, kind, address
        self._held = b""

    def put(self, parts: Sequence[bytes | bytearray | memoryview]) -> bool:
        self._held = b"".join(parts)
        return not self._held

    async def flush(self) -> None:
        try:
            await self._stream.send_all(self._held)
        except trio.BrokenResourceError as error:
            raise StreamBroken("the connection broke") from error
        self._held = b""

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        try:
            return await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            raise StreamBroken("the connection broke") from error

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)
