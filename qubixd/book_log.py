"""The order in which a book's offers changed, so that a reader can go on where it stopped.

Every change gets the next number; only a provider's newest change counts. Reading from a cursor costs a
binary search and what is read; what has been overtaken is thrown out whenever it is as much as the rest.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from protocol.units import PeerKey

SPARE: Final = 1_024

Current = Callable[[int], int]
"""A provider's number -> its newest change; 0 if it is not known any more."""


class _Track:
    """Changes of one market, or of all: 16 bytes each."""

    def __init__(self) -> None:
        self.changes = array("q")
        self.numbers = array("q")
        self._most = SPARE

    def add(self, change: int, number: int, current: Current) -> None:
        self.changes.append(change)
        self.numbers.append(number)
        if len(self.changes) >= self._most:
            self._compact(current)

    def after(self, cursor: int) -> Iterator[tuple[int, int]]:
        start = bisect_right(self.changes, cursor)
        return ((self.changes[spot], self.numbers[spot]) for spot in range(start, len(self.changes)))

    def _compact(self, current: Current) -> None:
        both = zip(self.changes, self.numbers, strict=True)
        kept = [(change, number) for change, number in both if current(number) == change]
        self.changes = array("q", (change for change, _ in kept))
        self.numbers = array("q", (number for _, number in kept))
        self._most = 2 * len(kept) + SPARE


class ChangeLog:
    """Which providers changed, and when."""

    def __init__(self, current: Current) -> None:
        self.newest = 0
        self._current = current
        self._all = _Track()
        self._by_market: dict[str, _Track] = {}

    def next(self) -> int:
        self.newest += 1
        return self.newest

    def add(self, change: int, number: int, markets: Iterable[str]) -> None:
        """Note a change under its number from `next`, for all markets that must hear of it."""
        self._all.add(change, number, self._current)
        for market in markets:
            track = self._by_market.get(market)
            if track is None:
                track = self._by_market[market] = _Track()
            track.add(change, number, self._current)

    def after(self, cursor: int, markets: frozenset[str]) -> Iterator[tuple[int, int]]:
        """(change, provider's number) of what changed since, in order, each provider once; no market
        means all. Not to be read on after the next change."""
        if not markets:
            tracks = [self._all]
        else:
            tracks = [self._by_market[market] for market in sorted(markets) if market in self._by_market]
        last = 0
        for change, number in heapq.merge(*(track.after(cursor) for track in tracks)):
            if change != last and self._current(number) == change:
                last = change
                yield change, number


class Stir:
    """Of whom something has changed since somebody last looked, silences and forgetting included, which the
    log does not tell of. One reader; nothing is noted before it first looks or after it left."""

    def __init__(self, everybody: Callable[[], Iterable[PeerKey]]) -> None:
        self._everybody = everybody
        self._stirred: set[PeerKey] | None = None

    def note(self, provider: PeerKey) -> None:
        if self._stirred is not None:
            self._stirred.add(provider)

    def take(self) -> Collection[PeerKey]:
        """Those since the last call, each once; at the first one, everybody."""
        stirred, self._stirred = self._stirred, set()
        return list(self._everybody()) if stirred is None else stirred

    def leave(self) -> None:
        """The reader looks no more."""
        self._stirred = None
