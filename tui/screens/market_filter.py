"""The market's filter line: completion below it while it is typed, and an error under its character."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from protocol.query import MAX_CHARACTERS
from tui.filter_line import Candidate, Completion, Problem, accepted, complete, problem
from tui.safe import safe_line

LABEL = "Filter "
EXAMPLE = "all offers; type to narrow, such as  gpu=RTX_4090 price<=4M region=eu"


class FilterInput(Input):
    """The line itself. Tab takes what is marked below it; up and down mark."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "take", "Complete"),
        Binding("enter", "submit", "Search"),
        Binding("down", "mark(1)", "Next", show=False),
        Binding("up", "mark(-1)", "Before", show=False),
        Binding("escape", "leave", "To the list"),
    ]

    def action_take(self) -> None:
        self._line.take()

    def action_mark(self, by: int) -> None:
        self._line.mark(by)

    def action_leave(self) -> None:
        self._line.leave()

    @property
    def _line(self) -> FilterLine:
        line = self.parent.parent if self.parent else None
        assert isinstance(line, FilterLine)
        return line


class FilterLine(Vertical):
    """`Asked` comes with every text that is a filter, `Left` when the line is done with."""

    class Asked(Message):
        def __init__(self, filter: str, *, now: bool) -> None:
            """`now`: somebody waits for it; else the line is still being typed."""
            self.filter, self.now = filter, now
            super().__init__()

    class Left(Message):
        """The keys should go to the list."""

    def __init__(self, words: Callable[[], Mapping[str, Sequence[str]]]) -> None:
        """`words`: names that offers have, as `filter_line.complete` takes them."""
        super().__init__(id="filter-line")
        self._words = words
        self._completion = Completion(0, 0)
        self._marked = False
        """Whether somebody has moved to a candidate, so that Enter means it."""

    def compose(self) -> ComposeResult:
        with Horizontal(id="filter-row"):
            yield Static(LABEL, id="filter-label", markup=False)
            yield FilterInput(
                placeholder=EXAMPLE,
                max_length=MAX_CHARACTERS,
                compact=True,
                id="filter",
                select_on_focus=False,
            )
        yield Static("", id="filter-problem", markup=False)
        options = OptionList(id="filter-candidates", markup=False)
        options.can_focus = False
        yield options

    # --- for the screen -----------------------------------------------------------------------

    @property
    def text(self) -> str:
        return self._input.value

    def put(self, text: str) -> None:
        """Another filter, as if it had been typed and meant."""
        with self.prevent(Input.Changed):
            self._input.value = text
        self._input.cursor_position = len(text)
        self._show_problem(problem(text))

    # --- what the line asks for ---------------------------------------------------------------

    def take(self) -> None:
        """Put the marked candidate, or the first, into the line."""
        found = self._completion.candidates
        if not found or not self._candidates.display:
            self.leave()
            return
        text, cursor = accepted(self.text, self._completion, found[self._candidates.highlighted or 0])
        self._input.value, self._input.cursor_position = text, cursor
        self._offer()

    def mark(self, by: int) -> None:
        if not self._candidates.display:
            if by > 0:
                self.leave()
            return
        count = len(self._completion.candidates)
        self._candidates.highlighted = ((self._candidates.highlighted or 0) + by) % count
        self._marked = True

    def leave(self) -> None:
        """First close what is open, then go."""
        if self._candidates.display:
            self._candidates.display = False
        else:
            self.post_message(self.Left())

    # --- what happens in it -------------------------------------------------------------------

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        wrong = problem(self.text)
        self._show_problem(wrong)
        self._offer()
        if wrong is None and not self._completion.half:
            self.post_message(self.Asked(self.text, now=False))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._marked and self._candidates.display:
            self.take()
            return
        wrong = problem(self.text)
        self._show_problem(wrong, asked=True)
        if wrong is None:
            self._candidates.display = False
            self.post_message(self.Asked(self.text, now=True))
            self.post_message(self.Left())

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._candidates.highlighted = event.option_index
        self.take()
        self._input.focus()

    def on_descendant_focus(self) -> None:
        self._offer()

    def on_descendant_blur(self) -> None:
        self._candidates.display = False

    def on_resize(self, event: events.Resize) -> None:
        self._show_problem(problem(self.text))

    def _offer(self) -> None:
        self._completion = complete(self.text, self._input.cursor_position, self._words())
        self._marked = False
        found, options = self._completion.candidates, self._candidates
        options.clear_options()
        options.add_options([Option(_words_of(one)) for one in found])
        options.display = bool(found) and self._input.has_focus
        if found:
            options.highlighted = 0
            self._place(options)

    def _place(self, options: OptionList) -> None:
        """Under the word that it would take the place of, as far as there is room."""
        start = len(LABEL) + cell_len(self.text[: self._completion.start]) - self._input.scroll_offset.x
        room = self.size.width - options.outer_size.width if options.outer_size.width else 0
        options.styles.offset = (max(0, min(start, room)), 0)

    def _show_problem(self, wrong: Problem | None, *, asked: bool = False) -> None:
        shown = self.query_one("#filter-problem", Static)
        shown.display = wrong is not None
        if wrong is None:
            return
        place = len(LABEL) + cell_len(self.text[: wrong.position]) - self._input.scroll_offset.x
        shown.set_class(wrong.unfinished and not asked, "-unfinished")
        shown.update(Text(pointed(wrong.sentence, max(0, place), max(20, self.size.width))))

    @property
    def _input(self) -> FilterInput:
        return self.query_one(FilterInput)

    @property
    def _candidates(self) -> OptionList:
        return self.query_one("#filter-candidates", OptionList)


def _words_of(one: Candidate) -> Text:
    return Text.assemble(safe_line(one.text.strip(), 40), ("  " + safe_line(one.meaning, 80), "dim"))


def pointed(sentence: str, place: int, width: int) -> str:
    """A sign under the cell `place` of the line above, and the sentence where there is room for it."""
    said = safe_line(sentence, 400)
    if place + 2 + len(said) <= width:
        return f"{' ' * place}^ {said}"
    if len(said) + 1 <= place:
        return f"{' ' * (place - len(said) - 1)}{said} ^"
    return f"{' ' * min(place, width - 1)}^\n{said}"
