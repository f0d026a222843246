"""Units and identifiers of the whole product, and the arithmetic of money.

Money is whole QU. Amounts due are computed from cumulative seconds in one division, and the fee
from the cumulative amount, so that no rounding error accumulates however often one redeems.
"""

from __future__ import annotations

from typing import Final, NewType

Qu = NewType("Qu", int)
"""An amount of money in whole QU."""
Tick = NewType("Tick", int)
"""A Qubic tick number, u32."""
Seconds = NewType("Seconds", int)
"""A whole number of seconds."""
UnixMs = NewType("UnixMs", int)
"""A wall-clock instant: milliseconds since 1970-01-01 UTC."""
PeerKey = NewType("PeerKey", bytes)
"""A node's Ed25519 public key, 32 bytes; its libp2p peer id is derived from it."""
QubicId = NewType("QubicId", bytes)
"""A Qubic public key, 32 bytes; shown to people as a 60-letter identity."""
LeaseId = NewType("LeaseId", bytes)
"""SHA-256 of the exact terms bytes both sides signed, 32 bytes. Names the lease off chain."""
EscrowId = NewType("EscrowId", bytes)
"""The contract's channel id, 32 bytes; contains the tick in which the channel opened."""

FEE_BASIS_POINTS: Final = 500
BASIS_POINTS: Final = 10_000
SECONDS_PER_HOUR: Final = 3_600
MAX_QU: Final = Qu(1_000_000_000_000_000)
"""Largest amount one Qubic transfer can carry (1e15)."""


def fee_of(paid: Qu) -> Qu:
    """Fee the contract keeps of a cumulative paid amount: floor(paid * 500 / 10000)."""
    return Qu(paid * FEE_BASIS_POINTS // BASIS_POINTS)


def net_of(paid: Qu) -> Qu:
    """What the provider receives of a cumulative paid amount."""
    return Qu(paid - fee_of(paid))


def amount_due(price_qu_per_hour: Qu, seconds: Seconds) -> Qu:
    """Cumulative amount owed after a cumulative number of seconds, rounded down once."""
    return Qu(price_qu_per_hour * seconds // SECONDS_PER_HOUR)


def seconds_covered(price_qu_per_hour: Qu, amount: Qu) -> Seconds:
    """The most seconds for which no more than `amount` is due."""
    if not price_qu_per_hour:
        return Seconds(MAX_QU)
    return Seconds(((amount + 1) * SECONDS_PER_HOUR - 1) // price_qu_per_hour)
