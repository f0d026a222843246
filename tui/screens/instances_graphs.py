"""The page of a job's curves: what it uses now and used before, drawn and in words."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import aclosing
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult, RenderResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from protocol.control import LeaseView
from protocol.control_meters import MetricsArgs, MetricsView, SampleView
from protocol.errors import QubixError
from tui.link import DaemonLink
from tui.safe import safe_line
from tui.screens import instances_model as model
from tui.screens.area import NARROW_COLUMNS
from tui.screens.instances_graph import Series, plot, span_words, summary
from tui.screens.instances_meters import WINDOWS, Meters, curves
from tui.screens.instances_work import begin

MAX_SAMPLES: Final = 1_200
RETRY_SECONDS: Final = 3.0
HISTORY_SECONDS: Final = 60.0
"""How old the rolled-up past may be while it is shown."""
LATE_SECONDS: Final = 10
MAX_GRAPHS: Final = 48
WIDE_COLUMNS: Final = 160
MIN_ROWS: Final = 6


class Graph(Widget):
    """One curve: a line of words, and below it the drawing, as high as there is room."""

    def __init__(self) -> None:
        super().__init__(classes="graph")
        self._series = Series("", "", [])
        self._window = (0, 0)

    def show(self, series: Series, start_ms: int, end_ms: int) -> None:
        self._series, self._window = series, (start_ms, end_ms)
        self.refresh()

    def render(self) -> RenderResult:
        colours = self.app.theme_variables
        words = summary(self._series, *self._window)
        text = Text.assemble((self._series.name, "bold"), "  ", words, no_wrap=True, overflow="ellipsis")
        drawn = plot(self._series, *self._window, self.size.width, self.size.height - 1)
        for row in drawn.rows:
            text.append(f"\n{row.label}", "dim")
            for hot, run in groupby(zip_longest(row.hot, row.dots, fillvalue=False), itemgetter(0)):
                text.append(
                    "".join(str(dot) for _, dot in run), colours.get("error" if hot else "primary", "")
                )
        if drawn.rows:
            text.append(f"\n{drawn.below}", "dim")
        return text


class GraphsPane(Vertical):
    """`begin` starts to ask, once; `lease` is kept up to date by the page it is on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "window(-1)", "Shorter", key_display="["),
        Binding("right_square_bracket", "window(1)", "Longer", key_display="]"),
    ]

    def __init__(self, lease: LeaseView, link: DaemonLink) -> None:
        super().__init__(id="graphs-pane")
        self.lease = lease
        self._link = link
        self._begun = False
        self._window = 0
        self._view: MetricsView | None = None
        self._samples: deque[SampleView] = deque(maxlen=MAX_SAMPLES)
        self._sampled_at = 0.0
        """When the newest came, by our own clock that only grows; the provider's may be wrong."""
        self._trouble = ""

    def compose(self) -> ComposeResult:
        yield Static("Asking for what the job uses.", id="graphs-state", markup=False)
        with VerticalScroll(id="graphs-scroll", can_focus=True):
            yield Grid(id="graphs-grid")

    def begin(self) -> None:
        if not self._begun:
            self._begun = True
            begin(self, "meters", self._follow)
            begin(self, "history", self._history)
            self.set_interval(1.0, self.draw)
        self.query_one("#graphs-scroll").focus()

    def action_window(self, step: int) -> None:
        """Show more or less of the past."""
        self._window = min(len(WINDOWS) - 1, max(0, self._window + step))
        begin(self, "history", self._history)
        self.draw()

    # --- asking -------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Every sample as it comes, for as long as the job runs."""
        while True:
            try:
                args = MetricsArgs(self.lease.lease_id, follow=True)
                async with aclosing(self._link.stream("metrics", args)) as items:
                    async for item in items:
                        self._take(item)
                        self.draw()
            except QubixError as error:
                self._trouble = safe_line(str(error), 200)
            if self.lease.phase in model.ENDED and self._link.state == "up":
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _history(self) -> None:
        """What is known of the past, again and again while more than the last minutes are shown."""
        while True:
            try:
                args = MetricsArgs(self.lease.lease_id, since_s=self._since())
                self._take(await self._link.call("metrics", args))
            except QubixError as error:
                self._trouble = safe_line(str(error), 200)
            self.draw()
            if self._view is not None and (self.lease.phase in model.ENDED or not self._window):
                return
            await asyncio.sleep(HISTORY_SECONDS if self._view else RETRY_SECONDS)

    def _since(self) -> int:
        """Of a job that has ended, counted from now too."""
        ago = time.time() - self.lease.ended_at_ms / 1_000 if self.lease.ended_at_ms else 0
        return min(366 * 86_400, WINDOWS[self._window] + max(0, round(ago)))

    def _take(self, item: SampleView | MetricsView) -> None:
        if isinstance(item, MetricsView):
            if item.history or self._view is None:
                self._view = item
            self._trouble = safe_line(item.trouble, 200)
        newest = self._samples[-1].at_ms if self._samples else 0
        for sample in item.samples if isinstance(item, MetricsView) else [item]:
            if sample.at_ms > newest:
                self._samples.append(sample)
                self._sampled_at = time.monotonic()

    # --- what is shown ------------------------------------------------------------------------

    def draw(self) -> None:
        if not self.query("#graphs-state"):  # the page is being left
            return
        if self._view is None:
            self._say(self._trouble or "Asking for what the job uses.")
            return
        meters = Meters(self._view, list(self._samples))
        if not meters.newest_ms:
            self._say(self._trouble or self._nothing())
            return
        late = round(time.monotonic() - self._sampled_at) if self._goes_on() else 0
        end_ms = meters.newest_ms + late * 1_000
        self._show(curves(meters)[:MAX_GRAPHS], end_ms - WINDOWS[self._window] * 1_000, end_ms)
        self._say(self._words(late))

    def _goes_on(self) -> bool:
        return bool(self._samples) and self.lease.phase in model.LIVE

    def _nothing(self) -> str:
        if self.lease.phase in model.BEGINNING:
            return f"Nothing is measured yet: {model.status_of(self.lease).sentence}."
        return "Nothing is known of what this job uses."

    def _words(self, late: int) -> str:
        parts = [f"the last {span_words(WINDOWS[self._window])} of the job"]
        if late > LATE_SECONDS:
            parts.append(f"no news for {late} s")
        if self._trouble:
            parts.append(self._trouble)
        return " · ".join(parts)

    def _say(self, words: str) -> None:
        self.query_one("#graphs-state", Static).update(words)

    def _show(self, series: list[Series], start_ms: int, end_ms: int) -> None:
        grid = self.query_one("#graphs-grid", Grid)
        graphs = list(grid.query(Graph))
        if len(graphs) < len(series):
            new = [Graph() for _ in series[len(graphs) :]]
            grid.mount(*new)
            graphs += new
        for graph in graphs[len(series) :]:
            graph.remove()
        for graph, one in zip(graphs, series, strict=False):
            graph.show(one, start_ms, end_ms)
        self._fit(len(series))

    def on_resize(self) -> None:
        self._fit(len(self.query(Graph)))

    def _fit(self, count: int) -> None:
        """As high as there is room for all of them, but high enough to read; else one scrolls."""
        if not self.query("#graphs-grid"):
            return
        width = self.app.size.width
        columns = 1 if width < NARROW_COLUMNS else 2 if width < WIDE_COLUMNS else 3
        rows = max(1, -(-count // columns))
        height = max(MIN_ROWS, self.query_one("#graphs-scroll").size.height // rows)
        grid = self.query_one("#graphs-grid", Grid)
        grid.styles.grid_size_columns, grid.styles.grid_rows = columns, f"{height}"
