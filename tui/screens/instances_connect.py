"""The page of the ways into a job: a shell, a page in the browser, a port brought here, commands to copy."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Static

from protocol.control import LeaseView
from protocol.control_access import AccessArgs, AccessView, PortView
from protocol.control_tunnels import ForwardArgs, ForwardEnd, ForwardEvent, ForwardPort
from protocol.errors import QubixError
from protocol.ports import PAGES
from tui.link import DaemonLink
from tui.open import LOCAL, Door, Page, answers, begin_browser, free_or_any
from tui.safe import safe_line
from tui.screens import instances_model as model
from tui.screens.instances_ways import HINTS, Way, has_windows, ways
from tui.screens.instances_work import begin

RETRY_SECONDS: Final = 0.5
COMMAND_CHARS: Final = 200
HEADS: Final = ("way", "command", "Enter")


class ConnectPane(Vertical):
    """`begin` asks for the ways, again each time the page is shown; ports stay until the page is left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy command"),
        Binding("x", "let_go", "End ports"),
    ]

    class Shell(Message):
        """A verb of the command line wants the terminal."""

        def __init__(self, verb: str) -> None:
            self.verb = verb
            super().__init__()

    def __init__(self, lease: LeaseView, link: DaemonLink) -> None:
        super().__init__(id="connect-pane")
        self.lease = lease
        self._link = link
        self._ways: list[Way] = []
        self._brought: dict[str, str] = {}
        """Port -> what is to be said of it."""

    def compose(self) -> ComposeResult:
        yield Static("Asking for the ways into the job.", id="connect-state", markup=False)
        table: DataTable[Text] = DataTable(id="connect-table", cursor_type="row")
        yield table
        yield Static("", id="connect-ports", markup=False)

    def begin(self) -> None:
        begin(self, "ways", self._ask)
        self.query_one("#connect-table").focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "let_go" or bool(self._brought)

    async def _ask(self) -> None:
        try:
            access: AccessView = await self._link.call("access", AccessArgs(self.lease.lease_id))
        except QubixError as error:
            self._say(safe_line(str(error), 300))
            return
        self._ways = ways(access)
        self._say(self._words())

    def _words(self) -> str:
        if self.lease.phase in model.LIVE:
            return "Ways into the job; mark one and press Enter."
        if self.lease.phase in model.ENDED:
            return "The job has ended: there is nothing to connect to any more."
        return f"The job does not run yet ({model.status_of(self.lease).sentence}); these will be the ways."

    def _say(self, words: str) -> None:
        if not self.query("#connect-state"):  # the page is being left
            return
        self._fill()
        self.query_one("#connect-state", Static).update(words)

    def _fill(self) -> None:
        table = self.query_one("#connect-table", DataTable)
        marked = table.cursor_row
        table.clear(columns=True)
        rows = [(one.what, safe_line(one.command, COMMAND_CHARS), HINTS[one.act]) for one in self._ways]
        for column in zip(HEADS, *rows, strict=True):  # widths of its own would come a moment late
            table.add_column(Text(column[0]), width=max(map(cell_len, column)))
        for row in rows:
            table.add_row(*map(Text, row))
        table.move_cursor(row=marked)

    # --- what Enter does ----------------------------------------------------------------------

    def _marked(self) -> Way | None:
        row = self.query_one("#connect-table", DataTable).cursor_row
        return self._ways[row] if 0 <= row < len(self._ways) else None

    @on(DataTable.RowSelected)
    def _selected(self) -> None:
        way = self._marked()
        if way is None:
            return
        if way.act == "copy":
            self.action_copy()
        elif self.lease.phase not in model.LIVE:
            self.notify(self._words(), severity="warning", markup=False)
        elif way.port is not None and way.act in ("page", "bring"):
            begin(self, f"port-{way.port.port}", partial(self._bring, way.port))
        else:
            self.post_message(self.Shell(way.act))

    def action_copy(self) -> None:
        way = self._marked()
        if way is not None:
            self.app.copy_to_clipboard(way.command)
            self.notify(f"Copied: {safe_line(way.command, COMMAND_CHARS)}", markup=False)

    def action_let_go(self) -> None:
        """End all ports that were brought here."""
        for worker in self.workers:
            if worker.node is self and (worker.group or "").startswith("port-"):
                worker.cancel()

    # --- ports of the job on this machine -----------------------------------------------------

    async def _bring(self, port: PortView) -> None:
        name, shown = safe_line(port.name, 32), None
        try:
            self._tell(name, f"{name} is being brought here")
            wanted = ForwardPort(
                free_or_any(port.port), port.port, "udp" if port.protocol == "udp" else "tcp"
            )
            async with aclosing(
                self._link.stream("forward", ForwardArgs(self.lease.lease_id, [wanted]))
            ) as items:
                async for item in items:
                    if isinstance(item, ForwardEvent) and item.what == "listening":
                        shown = asyncio.create_task(self._show(port, item.ports[0].local))
                    elif isinstance(item, ForwardEnd):
                        self.notify(safe_line(item.sentence, 300), markup=False)
        except QubixError as error:
            self.notify(safe_line(str(error), 300), severity="error", markup=False)
        finally:
            if shown is not None:
                shown.cancel()
            self._tell(name, "")

    async def _show(self, port: PortView, local: int) -> None:
        name = safe_line(port.name, 32)
        if port.kind not in PAGES:
            self._tell(name, f"{name} is at {LOCAL}:{local} until you leave this page")
            return
        page = Page(port, local)
        self._tell(name, f"waiting until {name} answers")
        while not await answers(page):
            await asyncio.sleep(RETRY_SECONDS)
        secret = f"; password: {safe_line(port.password, 200)}" if port.password else ""
        self._tell(name, f"{name} is at {safe_line(page.url, 1_500)} until you leave this page{secret}")
        if has_windows():
            await self._in_browser(page)
        else:
            self.app.copy_to_clipboard(page.url)
            self.notify("There is no browser here; the address is copied.", markup=False)

    async def _in_browser(self, page: Page) -> None:
        """As in `qubix open`: by a page of ours that leads on once, so the token is in no argument."""
        door = Door(page)
        async with await asyncio.start_server(door.serve, LOCAL, 0) as server:
            port = server.sockets[0].getsockname()[1]
            if not await begin_browser(f"http://{LOCAL}:{port}/{door.word}"):
                self.notify("No browser could be begun; open the address yourself.", markup=False)
                return
            await door.used.wait()

    def _tell(self, name: str, words: str) -> None:
        if words:
            self._brought[name] = words
        else:
            self._brought.pop(name, None)
        if self.query("#connect-ports"):  # else the page is being left
            self.query_one("#connect-ports", Static).update("\n".join(self._brought.values()))
            self.refresh_bindings()
