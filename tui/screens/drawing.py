"""What a table that draws its own lines scrolls smoothly with: lines that are kept, and a bar that is drawn
only where its thumb moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from rich.segment import Segment
from rich.style import Style
from textual.color import TRANSPARENT, Color
from textual.filter import LineFilter
from textual.geometry import Region
from textual.scrollbar import ScrollBar
from textual.strip import Strip

BAR_PARTS: Final = 8
"""Of a line, that the scroll bar's ends can show."""


class Line(Strip):
    """Textual's keeps in itself what it is cut into, and one that stays whole thereby itself: a circle that
    only the collector could break, which it would do in the middle of scrolling."""

    def divide(self, cuts: Iterable[int]) -> Sequence[Strip]:
        places = [cut for cut in cuts if cut <= self.cell_length]
        return [self] if places == [self.cell_length] else super().divide(places)


@dataclass(frozen=True)
class Look:
    """What all lines of the table have in common while they are drawn."""

    width: int = 0
    beside: int = 0
    """Cells at the right that are kept free for the scroll bar."""
    background: Color = TRANSPARENT
    filters: tuple[LineFilter, ...] = ()

    def strip(self, parts: list[Segment], style: Style, length: int | None = None) -> Strip:
        """A whole line, in this style where its parts end; `length`: their cells, if that is known."""
        if length is not None and length <= self.width:
            line = [*parts, Segment(" " * (self.width - length), style)] if length < self.width else parts
        else:
            line = Segment.adjust_line_length(parts, self.width, style)
        if self.beside:
            line = [*line, Segment(" " * self.beside, Style(bgcolor=self.background.rich_color))]
        for one in self.filters:
            line = one.apply(line, self.background)
        return Line(line, self.width + self.beside)


def slide(bar: ScrollBar, position: float) -> None:
    """Move a vertical bar's thumb and draw only the lines where that shows. Textual's own draws all of it,
    even if ten thousand rows have moved by one and the thumb stays: a quarter of the work of scrolling."""
    position = bar.validate_position(position)
    size, window, whole = bar.size.height, ceil(bar.window_size), ceil(bar.window_virtual_size)
    before, now = thumb(size, window, whole, bar.position), thumb(size, window, whole, position)
    bar.set_reactive(ScrollBar.position, position)
    if regions := moved(before, now, bar.size.width):
        bar.refresh(*regions)


def thumb(size: int, window: int, whole: int, position: float) -> tuple[int, int]:
    """Where the thumb begins and ends, in eighths of a line from the top, as Textual's renderer has it. The
    bar has `size` lines; `window` of `whole` rows are seen, from row `position` on."""
    if not size or window >= whole:
        return 0, 0
    length = max(1, window / (whole / size))
    begin = int((size - length) * (position / (whole - window)) * BAR_PARTS)
    return begin, begin + ceil(length * BAR_PARTS)


def moved(before: tuple[int, int], now: tuple[int, int], width: int) -> list[Region]:
    """The lines of a bar so wide that look different after its thumb has moved."""
    regions = []
    for old, new in zip(before, now, strict=True):
        if old != new:
            first, last = sorted((old // BAR_PARTS, new // BAR_PARTS))
            regions.append(Region(0, first, width, last - first + 1))
    return regions
