"""A carrier on a stream of the wire that somebody can wait for."""

from __future__ import annotations

import trio

from protocol.paths import PathKind
from qubixd.link.carriers import StreamCarrier
from qubixd.wire import Stream


class WireCarrier(StreamCarrier):
    """`closed` is set when it was closed here: until then the wire must leave an inbound stream open."""

    def __init__(self, stream: Stream, kind: PathKind, address: str) -> None:
        super().__init__(stream, kind, address)
        self.closed = trio.Event()

    async def aclose(self) -> None:
        self.closed.set()
        await super().aclose()
