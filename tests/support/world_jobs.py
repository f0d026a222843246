"""The world's jobs and its clock: a Runner whose jobs outlive the daemon, in virtual time.

A job's script is two numbers: how many seconds it runs, and the code it exits with.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field
from typing import Final

import trio

from protocol.errors import ImageUnavailable, JobMissing
from protocol.images import LocalImage
from protocol.units import LeaseId, UnixMs
from qubixd.runner import ExitReason, JobExit, JobState, JobStatus, Progress, RunSpec, Stock, Usage

EPOCH_MS: Final = 1_800_000_000_000


def now_ms() -> UnixMs:
    return UnixMs(EPOCH_MS + round(trio.current_time() * 1_000))


def job(*, seconds: float = 5, exit_code: int = 0, hours: float = 1, extra: str = "") -> str:
    """A job file whose script the engine below understands: run so long, exit so."""
    return (
        f"name: test\nresources: {{image: 'test:1', cpus: 1, memory: 64MB, disk: 10MB}}\n"
        f"max_hours: {hours}\nrun: {seconds} {exit_code}\n{extra}"
    )


@dataclass
class _Job:
    spec: RunSpec
    started_at: UnixMs
    length_ms: int
    exit_code: int
    paused_at: UnixMs | None = None
    paused_ms: int = 0
    ended: JobExit | None = None
    changed: trio.Event = field(default_factory=trio.Event)

    def tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def end(self, code: int, reason: ExitReason, at: UnixMs) -> None:
        if self.ended is None:
            self.ended = JobExit(code, reason, self.started_at, at)
            (self.spec.workspace / "result.txt").write_text(f"ran {self.spec.script}\n")
            self.tell()


def _usage(one: _Job, load_millis: int) -> Usage:
    """A job that always uses as much, holds 8 MiB and left 2 on its disk, and receives 1,000 bytes a second."""
    ran_ms = now_ms() - one.started_at
    return Usage(
        cpu_ns=ran_ms * load_millis * 1_000,
        memory_bytes=8 << 20,
        received_bytes=ran_ms,
        sent_bytes=0,
        disk_bytes=2 << 20,
    )


class Engine:
    """A Runner whose jobs outlive the daemon and whose times are the virtual clock's."""

    def __init__(self) -> None:
        self.jobs: dict[LeaseId, _Job] = {}
        self.starts: list[LeaseId] = []
        self.missing_images: set[str] = set()
        self.stock_now = Stock()
        self.load_millis: int | None = 500
        """How much of a core every job uses; None: nobody can say."""

    @property
    def name(self) -> str:
        return "process"

    async def check(self) -> None: ...

    async def pull(self, image: str, progress: Progress) -> str:
        await trio.sleep(0.2)
        if image in self.missing_images:
            raise ImageUnavailable(f"there is no image {image}")
        return "sha256:" + "0" * 64

    async def stock(self) -> Stock:
        return self.stock_now

    async def image(self, name: str) -> LocalImage | None:
        return None

    async def start(self, spec: RunSpec) -> UnixMs:
        await trio.lowlevel.checkpoint()
        if spec.lease_id not in self.jobs:
            length, code = spec.script.split()
            self.starts.append(spec.lease_id)
            self.jobs[spec.lease_id] = _Job(spec, now_ms(), round(float(length) * 1_000), int(code))
        return self.jobs[spec.lease_id].started_at

    async def status(self, lease_id: LeaseId) -> JobStatus:
        await trio.lowlevel.checkpoint()
        one = self.jobs.get(lease_id)
        if one is None:
            return JobStatus(JobState.ABSENT)
        return JobStatus(JobState.EXITED if one.ended else JobState.RUNNING, one.started_at)

    async def wait(self, lease_id: LeaseId) -> JobExit:
        one = self._get(lease_id)
        while one.ended is None:
            changed = one.changed
            ends_at = one.started_at + one.paused_ms + one.length_ms
            left_s = math.inf if one.paused_at else (ends_at - now_ms()) / 1_000
            if left_s <= 0:
                one.end(one.exit_code, ExitReason.EXITED, UnixMs(ends_at))
                break
            with trio.move_on_after(left_s):
                await changed.wait()
        await trio.lowlevel.checkpoint()
        assert one.ended is not None
        return one.ended

    async def stop(self, lease_id: LeaseId, grace_seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        if lease_id in self.jobs:
            self.jobs[lease_id].end(143, ExitReason.STOPPED, now_ms())

    async def pause(self, lease_id: LeaseId) -> None:
        one = self._get(lease_id)
        one.paused_at = one.paused_at or now_ms()
        one.tell()

    async def resume(self, lease_id: LeaseId) -> None:
        one = self._get(lease_id)
        if one.paused_at:
            one.paused_ms += now_ms() - one.paused_at
            one.paused_at = None
            one.tell()

    async def logs(self, lease_id: LeaseId, *, follow: bool, offset: int = 0) -> AsyncGenerator[bytes, None]:
        self._get(lease_id)
        await trio.lowlevel.checkpoint()
        yield b"hello from the job\n"[offset:]

    async def usage(self, leases: Collection[LeaseId]) -> dict[LeaseId, Usage]:
        await trio.lowlevel.checkpoint()
        if self.load_millis is None:
            return {}
        found = {lease: self.jobs[lease] for lease in leases if lease in self.jobs}
        return {lease: _usage(one, self.load_millis) for lease, one in found.items()}

    async def remove(self, lease_id: LeaseId) -> None:
        await trio.lowlevel.checkpoint()
        self.jobs.pop(lease_id, None)

    async def leases(self) -> frozenset[LeaseId]:
        return frozenset(self.jobs)

    def _get(self, lease_id: LeaseId) -> _Job:
        if lease_id not in self.jobs:
            raise JobMissing("no such job")
        return self.jobs[lease_id]
