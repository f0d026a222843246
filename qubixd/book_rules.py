"""What the book takes, and how long an offer counts. Pure.

An offer counts for ALIVE_MS after its provider's last sign of life: the offer's being issued, or a heartbeat
that somebody reports. Heartbeats come every 30 s and are reported every 30 s: 30 + 30 + delays < 75, and a
provider that dies is out of every book within 90 s (docs/adr/0016).
"""

from __future__ import annotations

from typing import Final

from protocol.messages import Offer
from protocol.units import PeerKey, UnixMs
from qubixd.book_record import Record

ALIVE_MS: Final = 75_000
MAX_LIFE_MS: Final = 3_660_000
"""An offer lives up to an hour; a minute for clocks that differ."""
MAX_SKEW_MS: Final = 60_000
"""How far ahead of ours a provider's clock may be."""
PACE_MS: Final = 5_000
BURST: Final = 20
"""A provider may change its offer so often at once, and once in PACE_MS in the long run: every change goes
through everybody's hands."""

HARMLESS: Final = frozenset(
    {"offer.known", "offer.replayed", "offer.stale", "offer.book_full", "offer.twin", "offer.too_often"}
)
"""Reasons an honest forwarder may meet: late or repeated delivery, what it could not know, our lack of
room."""


def objection(record: Record | None, provider: PeerKey, offer: Offer, now: UnixMs) -> str | None:
    """Why an offer is not taken, `record` being what is known of its provider; None if nothing is wrong."""
    if offer.expires_at <= now:
        return "offer.stale"
    if offer.issued_at > now + MAX_SKEW_MS or offer.expires_at > offer.issued_at + MAX_LIFE_MS:
        return "offer.from_the_future"
    if record is None:
        return None
    if record.provider != provider:
        return "offer.twin"
    if offer.sequence <= record.sequence:
        return "offer.known" if offer.sequence == record.sequence else "offer.replayed"
    hasty = record.paced > now + (BURST - 1) * PACE_MS and not record.own
    return "offer.too_often" if hasty else None


def deadline(record: Record) -> int:
    """Until when an offer counts if no other sign of life comes."""
    if record.withdrawn:
        return 0
    return record.expires_at if record.own else min(record.seen + ALIVE_MS, record.expires_at)


def next_look(record: Record) -> int:
    """When time changes something about a record."""
    if record.live:
        return deadline(record)
    return record.expires_at if record.raw else record.forget_at


def lives(record: Record, now: UnixMs) -> bool:
    return bool(record.raw) and now < deadline(record)


def update(record: Record, offer: Offer, raw: bytes, now: UnixMs) -> None:
    """Write down a provider's new offer. A clock ahead of ours lengthens no life."""
    record.raw, record.sequence, record.withdrawn = raw, offer.sequence, offer.withdrawn
    record.expires_at = offer.expires_at
    record.forget_at = max(record.forget_at, offer.issued_at + MAX_LIFE_MS)
    record.seen = max(record.seen, min(offer.issued_at, now))
    record.paced = max(record.paced, now) + PACE_MS
