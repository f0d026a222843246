"""What can be done to a lease, from the table and from its own page: stop, pause, restart, a shell, another.

    class Page(AreaScreen, LeaseActions):
        def lease_chosen(self) -> LeaseView | None: ...
        def lease_is(self, lease: LeaseView) -> None: ...

Keys whose action makes no sense now are not shown.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final

from textual.app import SuspendNotSupported
from textual.binding import Binding, BindingType

from protocol import control
from protocol.control import LeaseView, PauseArgs, RestartArgs, ResumeArgs, RunEvent, StopArgs
from protocol.control_again import JobFileArgs, JobFileView
from protocol.errors import QubixError
from tui import show
from tui.areas import PAGES
from tui.safe import safe_line
from tui.screens import instances_model as model
from tui.screens.area import AreaScreen
from tui.screens.confirm import Confirm
from tui.screens.instances_work import begin

BACK: Final = "\nPress Enter to go back. "
IN_JOB: Final = "\nThis terminal is in the job now; `exit` leads back to qubix.\n"
NEEDS_LIVE: Final = frozenset({"lease_shell", "lease_pause", "lease_restart", "lease_more"})
NEEDS_ACTIVE: Final = frozenset({"lease_stop"})
MORE: Final = "instance_more"
"""The page in tui/areas.py that rents more time; takes `lease`. Without page or verb its key is hidden."""


class LeaseActions(AreaScreen):
    """A screen that has one lease to act on at a time."""

    ACTIONS: ClassVar[list[BindingType]] = [
        Binding("t", "lease_shell", "Shell"),
        Binding("s", "lease_stop", "Stop"),
        Binding("p", "lease_pause", "Pause"),
        Binding("r", "lease_restart", "Restart"),
        Binding("e", "lease_more", "More time"),
        Binding("g", "lease_again", "Run again"),
    ]

    def lease_chosen(self) -> LeaseView | None:
        """The lease that the keys act on."""
        return None

    def lease_is(self, lease: LeaseView) -> None:
        """The daemon has said how it is now."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "lease_more" and not ("extend" in control.VERBS and MORE in PAGES):
            return False
        lease = self.lease_chosen()
        if action == "lease_again":
            return lease is not None and _can_run_again(lease)
        if action in NEEDS_LIVE | NEEDS_ACTIVE and (lease is None or lease.phase in model.ENDED):
            return False
        if action in NEEDS_LIVE and lease is not None:
            return lease.phase in model.LIVE and not model.is_relay(lease)
        return True

    def action_lease_stop(self) -> None:
        self._on_chosen(self._stop)

    def action_lease_restart(self) -> None:
        self._on_chosen(self._restart)

    def action_lease_pause(self) -> None:
        self._on_chosen(self._pause)

    def action_lease_more(self) -> None:
        self.qubix.open_page(MORE, lease=self.lease_chosen())

    def action_lease_again(self) -> None:
        self._on_chosen(self._again)

    async def _again(self, lease: LeaseView) -> None:
        """The wizard's last step with the same job file: another quote, and nothing signed before a yes."""
        try:
            kept: JobFileView = await self.link.call("job_file", JobFileArgs(lease.lease_id))
        except QubixError as error:
            self.say_error(error)
        else:
            self.qubix.open_page("launch", again=kept)

    def action_lease_shell(self) -> None:
        lease = self.lease_chosen()
        if lease is not None:
            self.in_terminal("attach", lease.lease_id)

    def in_terminal(self, *words: str) -> None:
        """A verb of the command line with the whole terminal, until it ends."""
        command = [sys.executable, "-P", "-m", "tui.cli", *words, "--data-dir", str(self.qubix.directory)]
        try:
            with self.app.suspend():
                sys.stdout.write(IN_JOB)
                sys.stdout.flush()
                if subprocess.run(command, check=False).returncode:
                    input(BACK)  # else nobody could read why it failed
        except SuspendNotSupported:
            self.notify("This terminal cannot be lent to a shell.", severity="warning", markup=False)
        except EOFError:
            pass  # there is nobody to press Enter
        self.refresh()

    # --- the machinery ------------------------------------------------------------------------

    def _on_chosen(self, act: Callable[[LeaseView], Any]) -> None:
        lease = self.lease_chosen()
        if lease is not None:
            begin(self, "act", partial(act, lease))

    async def _stop(self, lease: LeaseView) -> None:
        question = f"Stop {safe_line(lease.name, 40)}?"
        consequences = (
            f"The job ends and its outputs are fetched. You pay {show.qu(model.spent(lease))} QU so far; "
            f"the rest of the deposit, about {show.qu(model.money_left(lease))} QU, comes back."
        )
        if await self.app.push_screen_wait(Confirm(question, consequences, yes="Stop it", no="Let it run")):
            await self._ask(lease, "stop", StopArgs(lease.lease_id), "is being stopped")

    async def _restart(self, lease: LeaseView) -> None:
        question = f"Restart {safe_line(lease.name, 40)}?"
        consequences = "The job is ended and begun anew in its workspace. The meter runs on meanwhile."
        if await self.app.push_screen_wait(
            Confirm(question, consequences, yes="Restart it", no="Leave it alone")
        ):
            await self._ask(lease, "restart", RestartArgs(lease.lease_id), "is begun anew")

    async def _pause(self, lease: LeaseView) -> None:
        if lease.frozen:
            await self._ask(lease, "resume", ResumeArgs(lease.lease_id), "goes on")
        else:
            args, done = PauseArgs(lease.lease_id), "is paused; the machine stays yours and the meter runs on"
            await self._ask(lease, "pause", args, done)

    async def _ask(self, lease: LeaseView, verb: str, args: object, done: str) -> None:
        try:
            answer: RunEvent = await self.link.call(verb, args)
        except QubixError as error:
            self.say_error(error)
            return
        self.notify(f"{safe_line(lease.name, 40)} {done}.", markup=False)
        if answer.lease is not None:
            self.lease_is(answer.lease)


def _can_run_again(lease: LeaseView) -> bool:
    return lease.phase in model.ENDED and lease.role == "caller" and not model.is_relay(lease)
