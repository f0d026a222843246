"""A short list to choose from: `await app.push_screen_wait(Choice("Sort by", [("price", "Price", "")]))`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui.safe import safe_line, safe_text
from tui.screens.key_line import CalmFooter

LINE_CHARS = 160


class Choice(ModalScreen[str | None]):
    """Answers with the id of what was chosen, None if nothing. A line is its words and a quieter remark."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back"),
        Binding("enter", "", "Choose", show=True),
    ]

    def __init__(
        self, title: str, lines: Sequence[tuple[str, str, str]], marked: str = "", hint: str = ""
    ) -> None:
        """`lines`: (id, words, remark); `marked` is the id that the cursor is on at first."""
        super().__init__()
        self._title, self._lines, self._marked, self._hint = title, lines, marked, hint

    def compose(self) -> ComposeResult:
        with Vertical(id="choice-box"):
            yield Static(Text(safe_line(self._title), "bold"))
            yield OptionList(
                *(Option(_line(words, remark)) for _, words, remark in self._lines), markup=False
            )
            if self._hint:
                yield Static(Text(safe_text(self._hint), "dim"))
        yield CalmFooter()

    def on_mount(self) -> None:
        ids = [name for name, _, _ in self._lines]
        self.query_one(OptionList).highlighted = ids.index(self._marked) if self._marked in ids else 0

    @property
    def under(self) -> str | None:
        """The id that the cursor is on."""
        row = self.query_one(OptionList).highlighted
        return None if row is None else self._lines[row][0]

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._lines[event.option_index][0])

    def action_leave(self) -> None:
        self.dismiss(None)


def _line(words: str, remark: str) -> Text:
    return Text.assemble(safe_line(words, LINE_CHARS), ("  " + safe_line(remark, LINE_CHARS), "dim"))
