"""`?`: what the screen below is for, and every key that works there."""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from tui.screens.key_line import CalmFooter

AREAS = "The numbers at the top lead to the areas, from everywhere but a field you type in. "
GENERAL = """\
Keys at the bottom belong to the screen. Tab and Shift+Tab go from field to field, Enter does what is \
marked, Escape goes back. Ctrl+P finds every command by its name. The mouse works everywhere."""


class HelpScreen(ModalScreen[None]):
    """Help about another screen; `about` makes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark", "app.pop_screen", "Close", key_display="Esc"),
    ]

    def __init__(self, purpose: str, general: str, keys: list[tuple[str, str]]) -> None:
        super().__init__()
        self._purpose = purpose
        self._general = general
        self._keys = keys

    @classmethod
    def about(cls, screen: Screen[object]) -> HelpScreen:
        """Help for what is shown now, with the keys that work at this moment."""
        active = [one for one in screen.active_bindings.values() if one.enabled and is_told(one)]
        bindings = [one.binding for one in active]
        bindings.sort(key=lambda one: not one.show)  # those of the footer first, then what moves a mark
        keys = [(screen.app.get_key_display(one), one.description) for one in bindings]
        return cls(getattr(screen, "HELP", ""), (AREAS if hasattr(screen, "AREA") else "") + GENERAL, keys)

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help-box"):
            yield Static(Text("Help: arrows scroll, Escape closes", "bold"), id="help-title")
            if self._purpose:
                yield Static(self._purpose, markup=False)
            yield Static(self._general, markup=False)
            yield Static(self._table())
        yield CalmFooter(show_command_palette=False)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        for key, words in self._keys:
            table.add_row(Text(key, "bold"), Text(words))
        return table


def is_told(key: ActiveBinding) -> bool:
    """Not what every list, field and screen has from Textual: GENERAL tells of those."""
    ours = [one for one in type(key.node).__mro__ if one.__module__.startswith("tui.")]
    actions = [one.action for kind in ours for one in kind.__dict__.get("BINDINGS", ())]
    return bool(key.binding.description) and (key.binding.show or key.binding.action in actions)
