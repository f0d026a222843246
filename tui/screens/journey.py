"""Steps one after the other, each with a way back: the first start, a seed's backup, a daemon's start.

    class FirstRunScreen(Journey):
        def first(self) -> Step:
            return WelcomeStep()

A step leads on with `self.journey.go(NextStep(...))`. Escape shows the step before it again as it was left;
before the first one the journey ends with False. A step that cannot be gone back from has `BACK = False`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Button, Static

from tui.safe import safe_text
from tui.screens.key_line import CalmFooter


class Words(Static):
    """A paragraph."""

    def __init__(self, words: str | Text = "", *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(words, id=id, classes=classes, markup=False)


class Step(VerticalScroll, can_focus=False):
    """One step. `compose_step` gives its text and fields; BUTTONS are (id, label) below them."""

    TITLE: ClassVar[str] = ""
    BACK: ClassVar[bool] = True
    BUTTONS: ClassVar[tuple[tuple[str, str], ...]] = ()
    """The first is what most people want."""
    left_at: Widget | None = None
    """What was marked when the next step came."""

    @property
    def journey(self) -> Journey:
        return cast("Journey", self.screen)

    def compose_step(self) -> ComposeResult:
        yield from ()

    def compose(self) -> ComposeResult:
        yield from self.compose_step()
        yield Words(id="trouble", classes="trouble")
        with Horizontal(classes="buttons"):
            for number, (name, label) in enumerate(self.BUTTONS):
                yield Button(label, id=name, variant="default" if number else "primary", flat=True)

    def on_mount(self) -> None:
        self.say("")

    def say(self, trouble: str) -> None:
        """What is wrong, in words; nothing takes it away."""
        line = self.query_one("#trouble", Words)
        line.update(f"! {safe_text(trouble)}" if trouble else "")
        line.display = bool(trouble)
        if trouble:
            self.call_after_refresh(line.scroll_visible)

    def take_focus(self) -> None:
        """Called when the step is shown: mark what is to be done first."""
        fields = [one for one in self.query("Input, Button").results() if one.display and not one.disabled]
        if fields:
            fields[0].focus()

    def shown(self) -> None:
        """Called each time the step comes to the front."""


class Journey(Screen[bool]):
    """See the module."""

    NAME: ClassVar[str] = ""
    HELP: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", key_display="Esc"),
        Binding("up", "app.focus_previous", "Previous", show=False),
        Binding("down", "app.focus_next", "Next", show=False),
        Binding("left", "app.focus_previous", "Previous", show=False),
        Binding("right", "app.focus_next", "Next", show=False),
        # Areas and new jobs belong to what lies below.
        Binding("1,2,3,4,5,6,7,n,f2", "nothing", show=False),
        # Letters of a seed must not end it half-way; Escape leads out.
        Binding("q", "stay", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
    ]

    def __init__(self, directory: Path) -> None:
        """`directory` is the node's data directory."""
        super().__init__()
        self.directory = directory
        self._steps: list[Step] = []

    def first(self) -> Step:
        raise NotImplementedError

    @property
    def step(self) -> Step:
        """The one that is shown."""
        return self._steps[-1]

    def compose(self) -> ComposeResult:
        with Horizontal(id="journey-head"):
            yield Words(f" qubix · {self.NAME}", id="journey-name")
            yield Words(id="journey-title")
        yield Horizontal(id="journey-body")
        yield CalmFooter()

    async def on_mount(self) -> None:
        await self._go(self.first())

    def go(self, step: Step) -> None:
        """Show this step; Escape leads back to the one before."""
        self.run_worker(self._go(step), group="journey", exclusive=True)

    async def _go(self, step: Step) -> None:
        if self._steps:
            self._steps[-1].left_at = self.focused
            self._steps[-1].display = False
        self._steps.append(step)
        await self.query_one("#journey-body").mount(step)
        self._show()

    def back(self) -> None:
        """As Escape."""
        if len(self._steps) == 1:
            self.dismiss(False)
            return
        self._steps.pop().remove()
        self._steps[-1].display = True
        self._show()

    def _show(self) -> None:
        self.query_one("#journey-title", Words).update(f"{self.step.TITLE} ")
        self.refresh_bindings()
        self.step.scroll_home(animate=False)
        if self.step.left_at:
            self.step.left_at.focus()
        else:
            self.step.take_focus()
        self.step.shown()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "stay":  # else the key is the app's
            return len(self._steps) > 1 and self.step.BACK
        return action != "back" or not self._steps or self.step.BACK

    def action_back(self) -> None:
        self.back()

    def action_nothing(self) -> None: ...

    def action_stay(self) -> None: ...

    def action_page(self, direction: int) -> None:
        """Scroll with the keyboard where the terminal is too low for a step."""
        self.step.scroll_page_down() if direction > 0 else self.step.scroll_page_up()
