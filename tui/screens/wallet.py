"""The wallet: what it holds, what happened to it, and the ways in and out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Static

from protocol.control_wallet import HistoryArgs, HistoryEntry, HistoryView, WalletArgs, WalletView
from protocol.errors import QubixError
from tui import private_net, show, wallet_keys
from tui.messages import WalletChanged
from tui.safe import safe_line
from tui.screens.area import AreaScreen
from tui.screens.passphrase import PassphraseScreen
from tui.screens.wallet_backup import BackupScreen
from tui.screens.wallet_entry import EntryScreen
from tui.screens.wallet_move import DepositScreen, SendScreen

SHOWN_ENTRIES: Final = 200
REFRESH_SECONDS: Final = 3.0
WORDS: Final = {
    "caller": "rented",
    "provider": "served",
    "send": "sent",
    "received": "received",
    "funding": "waiting for deposit",
}
STATE_COLOURS: Final = {
    "done": "primary",
    "sent": "primary",
    "received": "success",
    "opening": "primary",
    "running": "success",
    "failed": "error",
    "unknown": "error",
}
"""Of the theme; `warning` for all others. The colour says nothing that the word does not say."""


class WalletScreen(AreaScreen):
    """Balance and history."""

    AREA = "wallet"
    HELP = (
        "Your money. What is in escrow is locked for jobs that run; what a job does not use comes back. "
        "Deposit (d) shows where to send money, send (s) pays somebody, back up (b) shows the seed again, "
        "and p seals the keys with another passphrase. "
        "Enter on a line of the history shows its transactions. What others send to you is found by "
        "looking at the chain every 20 seconds; what cannot be told of it, the line says."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "deposit", "Deposit"),
        Binding("s", "send", "Send"),
        Binding("c", "copy", "Copy"),
        Binding("b", "backup", "Back up"),
        Binding("p", "passphrase", "Passphrase", show=False),
        Binding("g", "gift", "Play money"),
    ]
    view: WalletView | None = None

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="wallet-top"):
            with Vertical(id="wallet-money"):
                yield Static(id="wallet-balance", markup=False)
                yield Static(id="wallet-numbers", markup=False)
            yield Static(id="wallet-identity", markup=False)
        yield Static(id="wallet-remind", markup=False)
        yield DataTable(id="wallet-history", cursor_type="row", zebra_stripes=True)
        yield Static(id="wallet-none", markup=False)

    def on_mount(self) -> None:
        self.refresh_every(REFRESH_SECONDS)
        self._entries: list[HistoryEntry] = []
        self._drawn: object = None
        self.query_one(DataTable).focus()

    def on_resize(self) -> None:
        if self.loaded:
            self._show_history(self._entries)  # with more columns, or fewer

    async def load(self) -> None:
        view: WalletView = await self.link.call("wallet", WalletArgs())
        history: HistoryView = await self.link.call("history", HistoryArgs(SHOWN_ENTRIES))
        self._show_money(view)
        self._show_history(history.entries)
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that mean nothing here are not shown; money for nothing is for play only."""
        if action == "gift":
            return private_net.no_chain_named(None)
        if action in ("backup", "passphrase"):
            return wallet_keys.has_keys(self.qubix.directory)
        return True

    @on(WalletChanged)
    def _changed(self, message: WalletChanged) -> None:
        if self.loaded:
            self._show_money(message.wallet)

    # --- what is shown ------------------------------------------------------------------------

    def _show_money(self, view: WalletView) -> None:
        self.view = view
        self.query_one("#wallet-balance", Static).update(Text(f"{show.qu(view.balance)} QU", "bold"))
        self.query_one("#wallet-numbers", Static).update(numbers(view))
        self.query_one("#wallet-identity", Static).update(identity_words(view.identity))
        remind = self.query_one("#wallet-remind", Static)
        remind.update(reminder(view, backup_open=wallet_keys.backup_open(self.qubix.directory)))
        remind.display = bool(str(remind.content))

    def _show_history(self, entries: Sequence[HistoryEntry]) -> None:
        none = self.query_one("#wallet-none", Static)
        none.display = not entries
        none.update(
            "Nothing was rented, served, sent or received with this wallet yet.\n"
            "The market (1) is where to begin."
        )
        table = self.query_one(DataTable)
        table.display = bool(entries)
        narrow, colours = self.compact, self.app.theme_variables
        drawn = (list(entries), narrow, self.app.theme)
        if drawn == self._drawn:
            return
        self._entries, self._drawn = list(entries), drawn
        row = table.cursor_row
        table.clear(columns=True)
        heads = (Text(one, justify="right" if one == "QU" else "left") for one in columns(narrow=narrow))
        table.add_columns(*heads)
        for number, entry in enumerate(entries):
            table.add_row(*cells(entry, colours, narrow=narrow), key=str(number))
        table.move_cursor(row=min(row, max(0, len(entries) - 1)))

    # --- keys ---------------------------------------------------------------------------------

    def action_deposit(self) -> None:
        if self.view:
            self.app.push_screen(DepositScreen(self.view.identity))

    def action_send(self) -> None:
        if self.view:
            self.app.push_screen(SendScreen(self.view, self.qubix.directory), lambda _: self.reload())

    def action_copy(self) -> None:
        if self.view:
            self.app.copy_to_clipboard(self.view.identity)
            self.notify("The identity is in the clipboard, if this terminal allows that.", markup=False)

    def action_backup(self) -> None:
        self.app.push_screen(BackupScreen(self.qubix.directory), lambda _: self.reload())

    def action_passphrase(self) -> None:
        self.app.push_screen(PassphraseScreen(self.qubix.directory))

    @work(exclusive=True, group="gift")
    async def action_gift(self) -> None:
        """Fill the wallet up on the private network."""
        if not self.view:
            return
        before = self.view.balance
        try:
            balance = await private_net.gift(self.view.identity)
        except QubixError as error:
            self.say_error(error)
            return
        more = balance - before
        words = (
            f"{show.qu(more)} QU of play money came."
            if more > 0
            else "There is plenty of play money already."
        )
        self.notify(words, markup=False)
        self.reload()

    @on(DataTable.RowSelected)
    def _open_entry(self, event: DataTable.RowSelected) -> None:
        if event.cursor_row < len(self._entries):
            self.app.push_screen(EntryScreen(self._entries[event.cursor_row]))


def numbers(view: WalletView) -> Text:
    """Everything but the balance."""
    pairs = (("in escrow", view.escrowed), ("spent", view.spent), ("earned", view.earned))
    width = max(len(show.qu(qu)) for _, qu in pairs)
    return Text("\n").join(
        Text.assemble((f"{name:11}", "dim"), f"{show.qu(qu):>{width}} QU") for name, qu in pairs
    )


def identity_words(identity: str) -> Text:
    safe = safe_line(identity)
    half = len(safe) // 2
    return Text.assemble(("identity\n", "dim"), safe[:half], "\n", safe[half:])


def reminder(view: WalletView, *, backup_open: bool) -> str:
    """What its owner should do next; "" if nothing."""
    if backup_open:
        return (
            "! Your seed is not backed up: if this disk dies, the money is gone. Press b; it takes a minute."
        )
    if not view.balance and not view.escrowed:
        play = " or press g for play money" if private_net.no_chain_named(None) else ""
        return f"! The wallet is empty. Press d to see where to send money{play}."
    return ""


def columns(*, narrow: bool) -> tuple[str, ...]:
    return (
        ("when", "what", "about", "state", "QU") if narrow else ("when", "what", "about", "id", "state", "QU")
    )


def cells(entry: HistoryEntry, colours: Mapping[str, str], *, narrow: bool) -> list[Text]:
    """A line of the history in the colours of a theme. Names come from job files and other people."""
    form = "%m-%d %H:%M" if narrow else "%Y-%m-%d %H:%M"
    when = time.strftime(form, time.localtime(entry.at_ms / 1_000))
    about = safe_line(entry.to or entry.sender or entry.name, 22 if narrow else 44)
    row = [
        Text(when),
        Text(WORDS.get(entry.kind, safe_line(entry.kind, 12))),
        Text(about),
        Text(safe_line(entry.state, 14), colours[STATE_COLOURS.get(entry.state, "warning")]),
        Text(moved(entry), "bold", justify="right"),
    ]
    short = "" if entry.id.startswith("ticks-") else safe_line(show.short_id(entry.id), 20)
    return row if narrow else [*row[:3], Text(short, "dim"), *row[3:]]


def moved(entry: HistoryEntry) -> str:
    """What it did to the wallet; of an open payment what it is to do, and of a transfer that nothing confirms
    what it promised."""
    if entry.qu:
        return f"{entry.qu:+,}"
    if entry.state == "unchecked":
        return f"({entry.amount:+,})"
    return f"({-entry.amount:+,})" if entry.amount and entry.state == "pending" else "0"
