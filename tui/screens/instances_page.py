"""One instance: what is known of it, its curves, its log, the ways into it, its bill."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.css.query import NoMatches
from textual.widgets import Static, TabbedContent, TabPane

from protocol.control import LeaseView, PsArgs, PsView
from protocol.errors import LeaseUnknown
from tui import show
from tui.messages import LeaseChanged
from tui.safe import safe_line
from tui.screens import instances_model as model
from tui.screens.instances_actions import LeaseActions
from tui.screens.instances_bill import BillPane
from tui.screens.instances_connect import ConnectPane
from tui.screens.instances_facts import facts, sheet, status_text
from tui.screens.instances_graphs import GraphsPane
from tui.screens.instances_logs import LogsPane

REFRESH_SECONDS: Final = 5.0
TABS: Final = {"details": "d Details", "graphs": "g Graphs", "logs": "l Logs", "connect": "c Connect",
               "bill": "b Bill"}  # fmt: skip


class InstancePage(LeaseActions):
    """Above the table; also where the wizard leads when a job has begun. `tab` is one of TABS."""

    AREA = "instances"
    HELP = (
        "One instance. d shows what is known of it, g what it uses now and used before, l its log, c the "
        "ways into it (a shell, pages in the browser, commands to copy), b what it costs, with a calculator. "
        "s ends the job: what is not used of the deposit comes back."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back"),
        *(Binding(title[0], f"tab('{tab}')", title[2:], show=False) for tab, title in TABS.items()),
        *LeaseActions.ACTIONS,
    ]

    def __init__(self, lease: LeaseView, tab: str = "details") -> None:
        super().__init__()
        self._lease = lease
        self._first = tab if tab in TABS else "details"

    def compose_body(self) -> ComposeResult:
        lease, link = self._lease, self.link
        yield Static("", id="instance-head", markup=False)
        with TabbedContent(initial=self._first, id="instance-tabs"):
            with TabPane(TABS["details"], id="details"), VerticalScroll(id="details-pane"):
                yield Static("", id="details-text", markup=False)
            with TabPane(TABS["graphs"], id="graphs"):
                yield GraphsPane(lease, link)
            with TabPane(TABS["logs"], id="logs"):
                yield LogsPane(lease, link)
            with TabPane(TABS["connect"], id="connect"):
                yield ConnectPane(lease, link)
            with TabPane(TABS["bill"], id="bill"):
                yield BillPane(lease)

    def on_mount(self) -> None:
        self.loaded = True  # what it was made with is true already
        self._draw()
        self.refresh_every(REFRESH_SECONDS)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())

    async def load(self) -> None:
        view: PsView = await self.link.call("ps", PsArgs(all=True))
        for lease in view.leases:
            self.lease_is(lease)
        if not any(one.lease_id == self._lease.lease_id for one in view.leases):
            raise LeaseUnknown("the daemon does not know this lease any more")

    def lease_chosen(self) -> LeaseView | None:
        return self._lease

    def lease_is(self, lease: LeaseView) -> None:
        if lease.lease_id == self._lease.lease_id and lease != self._lease:
            self._lease = lease
            self._draw()

    @on(LeaseChanged)
    def _lease_changed(self, message: LeaseChanged) -> None:
        self.lease_is(message.lease)

    @on(TabbedContent.TabActivated)
    def _tab_shown(self, event: TabbedContent.TabActivated) -> None:
        self._begin(event.pane.id or "")

    @on(ConnectPane.Shell)
    def _shell(self, message: ConnectPane.Shell) -> None:
        self.in_terminal(message.verb, self._lease.lease_id)

    def action_tab(self, tab: str) -> None:
        self.query_one("#instance-tabs", TabbedContent).active = tab
        self._begin(tab)

    def action_back(self) -> None:
        self.dismiss()

    def _begin(self, tab: str) -> None:
        """What a page needs is asked for when it is first shown."""
        if tab == "details":
            self.query_one("#details-pane").focus()
        for pane in self._panes():
            if pane.id == f"{tab}-pane":
                pane.begin()

    def _panes(self) -> tuple[GraphsPane, LogsPane, ConnectPane, BillPane]:
        ask = self.query_one
        return ask(GraphsPane), ask(LogsPane), ask(ConnectPane), ask(BillPane)

    def _draw(self) -> None:
        try:
            head = self.query_one("#instance-head", Static)
        except NoMatches:  # not composed yet
            return
        lease = self._lease
        head.update(self._head(lease))
        self.query_one("#details-text", Static).update(sheet(facts(lease)))
        for pane in self._panes():
            pane.lease = lease
        self.query_one(BillPane).draw()
        self.refresh_bindings()

    def _head(self, lease: LeaseView) -> Text:
        """ "▶ running  train  1 x RTX4090  ███░ 40 %  6,000 QU, 24,000 left"."""
        share = model.share_used(lease)
        money = f"{show.qu(model.spent(lease))} QU"
        return Text.assemble(
            status_text(lease, self.app.theme_variables),
            "  ",
            (safe_line(lease.name, 30), "bold"),
            f"  {model.what_of(lease)}  {model.bar(share, 8)} {share * 100:.0f} % of the time  {money}",
            no_wrap=True,
            overflow="ellipsis",
        )
