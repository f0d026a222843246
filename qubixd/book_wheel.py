"""When to look at whom again: numbers in buckets of a second, so that 100,000 deadlines are never sorted."""

from __future__ import annotations

import heapq
import sys
from array import array
from typing import Final

from protocol.units import UnixMs

_BUCKET_MS: Final = 1_000


class Wheel:
    """Deadlines, each with a number; what is due comes out."""

    def __init__(self) -> None:
        self._buckets: dict[int, array[int]] = {}
        """Second -> deadline, number, deadline, number, ..."""
        self._seconds: list[int] = []
        self._near: list[tuple[int, int]] = []
        """(deadline, number) of the buckets that have begun; a heap."""
        self._begun = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, number: int, deadline: int) -> None:
        self._length += 1
        second = deadline // _BUCKET_MS
        if second <= self._begun:
            heapq.heappush(self._near, (deadline, number))
            return
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = array("q")
            heapq.heappush(self._seconds, second)
        bucket.append(deadline)
        bucket.append(number)

    def due(self, now: UnixMs, most: int = sys.maxsize) -> list[tuple[int, int]]:
        """(deadline, number) of everything that is due, the first `most` of it; it is out then."""
        self._begun, begun = max(self._begun, now // _BUCKET_MS), False
        while self._seconds and self._seconds[0] <= self._begun:
            bucket = self._buckets.pop(heapq.heappop(self._seconds))
            self._near.extend(zip(bucket[::2], bucket[1::2], strict=True))
            begun = True
        if begun:
            heapq.heapify(self._near)
        found: list[tuple[int, int]] = []
        while self._near and self._near[0][0] <= now and len(found) < most:
            found.append(heapq.heappop(self._near))
        self._length -= len(found)
        return found
