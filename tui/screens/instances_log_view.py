"""A widget that shows a LogBuffer: scrolls, wraps, follows the end, marks what is searched for."""

from __future__ import annotations

from bisect import bisect_left
from typing import ClassVar, Final

from rich.cells import chop_cells
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.screens.instances_log import MAX_LINE_CHARS, LogBuffer, places

NARROWEST: Final = 20
"""Columns; below that lines are cut rather than wrapped into nothing."""
Row = tuple[int, int, int]
"""The number of a line, from its first line on, and which of its characters."""


class LogView(ScrollView, can_focus=True):
    """`changed()` after the buffer has grown. Keys that make no sense now are not shown."""

    class Moved(Message):
        """What is followed, wrapped or found is not as it was."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--match", "log--current"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", "Follow"),
        Binding("n", "found(1)", "Next", key_display="n"),
        Binding("N", "found(-1)", "Previous", key_display="N"),
        Binding("w", "wrap", "Wrap"),
        Binding("home", "to_top", "Top", show=False),
        Binding("end", "to_end", "End", show=False),
    ]
    wraps = reactive(True)
    follows = reactive(True)

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.buffer = LogBuffer()
        self.words = ""
        self.current = -1
        """The number of the found line that is shown; -1 = none."""
        self._rows: list[Row] = []
        self._laid_out = (0, False)

    # --- what others call ---------------------------------------------------------------------

    def show(self, buffer: LogBuffer) -> None:
        """Another buffer instead."""
        if buffer is not self.buffer:
            self.buffer, self._rows = buffer, []
        self.changed()

    def changed(self) -> None:
        """Lay out what is new, and go to the end if it is followed."""
        self._lay_out()
        if self.follows:
            self.scroll_end(animate=False, x_axis=False)
        self.refresh()

    def keep_up(self) -> None:
        """Be at the end if that is followed, whatever size this has got meanwhile."""
        if self.follows and self.scroll_offset.y < self.max_scroll_y:
            self.scroll_end(animate=False, immediate=True, x_axis=False)

    def search(self, words: str) -> None:
        """Mark these words and go to the last line that has them."""
        self.words, self.current = words, -1
        self.action_found(-1)
        self.refresh()

    def found(self) -> list[int]:
        """The numbers of the lines that have the words."""
        return [self.buffer.dropped + index for index in self.buffer.find(self.words)]

    # --- keys ---------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "found" or bool(self.words)

    def action_follow(self) -> None:
        self.follows = not self.follows
        self.changed()

    def action_wrap(self) -> None:
        self.wraps = not self.wraps
        self.changed()

    def action_to_top(self) -> None:
        self.follows = False
        self.scroll_home(animate=False, x_axis=False)

    def action_to_end(self) -> None:
        self.follows = True
        self.changed()

    def action_found(self, step: int) -> None:
        """To the next (1) or the previous (-1) line that was found; around at the ends."""
        found = self.found()
        if found:
            here = bisect_left(found, self.current)
            if step > 0 and here < len(found) and found[here] == self.current:
                here += 1
            self.current = found[(here if step > 0 else here - 1) % len(found)]
            self._show_line(self.current)
        self.post_message(self.Moved())
        self.refresh()

    def watch_follows(self) -> None:
        self.post_message(self.Moved())

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value and new_value < self.max_scroll_y:
            self.follows = False
        elif new_value >= self.max_scroll_y and new_value > old_value:
            self.follows = True

    # --- what is drawn ------------------------------------------------------------------------

    def on_resize(self) -> None:
        self.changed()

    def _show_line(self, number: int) -> None:
        self.follows = False
        row = bisect_left(self._rows, (number, 0, 0))
        self.scroll_to(y=max(0, row - self.size.height // 2), animate=False, immediate=True)

    def _lay_out(self) -> None:
        """Only the rows of lines that have come, or gone on, since; all if the width is another."""
        buffer, way = self.buffer, (self.scrollable_content_region.width, self.wraps)
        if way != self._laid_out:
            self._rows, self._laid_out = [], way
        rows = self._rows
        del rows[: bisect_left(rows, (buffer.dropped, 0, 0))]
        begin = max(buffer.dropped, rows[-1][0] if rows else 0)
        del rows[bisect_left(rows, (begin, 0, 0)) :]
        for number in range(begin, buffer.dropped + len(buffer)):
            rows.extend((number, *span) for span in self._pieces(buffer.line(number - buffer.dropped)))
        width = way[0] if self.wraps else max(way[0], MAX_LINE_CHARS)
        self.virtual_size = Size(width, len(rows))

    def _pieces(self, line: str) -> list[tuple[int, int]]:
        width = max(NARROWEST, self._laid_out[0])
        if not self.wraps or len(line) * 2 <= width or (line.isascii() and len(line) <= width):
            return [(0, len(line))]
        if line.isascii():
            return [(at, min(at + width, len(line))) for at in range(0, len(line), width)]
        made, at = [], 0
        for piece in chop_cells(line, width):
            made.append((at, at + len(piece)))
            at += len(piece)
        return made

    def render_line(self, y: int) -> Strip:
        across, down = self.scroll_offset
        width, style = self.size.width, self.rich_style
        row = y + down
        if row >= len(self._rows):
            return Strip.blank(width, style)
        number, begin, end = self._rows[row]
        index = number - self.buffer.dropped
        if not 0 <= index < len(self.buffer):
            return Strip.blank(width, style)
        strip = Strip(self._segments(self.buffer.line(index), number, begin, end, style))
        return strip.extend_cell_length(across + width, style).crop(across, across + width)

    def _segments(self, line: str, number: int, begin: int, end: int, style: Style) -> list[Segment]:
        name = "log--current" if number == self.current else "log--match"
        mark = style + self.get_component_rich_style(name, partial=True)
        made, at = [], begin
        for first, last in places(line, self.words):
            first, last = max(first, begin), min(last, end)  # noqa: PLW2901  # what of it is in this row
            if first < last:
                made += [Segment(line[at:first], style), Segment(line[first:last], mark)]
                at = last
        return [*made, Segment(line[at:end], style)]
