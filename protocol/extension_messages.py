"""What the two sides of a running lease say to each other about more time for it.

All numbers are totals of the lease, not additions, so that saying one twice adds nothing. Asking moves
nothing; what counts in the end is what the escrow holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

from protocol.message_fields import Duration, Instant, Lease32, Money, Ticks

Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]
MAX_EXTENSION_BYTES: Final = 1_024


@dataclass(frozen=True)
class Extend:
    """The caller asks what it takes for its lease to last `max_seconds` in all."""

    lease_id: Lease32
    number: Number
    """Higher than that of every extension it has paid for before."""
    max_seconds: Duration


@dataclass(frozen=True)
class Extension:
    """The provider's signed answer: how long the lease lasts once the escrow holds so much, for so long."""

    lease_id: Lease32
    number: Number
    max_seconds: Duration
    deposit: Money
    """What the escrow must hold in all: the price of all the time, paid or not."""
    deadline_ticks: Ticks
    """From the tick in which the escrow opened, as in Terms."""
    valid_until: Instant
    """Until then the caller may pay for it, by the provider's clock."""


@dataclass(frozen=True)
class Extended:
    """The caller has paid for an extension; the provider looks into the escrow for itself."""

    lease_id: Lease32
    signed_extension: Annotated[bytes, Meta(max_length=MAX_EXTENSION_BYTES)]
    """The provider's envelope, byte for byte."""
