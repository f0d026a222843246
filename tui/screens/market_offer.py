"""All about one offer: what it is, what it has cost, and how far its provider is to be trusted, and why."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from rich.table import Table
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from protocol.control_market import (
    DenyArgs,
    DenyView,
    MarketArgs,
    MarketView,
    OfferView,
    ScoreArgs,
    ScoreView,
)
from protocol.control_prices import PricesArgs, PriceSeriesView, PricesView
from protocol.errors import FilesInvalid, NotFound, QubixError
from tui import show
from tui.market_screens import notes
from tui.safe import safe_line
from tui.screens.area import AreaScreen
from tui.screens.confirm import Confirm
from tui.screens.market_chart import BOTH, OTHERS, OWN, chart, prices_over
from tui.screens.market_model import called
from tui.screens.market_words import facts, score_text

REFRESH_SECONDS: Final = 10.0
DAY_S: Final = 86_400
PERIODS: Final = ((DAY_S, "a day"), (7 * DAY_S, "a week"), (31 * DAY_S, "a month"), (366 * DAY_S, "a year"))
CHART_LINES: Final = (5, 9)
"""In a small terminal, and in others."""


class OfferScreen(AreaScreen):
    """Pushed above the market. What it shows stays if the offer ends, with a word about it."""

    AREA = "market"
    HELP = (
        "Everything that is known of one offer. The price history compares it with the middle of all offers"
        " of the same GPU. The G-Score says how far its provider can be trusted; each sentence below it"
        " names what that rests on, and e writes the evidence to a file that anybody can check."
        " r rents this machine."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back"),
        Binding("r", "rent", "Rent"),
        Binding("p", "period", "History"),
        Binding("m", "measure", "Measure"),
        Binding("e", "evidence", "Evidence"),
        Binding("x", "deny", "Never hire"),
    ]

    def __init__(self, offer: OfferView) -> None:
        super().__init__()
        self._offer = offer
        self._period = 1
        self._prices: PricesView | None = None
        self._denied = False

    def compose_body(self) -> ComposeResult:
        yield Static(Text(safe_line(called(self._offer), 60), "bold"), id="offer-title", markup=False)
        with VerticalScroll(id="offer-scroll"):
            yield Static("", id="offer-notes", markup=False)
            with Vertical(id="offer-columns"):
                yield Static("", id="offer-facts", markup=False)
                with Vertical(id="offer-right"):
                    yield Static("", id="offer-chart", markup=False)
                    yield Static("Computing its score.", id="offer-score", markup=False)

    def on_mount(self) -> None:
        self.refresh_every(REFRESH_SECONDS)
        self._show_offer()
        self.query_one("#offer-scroll").focus()

    # --- asking -------------------------------------------------------------------------------

    async def load(self) -> None:
        await self._load_offer(measure=False)
        await asyncio.gather(self._load_prices(), self._load_score())

    async def _load_offer(self, *, measure: bool) -> None:
        where = f"provider={self._offer.peer_id}"
        args = MarketArgs(filter=where, sort="price", limit=1, brief=True, measure=measure)
        view: MarketView = await self.link.call("market", args)
        denied: DenyView = await self.link.call("deny", DenyArgs())
        self._denied = any(
            one.peer_id == self._offer.peer_id and one.reason == "denied" for one in denied.denied
        )
        if view.offers:
            self._offer = replace(view.offers[0], reasons=self._offer.reasons)
        self._show_offer(gone=not view.offers)

    async def _load_prices(self) -> None:
        args = PricesArgs(self._offer.gpu_class, self._offer.peer_id, PERIODS[self._period][0])
        with suppress(NotFound):  # it has gone; what was shown stays
            self._prices = await self.link.call("prices", args)
            self._show_prices()

    async def _load_score(self) -> None:
        with suppress(NotFound):
            view: ScoreView = await self.link.call("score", ScoreArgs(self._offer.peer_id))
            self.query_one("#offer-score", Static).update(score_text(view))

    # --- showing ------------------------------------------------------------------------------

    def _show_offer(self, *, gone: bool = False) -> None:
        warnings = list(notes([self._offer]))
        if self._denied:
            warnings.insert(0, "You never hire it; x takes that back.")
        if gone:
            warnings.insert(0, "This offer has ended: its provider has withdrawn it or has fallen silent.")
        if self._offer.own:
            warnings.insert(0, "This is your own offer; area 5 is where you change it.")
        shown = self.query_one("#offer-notes", Static)
        shown.update(Text("\n".join(warnings)))
        shown.display = bool(warnings)
        table = Table.grid(padding=(0, 2))
        for name, value in facts(self._offer):
            table.add_row(Text(name, "dim"), Text(safe_line(value, 120), overflow="fold"))
        if self._offer.reasons:
            table.add_row(Text("Why", "dim"), Text(safe_line("; ".join(self._offer.reasons), 400)))
        self.query_one("#offer-facts", Static).update(table)
        self.refresh_bindings()

    def _show_prices(self) -> None:
        view = self._prices
        if view is None:
            return
        own, others = _series(view)
        wide = max(20, (self.app.size.width // (1 if self.compact else 2)) - 20)
        cells = min(wide, 100)
        lines = chart(
            prices_over(own.spans, view.since_ms, view.now_ms, cells) if own else [None] * cells,
            prices_over(others.spans, view.since_ms, view.now_ms, cells) if others else [None] * cells,
            CHART_LINES[not self.compact],
            f"{PERIODS[self._period][1]} ago",
        )
        words = Text("Price, QU an hour\n", "bold")
        words.append("\n".join(lines), "not bold")
        words.append(f"\n{_legend(own, others)}", "not bold dim")
        self.query_one("#offer-chart", Static).update(words)

    def on_resize(self) -> None:
        self._show_prices()

    # --- doing --------------------------------------------------------------------------------

    def action_leave(self) -> None:
        self.dismiss()

    def action_rent(self) -> None:
        self.qubix.open_page("launch", offer=self._offer)

    def action_period(self) -> None:
        self._period = (self._period + 1) % len(PERIODS)
        self.reload()

    @work(group="doing", exclusive=True)
    async def action_measure(self) -> None:
        self.app.notify("Measuring the way to this provider.", markup=False)
        try:
            await self._load_offer(measure=True)
        except QubixError as error:
            self.say_error(error)
            return
        if self._offer.rtt_ms is None:
            self.app.notify("It did not answer: it cannot be reached from here now.", severity="warning")

    @work(group="doing", exclusive=True)
    async def action_evidence(self) -> None:
        """All that the score is computed from, into a new file in the folder where qubix was started."""
        try:
            view: ScoreView = await self.link.call("score", ScoreArgs(self._offer.peer_id, True))
            path = await asyncio.to_thread(write_evidence, Path.cwd(), self._offer.peer_id, view.evidence)
        except QubixError as error:
            self.say_error(error)
            return
        words = f"Written to {safe_line(str(path))}. `qubix score --evidence FILE` computes it again."
        self.app.notify(words, timeout=15, markup=False)

    @work(group="doing", exclusive=True)
    async def action_deny(self) -> None:
        peer = self._offer.peer_id
        if not self._denied and not await self.app.push_screen_wait(
            Confirm(
                f"Never hire {called(self._offer)} again?",
                "Hiring leaves it out until you take that back here. Running jobs go on.",
                yes="Never hire it",
                no="Leave as it is",
            )
        ):
            return
        try:
            args = DenyArgs(remove=peer) if self._denied else DenyArgs(add=peer)
            await self.link.call("deny", args)
        except QubixError as error:
            self.say_error(error)
        self.reload()


def _series(view: PricesView) -> tuple[PriceSeriesView | None, PriceSeriesView | None]:
    """The provider's, and its class's."""
    own = next((one for one in view.series if one.peer_id), None)
    return own, next((one for one in view.series if not one.peer_id), None)


def _legend(own: PriceSeriesView | None, others: PriceSeriesView | None) -> str:
    said = [f"{OWN} this provider"]
    if own and own.spans:
        low = min(span.low_qu for span in own.spans)
        said[0] += f", at least {show.qu(low)}"
    if others and others.spans:
        last = others.spans[-1]
        many = f"{last.offers:,} offer{'s' if last.offers != 1 else ''}"
        cheapest = show.qu(last.cheapest_qu)
        said.append(f"{OTHERS} middle of all {safe_line(others.gpu, 24)} ({many}, cheapest {cheapest})")
    return f"{'; '.join(said)}; {BOTH} both"


def write_evidence(folder: Path, peer_id: str, text: str) -> Path:
    """A new file of its owner; FilesInvalid if it is there already or cannot be written."""
    path = folder / f"evidence-{peer_id[-8:]}.json"
    try:
        private = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(private, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise FilesInvalid(f"{path} is there already; move it away first") from error
    except OSError as error:
        raise FilesInvalid(f"{path} cannot be written: {error.strerror}") from error
    return path
