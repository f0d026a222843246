"""Links: one connection between two daemons carries many streams, which outlive it.

A stream belongs to a lease; a *carrier* is what brings its bytes across (TLS on a socket, or a stream of the
wire). When a carrier breaks, or a better one is there, its streams go on over another from the byte at
which the other side stands. docs/paths.md has the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from protocol.paths import PathKind
from protocol.units import PeerKey


class Carrier(Protocol):
    """Ordered bytes between this daemon and one peer, whose key is proved. Errors: StreamBroken, and
    trio's ClosedResourceError after `aclose`."""

    @property
    def kind(self) -> PathKind: ...

    @property
    def address(self) -> str:
        """IP:PORT of the other end, or the relay's peer id; for people."""
        ...

    def put(self, parts: Sequence[bytes | bytearray | memoryview]) -> bool:
        """Send these one after the other, as far as it goes without waiting. False if the carrier holds
        some of them back: then `flush` comes before the next `put`."""
        ...

    async def flush(self) -> None:
        """Wait until all that was put is on its way. One task at a time."""
        ...

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """What has come, about so much at most, empty at the end. Good until this task waits again."""
        ...

    async def aclose(self) -> None:
        """Close at once, whatever is still on its way; wakes those who wait."""
        ...


class Dialler(Protocol):
    """Finds carriers: qubixd/paths, or a test."""

    async def carrier(
        self, peer: PeerKey, addresses: Sequence[str], *, better_than: PathKind | None = None
    ) -> Carrier:
        """The best way to a peer that there is now. PeerUnreachable if there is none (that is better)."""
        ...


@dataclass(frozen=True)
class LinkView:
    """How the streams with one peer travel now."""

    kind: PathKind
    rtt_ms: float | None
    sent_bytes: int
    received_bytes: int
    """Since the first link with this peer."""
    sent_per_second: int
    received_per_second: int
    """Over the last seconds."""
    streams: int
    address: str
    """IP:PORT of the other end, or the relay's peer id."""
    waiting: bool = False
    """There is no carrier: streams wait for one, and the rest says how it was before."""
