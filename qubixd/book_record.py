"""What the book keeps of one provider: its newest envelope and what follows from it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from protocol import signing
from protocol.messages import Offer
from protocol.query import Values
from protocol.units import PeerKey, UnixMs
from qubixd.book_facts import Measured


class Rank(enum.IntEnum):
    """Who has to go first when the book is full."""

    GONE = 0
    """Withdrawn, expired or silent."""
    NEW = 1
    SETTLED = 2
    """Alive for a while, as far as this book knows."""
    VOUCHED = 3
    """Shown by a directory that this node chose."""
    KEPT = 4
    """This node's own offer, and providers it has dealt with or was told to keep."""


@dataclass(frozen=True)
class Entry:
    """One provider's current offer: the envelope it came in, whose signature was checked."""

    provider: PeerKey
    raw: bytes

    @cached_property
    def offer(self) -> Offer:
        message = signing.opened(self.raw).message
        assert isinstance(message, Offer)
        return message


@dataclass(frozen=True)
class Page:
    """A part of what a search found. `next` is the `after` of the following page, None behind the last."""

    entries: tuple[Entry, ...]
    values: tuple[Values, ...]
    """Of each entry."""
    total: int
    next: int | None


class Fresh(NamedTuple):
    """An offer that was taken in: taking 10,000 of them apart again would hold everybody up."""

    provider: PeerKey
    sequence: int
    expires_at: int
    raw: bytes


class Sight(NamedTuple):
    """A live offer as a mirror of the book shows it."""

    provider: PeerKey
    raw: bytes
    seen: UnixMs
    measured: Measured


class Record:
    """Mutable and slim: there are 100,000 of them, so the decoded offer is not kept. Times are Unix ms."""

    __slots__ = (
        "change",
        "due",
        "expires_at",
        "forget_at",
        "gpus",
        "live",
        "markets",
        "measured",
        "number",
        "own",
        "paced",
        "provider",
        "rank",
        "raw",
        "seen",
        "sequence",
        "shown",
        "since",
        "spot",
        "via",
        "weight",
        "withdrawn",
    )

    def __init__(self, number: int, provider: PeerKey) -> None:
        self.number = number
        """The first 8 bytes of the provider's key, as sightings name it."""
        self.provider = provider
        self.own = False
        """This node's: it knows that it lives."""
        self.raw = b""
        """Empty once the offer has expired; the record then only keeps older ones out."""
        self.sequence = -1
        self.expires_at = 0
        self.forget_at = 0
        self.withdrawn = False
        self.seen = 0
        """The last sign of life."""
        self.paced = 0
        """When all its changes so far would have been in time, one every PACE_MS."""
        self.since = 0
        """When this book last saw it come to life."""
        self.live = False
        """As of the last sweep."""
        self.due = 0
        """When the sweep looks at it again; 0 if it does not."""
        self.change = 0
        self.markets: tuple[str, ...] = ()
        """Where it has been while it was known; the last one is where it is."""
        self.gpus: tuple[int, ...] = ()
        """The first 8 bytes of each GPU's digest, while the offer is live."""
        self.measured: Measured = (None, None, None)
        self.shown = 0
        """A bit for each chosen source that has shown it."""
        self.rank = Rank.GONE
        self.via: PeerKey | None = None
        """Who brought it first, or the chosen source that vouches for it."""
        self.weight = 1
        """How many places it takes."""
        self.spot = -1
        """Where it stands in its rank's list."""


def number_of(provider: bytes) -> int:
    """The first 8 bytes of a provider's key as a signed number."""
    return int.from_bytes(provider[:8], "big", signed=True)
