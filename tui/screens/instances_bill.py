"""The page of a lease's bill: what it costs, what may be lost, and a calculator for both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Input, Label, Static

from protocol.control import LeaseView
from protocol.errors import QubixError
from tui import show
from tui.screens import instances_model as model
from tui.screens.instances_facts import Fact, sheet

MAX_INPUT: Final = 24


class BillPane(VerticalScroll):
    """`lease` is kept up to date by the page it is on; `draw` shows it."""

    FIELDS: ClassVar[dict[str, str]] = {
        "bill-time": "if it ends in (90m, 2h, 1h30m)",
        "bill-money": "how long so much money lasts (QU)",
    }

    def __init__(self, lease: LeaseView) -> None:
        super().__init__(id="bill-pane")
        self.lease = lease

    def compose(self) -> ComposeResult:
        yield Static("", id="bill-facts", markup=False)
        yield Static("A calculator; Tab leads into it:", id="bill-tab", markup=False)
        for name, words in self.FIELDS.items():
            yield Label(words, markup=False)
            yield Input("1h" if name == "bill-time" else "", id=name, max_length=MAX_INPUT,
                        compact=True)  # fmt: skip
            yield Static("", id=f"{name}-answer", markup=False, classes="answer")

    def on_mount(self) -> None:
        self.draw()

    def begin(self) -> None:
        """The keys of the page go on working until somebody goes into a field."""
        self.focus()

    @on(Input.Changed)
    def draw(self) -> None:
        self.query_one("#bill-facts", Static).update(sheet(bill_facts(self.lease)))
        for name in self.FIELDS:
            typed = self.query_one(f"#{name}", Input).value
            self.query_one(f"#{name}-answer", Static).update(answer(name, self.lease, typed))


def answer(field: str, lease: LeaseView, typed: str) -> str:
    """What stands below a field; what is wrong with it begins with "!"."""
    try:
        return ANSWERS[field](lease, typed) if typed.strip() else ""
    except QubixError as error:
        return f"! {error}"


def bill_facts(lease: LeaseView) -> list[Fact]:
    """Every sum of money that belongs to a lease."""
    price, qu = lease.price_qu_per_hour, show.qu
    found = [
        ("price", f"{qu(price)} QU/h, by the second, a fee of 5 % contained"),
        ("rented", f"{show.duration(lease.max_seconds)}, paid every {show.duration(lease.interval_seconds)}"),
        ("deposit", f"{qu(lease.deposit)} QU: all that it can cost"),
        ("used", f"{show.duration(lease.seconds)}: {qu(model.spent(lease))} QU"),
    ]
    if lease.settled:
        return [
            *found,
            ("came back", f"{qu(lease.refunded)} QU"),
            ("provider", f"{qu(lease.provider_received)} QU, fee {qu(lease.fee)} QU"),
        ]
    return [
        *found,
        ("left", f"{qu(model.money_left(lease))} QU; what is not used comes back"),
        ("risk", f"at most {qu(lease.max_loss_qu)} QU are lost if the provider vanishes"),
    ]


def if_it_ends(lease: LeaseView, typed: str) -> str:
    """What it will have cost. UsageError."""
    seconds = model.parse_span(typed)
    if lease.phase in model.ENDED:
        return f"at this price {show.duration(seconds)} cost {show.qu(model.cost_of(lease, seconds))} QU"
    bill = model.bill_after(lease, seconds)
    words = f"{show.qu(bill.cost)} QU in all, {show.qu(bill.fee)} QU fee in it"
    words += f"; {show.qu(bill.comes_back)} QU come back"
    if bill.capped:
        words += f". The rented time ends before that, after {show.duration(bill.seconds)}"
    return words


def how_long(lease: LeaseView, typed: str) -> str:
    """UsageError."""
    amount = model.parse_qu(typed)
    if not lease.price_qu_per_hour:
        return "for as long as you like: this machine costs nothing"
    return f"{show.qu(amount)} QU last {show.duration(model.time_for(lease.price_qu_per_hour, amount))}"


ANSWERS: Final[dict[str, Callable[[LeaseView, str], str]]] = {"bill-time": if_it_ends, "bill-money": how_long}
