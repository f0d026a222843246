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
from tui.screens.drawing import Look, slide
from tui.screens.market_model import (
    GAP,
    Offers,
    Placed,
    Search,
    cell,
    column_at,
    layout,
    title,
)

HEAD: Final = 1
"""Lines of the table's head, which stays."""
CURSOR: Final = "> "
WAITING: Final = "…"
KEPT_SCREENS: Final = 2
"""So many times the rows that are seen are kept as they were drawn; more make work for the collector."""


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
        self._length = 0
        """Cells of a row, the cursor's sign with it."""
        self._look = Look()
        self._drawn: dict[tuple[int, str], tuple[OfferView | None, Strip]] = {}
        """Rows as they were drawn, each with the offer that it shows; the oldest first."""
        self._styles: dict[tuple[str, str], Style] = {}
        self._told: OfferView | None = None
        """The offer that `Moved` was last said of."""
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
        self.refresh()
        self.refresh_rows()

    def refresh_rows(self) -> None:
        """The offers have changed: draw anew what is seen of that, with the cursor on the offer it was on."""
        before = self.virtual_size, self.cursor
        self._fit()
        self._follow()
        if before != (self.virtual_size, self.cursor) or not self._is_drawn:
            self.refresh()
        self._tell()

    @property
    def _is_drawn(self) -> bool:
        """Whether the rows that are seen show what is known of them."""
        first, last = self.seen
        rows = range(first, min(last + 1, self.offers.total))
        drawn = {row: offer for (row, _), (offer, _) in self._drawn.items()}
        return all(drawn.get(row, self) is self.offers.get(row) for row in rows)

    def _tell(self) -> None:
        if self.offer is not self._told:
            self._told = self.offer
            self.post_message(self.Moved())

    def say(self, words: str) -> None:
        """What to read where there are no rows."""
        if words != self._said:
            self._said = words
            self.refresh()

    @property
    def _room(self) -> Size:
        """Without the scroll bar."""
        return self.scrollable_content_region.size

    # --- drawing ------------------------------------------------------------------------------

    def render_lines(self, crop: Region) -> list[Strip]:
        """Textual's own makes each line anew for borders and paddings around it, of which there are none:
        so a row that was drawn before costs next to nothing, and scrolling by one is one row's work."""
        self._look_again()
        first = self.scroll_offset.y - HEAD
        return [self._line(y, first + y).crop(crop.x, crop.right) for y in crop.line_range]

    def render_line(self, y: int) -> Strip:
        return self.render_lines(Region(0, y, self.size.width, 1))[0]

    def _look_again(self) -> None:
        """Forget the rows that were drawn if they would now be drawn otherwise."""
        width = self._room.width
        beside = 0 if self.show_vertical_scrollbar else self.size.width - width
        look = Look(width, beside, self.background_colors[1], tuple(self.get_line_filters()))
        if look != self._look:
            self._look = look
            self._drawn.clear()

    def _line(self, y: int, row: int) -> Strip:
        if y < HEAD:
            search = self.offers.search
            return self._once(-1, "" if search.use_case else search.sort, None)
        if row >= self.offers.total:
            return self._empty(y)
        kind = "row" if row != self.cursor else "cursor" if self.has_focus else "blurred"
        return self._once(row, kind, self.offers.get(row))

    def _once(self, row: int, kind: str, offer: OfferView | None) -> Strip:
        """As it was drawn before, if it shows the same."""
        drawn = self._drawn.get((row, kind))
        if drawn is None or drawn[0] is not offer:
            drawn = offer, self._row(row, kind, offer) if row >= 0 else self._head(kind)
            self._drawn[row, kind] = drawn
            if len(self._drawn) > KEPT_SCREENS * self.size.height:
                del self._drawn[next(iter(self._drawn))]
        return drawn[1]

    def _head(self, sort: str) -> Strip:
        style = self._style("head")
        text = " " * len(CURSOR) + "".join(title(placed, sort) for placed in self._columns)
        return self._look.strip([Segment(text, style)], style)

    def _empty(self, y: int) -> Strip:
        lines = _wrapped(self._said, max(8, self._look.width - 4)) if not self.offers.total else []
        place = y - HEAD - 1
        text = "  " + lines[place] if 0 <= place < len(lines) else ""
        return self._look.strip([Segment(text, self.rich_style)], self.rich_style)

    def _row(self, row: int, kind: str, offer: OfferView | None) -> Strip:
        kind = "odd" if kind == "row" and row % 2 else kind
        base = self._style(kind)
        mark = CURSOR if kind in ("cursor", "blurred") else " " * len(CURSOR)
        if offer is None:
            return self._look.strip([Segment(mark + WAITING, base)], base)
        parts = [Segment(mark, base)]
        for tone, cells in groupby(self._columns, lambda one: one.column.tone):
            text = "".join([cell(one, offer) for one in cells])
            parts.append(Segment(text, self._style(kind, tone)))
        return self._look.strip(parts, base, self._length)

    def _style(self, kind: str, tone: str = "") -> Style:
        """Colours of a line, and on it those of a cell; on the cursor's line only its boldness."""
        style = self._styles.get((kind, tone))
        if style is None:
            style = self.get_component_rich_style(f"table--{kind}")
            if tone:
                part = self.get_component_rich_style(f"table--{tone}", partial=True)
                style += Style(bold=part.bold) if kind == "cursor" else part
            self._styles[kind, tone] = style
        return style

    def _fit(self) -> None:
        columns = layout(self._room.width - len(CURSOR) + len(GAP))
        if columns != self._columns:
            self._columns = columns
            self._length = len(CURSOR) + sum(one.width + len(GAP) for one in columns)
            self._drawn.clear()
        self.virtual_size = Size(self._room.width, self.offers.total + HEAD)

    def _follow(self) -> None:
        last = max(0, self.offers.total - 1)
        row = self.offers.row_of(self._under) if self._under else None
        self.set_reactive(OfferTable.cursor, min(self.cursor if row is None else row, last))
        if self._under and (offer := self.offer):
            self._under = offer.peer_id

    # --- being used ---------------------------------------------------------------------------

    def on_resize(self) -> None:
        self._fit()
        self._reveal()
        self.post_message(self.Looked())

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._drawn.clear()
        self._styles.clear()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        if self.show_vertical_scrollbar:
            slide(self.vertical_scrollbar, new_value)
        super().watch_scroll_y(old_value, new_value)
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
        self._tell()

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
