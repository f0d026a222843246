"""What a node says to one that relays for others, on `/qubix/relay/1` and `/qubix/relayed/1`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from protocol.message_fields import Address, Count32, Duration, Instant, Money, Peer, Size
from protocol.units import UnixMs


@dataclass(frozen=True)
class Reserve:
    """Let others reach me through you, for as long as this stream is open; said again before its life is over
    it begins a new one. Answer: Reserved or Refusal."""

    ask_only: bool = False
    """Only say what you would grant me."""


@dataclass(frozen=True)
class Reserved:
    """What a relay grants to who asked, counted over both ways of all its connections through it."""

    observed: Address
    """IP:PORT that the relay sees it come from."""
    free_bytes: Size
    """So much each day for nothing."""
    bytes_per_second: Size
    """0 for as much as there is."""
    price_qu_per_hour: Money
    """Of a lease with this relay, which lifts both limits; 0 where none is offered."""
    life_seconds: Duration
    used_bytes: Size = 0
    """Of the free ones, those of today that are gone."""
    addresses: Annotated[tuple[Address, ...], Meta(max_length=8)] = ()
    """Of the relay."""


@dataclass(frozen=True)
class Connect:
    """Join this stream with one to `target`, which has reserved here. Ack, then bytes both ways."""

    target: Peer


@dataclass(frozen=True)
class Incoming:
    """The relay tells who wants to be joined with; Ack, then bytes both ways."""

    source: Peer


@dataclass(frozen=True)
class Observe:
    """How do you see me? Answer: Observed."""

    dial: Count32 = 0
    """Not 0: also try to reach me at this TCP port of the address I come from."""


@dataclass(frozen=True)
class Observed:
    address: Address
    """IP:PORT that the asker comes from."""
    reached: bool
    """Whether the port that it asked for answered there, with its key."""
    at_ms: Instant = UnixMs(0)
    """What the clock of who answers says; 0 if it does not tell."""
