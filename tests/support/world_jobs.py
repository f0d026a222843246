"""The world's jobs and its clock: a Runner whose jobs outlive the daemon, in virtual time.

A job's script is two numbers: how many seconds it runs, and the code it exits with. Its readiness command
is one: how many seconds after its beginning it is ready.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from protocol.errors import EngineUnreachable, ImageUnavailable, JobMissing, PortClosed, StartFailed
from protocol.images import LocalImage
from protocol.units import LeaseId, UnixMs
from qubixd.runner import (
    Dialed,
    ExitReason,
    Inside,
    JobExit,
    JobState,
    JobStatus,
    Program,
    Progress,
    RunSpec,
    Stock,
    Terminal,
    Usage,
)

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
    """`began_at` is of the present run; None as long as it waits at the gate."""

    spec: RunSpec
    started_at: UnixMs
    length_ms: int
    exit_code: int
    released_at: UnixMs | None = None
    began_at: UnixMs | None = None
    secrets: dict[str, str] = field(default_factory=dict)
    restarts: dict[bytes, UnixMs] = field(default_factory=dict)
    paused_at: UnixMs | None = None
    paused_ms: int = 0
    ended: JobExit | None = None
    changed: trio.Event = field(default_factory=trio.Event)

    def tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def end(self, code: int, reason: ExitReason, at: UnixMs) -> None:
        if self.ended is None:
            self.ended = JobExit(code, reason, self.began_at or self.started_at, at)
            (self.spec.workspace / "result.txt").write_text(f"ran {self.spec.script}\n")
            self.tell()


def _usage(one: _Job, load_millis: int) -> Usage:
    """Of a job that always uses as much, holds 8 MiB, left 2 on its disk, receives 1,000 bytes a second."""
    ran_ms = now_ms() - one.started_at
    return Usage(
        cpu_ns=ran_ms * load_millis * 1_000,
        memory_bytes=8 << 20,
        received_bytes=ran_ms,
        sent_bytes=0,
        disk_bytes=2 << 20,
    )


@dataclass(frozen=True)
class _Asked:
    """A readiness command that has ended as soon as it began."""

    code: int

    async def send_all(self, data: bytes | bytearray | memoryview) -> None: ...

    async def send_eof(self) -> None: ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return b""

    async def exit_code(self) -> int:
        await trio.lowlevel.checkpoint()
        return self.code

    async def aclose(self) -> None: ...


class Engine:
    """A Runner whose jobs outlive the daemon and whose times are the virtual clock's."""

    def __init__(self) -> None:
        self.jobs: dict[LeaseId, _Job] = {}
        self.starts: list[LeaseId] = []
        self.name = "process"
        self.missing_images: set[str] = set()
        self.images: dict[str, LocalImage] = {}
        self.arriving: dict[str, LocalImage] = {}
        """What pulls will bring."""
        self.stock_now = Stock()
        self.pull_seconds = 0.2
        self.load_millis: int | None = 500
        """How much of a core every job uses; None: nobody can say."""
        self.away = False
        """It tells nobody anything."""

    async def check(self) -> None:
        if self.away:
            raise EngineUnreachable("the engine is away")

    async def pull(self, image: str, progress: Progress) -> str:
        for done in range(10):
            progress("pulling", done / 10)
            await trio.sleep(self.pull_seconds / 10)
        if image in self.missing_images:
            raise ImageUnavailable(f"there is no image {image}")
        if image in self.arriving:
            self.images[image] = self.arriving.pop(image)
        return "sha256:" + "0" * 64

    async def stock(self) -> Stock:
        return self.stock_now

    async def image(self, name: str) -> LocalImage | None:
        return self.images.get(name)

    async def start(self, spec: RunSpec) -> UnixMs:
        await trio.lowlevel.checkpoint()
        if spec.lease_id not in self.jobs:
            length, code = spec.script.split()
            self.starts.append(spec.lease_id)
            self.jobs[spec.lease_id] = _Job(spec, now_ms(), round(float(length) * 1_000), int(code))
        return self.jobs[spec.lease_id].started_at

    async def status(self, lease_id: LeaseId) -> JobStatus:
        await trio.lowlevel.checkpoint()
        await self.check()
        one = self.jobs.get(lease_id)
        if one is None:
            return JobStatus(JobState.ABSENT)
        state = JobState.PAUSED if one.paused_at else JobState.RUNNING
        return JobStatus(JobState.EXITED if one.ended else state, one.started_at, one.released_at)

    async def release(self, lease_id: LeaseId, secrets: dict[str, str]) -> UnixMs:
        await trio.lowlevel.checkpoint()
        one = self._get(lease_id)
        if one.ended:
            raise JobMissing("it has ended")
        if one.released_at is None:
            one.released_at = one.began_at = now_ms()
            one.secrets = secrets
            one.tell()
        return one.released_at

    async def restart(
        self, lease_id: LeaseId, secrets: dict[str, str], grace_seconds: float, nonce: bytes
    ) -> UnixMs:
        await trio.lowlevel.checkpoint()
        one = self._get(lease_id)
        if nonce not in one.restarts:
            one.end(143, ExitReason.STOPPED, now_ms())
            await trio.sleep(0.3)
            one.restarts[nonce] = one.began_at = now_ms()
            one.ended, one.paused_at, one.paused_ms, one.secrets = None, None, 0, secrets
            one.tell()
        return one.restarts[nonce]

    async def inside(self, lease_id: LeaseId, command: Sequence[str]) -> Inside:
        await trio.lowlevel.checkpoint()
        one = self._get(lease_id)
        if one.ended or one.began_at is None:
            raise JobMissing("it does not run")
        seconds = float(command[-1].split()[-1])
        return _Asked(0 if now_ms() - one.began_at >= seconds * 1_000 else 1)

    async def program(
        self, lease_id: LeaseId, command: Sequence[str], terminal: Terminal | None = None
    ) -> Program:
        await trio.lowlevel.checkpoint()
        raise StartFailed("such a job is two numbers: no program runs beside it")

    async def dial(self, lease_id: LeaseId, port: int, *, udp: bool = False) -> Dialed:
        await trio.lowlevel.checkpoint()
        raise PortClosed("such a job is two numbers: nothing listens in it")

    def reboot(self) -> None:
        """The engine's machine was restarted: every job has ended there and then."""
        for one in self.jobs.values():
            one.end(137, ExitReason.EXITED, now_ms())

    async def wait(self, lease_id: LeaseId) -> JobExit:
        one = self._get(lease_id)
        while one.ended is None:
            changed = one.changed
            ends_at = (one.began_at or 0) + one.paused_ms + one.length_ms
            halted = one.paused_at or one.began_at is None
            left_s = math.inf if halted else (ends_at - now_ms()) / 1_000
            if left_s <= 0:
                one.end(one.exit_code, ExitReason.EXITED, UnixMs(ends_at))
                break
            with trio.move_on_after(left_s):
                await changed.wait()
        while self.away:
            await trio.sleep(1)
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

    async def containers(self) -> dict[str, LeaseId]:
        return {}

    def _get(self, lease_id: LeaseId) -> _Job:
        if lease_id not in self.jobs:
            raise JobMissing("no such job")
        return self.jobs[lease_id]
