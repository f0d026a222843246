"""Which of the chosen directories has shown what: a bit for each of them on every record, and counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from protocol.units import PeerKey
from qubixd.book_record import Record

MAX_SOURCES: Final = 16


class Sources:
    """The directories a node chose, and how many live offers each has shown."""

    def __init__(self) -> None:
        self._bits: dict[PeerKey, int] = {}
        self._shown: dict[int, int] = {}
        self._live = 0

    def choose(self, sources: Iterable[PeerKey]) -> int:
        """Follow these and no others. The bits of those given up, to be cleared on every record."""
        chosen = list(dict.fromkeys(sources))[:MAX_SOURCES]
        gone = {source: self._bits.pop(source) for source in [s for s in self._bits if s not in chosen]}
        for bit in gone.values():
            del self._shown[bit]
        for source in chosen:
            if source not in self._bits:
                bit = next(1 << n for n in range(2 * MAX_SOURCES) if 1 << n not in self._shown)
                self._bits[source] = bit
                self._shown[bit] = 0
        return sum(gone.values())

    def bit(self, source: PeerKey | None) -> int:
        """Of a chosen directory; 0 for everybody else."""
        return self._bits.get(source, 0) if source is not None else 0

    def shows(self, record: Record, bit: int) -> None:
        """A directory shows a record that it had not shown before."""
        record.shown |= bit
        if record.live:
            self._shown[bit] += 1

    def count(self, record: Record, change: int) -> None:
        """A record came to life (+1) or fell silent (-1)."""
        self._live += change
        for bit in self._shown:
            if record.shown & bit:
                self._shown[bit] += change

    def told(self) -> dict[PeerKey, tuple[int, int]]:
        """(live offers shown, live offers others showed and it did not)."""
        return {s: (self._shown[bit], self._live - self._shown[bit]) for s, bit in self._bits.items()}

    def missing(self, record: Record) -> tuple[PeerKey, ...]:
        """Who has not shown a record."""
        return tuple(source for source, bit in self._bits.items() if not record.shown & bit)
