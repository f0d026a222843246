"""One line of the wallet's history with everything that is known of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from protocol.control_wallet import HistoryEntry
from tui import show
from tui.safe import safe_line
from tui.screens.key_line import CalmFooter


class EntryScreen(ModalScreen[None]):
    """A lease or a payment with its transactions."""

    HELP = "What this lease or payment did to the wallet, and every transaction that was signed for it."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter", "app.pop_screen", "Close", key_display="Esc")
    ]

    def __init__(self, entry: HistoryEntry) -> None:
        super().__init__()
        self._entry = entry

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="wallet-box"):
            yield Static(show.sheet(pairs(self._entry)), markup=False)
            yield Static(signed(self._entry), markup=False)
        yield CalmFooter()


KINDS: Final = {
    "caller": "a rented machine",
    "provider": "a served job",
    "send": "a payment",
    "received": "money that came by itself",
}


def _named(entry: HistoryEntry) -> tuple[tuple[str, str], ...]:
    return ("job", entry.name), ("to", entry.to), ("from", entry.sender)


def pairs(entry: HistoryEntry) -> Iterator[tuple[str, str]]:
    """Labels and values; what is empty is left out."""
    yield (
        "what",
        KINDS.get(entry.kind, entry.kind),
    )
    yield "when", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at_ms / 1_000))
    yield from ((name, value) for name, value in _named(entry) if value)
    yield "state", entry.state
    if entry.sentence:
        yield "because" if entry.kind not in ("send", "received") else "how", entry.sentence
    if entry.amount:
        yield "amount", f"{show.qu(entry.amount)} QU"
    yield "wallet", f"{entry.qu:+,} QU" if entry.qu else "not changed (yet)"
    yield "id", entry.id


def signed(entry: HistoryEntry) -> Text:
    if not entry.transactions:
        return Text("" if entry.kind == "received" else "No transaction was signed for it.", "dim")
    text = Text.assemble(("\nSigned for it (that one is listed does not say that it ran)\n", "bold"))
    for one in entry.transactions:
        amount = f", {show.qu(one.amount)} QU" if one.amount else ""
        text.append(f"{safe_line(one.action, 20)} in tick {one.tick}{amount}\n  ")
        text.append(f"{safe_line(one.hash, 80)}\n", "dim")
    return text
