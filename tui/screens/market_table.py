"""The market's table: rows are drawn only where they are seen, so that ten thousand scroll like ten.

It asks for nothing itself: `Looked` says which rows are seen, and whoever has them calls `refresh_rows`.
"""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from protocol.control_market import OfferView
from tui.screens.market_model import (
    GAP,
    Offers,
    Placed,
    Search,
    aligned,
    cell,
    column_at,
    layout,
    title,
)

HEAD: Final = 1
"""Lines of the table's head, which stays."""
CURSOR: Final = "> "
WAITING: Final = "…"


class OfferTable(ScrollView, can_focus=True):
    """Offers, one a line; the cursor's is marked by a sign as well as by its colour."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--head", "table--row", "table--odd", "table--cursor", "table--blurred",
        "table--name", "table--price", "table--good", "table--bad", "table--quiet",
    }  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Details"),
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown,space", "page(1)", "Page down", show=False),
        Binding("home,g", "go_to(0)", "First", show=False),
        Binding("end,G", "go_to(-1)", "Last", show=False),
    ]
    cursor: reactive[int] = reactive(0, repaint=False)

    class Looked(Message):
        """Other rows are seen than before."""

    class Moved(Message):
        """The cursor is on another offer, or the offer under it is another one."""

    class Chosen(Message):
        """Somebody wants to know all about an offer."""

        def __init__(self, offer: OfferView) -> None:
            self.offer = offer
            super().__init__()

    class SortAsked(Message):
        """A head was clicked."""

        def __init__(self, sort: str) -> None:
            self.sort = sort
            super().__init__()

    def __init__(self) -> None:
        super().__init__(id="offers")
        self.offers = Offers(Search())
        self._columns: tuple[Placed, ...] = ()
        self._strips: dict[tuple[int, str], Strip] = {}
        self._under = ""
        """Peer id of the offer under the cursor, once somebody has moved it."""
        self._said = ""

    # --- for the screen -----------------------------------------------------------------------

    @property
    def seen(self) -> tuple[int, int]:
        """The first and the last row that are seen now."""
        first = self.scroll_offset.y
        return first, first + max(0, self._room.height - HEAD - 1)

    @property
    def offer(self) -> OfferView | None:
        """The one under the cursor."""
        return self.offers.get(self.cursor)

    def show(self, offers: Offers) -> None:
        """Another search's offers, from the first on."""
        self.offers, self._under = offers, ""
        self.set_reactive(OfferTable.cursor, 0)
        self.scroll_to(y=0, animate=False)
        self.refresh_rows()

    def refresh_rows(self) -> None:
        """The offers have changed: draw anew, with the cursor on the offer that it was on."""
        self._strips.clear()
        self._fit()
        self._follow()
        self.refresh()
        self.post_message(self.Moved())

    def say(self, words: str) -> None:
        """What to read where there are no rows."""
        self._said = words
        self.refresh()

    @property
    def _room(self) -> Size:
        """Without the scroll bar."""
        return self.scrollable_content_region.size

    # --- drawing ------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        width = self._room.width
        if y < HEAD:
            return self._head(width)
        row = self.scroll_offset.y + y - HEAD
        if row >= self.offers.total:
            return self._empty(y, width)
        kind = "row" if row != self.cursor else "cursor" if self.has_focus else "blurred"
        strip = self._strips.get((row, kind))
        if strip is None:
            strip = self._strips[row, kind] = self._row(row, kind, width)
        return strip

    def _head(self, width: int) -> Strip:
        style = self.get_component_rich_style("table--head")
        sort = "" if self.offers.search.use_case else self.offers.search.sort
        text = " " * len(CURSOR) + "".join(title(placed, sort) for placed in self._columns)
        return Strip([Segment(aligned(text, width, right=False), style)], width)

    def _empty(self, y: int, width: int) -> Strip:
        lines = _wrapped(self._said, max(8, width - 4)) if not self.offers.total else []
        place = y - HEAD - 1
        text = "  " + lines[place] if 0 <= place < len(lines) else ""
        return Strip([Segment(aligned(text, width, right=False), self.rich_style)], width)

    def _row(self, row: int, kind: str, width: int) -> Strip:
        base = self.get_component_rich_style(f"table--{'odd' if kind == 'row' and row % 2 else kind}")
        mark = CURSOR if kind in ("cursor", "blurred") else " " * len(CURSOR)
        offer = self.offers.get(row)
        if offer is None:
            return Strip([Segment(aligned(mark + WAITING, width, right=False), base)], width)
        parts = [Segment(mark, base)]
        for tone, cells in groupby(self._columns, lambda one: one.column.tone):
            text = "".join(cell(one, offer) for one in cells)
            parts.append(Segment(text, self._style(tone, kind, base)))
        length = len(CURSOR) + sum(one.width + len(GAP) for one in self._columns)
        return Strip(parts, length).adjust_cell_length(width, base)

    def _style(self, tone: str, kind: str, base: Style) -> Style:
        """Colour of a cell; on the cursor's line only boldness."""
        if not tone:
            return base
        style = self.get_component_rich_style(f"table--{tone}", partial=True)
        return base + (Style(bold=style.bold) if kind == "cursor" else style)

    def _fit(self) -> None:
        self._columns = layout(self._room.width - len(CURSOR) + len(GAP))
        self.virtual_size = Size(self._room.width, self.offers.total + HEAD)

    def _follow(self) -> None:
        last = max(0, self.offers.total - 1)
        row = self.offers.row_of(self._under) if self._under else None
        self.set_reactive(OfferTable.cursor, min(self.cursor if row is None else row, last))
        if self._under and (offer := self.offer):
            self._under = offer.peer_id

    # --- being used ---------------------------------------------------------------------------

    def on_resize(self) -> None:
        self._strips.clear()
        self._fit()
        self._reveal()
        self.post_message(self.Looked())

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips.clear()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if len(self._strips) > 4 * max(1, self._room.height):
            self._strips.clear()
        self.post_message(self.Looked())

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def watch_cursor(self, before: int, now: int) -> None:
        for row in (before, now):
            y = row - self.scroll_offset.y + HEAD
            self.refresh(Region(0, y, self._room.width, 1))
        self._under = offer.peer_id if (offer := self.offer) else ""
        self._reveal()
        self.post_message(self.Moved())

    def _reveal(self) -> None:
        first, last = self.seen
        if self.cursor < first:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor > last:
            self.scroll_to(y=self.cursor - (last - first), animate=False)

    def action_move(self, by: int) -> None:
        self.action_go_to(max(0, self.cursor + by))

    def action_page(self, pages: int) -> None:
        first, last = self.seen
        self.action_move(pages * max(1, last - first))

    def action_go_to(self, row: int) -> None:
        """-1 is the last one."""
        last = max(0, self.offers.total - 1)
        self.cursor = last if row < 0 else min(row, last)

    def action_choose(self) -> None:
        if offer := self.offer:
            self.post_message(self.Chosen(offer))

    def on_click(self, event: events.Click) -> None:
        if event.y < HEAD:
            column = column_at(self._columns, event.x - len(CURSOR))
            if column and column.sort:
                self.post_message(self.SortAsked(column.sort))
            return
        row = self.scroll_offset.y + event.y - HEAD
        if row >= self.offers.total:
            return
        again = row == self.cursor and event.chain > 1
        self.cursor = row
        if again:
            self.action_choose()


def _wrapped(words: str, width: int) -> list[str]:
    return [line for part in words.split("\n") for line in textwrap.wrap(part, width) or [""]]
