"""How fast the network makes ticks, and how many ticks ahead a transaction should aim. Pure."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Final

from escrow_bridge.chain import TickInfo

ALLOWED_TICK_OFFSETS: Final = range(3, 32)
"""Nearer ticks may be too late, nodes drop what is for later ones."""
AIM_SECONDS: Final = 3.5
"""Time for a transaction to spread before its tick begins. A second or two lets a third of the nodes
miss it; much more makes everybody wait."""
KEPT_STEPS: Final = 16
LEAST_CLAIM_MS: Final = 50
LEAST_STEPS: Final = 4
"""Before so many ticks were seen, the node's own word is taken."""


def offset_for(tick_ms: float, seconds: float = AIM_SECONDS) -> int:
    """How many ticks ahead to aim so that at least `seconds` remain, also if the present tick is about
    to end; never outside of ALLOWED_TICK_OFFSETS."""
    ticks = 1 + math.ceil(seconds * 1_000 / max(tick_ms, 1.0))
    return min(max(ticks, ALLOWED_TICK_OFFSETS.start), ALLOWED_TICK_OFFSETS.stop - 1)


class Pace:
    """Observed ticks -> their usual length. The median: a pause at an epoch's end is no slow network."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._claimed_ms = 1_000
        self._steps_ms: deque[float] = deque(maxlen=KEPT_STEPS)

    def saw(self, info: TickInfo, now_seconds: float) -> None:
        """A node said so at that time of a clock that only rises."""
        # Genuine nodes put the whole seconds since the present tick began there: no length at all.
        if info.tick_duration_ms >= LEAST_CLAIM_MS:
            self._claimed_ms = info.tick_duration_ms
        if self._last is None or info.tick < self._last[0]:
            self._last = info.tick, now_seconds
        elif info.tick > self._last[0]:
            tick, seconds = self._last
            self._steps_ms.append(1_000 * (now_seconds - seconds) / (info.tick - tick))
            self._last = info.tick, now_seconds

    @property
    def tick_ms(self) -> float:
        """Length of a tick in milliseconds."""
        if len(self._steps_ms) < LEAST_STEPS:
            return float(self._claimed_ms)
        return statistics.median(self._steps_ms)
