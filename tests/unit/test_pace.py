"""How far ahead transactions aim, whatever the network's speed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow_bridge.chain import TickInfo
from escrow_bridge.pace import AIM_SECONDS, ALLOWED_TICK_OFFSETS, Pace, offset_for
from protocol.units import Tick


def info(tick: int, claimed_ms: int = 1_000) -> TickInfo:
    return TickInfo(Tick(tick), 1, Tick(0), claimed_ms)


@pytest.mark.parametrize(
    ("tick_ms", "offset"),
    [(5_000, 3), (1_500, 4), (1_000, 5), (500, 8), (200, 19), (117, 31), (1, 31), (0, 31)],
)
def test_faster_ticks_mean_more_of_them(tick_ms: int, offset: int) -> None:
    assert offset_for(tick_ms) == offset


@given(st.floats(1, 1e7), st.floats(0, 100))
def test_the_aim_leaves_the_time_asked_for_unless_the_network_forbids_it(
    tick_ms: float, seconds: float
) -> None:
    offset = offset_for(tick_ms, seconds)
    assert offset in ALLOWED_TICK_OFFSETS
    if offset < ALLOWED_TICK_OFFSETS.stop - 1:
        assert (offset - 1) * tick_ms >= seconds * 1_000 * (1 - 1e-9)
    if offset > ALLOWED_TICK_OFFSETS.start:
        assert (offset - 2) * tick_ms <= seconds * 1_000 * (1 + 1e-9)


def test_a_new_pace_believes_the_node_and_an_old_one_its_own_eyes() -> None:
    pace = Pace()
    assert pace.tick_ms == 1_000
    for number in range(4):
        pace.saw(info(100 + number, claimed_ms=2_000), number * 0.5)
    assert pace.tick_ms == 2_000, "three steps are too few"
    pace.saw(info(104, claimed_ms=2_000), 2.0)
    assert pace.tick_ms == 500
    assert offset_for(pace.tick_ms) == 1 + AIM_SECONDS / 0.5


def test_a_pause_at_the_end_of_an_epoch_does_not_slow_the_pace() -> None:
    pace = Pace()
    for number in range(10):
        pace.saw(info(100 + number), number * 0.3)
    pace.saw(info(110), 90.0)
    assert pace.tick_ms == pytest.approx(300)


def test_several_ticks_between_two_looks_and_a_node_that_lags() -> None:
    pace = Pace()
    for number in range(6):
        pace.saw(info(100 + 3 * number), number * 0.9)
        pace.saw(info(100 + 3 * number), number * 0.9 + 0.1)
    assert pace.tick_ms == pytest.approx(300)
    pace.saw(info(50), 5.0)
    pace.saw(info(51), 5.3)
    assert pace.tick_ms == pytest.approx(300)
