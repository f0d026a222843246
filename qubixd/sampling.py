"""The provider's meter: once a second, what every running job uses, all of them in one go.

Processor, memory, traffic and disk come from the runner, the cards' figures from whoever watches the GPUs.
A job that stays idle for as long as its terms allow is told to its lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from protocol import lease_model as m
from protocol.errors import QubixError
from protocol.lease_state import LIVE, Lease, Phase, Role
from protocol.messages import GpuUse, Sample
from protocol.units import LeaseId, UnixMs
from qubixd.idle import NOT_IDLE, Idleness, after, passed_over
from qubixd.leases import Clock, Leases
from qubixd.meters import Meters
from qubixd.runner import Usage

log = logging.getLogger("qubix.meters")

ROUND_SECONDS: Final = 1.0
CARDS_LATE_SECONDS: Final = 2.0
"""Figures of cards are means of the last second or so, and up to a second old."""
MIB: Final = 1 << 20
MAX_COUNT32: Final = 2**32 - 1
MAX_SIZE: Final = 2**53

Gpus = Callable[[], Mapping[bytes, GpuUse]]
"""The newest figures of this machine's cards, by digest; old ones are left out."""


class Used(Protocol):
    """Whoever knows what leases use: a runner, a relay, or both."""

    async def usage(self, leases: Collection[LeaseId]) -> dict[LeaseId, Usage]: ...


Disturbed = Callable[[LeaseId, float], bool]
"""Whether others (a proof of the machine) have computed in a job since an instant of trio's clock."""


@dataclass(frozen=True)
class Counted:
    """What was counted of a job when it was looked at last."""

    at_ns: int
    """Of a clock that never jumps."""
    usage: Usage
    received_before: int = 0
    sent_before: int = 0
    """By devices that are no more: a network that is made anew counts from 0."""


def next_count(before: Counted | None, usage: Usage, at_ns: int) -> Counted:
    if before is None:
        return Counted(at_ns, usage)
    received, sent = before.received_before, before.sent_before
    if usage.received_bytes < before.usage.received_bytes or usage.sent_bytes < before.usage.sent_bytes:
        received, sent = received + before.usage.received_bytes, sent + before.usage.sent_bytes
    return Counted(at_ns, usage, received, sent)


def sample_of(before: Counted, now: Counted, at: UnixMs, gpus: tuple[GpuUse, ...]) -> Sample | None:
    """What was used between two looks; None if the job was begun anew in between."""
    used_ns, passed_ns = now.usage.cpu_ns - before.usage.cpu_ns, now.at_ns - before.at_ns
    if used_ns < 0 or passed_ns <= 0:
        return None
    usage = now.usage
    return Sample(
        at=at,
        cpu_millis=min(MAX_COUNT32, round(used_ns * 1_000 / passed_ns)),
        memory_mib=min(MAX_COUNT32, -(-usage.memory_bytes // MIB)),
        disk_mib=min(MAX_COUNT32, -(-(usage.disk_bytes or 0) // MIB)),
        received_bytes=min(MAX_SIZE, now.received_before + usage.received_bytes),
        sent_bytes=min(MAX_SIZE, now.sent_before + usage.sent_bytes),
        gpus=gpus,
    )


@dataclass
class Sampler:
    """Samples the jobs that this node runs for others."""

    leases: Leases
    meters: Meters
    runner: Used
    now_ms: Clock
    gpus: Gpus
    disturbed: Disturbed = lambda lease_id, since: False
    counted: dict[LeaseId, Counted] = field(default_factory=dict)
    idle: dict[LeaseId, Idleness] = field(default_factory=dict)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """A round a second until cancelled; one that takes longer delays the next."""
        task_status.started()
        while True:
            began = trio.current_time()
            await self.round()
            await trio.sleep_until(max(trio.current_time(), began + ROUND_SECONDS))

    async def round(self) -> None:
        """One look at all jobs that run. What cannot be read now is left out; nobody is idle for that."""
        running = {one.lease_id: one for one in self.leases.active() if _is_metered(one)}
        for known in (self.counted, self.idle):
            for gone in known.keys() - running.keys():
                known.pop(gone, None)
        if not running:
            return
        try:
            usage = await self.runner.usage(running.keys())
        except QubixError as error:
            log.debug("what jobs use is not known just now: %s", error)
            return
        at_ns, cards = round(trio.current_time() * 1e9), self.gpus()
        for lease_id, used in usage.items():
            if lease_id in running:
                await self._look(running[lease_id], used, at_ns, cards)

    async def _look(self, lease: Lease, usage: Usage, at_ns: int, cards: Mapping[bytes, GpuUse]) -> None:
        before = self.counted.get(lease.lease_id)
        now = self.counted[lease.lease_id] = next_count(before, usage, at_ns)
        if before is None:
            return
        gpus = tuple(cards[digest] for digest in lease.terms.gpu_digests if digest in cards)
        sample = sample_of(before, now, self.now_ms(), gpus)
        if sample is not None and self.meters.add(lease.lease_id, sample):
            disturbed = self.disturbed(lease.lease_id, before.at_ns / 1e9 - CARDS_LATE_SECONDS)
            await self._watch_idle(lease, sample, disturbed=disturbed)

    async def _watch_idle(self, lease: Lease, sample: Sample, *, disturbed: bool) -> None:
        terms = lease.terms
        if not terms.idle_seconds or lease.phase is not Phase.RUNNING or lease.frozen:
            self.idle.pop(lease.lease_id, None)
            return
        before = self.idle.get(lease.lease_id, NOT_IDLE)
        now = passed_over(before, sample) if disturbed else after(before, sample, terms)
        self.idle[lease.lease_id] = now
        if now.idle_ms() >= terms.idle_seconds * 1_000:
            await self.leases.feed(lease.lease_id, m.RunIdle(self.now_ms()))


def _is_metered(lease: Lease) -> bool:
    return lease.role is Role.PROVIDER and lease.phase in LIVE and not lease.exited
