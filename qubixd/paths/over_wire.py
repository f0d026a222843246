"""A carrier on a stream of the wire: there whenever the two have any connection."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from protocol.paths import PathKind
from qubixd.wire import Stream


class WireCarrier:
    """See qubixd.link.Carrier. `closed` is set when it was closed here."""

    def __init__(self, stream: Stream, kind: PathKind, address: str) -> None:
        self._stream, self._kind, self._address = stream, kind, address
        self.closed = trio.Event()

    @property
    def kind(self) -> PathKind:
        return self._kind

    @property
    def address(self) -> str:
        return self._address

    async def send_parts(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        await self._stream.send_all(b"".join(parts))

    async def receive_some(self) -> bytes | bytearray | memoryview:
        return await self._stream.receive_some()

    async def aclose(self) -> None:
        self.closed.set()
        await self._stream.aclose()
