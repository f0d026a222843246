"""Who has a place in a book that is full, so that a flood of new identities shuts nobody out.

A newcomer always gets in, and one of the lowest rank leaves for it: what is gone first, then new ones. The
higher ranks (settled, vouched for, kept) hold at most nine tenths of all places, so that a tenth is always
there for newcomers. Within a rank the one to leave is drawn by lot from a few, of which it is the one whose
source has the most places: whoever floods drives out its own flood. A long offer takes several places.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Final

from protocol.units import PeerKey, UnixMs
from qubixd.book_record import Rank, Record

UPPER_SHARE: Final = 0.9
SETTLED_MS: Final = 600_000
"""Whoever lives that long is no newcomer any more."""
MAX_KEPT: Final = 20_000
DRAWN: Final = 8
"""A source with half of a rank's places loses the draw 255 times in 256."""


class Room:
    """The records of a book by rank."""

    def __init__(self, places: int, lots: random.Random) -> None:
        self.places = places
        self._lots = lots
        self._ranks: tuple[list[Record], ...] = tuple([] for _ in Rank)
        self._kept: set[PeerKey] = set()
        self._taken = [0 for _ in Rank]
        self.free = places
        self._held: Counter[tuple[Rank, PeerKey | None]] = Counter()

    def seat(self, record: Record, weight: int, via: PeerKey | None) -> Iterator[Record]:
        """Give a record that many places, or none if there are too few; who leaves for it comes out, to be
        forgotten before the next is asked for."""
        if record.spot >= 0:
            if record.weight == weight:
                return
            via = record.via
            self.leave(record)
        while self.free < weight:
            victim = self._draw(Rank.GONE) or self._draw(Rank.NEW)
            if victim is None:
                return
            yield victim
        record.weight = weight
        self._enter(record, Rank.NEW, via)

    def leave(self, record: Record) -> None:
        stand, key = self._ranks[record.rank], (record.rank, record.via)
        last = stand.pop()
        if last is not record:
            stand[record.spot] = last
            last.spot = record.spot
        record.spot = -1
        self._taken[record.rank] -= record.weight
        self.free += record.weight
        self._held[key] -= record.weight
        if not self._held[key]:
            del self._held[key]

    def keep(self, provider: PeerKey, record: Record | None) -> None:
        """Never let a provider be driven out, whether it is here or not yet."""
        if len(self._kept) < MAX_KEPT:
            self._kept.add(provider)
            if record is not None:
                self._raise(record, Rank.KEPT, record.via)

    def settle(self, record: Record, now: UnixMs) -> None:
        """Give a record the rank that it has come to."""
        rank = self._rank(record, now)
        if rank == record.rank:
            return
        if rank < Rank.SETTLED:
            self._enter(record, rank, record.via)
        elif not self._raise(record, rank, record.via) and record.rank is Rank.GONE:
            self._enter(record, Rank.NEW, record.via)

    def vouch(self, record: Record, source: PeerKey | None) -> None:
        """A chosen directory shows a record. Of several that do, the one with the fewest counts."""
        if record.live and record.rank < Rank.VOUCHED:
            self._raise(record, Rank.VOUCHED, source)
        elif (
            record.rank is Rank.VOUCHED
            and self._held[record.rank, source] < self._held[record.rank, record.via]
        ):
            self._enter(record, Rank.VOUCHED, source)

    def _rank(self, record: Record, now: UnixMs) -> Rank:
        if record.provider in self._kept:
            return Rank.KEPT
        if not record.live:
            return Rank.GONE
        if record.shown:
            return Rank.VOUCHED
        return Rank.SETTLED if now - record.since >= SETTLED_MS else Rank.NEW

    def _enter(self, record: Record, rank: Rank, via: PeerKey | None) -> None:
        if record.spot >= 0:
            self.leave(record)
        stand = self._ranks[rank]
        record.rank, record.via, record.spot = rank, via, len(stand)
        stand.append(record)
        self._taken[rank] += record.weight
        self.free -= record.weight
        self._held[rank, via] += record.weight

    def _raise(self, record: Record, rank: Rank, via: PeerKey | None) -> bool:
        """Give a record an upper place if there is one for it: a free one, one of a lower upper rank, or
        one of a source that has more of them. Whoever had it is new again."""
        while record.rank < Rank.SETTLED and self._upper() + record.weight > UPPER_SHARE * self.places:
            loser = self._loser(rank, via)
            if loser is None:
                return False
            self._enter(loser, Rank.NEW, loser.via)
        self._enter(record, rank, via)
        return True

    def _upper(self) -> int:
        return sum(self._taken[Rank.SETTLED :])

    def _loser(self, rank: Rank, via: PeerKey | None) -> Record | None:
        for lower in (Rank.SETTLED, Rank.VOUCHED):
            if lower < rank and (loser := self._draw(lower)):
                return loser
        rival = self._draw(rank) if rank is Rank.VOUCHED else None
        return rival if rival and self._held[rank, rival.via] > self._held[rank, via] + 1 else None

    def _draw(self, rank: Rank) -> Record | None:
        stand = self._ranks[rank]
        if not stand:
            return None
        drawn = (stand[self._lots.randrange(len(stand))] for _ in range(DRAWN))
        return max(drawn, key=lambda record: self._held[rank, record.via])
