"""The area Instances: every job that this node has rented a machine for, going on and past."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.css.query import NoMatches
from textual.widgets import DataTable, Static

from protocol.control import LeaseView, PsArgs, PsView
from tui import show
from tui.messages import LeaseChanged
from tui.safe import safe_line
from tui.screens import instances_model as model
from tui.screens.instances_actions import LeaseActions
from tui.screens.instances_facts import brief, status_text

REFRESH_SECONDS: Final = 5.0
MAX_ROWS: Final = 1_000
BAR_CHARS: Final = 8
Columns = dict[str, int]
FEW: Final[Columns] = {"state": 14, "job": 0, "machine": 12, "time used": 14, "cost QU": 11}
MANY: Final[Columns] = {
    "state": 14, "job": 0, "machine": 14, "started": 11, "time used": 14, "cost QU": 13, "QU/h": 11,
}  # fmt: skip
JOB_CHARS: Final = (12, 40)
"""The job's name has what the others leave, within these."""
NUMBERS: Final = frozenset({"cost QU", "QU/h"})
WIDE_COLUMNS: Final = 160
BRIEF_CHARS: Final = 56
"""Of the pane beside the table, where there is room beside it."""


class InstancesScreen(LeaseActions):
    """The table, and what is marked in it in a few more words."""

    AREA = "instances"
    HELP = (
        "Your instances: a rented machine and the job on it, each with its state, how much of the rented "
        "time is used and what it has cost so far. Mark one and press Enter for graphs, logs, the ways to "
        "connect and the bill; t opens a shell in it at once. n begins a new job, g the same as an ended one."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", priority=True),
        Binding("l", "open('logs')", "Logs"),
        *LeaseActions.ACTIONS,
        Binding("a", "toggle_all", "All/active"),
        Binding("k", "keys", "Keys"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._known = False
        """Whether the daemon has said what there is."""
        self._leases: list[LeaseView] = []
        self._rows: list[LeaseView] = []
        self._all = True
        self._columns: Columns = {}

    def compose_body(self) -> ComposeResult:
        yield Static("", id="instances-statistics", markup=False)
        with Container(id="instances-main"):
            table: DataTable[Text] = DataTable(id="instances-table", cursor_type="row", zebra_stripes=True)
            yield table
            with VerticalScroll(id="instances-brief", can_focus=False), Vertical():
                yield Static("", id="instances-brief-text", markup=False)

    def on_mount(self) -> None:
        self.refresh_every(REFRESH_SECONDS)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw(anew=True))

    async def load(self) -> None:
        view: PsView = await self.link.call("ps", PsArgs(all=True))
        self._leases = model.ordered(view.leases)
        self._known = True
        self._draw()

    def lease_chosen(self) -> LeaseView | None:
        try:
            row = self.query_one("#instances-table", DataTable).cursor_row
        except NoMatches:  # asked before there is a table
            return None
        return self._rows[row] if 0 <= row < len(self._rows) else None

    def lease_is(self, lease: LeaseView) -> None:
        if lease.role != "caller":
            return
        others = [one for one in self._leases if one.lease_id != lease.lease_id]
        self._leases = model.ordered([lease, *others])
        self._draw()

    # --- what happens -------------------------------------------------------------------------

    @on(LeaseChanged)
    def _lease_changed(self, message: LeaseChanged) -> None:
        self.lease_is(message.lease)

    @on(DataTable.RowHighlighted)
    def _marked(self) -> None:
        self._show_brief()

    @on(DataTable.RowSelected)
    def _clicked(self) -> None:
        self.action_open()

    def on_resize(self) -> None:
        if self._columns and self._columns != self._fitting():
            self._draw(anew=True)

    def action_open(self, tab: str = "details") -> None:
        lease = self.lease_chosen()
        if lease is not None:
            self.qubix.open_page("instance", lease=lease, tab=tab)

    def action_toggle_all(self) -> None:
        self._all = not self._all
        self._draw()

    def action_keys(self) -> None:
        self.qubix.open_page("ssh_keys")

    # --- what is shown ------------------------------------------------------------------------

    def _fitting(self) -> Columns:
        width = self.app.size.width - (BRIEF_CHARS if self.app.size.width >= WIDE_COLUMNS else 0)
        return fitting(width)

    def _draw(self, *, anew: bool = False) -> None:
        if not self._known:
            return
        if not self._leases:
            self.show_state("empty", "No instance yet.", "Press n to rent a machine for a first job.")
            return
        self.show_body()
        chosen = self.lease_chosen()
        shown = [one for one in self._leases if self._all or one.phase not in model.ENDED][:MAX_ROWS]
        same = [one.lease_id for one in shown] == [one.lease_id for one in self._rows]
        before, self._rows = self._rows, shown
        table = self.query_one("#instances-table", DataTable)
        if same and not anew and self._columns:
            self._update(table, before)
        else:
            self._fill(table, chosen)
        self.query_one("#instances-statistics", Static).update(self._statistics())
        self._show_brief()

    def _update(self, table: DataTable[Text], before: Sequence[LeaseView]) -> None:
        for old, new in zip(before, self._rows, strict=True):
            if old != new:
                for name, cell in zip(self._columns, self._row(new), strict=True):
                    table.update_cell(new.lease_id, name, cell)

    def _fill(self, table: DataTable[Text], chosen: LeaseView | None) -> None:
        self._columns = self._fitting()
        table.clear(columns=True)
        for name, width in self._columns.items():
            label = Text(name, justify="right" if name in NUMBERS else "left")
            table.add_column(label, width=width, key=name)
        for lease in self._rows:
            table.add_row(*self._row(lease), key=lease.lease_id)
        ids = [one.lease_id for one in self._rows]
        if chosen is not None and chosen.lease_id in ids:
            table.move_cursor(row=ids.index(chosen.lease_id), scroll=True)

    def _row(self, lease: LeaseView) -> list[Text]:
        widths = self._columns
        share = model.share_used(lease)
        used = f"{model.bar(share, BAR_CHARS)} {share * 100:3.0f} %"
        cells = {
            "state": status_text(lease, self.app.theme_variables),
            "job": Text(safe_line(lease.name, widths["job"]) or "-"),
            "machine": Text(model.what_of(lease)),
            "started": Text(model.started(lease, round(time.time() * 1_000))),
            "time used": Text(used),
            "cost QU": Text(show.qu(model.spent(lease)), justify="right"),
            "QU/h": Text(show.qu(lease.price_qu_per_hour), justify="right"),
        }
        return [cells[name] for name in widths]

    def _statistics(self) -> str:
        words = model.statistics(self._leases).words()
        hidden = len(self._leases) - len(self._rows)
        return f"{words} · {hidden} ended hidden" if hidden else words

    def _show_brief(self) -> None:
        lease = self.lease_chosen()
        pane = self.query_one("#instances-brief-text", Static)
        if lease is None:
            pane.update("Nothing goes on now; a shows what has ended.")
        else:
            wide = self.app.size.width >= WIDE_COLUMNS
            pane.update(brief(lease, self.app.theme_variables, all_of_it=wide))
        self.refresh_bindings()


def fitting(width: int) -> Columns:
    """The columns for a table of so many characters; beside each are two of padding, and two for the bar."""
    for columns in (MANY, FEW):
        left = width - sum(columns.values()) - 2 * len(columns) - 2
        if left >= JOB_CHARS[0] or columns is FEW:
            return columns | {"job": max(JOB_CHARS[0], min(JOB_CHARS[1], left))}
    raise AssertionError("FEW always fits")
