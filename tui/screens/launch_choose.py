"""The wizard's first two steps: what for, and on which GPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, OptionList, Static
from textual.widgets.option_list import Option

from protocol.catalogue import USE_CASES, UseCase
from protocol.templates import templates_for
from tui import show
from tui.safe import safe_line, safe_text
from tui.screens.launch_plan import OWN, Suggestion
from tui.ways import ways_of

OWN_WORDS = "Something else: a command, a container image or an environment of your own choice."
COLUMNS = (("GPU", 20), ("Memory", 7), ("QU/hour", 13), ("Offers", 6), ("First", 12), ("Score", 5))
NUMBERS = ("QU/hour", "Offers", "Score")


class UsePage(Vertical):
    """A list of use cases; `Chosen` tells of one."""

    class Chosen(Message):
        def __init__(self, use: str) -> None:
            self.use = use
            super().__init__()

    def compose(self) -> ComposeResult:
        yield Static("What do you want to do?", classes="launch-question")
        yield OptionList(*_options(), id="use-list", markup=False)
        yield Static("", id="use-why", classes="launch-why", markup=False)

    def start(self, use: str) -> None:
        """Mark a use case and take the keyboard."""
        options = self.query_one(OptionList)
        options.highlighted = options.get_option_index(_option_id(use))
        options.focus()

    @on(OptionList.OptionHighlighted)
    def _marked(self, event: OptionList.OptionHighlighted) -> None:
        use = USE_CASES.get(_use_of(event.option.id))
        self.query_one("#use-why", Static).update(_about(use) if use else OWN_WORDS)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.post_message(self.Chosen(_use_of(event.option.id)))


def _options() -> list[Option]:
    options = [Option("A job of my own", id=_option_id(OWN))]
    for title, uses in groupby(USE_CASES.values(), key=lambda use: use.group_title):
        options.append(Option(Text(title, "bold"), disabled=True))
        options += [Option(f"  {use.title}", id=_option_id(use.name)) for use in uses]
    return options


def _option_id(use: str) -> str:
    return f"use:{use}"


def _use_of(option_id: str | None) -> str:
    return (option_id or "").removeprefix("use:")


def _about(use: UseCase) -> str:
    """Why, how much memory, and what way in there is; a use without a ready-made environment says so."""
    memory = (
        f"Needs {use.min_vram_gib:g} GB of GPU memory, better {use.recommended_vram_gib:g}."
        if use.min_vram_gib
        else "Needs no GPU."
    )
    ready = templates_for(use.name)
    way = f"Way in: {ways_of(ready[0].ports)[0].title}." if ready else "Brings no environment of its own."
    return f"{use.why} {memory} {way}"


class GpuPage(Vertical):
    """A table of what is for rent now; `Chosen` tells of a row."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("p", "only_this", "This provider only")]

    class Chosen(Message):
        def __init__(self, suggestion: Suggestion, provider: str) -> None:
            self.suggestion = suggestion
            self.provider = provider
            super().__init__()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._shown: dict[str, Suggestion] = {}

    def compose(self) -> ComposeResult:
        yield Static("", id="gpu-question", classes="launch-question", markup=False)
        table: DataTable[Text] = DataTable(id="gpu-table", cursor_type="row", zebra_stripes=True)
        for name, width in COLUMNS:
            label = Text(name, justify="right" if name in NUMBERS else "left")
            table.add_column(label, key=name, width=width)
        yield table
        yield Static("", id="gpu-none", markup=False)
        yield Static("", id="gpu-why", classes="launch-why", markup=False)

    def start(self) -> None:
        self.query_one(DataTable).focus()

    def wait(self, use: UseCase | None) -> None:
        """The market is being asked."""
        self._shown = {}
        self.query_one(DataTable).clear()
        self.query_one("#gpu-why", Static).update("")
        what = use.title if use else "your job"
        self.query_one("#gpu-question", Static).update(f"Looking for machines that suit {what}.")
        self._say("")

    def show(self, found: Sequence[Suggestion], use: UseCase | None, known: int) -> None:
        """The answer. The row that was marked stays marked, wherever it is now."""
        table: DataTable[Text] = self.query_one(DataTable)
        marked = self._marked_key()
        self._shown = {f"{one.gpu_class}:{one.cards}": one for one in found}
        table.clear()
        for place, (key, one) in enumerate(self._shown.items()):
            table.add_row(*_cells(one, best=bool(use) and place == 0), key=key)
        if marked in self._shown:
            table.move_cursor(row=list(self._shown).index(marked))
        self.query_one("#gpu-question", Static).update(_question(use))
        self._say("" if found else _nothing(use, known))
        self._explain()

    def _say(self, words: str) -> None:
        none = self.query_one("#gpu-none", Static)
        none.update(words)
        none.display = bool(words)

    def _marked_key(self) -> str:
        table, keys = self.query_one(DataTable), list(self._shown)
        return keys[table.cursor_row] if 0 <= table.cursor_row < len(keys) else ""

    @on(DataTable.RowHighlighted)
    def _explain(self) -> None:
        one = self._shown.get(self._marked_key())
        self.query_one("#gpu-why", Static).update(_why(one) if one else "")

    @on(DataTable.RowSelected)
    def _chosen(self) -> None:
        self._choose(only=False)

    def action_only_this(self) -> None:
        self._choose(only=True)

    def _choose(self, *, only: bool) -> None:
        if one := self._shown.get(self._marked_key()):
            self.post_message(self.Chosen(one, one.best.peer_id if only else ""))


def _question(use: UseCase | None) -> str:
    if use:
        return f"Which GPU for {use.title}? The first gives the most for the price."
    return "Which machine? The cheapest comes first."


def _nothing(use: UseCase | None, known: int) -> str:
    if not known:
        return "No offers are known here yet. They come by themselves as soon as this node has found peers."
    need = f"{use.min_vram_gib:g} GB of GPU memory" if use and use.min_vram_gib else "what you want"
    return (
        f"Nobody offers {need} at the moment ({known:,} offers are known). This list looks again by itself; "
        "Escape goes back to another choice."
    )


def _cells(one: Suggestion, *, best: bool) -> tuple[Text, ...]:
    score = one.best.score
    return (
        show.cell(f"{'* ' if best else ''}{one.title}", "bold" if best else "", 20),
        show.cell(show.size(one.vram_mib) if one.vram_mib else "-"),
        Text(show.qu(one.qu_per_hour), justify="right"),
        Text(f"{one.offers:,}", justify="right"),
        show.cell(one.best.name or show.short_peer(one.best.peer_id), "", 12),
        Text("new" if score is None or one.best.newcomer else f"{score:.2f}", justify="right"),
    )


def _why(one: Suggestion) -> str:
    """The reasons of the first of these offers, and where that is."""
    best = one.best
    said = [*one.reasons] or [f"from {show.qu(one.qu_per_hour)} QU per hour, all in"]
    facts = [
        f"{best.cpu_millis / 1_000:g} CPUs",
        f"{show.size(best.memory_mib)} of memory",
        safe_line(best.region, 40) if best.region else "",
        f"{best.rtt_ms:.0f} ms away" if best.rtt_ms is not None else "",
    ]
    name = safe_line(best.name, 40) or show.short_peer(best.peer_id)
    return safe_text(f"{'; '.join(said)}.") + f"\n{name}: {', '.join(filter(None, facts))}."
