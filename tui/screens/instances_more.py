"""More time for a running job: how much, what the provider says to it, and until its money is locked."""

from __future__ import annotations

import os
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import Button, Input, Label

from protocol.control import LeaseView
from protocol.control_extend import ExtendArgs, ExtendView
from protocol.control_wallet import WaitingEvent
from protocol.errors import DaemonUnreachable, MoneyError, QubixError, Refused, UsageError
from tui import show
from tui.extend import moment, sheet
from tui.places import data_dir
from tui.safe import safe_line, safe_text
from tui.screens import instances_model as model
from tui.screens.journey import Journey, Step, Words

if TYPE_CHECKING:
    from tui.app import QubixApp

MAX_TYPED: Final = 24
USUAL: Final = "1h"
NOT_ADDED: Final = (UsageError, MoneyError, Refused)
"""Errors that say for sure that nothing was added by this order."""


class MoreScreen(Journey):
    """True if time was added."""

    NAME = "more time"
    HELP = (
        "Adds time to a running job at the same price, in the same lease: the machine, its files and its "
        "ways stay as they are. First the provider is asked; nothing is paid before you have seen its "
        "answer. What is not used comes back at the end."
    )

    def __init__(self, lease: LeaseView) -> None:
        super().__init__(data_dir(None))
        self.lease = lease

    def first(self) -> Step:
        return TimeStep(self.lease)


class TimeStep(Step):
    """How much, with what it would cost by the lease's price."""

    TITLE = "How much longer?"
    BUTTONS = (("ask", "Ask the provider"), ("cancel", "Back"))

    def __init__(self, lease: LeaseView) -> None:
        super().__init__()
        self._lease = lease

    def compose_step(self) -> ComposeResult:
        lease = self._lease
        left = show.duration(model.seconds_left(lease))
        yield Words(
            f"{safe_line(lease.name, 40)} has {left} left of {show.duration(lease.max_seconds)}. "
            f"Its price stays {show.qu(lease.price_qu_per_hour)} QU per hour."
        )
        yield Label("More time (90m, 2h, 1h30m)")
        yield Input(USUAL, id="more", max_length=MAX_TYPED)
        yield Words(id="more-words", classes="quiet")

    def on_mount(self) -> None:
        super().on_mount()
        self._typed()

    @on(Input.Changed, "#more")
    def _typed(self) -> None:
        self.say("")
        self.query_one("#more-words", Words).update(self._estimate())

    def _estimate(self) -> str:
        try:
            seconds = model.parse_span(self.query_one("#more", Input).value)
        except QubixError:
            return ""
        cost = show.qu(model.cost_of(self._lease, seconds))
        left = show.duration(model.seconds_left(self._lease) + seconds)
        return f"about {cost} QU more, and {left} left then; the provider is asked first"

    @on(Button.Pressed, "#cancel")
    def _cancel(self) -> None:
        self.journey.back()

    @on(Input.Submitted, "#more")
    @on(Button.Pressed, "#ask")
    def _ask(self) -> None:
        field = self.query_one("#more", Input)
        try:
            seconds = model.parse_span(field.value)
        except QubixError as error:
            self.say(str(error))
            field.focus()
            return
        order = ExtendArgs(self._lease.lease_id, seconds, os.urandom(8).hex(), check=True)
        self.run_worker(self._look(order), exclusive=True)

    async def _look(self, order: ExtendArgs) -> None:
        try:
            view: ExtendView = await cast("QubixApp", self.app).link.call("extend", order)
        except QubixError as error:
            self.say(str(error))
            return
        self.journey.go(AddStep(replace(order, check=False, max_cost_qu=view.cost_qu), view))


class AddStep(Step):
    """What the provider has signed for; the last look before money goes."""

    TITLE = "Add it?"
    BUTTONS = (("back", "No, back"), ("add", "Yes, add it"))

    def __init__(self, order: ExtendArgs, view: ExtendView) -> None:
        super().__init__()
        self._order = order
        self._view = view

    @property
    def _wanting(self) -> int:
        return max(0, self._view.locks_qu - self._view.balance)

    def compose_step(self) -> ComposeResult:
        yield Words(sheet(self._view), id="more-sheet")
        yield Words("The provider agrees. What is not used of the deposit comes back at the end.")

    def shown(self) -> None:
        if self._wanting:
            self.query_one("#add", Button).display = False
            self.say(f"Your wallet lacks {show.qu(self._wanting)} QU for this. Add less, or deposit some.")

    @on(Button.Pressed, "#back")
    def _back(self) -> None:
        self.journey.back()

    @on(Button.Pressed, "#add")
    def _add(self) -> None:
        self.journey.go(AddingStep(self._order))


class AddingStep(Step):
    """Until the money is locked. It goes on in the daemon whoever looks."""

    TITLE = "Adding"
    BACK = False
    BUTTONS = (("close", "Close"), ("again", "Ask again"))

    def __init__(self, order: ExtendArgs) -> None:
        super().__init__()
        self._order = order
        self._added = False

    def compose_step(self) -> ComposeResult:
        yield Words(id="adding")
        yield Words(id="adding-why", classes="quiet")

    def on_mount(self) -> None:
        super().on_mount()
        self._ask()

    @on(Button.Pressed, "#close")
    def _close(self) -> None:
        self.journey.dismiss(self._added)

    @on(Button.Pressed, "#again")
    def _ask(self) -> None:
        self.say("")
        self.query_one("#again", Button).display = False
        self.query_one("#adding", Words).update("The money is being locked in the escrow ...")
        self.run_worker(self._order_it(), exclusive=True)

    async def _order_it(self) -> None:
        """The same order each time: however often it is asked, it is added once."""
        try:
            async with aclosing(cast("QubixApp", self.app).link.stream("extend", self._order)) as items:
                async for item in items:
                    self._take(item)
        except DaemonUnreachable:
            self._lost("The daemon went away. When it is back, ask again:")
        except NOT_ADDED as error:
            self._end("Nothing was added", str(error))
        except QubixError as error:
            self._lost(f"{safe_line(str(error))}. Ask again:")

    def _take(self, item: WaitingEvent | ExtendView) -> None:
        if isinstance(item, WaitingEvent):
            self.query_one("#adding-why", Words).update(safe_text(item.why))
            return
        self._added = True
        words = f"{show.duration(item.max_seconds)} in all, until {moment(item.ends_at_ms)} (your clock)"
        self._end("Added.", words)

    def _end(self, head: str, sentence: str) -> None:
        colours = self.app.theme_variables
        style = f"bold {colours['success' if self._added else 'error']}"
        self.query_one("#adding", Words).update(Text(head, style))
        words = f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}." if sentence else ""
        self.query_one("#adding-why", Words).update(safe_text(words))

    def _lost(self, why: str) -> None:
        self.query_one("#adding", Words).update("Whether it was added is not known yet.")
        self.say(f"{why} the same order is never paid twice.")
        button = self.query_one("#again", Button)
        button.display = True
        button.focus()
