"""When to look at whom again: numbers in buckets of a second, so that nothing is ever sorted or scanned."""

from __future__ import annotations

import heapq

from protocol.units import UnixMs


class Wheel:
    """What is put in for a second comes out when that second has begun."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[int]] = {}
        self._seconds: list[int] = []

    def add(self, number: int, second: int) -> None:
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = []
            heapq.heappush(self._seconds, second)
        bucket.append(number)

    def due(self, now: UnixMs) -> list[tuple[int, int]]:
        """(number, second) of everything whose second has begun; they are out then."""
        found: list[tuple[int, int]] = []
        while self._seconds and self._seconds[0] <= now // 1_000:
            second = heapq.heappop(self._seconds)
            found.extend((number, second) for number in self._buckets.pop(second))
        return found
