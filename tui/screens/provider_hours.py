"""The page Price & hours: what a provider asks and when it is open, with what a week of it would bring.

Nothing changes before Save. What is typed is given to the daemon, which reads it and answers what it means.
"""

from __future__ import annotations

from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.timer import Timer
from textual.widgets import Button, Input, Label, Static

from protocol.control_market import OfferArgs
from protocol.control_provider import ShopView
from protocol.control_schedule import PreviewArgs, PreviewView
from protocol.errors import QubixError
from tui import show
from tui.offer import worth
from tui.safe import safe_text
from tui.screens import week_grid
from tui.screens.area import AreaScreen

PAUSE_SECONDS: Final = 0.3
"""After the last key, before the daemon is asked."""
MARGIN: Final = 6
EXAMPLES: Final = {
    "always": ("Always open", ""),
    "nights": ("Nights and weekends", "mon-fri 08:00-18:00 closed"),
    "dearer": ("Dearer by day", "mon-fri 09:00-17:00 price {dearer}"),
}
"""Of schedules, one button each."""
HOW: Final = (
    "Rules joined by ;  days (mon-fri)  hours (18:00-08:00)  and closed, open or price QU. The last that "
    "holds decides; else it is open at the usual price. Empty: always open."
)


class ProviderHoursScreen(AreaScreen):
    AREA = "provider"
    HELP = (
        "The usual price counts at every hour for which the schedule names no other. Write rules, or press "
        "one of the examples and change it; the week below shows what they mean, and the lines under it what "
        "such a week would have brought with the jobs of the last weeks. Ctrl+S saves, Escape leaves all as "
        "it was. A job never outlives the opening hours: whoever asks for more time than is left is told so, "
        "and no schedule ends a job that runs."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save", priority=True),
        Binding("escape", "leave", "Back", priority=True),
    ]

    def __init__(self, shop: ShopView) -> None:
        super().__init__()
        self._shop = shop
        self._before = (
            str(shop.usual_price_qu_per_hour or shop.price_qu_per_hour),
            shop.schedule.text if shop.schedule else "",
        )
        self._waiting: Timer | None = None
        self._good = False
        """What is typed can be saved."""
        self._view: PreviewView | None = None

    def compose_body(self) -> ComposeResult:
        low, high = self._shop.suggested_low_qu_per_hour, self._shop.suggested_high_qu_per_hour
        with VerticalScroll(id="hours-all"):
            with Horizontal(classes="hours-row"):
                yield Label("Usual price", classes="hours-label")
                yield Input(self._before[0], id="hours-price", type="integer", max_length=16)
                words = f"QU an hour and GPU (suggested {show.qu_range(low, high)})"
                yield Label(words, markup=False, classes="hours-words")
            with Horizontal(classes="hours-row"):
                yield Label("Schedule", classes="hours-label")
                yield Input(
                    self._before[1],
                    id="hours-schedule",
                    max_length=1_000,
                    placeholder="always open",
                    select_on_focus=False,
                )
            yield Static("", id="hours-error", markup=False)
            yield Static(HOW, id="hours-how", markup=False)
            with Horizontal(id="hours-buttons"):
                for name, (title, _) in EXAMPLES.items():
                    yield Button(Text(f"[{title}]"), id=f"hours-{name}", compact=True)
                yield Button(Text("[Save]"), id="hours-save", variant="success", compact=True)
            yield Static("", id="hours-week", markup=False)
            yield Static("", id="hours-worth", markup=False)

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())
        self.query_one("#hours-schedule").focus()

    def on_resize(self) -> None:
        self._draw()

    # --- what is typed ------------------------------------------------------------------------

    @property
    def _price(self) -> int | None:
        text = self.query_one("#hours-price", Input).value
        return int(text) if text.isdecimal() and text.isascii() else None

    @property
    def _schedule(self) -> str:
        return self.query_one("#hours-schedule", Input).value

    @on(Input.Changed)
    def _typed(self) -> None:
        self._good = False
        if self._waiting is not None:
            self._waiting.stop()
        self._waiting = self.set_timer(PAUSE_SECONDS, self.reload)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_save()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        name = str(event.button.id).removeprefix("hours-")
        if name == "save":
            self.action_save()
            return
        dearer = round((self._price or 0) * 1.5)
        field = self.query_one("#hours-schedule", Input)
        field.value = EXAMPLES[name][1].format(dearer=dearer)
        field.focus()

    async def load(self) -> None:
        """Ask what the fields mean."""
        price, schedule = self._price, self._schedule
        if price is None:
            self._mark("The price is a whole number of QU, such as 360000.")
            return
        try:
            self._view = await self.link.call("preview", PreviewArgs(price, schedule))
        except QubixError as error:
            self._mark(str(error))
            return
        self._good = (price, schedule) == (self._price, self._schedule)
        self._mark("")
        self._draw()

    def _mark(self, words: str) -> None:
        """What is wrong; its own mark stands below the character."""
        error = self.query_one("#hours-error", Static)
        error.update(safe_text(words))
        error.display = bool(words)
        self.query_one("#hours-how").display = not words
        for old in ("#hours-week", "#hours-worth"):
            self.query_one(old).set_class(bool(words), "-old")
        self._good = self._good and not words

    # --- what it means ------------------------------------------------------------------------

    def _draw(self) -> None:
        view = self._view
        if view is None or not self.is_mounted:
            return
        usual, colours = view.usual_price_qu_per_hour, dict(self.app.theme_variables)
        spans = view.schedule.spans if view.schedule else []
        week = week_grid.grid(spans, usual, self.size.width - MARGIN, colours)
        zone = f"   the clock of {view.schedule.zone}" if view.schedule else ""
        always = f"{week_grid.USUAL} {show.qu(usual)} QU at every hour"
        said = week_grid.legend(spans, usual) if spans else always
        self.query_one("#hours-week", Static).update(Text.assemble(week, "\n", (said + zone, "dim")))
        self.query_one("#hours-worth", Static).update(Text("\n").join(worth(view)))

    # --- done ---------------------------------------------------------------------------------

    def action_leave(self) -> None:
        self.dismiss()

    def action_save(self) -> None:
        self.run_worker(self._save(), group="save", exclusive=True)

    async def _save(self) -> None:
        if not self._good:
            await self.load()
        if not self._good or self._price is None:
            self.app.notify("This cannot be saved yet; see what is marked.", severity="warning")
            return
        text = self._schedule
        price = None if str(self._price) == self._before[0] else self._price
        schedule = None if text == self._before[1] else text
        if (price, schedule) == (None, None):
            self.dismiss()
            return
        try:
            await self.link.call("offer", OfferArgs(price, schedule=schedule))
        except QubixError as error:
            self.say_error(error)
            return
        self.app.notify("Saved. Offers say so from now on; running jobs go on as agreed.")
        self.dismiss()
