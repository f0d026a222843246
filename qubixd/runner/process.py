"""Runs jobs as plain processes of this user: for the loopback trial where no Docker engine answers.

Nothing separates such a job from the user's own files, so it must never be a stranger's. Each job has a
supervisor process (process_supervisor.py) that outlives the daemon and keeps times, exit code and log.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil
import trio

from protocol.errors import EngineUnreachable, StartFailed
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
from qubixd.runner.common import (
    DISK_CHECK_SECONDS,
    LEASE_ID_BYTES,
    JobNotes,
    Seen,
    check_secrets,
    check_spec,
    in_thread,
    job_missing,
)
from qubixd.runner.disk import DiskWatch
from qubixd.runner.gate import LOOK_SECONDS, Passage, Passages, gate_seen, gate_words
from qubixd.runner.loopback import connect, fresh_socket
from qubixd.runner.process_inside import open_inside
from qubixd.runner.process_order import order_of, say_to, supervise
from qubixd.runner.process_program import open_program
from qubixd.runner.restarts import Restart, Restarts
from qubixd.runner.workspace import usage_bytes

SHELL: Final = "/bin/sh"
POLL_SECONDS: Final = 0.05
"""A process of a former daemon is nobody's child to be told of its end, so its files are looked at."""
LOG_CHUNK_BYTES: Final = 65_536
START_TIME_TOLERANCE_SECONDS: Final = 5.0
"""How far the kernel's start time of a process and ours may differ; a reused process id is far off."""
NO_IMAGE: Final = "sha256:" + "0" * 64
"""The digest of every image here: images are not used."""
FIRST_RUN: Final = "1"
KILLED_CODE: Final = 128 + signal.SIGKILL


class ProcessRunner:
    """The Runner without Docker. Posix only; the workspace is the job's working directory and HOME."""

    name = "process"

    def __init__(self, state_dir: Path, *, disk_check_seconds: float = DISK_CHECK_SECONDS) -> None:
        self._notes = JobNotes(state_dir / "process")
        self._passages = Passages(self._notes)
        self._restarts = Restarts(self._notes)
        self._threads = trio.CapacityLimiter(16)
        self._seen = Seen(self._notes)
        self._disk = DiskWatch(disk_check_seconds)

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
        if self._begun(spec.lease_id) is None:
            self._notes.write(spec.lease_id, "order", json.dumps(order_of(spec)))
            await self._spawn(spec.lease_id, FIRST_RUN)
        try:
            await self._until_at_gate(spec.lease_id)
        except StartFailed:
            await self.remove(spec.lease_id)
            raise
        return UnixMs(self._existing(spec.lease_id)["started_at"])

    async def release(self, lease_id: LeaseId, secrets: dict[str, str]) -> UnixMs:
        check_secrets(secrets)
        passage = await self._let_go(lease_id, secrets)
        return passage.at if passage.first is None else passage.first

    async def restart(
        self, lease_id: LeaseId, secrets: dict[str, str], grace_seconds: float, nonce: bytes
    ) -> UnixMs:
        check_secrets(secrets)
        self._existing(lease_id)

        async def again(restart: Restart) -> Passage:
            if self._run(lease_id) == restart.run:
                await self._end(lease_id, grace_seconds)
                await self._restarts.begin_anew(lease_id, lambda: self._begin(lease_id, restart.run))
            return await self._let_go(lease_id, secrets)

        return await self._restarts.once(lease_id, nonce, self._run(lease_id), again)

    async def inside(self, lease_id: LeaseId, command: Sequence[str]) -> Inside:
        return await open_inside(self._living(lease_id), command)

    async def program(
        self, lease_id: LeaseId, command: Sequence[str], terminal: Terminal | None = None
    ) -> Program:
        return await open_program(self._living(lease_id), command, terminal)

    async def dial(self, lease_id: LeaseId, port: int, *, udp: bool = False) -> Dialed:
        """This machine's own loopback: such a job has no other."""
        if (await self.status(lease_id)).state is not JobState.RUNNING:
            raise job_missing(lease_id)
        return await connect(partial(fresh_socket, udp=udp), port, udp=udp)

    def _living(self, lease_id: LeaseId) -> dict[str, Any]:
        """The order of a job that has not ended."""
        self._existing(lease_id)
        if self._ended(lease_id) is not None:
            raise job_missing(lease_id)
        return self._order(lease_id)

    async def status(self, lease_id: LeaseId) -> JobStatus:
        begun = self._begun(lease_id)
        if begun is None:
            return JobStatus(JobState.ABSENT)
        passage = self._passages.of(lease_id, self._run(lease_id), self._workspace(lease_id))
        times = UnixMs(begun["started_at"]), passage.first if passage else None
        if self._ended(lease_id) is not None:
            return JobStatus(JobState.EXITED, *times)
        return JobStatus(JobState.PAUSED if _is_stopped(begun) else JobState.RUNNING, *times)

    async def wait(self, lease_id: LeaseId) -> JobExit:
        self._existing(lease_id)
        next_look = trio.current_time()
        while (ended := self._ended(lease_id)) is None or self._restarts.under_way(lease_id):
            if ended is None and trio.current_time() >= next_look:
                self._seen.note(lease_id)
                await self._enforce_disk_limit(lease_id)
                next_look = trio.current_time() + self._disk.look_seconds
            await trio.sleep(POLL_SECONDS)
        self._disk.forget(lease_id)
        if self._notes.reason(lease_id) is None:
            over = await self._measure(lease_id) > self._order(lease_id)["disk_bytes"]
            self._notes.note_reason(lease_id, ExitReason.DISK_LIMIT if over else ExitReason.EXITED)
        return self._exit(lease_id, ended)

    async def stop(self, lease_id: LeaseId, grace_seconds: float) -> None:
        cancelled = await self._restarts.cancel(lease_id)
        live = self._begun(lease_id) is not None and self._ended(lease_id) is None
        if live or cancelled:
            self._notes.note_reason(lease_id, ExitReason.STOPPED)
        if live:
            await self._end(lease_id, grace_seconds)

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
            ended = self._ended(lease_id) is not None and not self._restarts.under_way(lease_id)
            while chunk := _read_at(path, offset):
                offset += len(chunk)
                yield chunk
            if ended or not follow:
                return
            await trio.sleep(POLL_SECONDS)

    async def usage(self, leases: Collection[LeaseId]) -> dict[LeaseId, Usage]:
        def look() -> dict[LeaseId, Usage]:
            begun = {lease_id: self._begun(lease_id) for lease_id in leases}
            jobs = {lease_id: _job_process(one) for lease_id, one in begun.items() if one is not None}
            return {lease_id: used for lease_id, job in jobs.items() if job and (used := _usage(job))}

        return await in_thread(look, self._threads)

    async def remove(self, lease_id: LeaseId) -> None:
        if self._begun(lease_id) is not None and self._ended(lease_id) is None:
            self._signal(lease_id, signal.SIGKILL)
            await self._until_ended(lease_id)
        self._restarts.forget(lease_id)
        self._disk.forget(lease_id)
        self._seen.forget(lease_id)
        self._notes.forget(lease_id)

    async def leases(self) -> frozenset[LeaseId]:
        if not self._notes.root.is_dir():
            return frozenset()
        named = [path.parent.name for path in self._notes.root.glob(f"*/started.{FIRST_RUN}")]
        return frozenset(LeaseId(bytes.fromhex(name)) for name in named if len(name) == 2 * LEASE_ID_BYTES)

    async def containers(self) -> dict[str, LeaseId]:
        return {}

    # Starting ----------------------------------------------------------------------------------

    async def _spawn(self, lease_id: LeaseId, run: str) -> None:
        """Begin a run of the job, if none has; it comes to the gate."""
        await in_thread(lambda: supervise(self._notes.directory(lease_id), run), self._threads)
        if self._notes.read(lease_id, f"started.{run}") is None:
            why = (self._notes.read(lease_id, "errors") or "").strip().rpartition("\n")[2]
            raise StartFailed(f"the job could not be started: {why}")

    async def _begin(self, lease_id: LeaseId, before: str) -> None:
        """The next run of a job that has ended."""
        run = str(int(before) + 1)
        await self._spawn(lease_id, run)
        self._notes.write(lease_id, "run", run)

    async def _until_at_gate(self, lease_id: LeaseId) -> None:
        """Return when the job waits at the gate or has been let go; StartFailed if it died on the way."""
        run, workspace = self._run(lease_id), self._workspace(lease_id)
        while not gate_seen(workspace) and not self._passages.intended(lease_id, run):
            if (ended := self._ended(lease_id)) is not None and not gate_seen(workspace):
                raise StartFailed(f"the job ended before it could begin (exit code {ended['code']})")
            await trio.sleep(LOOK_SECONDS)

    async def _let_go(self, lease_id: LeaseId, secrets: dict[str, str]) -> Passage:
        self._existing(lease_id)
        pipe, words = self._notes.directory(lease_id) / "gate", gate_words(secrets)

        async def say() -> None:
            await in_thread(lambda: say_to(pipe, words), self._threads)

        async def lives() -> bool:
            return self._ended(lease_id) is None

        await self._until_at_gate(lease_id)
        run, workspace = self._run(lease_id), self._workspace(lease_id)
        return await self._passages.let_go(lease_id, run, workspace, say, lives)

    # Ending ------------------------------------------------------------------------------------

    async def _end(self, lease_id: LeaseId, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL; returns when the job has ended."""
        self._signal(lease_id, signal.SIGTERM)
        self._signal(lease_id, signal.SIGCONT)
        with trio.move_on_after(grace_seconds) as grace:
            await self._until_ended(lease_id)
        if grace.cancelled_caught:
            self._signal(lease_id, signal.SIGKILL)
            await self._until_ended(lease_id)

    def _exit(self, lease_id: LeaseId, ended: dict[str, Any]) -> JobExit:
        run, finished = self._run(lease_id), UnixMs(ended["finished_at"])
        passage = self._passages.of(lease_id, run, self._workspace(lease_id))
        started = min(passage.at, finished) if passage and passage.of_run(run) else finished
        reason = self._notes.reason(lease_id) or ExitReason.EXITED
        return JobExit(ended["code"], reason, started, finished)

    # State, always read from the job's files ---------------------------------------------------

    def _run(self, lease_id: LeaseId) -> str:
        """Which run of the job is the present one: a restart begins another."""
        return self._notes.read(lease_id, "run") or FIRST_RUN

    def _order(self, lease_id: LeaseId) -> dict[str, Any]:
        return self._json(lease_id, "order") or {}

    def _workspace(self, lease_id: LeaseId) -> Path:
        return Path(self._order(lease_id)["workspace"])

    def _begun(self, lease_id: LeaseId) -> dict[str, Any] | None:
        return self._json(lease_id, f"started.{self._run(lease_id)}")

    def _existing(self, lease_id: LeaseId) -> dict[str, Any]:
        begun = self._begun(lease_id)
        if begun is None:
            raise job_missing(lease_id)
        return begun

    def _ended(self, lease_id: LeaseId) -> dict[str, Any] | None:
        """The exit record; made up as LOST if the supervisor died without leaving one."""
        begun, run = self._existing(lease_id), self._run(lease_id)
        supervised = _is_locked(self._notes.directory(lease_id) / f"lock.{run}")  # before the record
        ended = self._json(lease_id, f"exit.{run}")
        if ended is not None or supervised:
            return ended
        self._signal(lease_id, signal.SIGKILL)
        self._notes.note_reason(lease_id, ExitReason.LOST)
        finished = max(begun["started_at"], self._seen.last(lease_id))
        lost = {"code": KILLED_CODE, "started_at": begun["started_at"], "finished_at": finished}
        self._notes.write(lease_id, f"exit.{run}", json.dumps(lost))
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
        workspace, limit = self._workspace(lease_id), int(self._order(lease_id)["disk_bytes"])
        if await self._disk.is_over(lease_id, workspace, limit, lambda: self._measure(lease_id)):
            self._notes.note_reason(lease_id, ExitReason.DISK_LIMIT)
            self._signal(lease_id, signal.SIGKILL)

    async def _measure(self, lease_id: LeaseId) -> int:
        workspace = self._workspace(lease_id)
        return await in_thread(lambda: usage_bytes(workspace), self._threads)

    def _signal(self, lease_id: LeaseId, number: int) -> None:
        """To the job's whole process group, if its first process is still the one we started."""
        job = _job_process(self._existing(lease_id))
        if job is not None:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, number)


def _job_process(begun: dict[str, Any]) -> psutil.Process | None:
    """The job's first process, None if it has ended: its id and its start time must both be right."""
    with suppress(psutil.Error):
        process = psutil.Process(begun["pid"])
        right = abs(process.create_time() - begun["started_at"] / 1000) < START_TIME_TOLERANCE_SECONDS
        return process if right and process.status() != psutil.STATUS_ZOMBIE else None
    return None


def _is_stopped(begun: dict[str, Any]) -> bool:
    """Whether the job is stopped. A shell that was beginning a program (vfork) waits for that one, which
    is then the one that is stopped."""
    with suppress(psutil.Error):
        if (job := _job_process(begun)) is not None:
            begins = job.children() if job.status() == psutil.STATUS_DISK_SLEEP else ()
            return bool([job, *begins][-1].status() == psutil.STATUS_STOPPED)
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


def _usage(job: psutil.Process) -> Usage | None:
    """Of a job's living processes, and of those that they have outlived. Nobody counts the traffic of plain
    processes."""
    cpu_seconds, memory = 0.0, 0
    with suppress(psutil.Error):
        for one in (job, *job.children(recursive=True)):
            with suppress(psutil.Error):  # it has ended meanwhile
                times = one.cpu_times()
                cpu_seconds += times.user + times.system + times.children_user + times.children_system
                memory += one.memory_info().rss
        return Usage(round(cpu_seconds * 1e9), memory, 0, 0)
    return None
