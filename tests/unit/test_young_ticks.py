"""A tick that grows old while it is asked about is not taken for forgotten."""

from __future__ import annotations

from typing import cast

from escrow_bridge.chain import Chain, TickInfo
from escrow_bridge.escrow import YOUNG_TICKS, _transactions
from protocol.units import Tick

TICK = Tick(1_000)


class _Stalls:
    """A chain whose first answer about a tick is from before the tick, and the next from long after."""

    asked = 0

    async def transactions(self, tick: Tick) -> tuple[bytes, ...] | None:
        self.asked += 1
        return None if self.asked == 1 else (b"one",)

    async def tick_info(self) -> TickInfo:
        return TickInfo(Tick(TICK + YOUNG_TICKS + 1), 1, Tick(1), 1_000)


async def test_a_tick_that_grew_old_between_two_answers_is_asked_about_again() -> None:
    assert await _transactions(cast(Chain, _Stalls()), TICK, 0.0) == (b"one",)
