"""The wizard's last step: what one provider asks, what can be lost, and yes or no."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Button, OptionList, Static
from textual.widgets.option_list import Option

from protocol.control import QuoteView, RunEvent
from protocol.control_market import ChangeView
from protocol.errors import QubixError
from tui import consent, show
from tui.safe import safe_line, safe_text

Stage = Literal["asking", "quoted", "renting", "away", "failed"]
MAX_CHANGES = 4
GLANCE_SECONDS = 0.7
"""The button for yes gets the focus when the price comes. Whoever presses Enter sooner has not read that, but
meant what was shown before."""


class PricePage(Vertical):
    """Shows how far one wish has come. What the person answers comes as a message."""

    class Answered(Message):
        """Yes to the quote that is shown."""

    class Again(Message):
        """Ask once more."""

    class Change(Message):
        """Change the job so and ask again."""

        def __init__(self, fields: dict[str, str]) -> None:
            self.fields = fields
            super().__init__()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stage: Stage = "asking"
        self.quote: QuoteView | None = None
        self._since = time.monotonic()
        self._doing = ""
        self._changes: Sequence[ChangeView] = ()
        self._results = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="price-title", classes="launch-question", markup=False)
        with VerticalScroll(id="price-box"):
            yield Static("", id="price-terms", markup=False)
            yield Static("", id="price-risk", markup=False)
            yield Static("", id="price-note", classes="launch-why", markup=False)
            yield OptionList(id="price-changes", markup=False)
        with Horizontal(classes="launch-buttons"):
            yield Button("Rent it", id="price-yes", variant="success", compact=True)
            yield Button("Ask again", id="price-again", variant="primary", compact=True)
            yield Button("Change it", id="price-back", compact=True, action="screen.back")

    # --- what is shown ------------------------------------------------------------------------

    def wish(self, output_dir: str) -> None:
        """A new one, whose results come back into a folder."""
        self._results = f"What the job leaves comes back to {safe_line(output_dir, 300)}."
        self.asking()

    def asking(self) -> None:
        self.quote, self._since, self._doing = None, time.monotonic(), "asking the daemon"
        note = "Nothing is signed before you have said yes."
        self._turn("asking", "Asking providers for a price", note=note)
        self.tick()

    def take(self, event: RunEvent) -> None:
        """What the daemon tells of a wish before there is a lease."""
        if event.quote:
            self._quoted(event.quote)
        elif self.stage == "away" and event.lease is None:
            self.asking()
        elif self.stage == "asking":
            self._doing = safe_line(event.detail or event.phase, 300)
            self.tick()

    def tick(self) -> None:
        """A second has gone by."""
        if self.stage in ("asking", "renting"):
            seconds = int(time.monotonic() - self._since)
            self._update("price-terms", f"{self._doing}, {seconds} s")

    def _quoted(self, quote: QuoteView) -> None:
        self.quote, self._since = quote, time.monotonic()
        self._turn(
            "quoted",
            "One provider's signed offer. Do you want it?",
            terms=_terms(quote),
            risk=consent.risk(quote),
            note=f"With yes the deposit is locked in the escrow contract. {self._results}",
        )
        self.query_one("#price-yes").focus()

    def renting(self) -> None:
        self._since, self._doing = time.monotonic(), "signing"
        note = "Should anything break off now: it is rented once or not at all."
        self._turn("renting", "Renting it", note=note)
        self.tick()

    def away(self, *, signed: bool) -> None:
        """The daemon went while a wish was under way."""
        note = (
            "As soon as it is back it is asked what became of your yes. If the machine was rented you see it "
            "here; if not, you are asked again. Nothing is paid twice."
            if signed
            else "Nothing was signed. You are asked again as soon as it is back."
        )
        self._turn("away", "The daemon went away", note=note)

    def failed(self, error: QubixError, changes: Sequence[ChangeView]) -> None:
        """Nobody takes it, or something is wrong with it."""
        self._changes = changes[:MAX_CHANGES]
        options = self.query_one(OptionList)
        options.clear_options()
        for place, one in enumerate(self._changes):
            providers = "1 provider" if one.providers == 1 else f"{one.providers:,} providers"
            options.add_option(Option(Text(f"{safe_line(one.sentence, 200)}: {providers}"), id=str(place)))
        options.highlighted = 0 if self._changes else None
        note = "Nothing was signed and nothing is owed."
        self._turn(
            "failed",
            "That did not work",
            terms=safe_text(str(error)),
            note=f"{note} This would help; Enter takes it:" if self._changes else note,
        )
        self.query_one("#price-changes" if self._changes else "#price-again").focus()

    def _turn(
        self, stage: Stage, title: str, *, terms: str | Table = "", risk: str = "", note: str = ""
    ) -> None:
        self.stage = stage
        self._update("price-terms", terms)
        for name, words in (("title", title), ("risk", risk), ("note", note)):
            self._update(f"price-{name}", words)
        self.query_one("#price-yes").display = stage == "quoted"
        self.query_one("#price-again").display = stage == "failed"
        self.query_one("#price-back").display = stage in ("asking", "quoted", "failed")
        self.query_one(OptionList).display = stage == "failed" and bool(self._changes)

    def _update(self, name: str, words: str | Table) -> None:
        line = self.query_one(f"#{name}", Static)
        line.update(words)
        line.display = words != ""

    # --- what the person says -----------------------------------------------------------------

    @on(Button.Pressed, "#price-yes")
    def _yes(self) -> None:
        if self.stage == "quoted" and time.monotonic() - self._since >= GLANCE_SECONDS:
            self.post_message(self.Answered())

    @on(Button.Pressed, "#price-again")
    def _again(self) -> None:
        self.post_message(self.Again())

    @on(OptionList.OptionSelected)
    def _take_change(self, event: OptionList.OptionSelected) -> None:
        self.post_message(self.Change(self._changes[int(event.option.id or 0)].fields))


def _terms(quote: QuoteView) -> Table:
    """One price, what is in it, and what that is for the whole rented time."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column()
    hours = show.duration(quote.max_seconds)
    for label, amount, words in (
        (safe_line(quote.provider, 24), quote.price_qu_per_hour, "QU per hour, all in"),
        ("  machine", quote.machine_qu_per_hour, ""),
        ("  disk", quote.disk_qu_per_hour, ""),
        ("  traffic", 0, ""),
        (f"  fee of {consent.FEE_PERCENT:g} %", quote.fee_qu_per_hour, "of it, contained in the price"),
        (f"for {hours}", quote.deposit, "QU at most; locked, what is not used comes back"),
    ):
        style = "" if label.startswith("  ") else "bold"
        table.add_row(Text(label, style), Text(show.qu(amount), style), Text(words, style))
    if quote.way:
        table.add_row(Text("the way there"), Text(""), Text(safe_line(quote.way.sentence, 300)))
    return table
