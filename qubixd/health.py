"""Watches the GPUs of this machine: samples them every second and says which are not fit to be rented.

The libraries are asked in a thread, because a call can take long and, with a driver that hangs, forever. The
thread is then left behind; until it comes back every card counts as lost.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import trio

from protocol.errors import QubixError
from protocol.messages import Capacity
from protocol.units import UnixMs
from qubixd.hardware import Gpu, GpuSample, Session, Vitals
from qubixd.hardware.procfs import DRIVER, disagreements
from qubixd.health_rules import Finding, Memory, Program, Round, judge, unfit
from qubixd.machine import without

log = logging.getLogger("qubix.health")

ROUND_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 10.0
"""A card that wakes up takes a second or two."""
COMPARE_EVERY: Final = 60
"""Rounds from one look into the kernel's own list of the cards to the next."""
ASK_EVERY: Final = 10
"""Rounds after which the engine is asked again about a container that it did not know as a job's."""
_CONTAINER: Final = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")

Tenants = Callable[[], Awaitable[Mapping[str, frozenset[str]]]]
"""Container id -> UUIDs of the GPUs of the job in it. QubixError if the engine does not answer."""


@dataclass(frozen=True)
class _Look:
    """What the thread brings."""

    gpus: tuple[Gpu, ...]
    samples: tuple[GpuSample, ...]
    vitals: tuple[Vitals, ...]
    programs: Mapping[int, Program]
    disagreements: Mapping[str, str] | None
    """None if the kernel was not asked this time."""


class Health:
    """What is known of the GPUs now."""

    def __init__(
        self,
        rented: Callable[[], frozenset[str]],
        tenants: Tenants | None,
        now_ms: Callable[[], UnixMs],
        *,
        expected: Collection[str] = (),
        round_seconds: float = ROUND_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        driver: Path = DRIVER,
        proc: Path = Path("/proc"),
    ) -> None:
        """`rented`: UUIDs of the GPUs that leases hold now. Without `tenants` (jobs without containers) no
        process counts as foreign. `expected`: UUIDs of the GPUs that the offer names."""
        self.samples: dict[str, GpuSample] = {}
        """Newest of each card that answers, by UUID."""
        self.sampled_at = UnixMs(0)
        self.unfit: dict[str, tuple[Finding, ...]] = {}
        """By UUID: why a card is not offered."""
        self.on_round: list[Callable[[], None]] = []
        """Called after each round, with new samples or none."""
        self.on_change: list[Callable[[], None]] = []
        """Called when other cards are unfit than before, or for other reasons."""
        self._rented, self._tenants_now, self._now_ms = rented, tenants, now_ms
        self._round_seconds, self._patience = round_seconds, patience_seconds
        self._driver, self._proc = driver, proc
        self._session = Session(expected)
        self._in_use = threading.Lock()
        self._memory: Memory = {}
        self._tenants: Mapping[str, frozenset[str]] = {}
        self._strange: frozenset[str] = frozenset()
        self._gpus: tuple[Gpu, ...] = ()
        self._known = frozenset(expected)
        self._disagreements: Mapping[str, str] = {}
        self._rounds = 0

    def fit(self, capacity: Capacity) -> Capacity:
        """What of it can be offered now."""
        return without(capacity, self.unfit)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; started once the first round is judged. Ends at once where there is no GPU."""
        try:
            await self._in_thread(self._session.open)
            await self._go_on(task_status)
        finally:
            with trio.CancelScope(shield=True):
                await self._in_thread(self._session.close)

    async def _go_on(self, task_status: trio.TaskStatus[None]) -> None:
        while True:
            began = trio.current_time()
            await self.round()
            if self._rounds == 1:
                task_status.started()
                if not self._known:
                    return
            await trio.sleep_until(began + self._round_seconds)

    async def round(self) -> None:
        """One look, judged and told."""
        look = await self._in_thread(self._look)
        self._rounds += 1
        seen = self._silent() if look is None else await self._seen(look)
        self.samples = dict(seen.samples)
        self.sampled_at = self._now_ms()
        self._memory = judge(self._memory, seen)
        before, self.unfit = self.unfit, unfit(self._memory)
        for tell in self.on_round:
            tell()
        if _codes(before) != _codes(self.unfit):
            self._log(before)
            for tell in self.on_change:
                tell()

    # One look -------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T | None:
        """None if it takes too long, or another call that took too long is not back yet."""

        def alone() -> T | None:
            if not self._in_use.acquire(blocking=False):
                return None
            try:
                return work()
            finally:
                self._in_use.release()

        with trio.move_on_after(self._patience):
            return await trio.to_thread.run_sync(alone, abandon_on_cancel=True)
        return None

    def _look(self) -> _Look:
        """In the thread."""
        samples, vitals = self._session.sample(), self._session.vitals()
        gpus = self._session.gpus
        compare = self._rounds % COMPARE_EVERY == 0
        return _Look(
            gpus=gpus,
            samples=samples,
            vitals=vitals,
            programs=programs((one.pid for card in samples for one in card.processes or ()), self._proc),
            disagreements=disagreements(gpus, self._driver) if compare else None,
        )

    async def _seen(self, look: _Look) -> Round:
        self._gpus = look.gpus
        self._known = frozenset(one.uuid for one in look.vitals)
        if look.disagreements is not None:
            self._disagreements = look.disagreements
        await self._know_tenants(frozenset(one.container for one in look.programs.values() if one.container))
        return Round(
            gpus=look.gpus,
            samples={one.uuid: one for one in look.samples},
            vitals={one.uuid: one for one in look.vitals},
            rented=self._rented(),
            tenants=self._tenants if self._tenants_now else None,
            programs=look.programs,
            disagreements=self._disagreements,
        )

    def _silent(self) -> Round:
        lost = f"its driver has not answered for {self._patience:g} s"
        return Round(
            gpus=self._gpus,
            samples={},
            vitals={uuid: Vitals(uuid, lost=lost) for uuid in self._known},
            disagreements=self._disagreements,
        )

    async def _know_tenants(self, containers: frozenset[str]) -> None:
        """Ask the engine about a container that is not known as a job's, but not every second about one that
        somebody else has here."""
        strange = containers - self._tenants.keys()
        due = strange != self._strange or self._rounds % ASK_EVERY == 0
        if self._tenants_now and strange and due:
            try:
                self._tenants = await self._tenants_now()
            except QubixError as error:
                log.debug("whose containers use GPUs is not known: %s", error)
        self._strange = containers - self._tenants.keys()

    def _log(self, before: Mapping[str, tuple[Finding, ...]]) -> None:
        for uuid, findings in self.unfit.items():
            for finding in findings:
                if finding.code not in {one.code for one in before.get(uuid, ())}:
                    log.warning("GPU %s is not offered: %s [%s]", uuid, finding.sentence, finding.code)
        for uuid in before.keys() - self.unfit.keys():
            log.info("GPU %s is offered again", uuid)


def programs(pids: Iterable[int], proc: Path = Path("/proc")) -> dict[int, Program]:
    """Who these processes are; those are left out that have ended, or that this process cannot see."""
    found = {}
    for pid in set(pids):
        try:
            name = (proc / str(pid) / "comm").read_text(errors="replace").strip()
            groups = (proc / str(pid) / "cgroup").read_text(errors="replace")
        except OSError:
            continue
        # The innermost: this machine may be a container itself.
        containers = _CONTAINER.findall(groups)
        found[pid] = Program(name, containers[-1] if containers else "")
    return found


def _codes(findings: Mapping[str, tuple[Finding, ...]]) -> dict[str, list[str]]:
    return {uuid: [one.code for one in all_of] for uuid, all_of in findings.items()}
