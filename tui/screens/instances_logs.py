"""The page of a job's log: follows it, searches in it, and says how far it is."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Static

from protocol.control import LeaseView, LogChunk, LogsArgs
from protocol.errors import QubixError
from tui.link import DaemonLink
from tui.safe import safe_line
from tui.screens import instances_model as model
from tui.screens.instances_log import LogBuffer
from tui.screens.instances_log_view import LogView
from tui.screens.instances_work import begin

DRAWN_EVERY_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 2.0
MAX_WORDS: Final = 200


class LogsPane(Vertical):
    """`begin` starts to read, once; `lease` is kept up to date by the page it is on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", key_display="/"),
        Binding("escape", "end_search", "End search"),
    ]

    def __init__(self, lease: LeaseView, link: DaemonLink) -> None:
        super().__init__(id="logs-pane")
        self.lease = lease
        self._link = link
        self._begun = False
        self._ended = False
        self._trouble = ""
        self._drawn = 0
        self._buffer = LogBuffer()

    def compose(self) -> ComposeResult:
        yield Static("", id="logs-state", markup=False)
        yield LogView(id="logs-view")
        yield Input(placeholder="words to find; Enter, then n and N go on", id="logs-search",
                    max_length=MAX_WORDS)  # fmt: skip

    def begin(self) -> None:
        if not self._begun:
            self._begun = True
            begin(self, "logs", self._follow)
            self.set_interval(DRAWN_EVERY_SECONDS, self._draw)
        self.view.focus()

    @property
    def view(self) -> LogView:
        return self.query_one("#logs-view", LogView)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action != "end_search" or not self.query(LogView):
            return action != "end_search"
        return self.query_one("#logs-search").display or bool(self.view.words)

    # --- reading ------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """To the end of the log. After a break it is read anew from its beginning, and replaced."""
        while not self._ended:
            buffer = LogBuffer()
            try:
                await self._read(buffer)
                self._trouble = ""
                self._ended = self.lease.phase not in model.LIVE and self.lease.phase not in model.BEGINNING
            except QubixError as error:
                self._trouble = safe_line(str(error), 200)
                self._ended = self.lease.phase in model.ENDED and self._link.state == "up"
            if not self._ended:
                await asyncio.sleep(RETRY_SECONDS)

    async def _read(self, buffer: LogBuffer) -> None:
        async with aclosing(self._link.stream("logs", LogsArgs(self.lease.lease_id, follow=True))) as items:
            async for item in items:
                if isinstance(item, LogChunk):
                    buffer.feed(item.data)
                    self._buffer, self._trouble = buffer, ""
                    self._drawn = -1
        buffer.feed(b"", final=True)
        if len(buffer):
            self._buffer, self._drawn = buffer, -1

    # --- what is shown ------------------------------------------------------------------------

    def _draw(self) -> None:
        if not self.query(LogView):  # the page is being left
            return
        if self._drawn < 0:
            self._drawn = 0
            self.view.show(self._buffer)
        self.view.keep_up()
        self._say()

    @on(LogView.Moved)
    def _say(self) -> None:
        if not self.query(LogView):
            return
        self.query_one("#logs-state", Static).update(self._words())

    def _words(self) -> str:
        """ "1,234 lines, follows · "loss" 3 of 17"."""
        view, buffer = self.view, self._buffer
        if not len(buffer):
            return self._trouble or self._nothing()
        parts = [f"{buffer.dropped + len(buffer):,} lines"]
        if buffer.dropped:
            parts.append(f"the first {buffer.dropped:,} are not kept here")
        parts.append("complete" if self._ended else "follows" if view.follows else "stands still (f follows)")
        if view.words:
            parts.append(self._found_words(view))
        if self._trouble:
            parts.append(self._trouble)
        return " · ".join(parts)

    def _nothing(self) -> str:
        if self._ended:
            return "The job wrote nothing."
        if self.lease.phase in model.BEGINNING:
            return f"The job has not begun yet: {model.status_of(self.lease).sentence}."
        return "The job has written nothing so far."

    def _found_words(self, view: LogView) -> str:
        found, words = view.found(), safe_line(view.words, 30)
        if not found:
            return f"{words!r} is nowhere"
        place = f"{found.index(view.current) + 1} of " if view.current in found else ""
        return f"{words!r} {place}{len(found):,}"

    # --- searching ----------------------------------------------------------------------------

    def action_search(self) -> None:
        field = self.query_one("#logs-search", Input)
        field.display = True
        field.focus()

    def action_end_search(self) -> None:
        field = self.query_one("#logs-search", Input)
        field.value, field.display = "", False
        self.view.search("")
        self.view.focus()

    @on(Input.Changed, "#logs-search")
    def _typed(self, event: Input.Changed) -> None:
        self.view.search(event.value)

    @on(Input.Submitted, "#logs-search")
    def _submitted(self) -> None:
        self.view.focus()
