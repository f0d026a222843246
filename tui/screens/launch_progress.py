"""From the signed lease to "connected": every phase with its time, and the command that leads in."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Button, Static

from protocol.control import LeaseView, RunEvent, WaitArgs
from protocol.control_access import AccessArgs, AccessView
from protocol.errors import QubixError
from tui import show
from tui.messages import Ticked
from tui.places import data_dir
from tui.safe import safe_line
from tui.screens.instances_actions import LeaseActions
from tui.screens.launch_plan import Plan
from tui.ways import Way, way_of, ways_of

PHASES: Final = (
    ("quoted", "Terms signed by both sides"),
    ("funding", "Deposit locked in the escrow contract"),
    ("provisioning", "Machine prepared and the job begun"),
    ("running", "Connected"),
)
ORDER: Final = {phase: place for place, (phase, _) in enumerate(PHASES)}
UP: Final = frozenset({"running", "paused"})
OFFERED: Final = ("lease_shell", "lease_stop")
ENDED: Final = frozenset({"stopping", "settling", "done", "failed", "cancelled"})


class ProgressScreen(LeaseActions):
    """Follows one lease. The job goes on whether this is looked at or not."""

    AREA = "instances"
    HELP = (
        "Your machine is being prepared. You may leave at any time: the job goes on, and Instances shows it. "
        "Once it is connected, the command below leads into it from any terminal; Enter does it right here."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Instances"),
        Binding("c", "copy", "Copy the command"),
        *(one for one in LeaseActions.ACTIONS if isinstance(one, Binding) and one.action in OFFERED),
        Binding("a", "once_more", "Change and try again"),
    ]

    loaded = True  # with the lease that it is given

    def __init__(self, lease: LeaseView, plan: Plan | None = None) -> None:
        super().__init__()
        self._lease = lease
        self._plan = plan
        self._waiting = ""
        self._began: dict[str, float] = {}
        """Phase -> when it was first seen here, monotonic seconds."""
        self._ways: list[Way] = []

    def lease_chosen(self) -> LeaseView | None:
        return self._lease

    def lease_is(self, lease: LeaseView) -> None:
        self._lease = lease
        self._show()

    def compose_body(self) -> ComposeResult:
        yield Static("", id="progress-title", classes="launch-question", markup=False)
        with VerticalScroll(id="progress-box"):
            yield Static("", id="progress-phases", markup=False)
            yield Static("", id="progress-in", markup=False)
            yield Static("", id="progress-more", classes="launch-why", markup=False)
        with Horizontal(classes="launch-buttons"):
            yield Button("Connect", id="progress-connect", variant="success", compact=True)
            yield Button("Instances", id="progress-leave", compact=True, action="screen.leave")

    def on_mount(self) -> None:
        self._take(RunEvent(self._lease.phase, self._lease.detail, self._lease))

    async def load(self) -> None:
        self.run_worker(self._follow(), group="follow", exclusive=True)

    async def _follow(self) -> None:
        """To the lease's end, or the daemon's; then it is loaded again."""
        try:
            async with aclosing(self.link.stream("wait", WaitArgs(self._lease.lease_id))) as events:
                async for event in events:
                    self._take(event)
                    if event.phase in UP and not self._ways:
                        await self._find_ways()
        except QubixError as error:
            self._load_failed(error)

    async def _find_ways(self) -> None:
        access: AccessView = await self.link.call("access", AccessArgs(self._lease.lease_id))
        self._ways = ways_of(access.ports)
        self._show()
        self.query_one("#progress-connect").focus()

    def _take(self, event: RunEvent) -> None:
        self._lease, self._waiting = event.lease or self._lease, event.waiting
        self._began.setdefault(self._lease.phase, time.monotonic())
        self._show()

    # --- what is shown ------------------------------------------------------------------------

    @on(Ticked)
    def _show(self) -> None:
        lease = self._lease
        self.query_one("#progress-title", Static).update(_title(lease))
        self.query_one("#progress-phases", Static).update(self._phases())
        self.query_one("#progress-in", Static).update(self._way_in())
        self.query_one("#progress-more", Static).update(self._more())
        self.query_one("#progress-connect").display = bool(self._ways) and lease.phase in UP
        self.refresh_bindings()

    def _phases(self) -> Text:
        text, reached = Text(), self._reached()
        for place, (phase, words) in enumerate(PHASES):
            if place < reached or self._lease.phase in UP:
                text.append(f"  done  {words}{self._seconds(phase)}\n")
            elif place > reached:
                text.append(f"  -     {words}\n", "dim")
            elif self._lease.phase in ENDED:
                text.append(f"  ended {words}\n", "bold")
            else:
                text.append(f"  now   {words}{self._seconds(phase)}\n", "bold")
                text.append(f"        {safe_line(self._waiting or self._lease.detail, 200)}\n")
        text.rstrip()
        return text

    def _reached(self) -> int:
        """The place of the phase it is in, or of the last one that it was seen in."""
        if self._lease.seconds and self._lease.phase in ENDED:
            return len(PHASES)
        return max(ORDER[one] for one in (*self._began, "quoted") if one in ORDER)

    def _seconds(self, phase: str) -> str:
        """How long it took or takes, as far as it was seen from here."""
        if phase not in self._began or phase in UP:
            return ""
        later = [at for at in self._began.values() if at > self._began[phase]]
        seconds = min(later, default=time.monotonic()) - self._began[phase]
        return f", {seconds:.1f} s" if later else f", {int(seconds)} s"

    def _way_in(self) -> Text:
        text = Text()
        if self._lease.phase in UP and self._ways:
            chosen = self._chosen()
            text.append(f"{self._line(chosen)}\n", "bold")
            text.append(f"{chosen.says}; Enter does it here, c copies the command.\n")
            for way in self._ways:
                if way is not chosen:
                    command = way.line(self._lease.lease_id)
                    text.append(f"  {command:26} {way.says}\n", "dim")
            if " --data-dir " in self._line(chosen):
                text.append("  (these with the same --data-dir)\n", "dim")
        return text

    def _more(self) -> str:
        lease = self._lease
        if lease.phase in ENDED:
            paid = f"Paid {show.qu(lease.paid)} QU, {show.qu(lease.refunded)} QU came back."
            where = f" What it left is in {safe_line(lease.output_dir, 200)}." if lease.outputs_sha256 else ""
            return f"{safe_line(lease.sentence, 400)}\n{paid}{where}"
        return (
            f"{show.qu(lease.promised)} of {show.qu(lease.deposit)} QU promised so far, "
            f"{show.qu(lease.price_qu_per_hour)} QU per hour. "
            f"You can lose at most {show.qu(lease.max_loss_qu)} QU."
        )

    def _chosen(self) -> Way:
        return way_of(self._ways, self._plan.way if self._plan else "")

    def _line(self, way: Way) -> str:
        """As it works in any terminal of this machine."""
        elsewhere = self.qubix.directory != data_dir(None)
        chosen = f" --data-dir {shlex.quote(str(self.qubix.directory))}" if elsewhere else ""
        return way.line(self._lease.lease_id) + chosen

    # --- what the person does -----------------------------------------------------------------

    @on(Button.Pressed, "#progress-connect")
    def _connect(self) -> None:
        self.in_terminal(*self._chosen().words(self._lease.lease_id))

    def action_leave(self) -> None:
        self.app.pop_screen()
        self.qubix.action_area("instances")

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._line(self._chosen()))
        self.app.notify("The command is in the clipboard, if your terminal allows it.", markup=False)

    def action_once_more(self) -> None:
        from tui.screens.launch import LaunchScreen  # each leads to the other

        self.app.switch_screen(LaunchScreen(plan=self._plan))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        shown: dict[str, Callable[[], bool]] = {
            "copy": lambda: bool(self._ways) and self._lease.phase in UP,
            "once_more": lambda: self._plan is not None and self._lease.phase in ("failed", "cancelled"),
        }
        return shown[action]() if action in shown else super().check_action(action, parameters)


def _title(lease: LeaseView) -> str:
    words = {"done": "It has ended well", "failed": "It failed", "cancelled": "It was cancelled"}
    name, short = safe_line(lease.name, 40), lease.lease_id[:8]
    what = words.get(lease.phase) or ("Connected" if lease.phase in UP else "On its way")
    return f"{what}: {name} ({short}) on {safe_line(lease.gpu, 40)}"
