"""Lines that are kept from picture to picture, and a scroll bar that is drawn only where its thumb moves."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from unittest.mock import patch

import pytest
from rich.segment import Segment
from rich.style import Style
from textual.filter import Monochrome
from textual.geometry import Region
from textual.scrollbar import ScrollBarRender
from textual.strip import Strip

from tests.support.tui_pilot import running_app, settled
from tui.screens.drawing import Line, Look, moved, thumb
from tui.screens.market_table import OfferTable

PARTS = [Segment("abc"), Segment("defg")]


@pytest.mark.parametrize("whole", [60, 333, 10_001])
@pytest.mark.parametrize("height", [7, 52])
def test_the_bar_looks_the_same_wherever_it_is_not_drawn_anew(height: int, whole: int) -> None:
    def drawn(position: int) -> list[object]:
        bar = ScrollBarRender.render_bar(height, whole, height, position, 1)
        return [(one.text, one.style, one.style and one.style.meta) for one in bar.segments[:height]]

    last = whole - height
    for before, now in [(0, 1), (0, last), (last, last - 1), (last // 2, last // 2 + height), (last, last)]:
        anew = moved(thumb(height, height, whole, before), thumb(height, height, whole, now), 1)
        assert all(0 <= one.y <= height and one.width == 1 for one in anew)
        lines = {y for one in anew for y in one.line_range}
        differ = {y for y, (a, b) in enumerate(zip(drawn(before), drawn(now), strict=True)) if a != b}
        assert differ <= lines and len(lines) <= max(4, 2 * len(differ) + 4)


def test_a_bar_whose_thumb_stays_is_not_drawn() -> None:
    assert moved(thumb(52, 52, 10_001, 36), thumb(52, 52, 10_001, 37), 2) == []
    assert moved(thumb(52, 52, 40, 0), thumb(52, 52, 40, 0), 2) == []
    assert moved((0, 8), (9, 17), 2) == [Region(0, 0, 2, 2), Region(0, 1, 2, 2)]


def unreachable(kind: type[Strip]) -> int:
    """Objects that only the collector gets rid of once a strip was drawn and is dropped."""
    gc.collect()
    gc.disable()
    try:
        assert [one.text for one in kind(PARTS, 7).divide([7])] == ["abcdefg"]
        return gc.collect()
    finally:
        gc.enable()


def test_a_line_leaves_nothing_to_the_collector() -> None:
    assert unreachable(Strip) > 0
    assert unreachable(Line) == 0


def test_a_line_is_cut_like_any_other() -> None:
    assert [one.text for one in Line(PARTS, 7).divide([2, 7])] == ["ab", "cdefg"]
    assert [one.text for one in Line(PARTS, 7).divide([7, 9])] == ["abcdefg"]


@pytest.mark.parametrize(("width", "text"), [(7, "abcdefg"), (9, "abcdefg  "), (5, "abcde")])
def test_a_line_is_as_wide_as_the_table(width: int, text: str) -> None:
    for length in (7, None):
        strip = Look(width, beside=1).strip(PARTS, Style(), length)
        assert strip.text == text + " " and strip.cell_length == width + 1


def test_a_line_is_drawn_as_the_terminal_can_show_it() -> None:
    red = [Segment("abc", Style(color="#ff0000"))]
    strip = Look(3, filters=(Monochrome(),)).strip(red, Style(), 3)
    (part,) = strip
    assert part.style and part.style.color and len(set(part.style.color.get_truecolor())) == 1


def test_a_row_of_the_market_is_drawn_once_until_it_shows_something_else() -> None:
    async def go() -> None:
        async with running_app(area="market") as pilot:
            await settled(pilot)
            table = pilot.app.screen.query_one(OfferTable)
            offers, whole = table.offers, table.size.region
            first = table.render_lines(whole)
            with patch.object(table, "refresh") as drawn_anew:
                offers.put(50, offers.view)
                table.refresh_rows()
                assert drawn_anew.call_count == 0
                offers.put(0, replace(offers.view, offers=[replace(one) for one in offers.view.offers]))
                table.refresh_rows()
                assert drawn_anew.call_count == 1
            second = table.render_lines(whole)
            assert [n for n, (a, b) in enumerate(zip(first, second, strict=True)) if a is b] == [0]
            await pilot.press("down", "down")
            await settled(pilot)
            third = table.render_lines(whole)
            assert [n for n, (a, b) in enumerate(zip(second, third, strict=True)) if a is not b] == [1, 3]

    asyncio.run(go())
