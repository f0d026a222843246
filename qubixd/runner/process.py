"""Runs jobs as plain processes of this user: for the loopback trial where no Docker engine answers.

Nothing separates such a job from the user's own files, so it must never be a stranger's. Each job has a
supervisor process (process_supervisor.py) that outlives the daemon and keeps times, exit code and log.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import trio

from protocol.errors import EngineUnreachable, StartFailed
from protocol.images import LocalImage
from protocol.units import LeaseId, UnixMs
from qubixd.runner import ExitReason, JobExit, JobState, JobStatus, Progress, RunSpec, Stock
from qubixd.runner.common import (
    DISK_CHECK_SECONDS,
    FILE_SIZE_MARGIN_BYTES,
    LEASE_ID_BYTES,
    JobNotes,
    check_spec,
    in_thread,
    job_missing,
    prepared,
)
from qubixd.runner.workspace import usage_bytes

SHELL: Final = "/bin/sh"
SUPERVISOR: Final = Path(__file__).with_name("process_supervisor.py")
POLL_SECONDS: Final = 0.05
"""A process of a former daemon is nobody's child to be told of its end, so its files are looked at."""
LOG_CHUNK_BYTES: Final = 65_536
OPEN_FILES: Final = 4_096
START_TIME_TOLERANCE_SECONDS: Final = 5.0
"""How far the kernel's start time of a process and ours may differ; a reused process id is far off."""
NO_IMAGE: Final = "sha256:" + "0" * 64
"""The digest of every image here: images are not used."""
KILLED_CODE: Final = 128 + signal.SIGKILL


class ProcessRunner:
    """The Runner without Docker. Posix only; the workspace is the job's working directory and HOME."""

    name = "process"

    def __init__(self, state_dir: Path, *, disk_check_seconds: float = DISK_CHECK_SECONDS) -> None:
        self._notes = JobNotes(state_dir / "process")
        self._threads = trio.CapacityLimiter(16)
        self._disk_check_seconds = disk_check_seconds

    async def check(self) -> None:
        if os.name != "posix" or shutil.which(SHELL) is None:
            raise EngineUnreachable(f"Jobs cannot run as processes here: there is no {SHELL}. Start Docker.")

    async def pull(self, image: str, progress: Progress) -> str:
        progress("no image needed", 1.0)
        return NO_IMAGE

    async def stock(self) -> Stock:
        return Stock()

    async def image(self, name: str) -> LocalImage | None:
        return None

    async def start(self, spec: RunSpec) -> UnixMs:
        check_spec(spec)
        if not spec.workspace.is_dir():
            raise StartFailed(f"the job's workspace {spec.workspace} is not a directory")
        if (begun := self._begun(spec.lease_id)) is None:
            self._notes.write(
                spec.lease_id, "spec", json.dumps([str(spec.workspace.resolve()), spec.disk_bytes])
            )
            await in_thread(lambda: self._spawn(spec), self._threads)
            begun = self._begun(spec.lease_id)
        if begun is None:
            why = (self._notes.read(spec.lease_id, "errors") or "").strip().rpartition("\n")[2]
            raise StartFailed(f"the job could not be started: {why}")
        return UnixMs(begun["started_at"])

    async def status(self, lease_id: LeaseId) -> JobStatus:
        begun = self._begun(lease_id)
        if begun is None:
            return JobStatus(JobState.ABSENT)
        started_at = UnixMs(begun["started_at"])
        if self._ended(lease_id) is not None:
            return JobStatus(JobState.EXITED, started_at)
        return JobStatus(JobState.PAUSED if _is_stopped(begun) else JobState.RUNNING, started_at)

    async def wait(self, lease_id: LeaseId) -> JobExit:
        self._existing(lease_id)
        next_check = trio.current_time()
        while (ended := self._ended(lease_id)) is None:
            if trio.current_time() >= next_check:
                await self._enforce_disk_limit(lease_id)
                next_check = trio.current_time() + self._disk_check_seconds
            await trio.sleep(POLL_SECONDS)
        await self._enforce_disk_limit(lease_id)
        reason = self._notes.note_reason(lease_id, ExitReason.EXITED)
        return JobExit(ended["code"], reason, UnixMs(ended["started_at"]), UnixMs(ended["finished_at"]))

    async def stop(self, lease_id: LeaseId, grace_seconds: float) -> None:
        if self._begun(lease_id) is None or self._ended(lease_id) is not None:
            return
        self._notes.note_reason(lease_id, ExitReason.STOPPED)
        self._signal(lease_id, signal.SIGTERM)
        self._signal(lease_id, signal.SIGCONT)
        with trio.move_on_after(grace_seconds) as grace:
            await self._until_ended(lease_id)
        if grace.cancelled_caught:
            self._signal(lease_id, signal.SIGKILL)
            await self._until_ended(lease_id)

    async def pause(self, lease_id: LeaseId) -> None:
        self._existing(lease_id)
        self._signal(lease_id, signal.SIGSTOP)

    async def resume(self, lease_id: LeaseId) -> None:
        self._existing(lease_id)
        self._signal(lease_id, signal.SIGCONT)

    async def logs(self, lease_id: LeaseId, *, follow: bool, offset: int = 0) -> AsyncGenerator[bytes, None]:
        self._existing(lease_id)
        path = self._notes.directory(lease_id) / "log"
        while True:
            ended = self._ended(lease_id) is not None
            while chunk := _read_at(path, offset):
                offset += len(chunk)
                yield chunk
            if ended or not follow:
                return
            await trio.sleep(POLL_SECONDS)

    async def remove(self, lease_id: LeaseId) -> None:
        if self._begun(lease_id) is not None and self._ended(lease_id) is None:
            self._signal(lease_id, signal.SIGKILL)
            await self._until_ended(lease_id)
        self._notes.forget(lease_id)

    async def leases(self) -> frozenset[LeaseId]:
        if not self._notes.root.is_dir():
            return frozenset()
        named = [path.parent.name for path in self._notes.root.glob("*/started")]
        return frozenset(LeaseId(bytes.fromhex(name)) for name in named if len(name) == 2 * LEASE_ID_BYTES)

    # Starting ----------------------------------------------------------------------------------

    def _spawn(self, spec: RunSpec) -> None:
        """Start the job's supervisor and wait until it has started the job, or given up."""
        directory = self._notes.directory(spec.lease_id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (directory / "errors").open("wb") as errors:
            supervisor = subprocess.Popen(
                [sys.executable, "-I", str(SUPERVISOR), str(directory)],
                cwd="/",
                env={"PATH": os.defpath},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
            supervisor.communicate(json.dumps(_order(spec)).encode())

    # State, always read from the job's files ---------------------------------------------------

    def _begun(self, lease_id: LeaseId) -> dict[str, Any] | None:
        return self._json(lease_id, "started")

    def _existing(self, lease_id: LeaseId) -> dict[str, Any]:
        begun = self._begun(lease_id)
        if begun is None:
            raise job_missing(lease_id)
        return begun

    def _ended(self, lease_id: LeaseId) -> dict[str, Any] | None:
        """The exit record; made up as LOST if the supervisor died without leaving one."""
        begun = self._existing(lease_id)
        supervised = _is_locked(self._notes.directory(lease_id) / "lock")  # before looking for the record
        ended = self._json(lease_id, "exit")
        if ended is not None or supervised:
            return ended
        self._signal(lease_id, signal.SIGKILL)
        self._notes.note_reason(lease_id, ExitReason.LOST)
        now_ms = max(begun["started_at"], time.time_ns() // 1_000_000)
        lost = {"code": KILLED_CODE, "started_at": begun["started_at"], "finished_at": now_ms}
        self._notes.write(lease_id, "exit", json.dumps(lost))
        return lost

    def _json(self, lease_id: LeaseId, name: str) -> dict[str, Any] | None:
        text = self._notes.read(lease_id, name)
        if text is None:
            return None
        content: dict[str, Any] = json.loads(text)
        return content

    async def _until_ended(self, lease_id: LeaseId) -> None:
        while self._ended(lease_id) is None:
            await trio.sleep(POLL_SECONDS)

    async def _enforce_disk_limit(self, lease_id: LeaseId) -> None:
        spec = self._notes.read(lease_id, "spec")
        if spec is None or self._notes.reason(lease_id) is not None:
            return
        workspace, limit = json.loads(spec)
        if await in_thread(lambda: usage_bytes(Path(workspace)), self._threads) > limit:
            self._notes.note_reason(lease_id, ExitReason.DISK_LIMIT)
            self._signal(lease_id, signal.SIGKILL)

    def _signal(self, lease_id: LeaseId, number: int) -> None:
        """To the job's whole process group, if its first process is still the one we started."""
        job = _job_process(self._existing(lease_id))
        if job is not None:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, number)


def _order(spec: RunSpec) -> dict[str, Any]:
    """What the supervisor reads. The job's environment starts empty, not with the daemon's."""
    basics = {"PATH": os.defpath, "HOME": str(spec.workspace.resolve()), "LANG": "C.UTF-8"}
    return {
        "script": prepared(spec.script),
        "workspace": str(spec.workspace.resolve()),
        "env": {**basics, **spec.env, **spec.secrets},
        "limits": _limits(spec),
        "cpus": _cpus(spec.cpu_millis),
    }


def _limits(spec: RunSpec) -> dict[str, int]:
    """Names of `resource` and their values. The process limit counts all of the user's, so ours add."""
    limits = {
        "RLIMIT_DATA": spec.memory_bytes,
        "RLIMIT_FSIZE": spec.disk_bytes + FILE_SIZE_MARGIN_BYTES,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_CORE": 0,
    }
    if os.geteuid() != 0:  # the kernel does not hold root to it
        limits["RLIMIT_NPROC"] = spec.pids_max + _own_threads()
    return limits


def _own_threads() -> int:
    mine = os.geteuid()
    found = psutil.process_iter(["uids", "num_threads"])
    return sum(p.info["num_threads"] or 1 for p in found if p.info["uids"] and p.info["uids"].real == mine)


def _cpus(cpu_millis: int) -> list[int]:
    """The processors the job may use, enough for its share; empty where that cannot be set."""
    if sys.platform != "linux":
        return []
    return sorted(os.sched_getaffinity(0))[: math.ceil(cpu_millis / 1000)]


def _job_process(begun: dict[str, Any]) -> psutil.Process | None:
    """The job's first process, None if it has ended: its id and its start time must both be right."""
    with suppress(psutil.Error):
        process = psutil.Process(begun["pid"])
        right = abs(process.create_time() - begun["started_at"] / 1000) < START_TIME_TOLERANCE_SECONDS
        return process if right and process.status() != psutil.STATUS_ZOMBIE else None
    return None


def _is_stopped(begun: dict[str, Any]) -> bool:
    """Whether the job's first process is there and stopped; it may end while it is looked at."""
    with suppress(psutil.Error):
        job = _job_process(begun)
        return job is not None and job.status() == psutil.STATUS_STOPPED
    return False


def _is_locked(path: Path) -> bool:
    """Whether the supervisor that took this lock lives."""
    with path.open("r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _read_at(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as log:
            log.seek(offset)
            return log.read(LOG_CHUNK_BYTES)
    except FileNotFoundError:
        return b""
