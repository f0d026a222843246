"""The area Provider: what this machine earns, its cards and their health, jobs, price and hours."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Static, TabbedContent, TabPane

from protocol.control import StopArgs
from protocol.control_provider import JobView, ProviderArgs, ProviderView
from protocol.errors import ConfigInvalid, QubixError
from protocol.lease_state import TERMINAL
from tui import show
from tui.safe import safe_line
from tui.screens import provider_view as shown
from tui.screens.area import AreaScreen
from tui.screens.confirm import Confirm
from tui.screens.filling import Column, Row, fill

REFRESH_SECONDS: Final = 3.0
OFFERS_NOTHING: Final = "This machine offers nothing yet."
HOW_TO_OFFER: Final = (
    "To earn with it: `qubix down`, then\n`qubix up --provider --detach`.\n\n"
    "What is found of it, a price and whatever is missing are then shown here. Jobs of your own go on "
    "meanwhile."
)


class DayChart(Static):
    """The last days as bars; drawn anew for every size."""

    def __init__(self) -> None:
        super().__init__(id="provider-chart", markup=False)
        self.view: ProviderView | None = None

    def render(self) -> Text:
        if self.view is None:
            return Text("")
        colour = self.app.theme_variables["success"]
        return shown.day_chart(self.view.earnings.days, self.size.width, self.size.height, colour)


class ProviderScreen(AreaScreen):
    AREA = "provider"
    HELP = (
        "Your machine as others rent it. Above: whether jobs come and if not why, what was earned, the price "
        "now. p pauses and resumes; what runs goes on either way. e sets the price and the opening hours, "
        "with a preview of what a week would bring. g, j, d and i show the cards, the jobs, the days and the "
        "machine; x ends the marked job and you are paid up to that second."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "Pause/resume"),
        Binding("e", "edit", "Price & hours"),
        Binding("d", "tab('days')", "Days", show=False),
        Binding("g", "tab('gpus')", "GPUs", show=False),
        Binding("j", "tab('jobs')", "Jobs", show=False),
        Binding("i", "tab('machine')", "Machine", show=False),
        Binding("x", "end_job", "End job"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.view: ProviderView | None = None

    def compose_body(self) -> ComposeResult:
        yield Static("", id="provider-title", markup=False)
        yield Static("", id="provider-why", markup=False)
        yield Static("", id="provider-figures", markup=False)
        with TabbedContent(id="provider-tabs", initial="days"):
            with TabPane("d Days", id="days"):
                yield DayChart()
                yield Static("", id="provider-days", markup=False)
            with TabPane("g GPUs", id="gpus"):
                yield Static("", id="provider-no-gpus", markup=False)
                yield DataTable[Text](id="provider-gpus", cursor_type="row", zebra_stripes=True)
            with TabPane("j Jobs", id="jobs"):
                yield Static("", id="provider-no-jobs", markup=False)
                yield DataTable[Text](id="provider-jobs", cursor_type="row", zebra_stripes=True)
            with TabPane("i Machine", id="machine"), VerticalScroll():
                yield Static("", id="provider-machine", markup=False)

    def on_mount(self) -> None:
        self.refresh_every(REFRESH_SECONDS)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())

    def on_resize(self) -> None:
        self._draw()

    async def load(self) -> None:
        try:
            self.view = await self.link.call("provider", ProviderArgs())
        except ConfigInvalid:
            self.view = None
            self.show_state("empty", OFFERS_NOTHING, HOW_TO_OFFER)
            return
        self._draw()

    # --- what is shown ------------------------------------------------------------------------

    def _draw(self) -> None:
        view = self.view
        if view is None or not self.is_mounted:
            return
        width, colours = max(20, self.size.width - 2), self.app.theme_variables
        self.query_one("#provider-title", Static).update(shown.title(view, width, colours))
        why = self.query_one("#provider-why", Static)
        why.update(shown.hindrances(view.shop, colours))
        why.display = bool(view.shop.hindrances)
        self.query_one("#provider-figures", Static).update(shown.figures(view))
        chart = self.query_one(DayChart)
        chart.view = view
        chart.refresh()
        self.query_one("#provider-days", Static).update(shown.days_in_words(view.earnings.days))
        self.query_one("#provider-machine", Static).update(shown.machine(view))
        gpus = shown.gpu_rows(view.machine.gpus, colours)
        self._fill("gpus", shown.GPU_COLUMNS, gpus, "No GPU here: the machine is rented by its processor.")
        jobs = shown.job_rows(view, colours)
        self._fill("jobs", shown.JOB_COLUMNS, jobs, "No job has come yet. Nothing has to be done for it.")
        self.refresh_bindings()

    def _fill(self, name: str, columns: tuple[Column, ...], rows: list[Row], none: str) -> None:
        table, words = self.query_one(f"#provider-{name}", DataTable), self.query_one(f"#provider-no-{name}")
        words.display, table.display = not rows, bool(rows)
        self.query_one(f"#provider-no-{name}", Static).update(none)
        fill(table, columns, rows, self.size.width)

    # --- what can be done ---------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that could do nothing are not shown."""
        if action in ("pause", "edit", "tab"):
            return self.view is not None
        if action == "end_job":
            return self._job() is not None
        return True

    def on_tabbed_content_tab_activated(self) -> None:
        self.refresh_bindings()

    def on_data_table_row_highlighted(self) -> None:
        self.refresh_bindings()

    def action_tab(self, name: str) -> None:
        self.query_one(TabbedContent).active = name
        if name in ("gpus", "jobs"):
            self.query_one(f"#provider-{name}").focus()

    @work(exclusive=True, group="pause")
    async def action_pause(self) -> None:
        if self.view is None:
            return
        try:
            self.view = await self.link.call("provider", ProviderArgs(not self.view.shop.paused))
        except QubixError as error:
            self.say_error(error)
            return
        self._draw()
        paused, running = self.view.shop.paused, len(self.view.jobs)
        goes = f" {running} here go on." if running else ""
        self.app.notify(f"Paused: no new jobs are taken.{goes}" if paused else "Jobs are taken again.")

    def action_edit(self) -> None:
        if self.view is not None:
            self.qubix.open_page("provider_hours", shop=self.view.shop)

    def _job(self) -> JobView | None:
        """The marked one, while it can be ended."""
        if self.view is None or not self.is_mounted or self.query_one(TabbedContent).active != "jobs":
            return None
        row = self.query_one("#provider-jobs", DataTable).cursor_row
        jobs = [*self.view.jobs, *self.view.ended]
        return jobs[row] if row < len(jobs) and jobs[row].phase not in TERMINAL else None

    @work(exclusive=True, group="end")
    async def action_end_job(self) -> None:
        job = self._job()
        if job is None:
            return
        short = show.short_id(job.lease_id)
        sure = Confirm(
            f"End the job {short} ({safe_line(job.image, 40)})?",
            "Its caller pays for the time up to now and keeps the rest. Ending jobs lowers your score.",
            yes="End the job",
            no="Let it run",
        )
        if not await self.app.push_screen_wait(sure):
            return
        try:
            await self.link.call("stop", StopArgs(job.lease_id))
        except QubixError as error:
            self.say_error(error)
            return
        self.app.notify(f"The job {short} is being ended.")
        self.reload()
