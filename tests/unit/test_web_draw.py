"""Charts: what is drawn is what is there, it can be read without eyes, and it is always a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web import draw
from web.views import Candle

HOUR_MS = 3_600_000
VALUES = st.lists(st.integers(0, 10**15), max_size=40)


def candle(number: int, open_: int = 10, high: int = 12, low: int = 8, close: int = 11) -> Candle:
    return Candle(HOUR_MS, number * HOUR_MS, open_, high, low, close, low, 3, 4)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def points(path: str) -> list[tuple[float, float]]:
    pairs = (pair.split() for pair in path.removeprefix("M").split("L"))
    return [(float(x), float(y)) for x, y in pairs]


@given(VALUES, st.booleans())
def test_a_line_stays_in_its_frame_between_its_ticks(values: list[int], zero: bool) -> None:
    plot = draw.area(
        [(HOUR_MS * at, value) for at, value in enumerate(values)], ["x"] * len(values), "T", "S", zero
    )
    found = parsed(plot.svg)
    assert found.get("aria-label") == "T. S" and found.get("role") == "img"
    assert len(plot.values) == draw.TICKS + 1 and sorted(plot.values, reverse=True) == list(plot.values)
    assert not zero or plot.values[-1] == 0
    if values:
        assert plot.values[-1] <= min(values) and max(values) <= plot.values[0] * (1 + 1e-9)
        (line,) = (one.get("d", "") for one in found.iter("path") if one.get("class") == "line")
        assert all(0 <= x <= draw.WIDTH and -0.1 <= y <= draw.HEIGHT + 0.1 for x, y in points(line))
        assert len(points(line)) == len(values)


def test_higher_is_up_and_later_is_right() -> None:
    plot = draw.area([(0, 10), (HOUR_MS, 30), (2 * HOUR_MS, 20)], ["a", "b", "c"], "T", "S")
    line = next(one.get("d", "") for one in parsed(plot.svg).iter("path") if one.get("class") == "line")
    (x1, y1), (x2, y2), (x3, y3) = points(line)
    assert (x1, x2, x3) == (0, 500, 1_000) and y2 < y3 < y1
    assert plot.times == (0, HOUR_MS // 2, HOUR_MS, 3 * HOUR_MS // 2, 2 * HOUR_MS)


def test_hints_cover_the_whole_width_once() -> None:
    plot = draw.area([(at * HOUR_MS, at) for at in range(5)], list("abcde"), "T", "S")
    rects = [one for one in parsed(plot.svg).iter("rect") if one.get("class") == "hint"]
    assert [one.findtext("title") for one in rects] == list("abcde")
    assert sum(float(one.get("width", 0)) for one in rects) == pytest.approx(draw.WIDTH)


def test_candles_show_which_way_the_price_went() -> None:
    plot = draw.candles([candle(1), candle(2, open_=11, close=9)], ["up", "down"], "T", "S")
    bodies = [one for one in parsed(plot.svg).iter("rect") if "body" in one.get("class", "")]
    assert [one.get("class") for one in bodies] == ["body rises", "body falls"]
    assert plot.times[0] == HOUR_MS and plot.times[-1] == 3 * HOUR_MS


def test_what_is_said_is_text() -> None:
    hostile = '"><script>alert(1)</script>'
    for svg in (
        draw.area([(0, 1), (1, 2)], [hostile] * 2, hostile, hostile).svg,
        draw.candles([candle(1)], [hostile], hostile, hostile).svg,
        draw.strip([], 100, [hostile] * draw.DAYS, hostile),
    ):
        assert "<script" not in svg
        assert hostile in "".join(parsed(svg).get("aria-label", ""))


def test_nothing_to_draw_is_a_picture_too() -> None:
    assert parsed(draw.area([], [], "T", "S").svg) is not None
    assert parsed(draw.candles([], [], "T", "S").svg) is not None
    assert draw.spark([]) == draw.spark([5]) == ""
    assert draw.shares([]) == 0


def test_uptime_is_a_bar_for_each_day() -> None:
    today = 20_000
    days = [(today - 1, 2**24 - 1), (today, 0b111), (today - 99, 1)]
    bars = parsed(draw.strip(days, today, [str(n) for n in range(draw.DAYS)], "S")).findall("rect")
    assert len(bars) == draw.DAYS
    assert [one.get("class") for one in bars[-3:]] == ["day none", "day full", "day part"]
    assert draw.shares([(1, 2**24 - 1), (2, 0)]) == 0.5


@given(st.lists(st.integers(0, 10**15), min_size=2, max_size=60))
def test_a_small_line_stays_in_its_place(values: list[int]) -> None:
    width, height = draw.SPARK
    line = parsed(draw.spark(values))[0].get("d", "")
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points(line))
