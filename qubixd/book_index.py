"""Searches the live offers of a book."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.query import Filter, SortKey, matches, order
from protocol.units import PeerKey, UnixMs
from qubixd.book_facts import NUMBERS, Names, Steps, values_of


class Index:
    """Live offers by their provider's number."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[PeerKey, list[int | None], Names]] = {}

    def put(self, number: int, provider: PeerKey, numbers: Steps, names: Names) -> None:
        """A new offer, or another one of the same provider."""
        self._rows[number] = (provider, list(numbers), names)

    def set(self, number: int, field: str, steps: int | None) -> None:
        self._rows[number][1][NUMBERS.index(field)] = steps

    def remove(self, number: int) -> None:
        self._rows.pop(number, None)

    def search(
        self, filter: Filter, sort: Sequence[SortKey], start: int, limit: int, now: UnixMs
    ) -> tuple[list[int], int]:
        """(providers' numbers from place `start` on, how many match in all). Ties go by provider's number."""
        found = []
        for number, (provider, numbers, names) in self._rows.items():
            values = values_of(provider, tuple(numbers), names, now)
            if matches(filter, values):
                found.append((order(sort, values), number))
        found.sort()
        return [number for _, number in found[start : start + limit]], len(found)
