"""The wizard's third step: a form with the fields of a draft, checked by the job file's own rules."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Button, Input, Select, Static

from protocol.job_draft import Draft, faults
from protocol.templates import TEMPLATES
from tui import show
from tui.safe import safe_line
from tui.screens.launch_plan import OWN, Plan, environments
from tui.ways import way_of

OWN_ONLY: Final = ("image", "ports")
"""Fields that a ready-made environment answers itself."""
INTERNET: Final = [("out of the job's reach", "no"), ("the job may reach it", "yes")]
MAX_CHARS: Final = 4_000


@dataclass(frozen=True)
class Entry:
    """A line of the form: the draft's field, its name here, what it may hold."""

    field: str
    label: str
    example: str
    kind: Literal["text", "list"] = "text"


ENTRIES: Final = (
    Entry("image", "Image", "python:3.12-slim"),
    Entry("command", "Command", "python train.py"),
    Entry("ports", "Ports", "8888/http 47998/udp: what it listens on", "list"),
    Entry("gpu", "GPU", "none; or RTX_4090:1"),
    Entry("hours", "Hours", "1"),
    Entry("budget", "Budget", "QU in all; empty: what the hours cost"),
    Entry("max_price", "Price limit", "QU per hour, all in; empty: none"),
    Entry("files", "Files", "train.py data: from this folder into the job", "list"),
    Entry("envs", "Variables", "LEVEL=3 NAME=value", "list"),
    Entry("cpus", "CPUs", "1"),
    Entry("memory", "Memory", "1GB"),
    Entry("disk", "Disk", "1GB"),
    Entry("idle_stop", "Stop if idle", "30m; empty: never"),
    Entry("name", "Name", "job"),
)
BY_FIELD: Final = {one.field: one for one in ENTRIES}


class SettingsPage(Vertical):
    """Shows a plan and changes it; `Done` tells that the person goes on with a draft that is right."""

    class Changed(Message):
        """The plan is another one."""

        def __init__(self, plan: Plan) -> None:
            self.plan = plan
            super().__init__()

    class Done(Message):
        pass

    def __init__(self, missing: Callable[[str], bool], **options: Any) -> None:
        """`missing` says whether a file to be sent along is not here."""
        super().__init__(**options)
        self._missing = missing
        self._plan = Plan()
        self._touched: set[str] = set()
        self._options: list[tuple[str, str]] = []
        """Ways that are to choose from now."""

    def compose(self) -> ComposeResult:
        yield Static("What shall run, and for how long?", classes="launch-question")
        with VerticalScroll(id="settings-form", can_focus=False):
            yield from _line("template", "Environment", _select(environments(OWN)))
            for entry in ENTRIES[:2]:
                yield from _line(entry.field, entry.label, _input(entry))
            yield from _line("way", "Connection", _select([("-", "")]))
            for entry in ENTRIES[2:]:
                yield from _line(entry.field, entry.label, _input(entry))
            yield from _line("internet", "Internet", _select(INTERNET))
        yield Static("", id="settings-sum", markup=False)
        with Horizontal(classes="launch-buttons"):
            yield Button("Ask for a price", id="settings-go", variant="primary", compact=True)

    # --- showing a plan -----------------------------------------------------------------------

    def start(self, plan: Plan) -> None:
        """Show a plan and take the keyboard to the first thing to fill in."""
        self._plan, self._touched = plan, set()
        self._select("template").set_options(environments(plan.use))
        self._select("template").value = plan.draft.template
        for entry in ENTRIES:
            self.query_one(f"#set-{entry.field}", Input).value = _shown(plan.draft, entry)
        self._select("internet").value = INTERNET[plan.draft.internet][1]
        self._adapt()
        self._show_faults()
        first = "command" if not self._runs_by_itself() and not plan.draft.command else "hours"
        self.query_one(f"#set-{first}", Input).focus()

    def _adapt(self) -> None:
        """What depends on the environment."""
        own = self._plan.draft.template == OWN
        for field in OWN_ONLY:
            self.query_one(f"#row-{field}").display = own
        runs = TEMPLATES[self._plan.draft.template].run if self._runs_by_itself() else ""
        example = f"{runs}: its own server" if runs else BY_FIELD["command"].example
        self.query_one("#set-command", Input).placeholder = example
        ways, select = self._plan.ways(), self._select("way")
        options = [(way.title, way.key) for way in ways]
        chosen = way_of(ways, self._plan.way).key
        with self.prevent(Select.Changed):
            if options != self._options:
                select.set_options(options)
                self._options = options
            select.value = chosen

    def _runs_by_itself(self) -> bool:
        one = TEMPLATES.get(self._plan.draft.template)
        return bool(one and one.run)

    def show_sum(self, balance: int | None) -> None:
        """About what it may cost, beside what there is; the offer itself says it exactly."""
        most, words = self._plan.most(), "What it costs is known when providers have been asked."
        if most:
            per_hour = show.qu(self._plan.qu_per_hour)
            words = f"About {self._plan.draft.hours or 1} h x {per_hour} QU = {show.qu(most)} QU at most."
        if balance is not None:
            short = bool(most) and balance < most
            words += f" Your wallet holds {show.qu(balance)} QU{', which is too little' if short else ''}."
        self.query_one("#settings-sum", Static).update(words)

    # --- changing it --------------------------------------------------------------------------

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        """By the person, or by `start`: then it is what the plan says already."""
        entry = BY_FIELD[(event.input.id or "").removeprefix("set-")]
        if (harmless := safe_line(event.value, MAX_CHARS)) != event.value:  # pasted from who knows where
            event.input.value = harmless
            return
        value = _read(entry, event.value)
        if value != getattr(self._plan.draft, entry.field):
            self._touched.add(entry.field)
            self._change(replace(self._plan.draft, **{entry.field: value}))

    @on(Select.Changed, "#set-template")
    def _other_environment(self, event: Select.Changed) -> None:
        if event.value == self._plan.draft.template:
            return
        self._plan = replace(self._plan, way="")
        image = _usual(event.value)
        self._change(replace(self._plan.draft, template=str(event.value), image=image, ports=()))
        for field in OWN_ONLY:
            self.query_one(f"#set-{field}", Input).value = _shown(self._plan.draft, BY_FIELD[field])

    @on(Select.Changed, "#set-way")
    def _other_way(self, event: Select.Changed) -> None:
        known = {way.key for way in self._plan.ways()}
        if event.value in known - {self._plan.way}:
            self._plan = replace(self._plan, way=str(event.value))
            self.post_message(self.Changed(self._plan))

    @on(Select.Changed, "#set-internet")
    def _internet(self, event: Select.Changed) -> None:
        if (event.value == "yes") != self._plan.draft.internet:
            self._change(replace(self._plan.draft, internet=event.value == "yes"))

    def _change(self, draft: Draft) -> None:
        self._plan = replace(self._plan, draft=draft)
        self._adapt()
        self._show_faults()
        self.post_message(self.Changed(self._plan))

    # --- going on -----------------------------------------------------------------------------

    @on(Input.Submitted)
    def _next_field(self, event: Input.Submitted) -> None:
        self.screen.focus_next()

    @on(Button.Pressed, "#settings-go")
    def _pressed(self) -> None:
        self.go_on()

    def go_on(self) -> None:
        """To the price, unless something is wrong: then to the first field that is."""
        found = self._faults()
        if not found:
            self.post_message(self.Done())
            return
        self._touched |= set(found)
        self._show_faults()
        first = next((one.field for one in ENTRIES if one.field in found), "command")
        self.query_one(f"#set-{first}", Input).focus()

    def _faults(self) -> dict[str, str]:
        found = faults(self._plan.draft)
        if "files" not in found:
            away = [one for one in self._plan.draft.files if self._missing(one.partition(":")[0])]
            found |= {"files": f"{safe_line(away[0], 64)} is not in this folder"} if away else {}
        return found

    def _show_faults(self) -> None:
        found = self._faults()
        for entry in ENTRIES:
            words = found.get(entry.field, "") if entry.field in self._touched else ""
            line = self.query_one(f"#wrong-{entry.field}", Static)
            if line.display == bool(words) and str(line.content) == safe_line(words, 200):
                continue
            line.update(safe_line(words, 200))
            line.display = bool(words)

    def _select(self, field: str) -> Select[str]:
        return self.query_one(f"#set-{field}", Select)


def _line(field: str, label: str, widget: Any) -> ComposeResult:
    widget.id = f"set-{field}"
    with Vertical(id=f"row-{field}", classes="launch-row"):
        with Horizontal(classes="launch-line"):
            yield Static(label, classes="launch-label")
            yield widget
        yield Static("", id=f"wrong-{field}", classes="launch-wrong", markup=False)


def _select(options: list[tuple[str, str]]) -> Select[str]:
    return Select(options, allow_blank=False, compact=True)


def _input(entry: Entry) -> Input:
    return Input(placeholder=entry.example, compact=True, max_length=MAX_CHARS, select_on_focus=False)


def _usual(template: object) -> str:
    return BY_FIELD["image"].example if template == OWN else ""


def _shown(draft: Draft, entry: Entry) -> str:
    value = getattr(draft, entry.field)
    return str(value) if entry.kind == "text" else shlex.join(value)


def _read(entry: Entry, text: str) -> Any:
    """Lists are words; an open quotation mark is a word's part until it is closed."""
    if entry.kind == "text":
        return text if entry.field == "command" else text.strip()
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return tuple(text.split())
