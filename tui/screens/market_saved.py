"""Saved searches of the market: choose one, delete one, name a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from protocol.errors import QubixError
from tui import searches
from tui.safe import safe_line
from tui.screens.key_line import CalmFooter
from tui.screens.market_model import sort_words
from tui.searches import MAX_NAME, Saved

NONE = "No search is saved yet. Press Escape, set a filter, then ctrl+s saves it under a name."


class SavedSearches(ModalScreen[Saved | None]):
    """Answers with the chosen one, None if none."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "", "Use it"),
        Binding("d,delete", "delete", "Delete"),
        Binding("escape", "leave", "Back"),
    ]

    def __init__(self, directory: Path, known: Sequence[Saved]) -> None:
        super().__init__()
        self._directory, self._known = directory, list(known)

    def compose(self) -> ComposeResult:
        with Vertical(id="choice-box"):
            yield Static(Text("Saved searches", "bold"))
            yield OptionList(markup=False)
            yield Static("", id="saved-hint", markup=False)
        yield CalmFooter()

    def on_mount(self) -> None:
        self._show(0)

    def _show(self, row: int) -> None:
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(_line(one)) for one in self._known])
        options.display = bool(self._known)
        if self._known:
            options.highlighted = min(row, len(self._known) - 1)
        self.query_one("#saved-hint", Static).update("" if self._known else NONE)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._known[event.option_index])

    def action_delete(self) -> None:
        row = self.query_one(OptionList).highlighted
        if row is None or not self._known:
            return
        try:
            self._known = searches.delete(self._directory, self._known[row].name)
        except QubixError as error:
            self.app.notify(safe_line(str(error)), severity="error", markup=False)
        self._show(row)

    def action_leave(self) -> None:
        self.dismiss(None)


def _line(one: Saved) -> Text:
    what = safe_line(one.filter, 100) or "all offers"
    how = f"for {one.use_case}" if one.use_case else sort_words(one.sort)
    return Text.assemble((safe_line(one.name), "bold"), (f"  {what}, {safe_line(how, 60)}", "dim"))


class NameSearch(ModalScreen[str | None]):
    """Asks for a name; None if somebody thinks better of it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "", "Save"),
        Binding("escape", "leave", "Back"),
    ]

    def __init__(self, suggestion: str) -> None:
        super().__init__()
        self._suggestion = safe_line(suggestion, MAX_NAME)

    def compose(self) -> ComposeResult:
        with Vertical(id="choice-box"):
            yield Static(Text("Save this search as", "bold"))
            yield Input(self._suggestion, max_length=MAX_NAME)
            yield Static(Text("A search of the same name is replaced.", "dim"))
        yield CalmFooter()

    @on(Input.Submitted)
    def _named(self, event: Input.Submitted) -> None:
        if name := event.value.strip():
            self.dismiss(name)

    def action_leave(self) -> None:
        self.dismiss(None)
