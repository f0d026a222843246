"""A question before something that cannot be taken back: `if await app.push_screen_wait(Confirm(...)):`."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from tui.safe import safe_text
from tui.screens.key_line import CalmFooter


class Confirm(ModalScreen[bool]):
    """`yes` and `no` say what happens, not only yes and no. What is marked first changes nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No", key_display="n"),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
    ]

    def __init__(self, question: str, consequences: str, *, yes: str, no: str) -> None:
        super().__init__()
        self._question = safe_text(question)
        self._consequences = safe_text(consequences)
        self._words = yes, no

    def compose(self) -> ComposeResult:
        yes, no = self._words
        with Vertical(id="confirm-box"):
            yield Static(Text(self._question, "bold"))
            yield Static(Text(self._consequences))
            with Horizontal():
                yield Button(Text(no), id="no", variant="primary")
                yield Button(Text(yes), id="yes", variant="error")
        yield CalmFooter()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)
