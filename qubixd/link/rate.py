"""Bytes in all and per second, of late."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

_SECONDS: Final = 2.0
"""What is so old counts a third."""


class Rate:
    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self._now, self._at, self._rate = now, now(), 0.0
        self.total = 0

    def add(self, count: int) -> None:
        self._rate = self._faded() + count / _SECONDS
        self.total += count

    def _faded(self) -> float:
        before, self._at = self._at, self._now()
        return self._rate * math.exp((before - self._at) / _SECONDS)

    @property
    def per_second(self) -> int:
        self._rate = self._faded()
        return round(self._rate)
