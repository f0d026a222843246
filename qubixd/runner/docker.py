"""Runs jobs in containers of a Docker engine, as strangers' code: see docker_config for every limit.

All calls go through the SDK in worker threads with limiters of their own. The engine is asked again
rather than remembered, so a daemon that has just started knows as much as one that never stopped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

import trio

from protocol.errors import (
    DiskFull,
    EngineUnreachable,
    ImageBroken,
    ImageUnavailable,
    QubixError,
    StartFailed,
)
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
from qubixd.runner import docker_config as config
from qubixd.runner.common import (
    DISK_CHECK_SECONDS,
    JobNotes,
    Seen,
    check_secrets,
    check_spec,
    in_thread,
    job_missing,
)
from qubixd.runner.disk import DiskWatch
from qubixd.runner.docker_ends import Ends, Waiter
from qubixd.runner.docker_engine import Client, DockerEngine, ignoring_ended, said_by
from qubixd.runner.docker_images import Images
from qubixd.runner.docker_inside import open_inside
from qubixd.runner.docker_jobs import Containers
from qubixd.runner.docker_program import Programs
from qubixd.runner.fence import FenceLimits, Fences
from qubixd.runner.gate import (
    LOOK_SECONDS,
    LOOK_SECONDS_MOST,
    Passage,
    Passages,
    gate_seen,
    gate_words,
)
from qubixd.runner.image_tidy import Brought, Policy
from qubixd.runner.porter import Porters
from qubixd.runner.restarts import Restart, Restarts
from qubixd.runner.runtimes import PLAIN_NAME, offered
from qubixd.runner.unlinked import unlinked_bytes
from qubixd.runner.usage import Usages
from qubixd.runner.workspace import usage_bytes

LIVE: Final = (JobState.RUNNING, JobState.PAUSED)
RETRY_FIRST_SECONDS: Final = 0.2
RETRY_MOST_SECONDS: Final = 10.0
ASK_SECONDS: Final = 30.0
"""How long a job's state is taken for granted when no event tells of its end."""
LOOK_AGAIN_SECONDS: Final = 1.0
GATE_SECONDS: Final = 60.0
"""In which a container comes to its gate: its /bin/sh is its image's own and may have other plans."""
UNKNOWN_CODE: Final = 255
"""The code that the engine gives a container that ended while the engine did not run; a job's own, too."""


class DockerRunner:
    """The Runner of a machine with a Docker engine (DOCKER_HOST or the usual socket)."""

    def __init__(
        self,
        state_dir: Path,
        *,
        limiter_tokens: int = 16,
        disk_check_seconds: float = DISK_CHECK_SECONDS,
        runtime: str = "",
        fence_limits: FenceLimits | None = None,
        gate_seconds: float = GATE_SECONDS,
    ) -> None:
        """Nothing is contacted yet. `state_dir` is this daemon's own and names its containers; `runtime`:
        one of the engine's, "" for its own choice."""
        self.name = offered(runtime)
        home = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:32]
        self.fences = Fences(state_dir, home, fence_limits)
        self._notes = JobNotes(state_dir / "docker")
        self._passages = Passages(self._notes)
        self._restarts = Restarts(self._notes)
        self._engine = DockerEngine(limiter_tokens)
        self._porters = Porters(self._engine, state_dir, home, sandboxed=self.name != PLAIN_NAME)
        self._jobs = Containers(home, self.fences, self._porters, runtime)
        self._programs = Programs(self._engine, self._notes)
        self._images = Images(self._engine, state_dir)
        self._ends = Ends(self._engine, home)
        self._seen = Seen(self._notes)
        self._disk = DiskWatch(disk_check_seconds)
        self._usages = Usages(self._engine)
        self._gate_seconds = gate_seconds

    # Images ------------------------------------------------------------------------------------

    async def check(self) -> None:
        await self._engine.call(lambda client: client.ping())

    async def pull(self, image: str, progress: Progress) -> str:
        return await self._images.pull(image, progress)

    async def stock(self) -> Stock:
        return await self._images.stock()

    async def image(self, name: str) -> LocalImage | None:
        return await self._images.image(name)

    async def tidy_images(self, policy: Policy, now: UnixMs) -> list[str]:
        """Remove images that jobs brought, as far as the policy lets them go; what was removed."""
        return await self._images.tidy(policy, now)

    def brought_images(self) -> list[Brought]:
        """Images that jobs brought and that are still here. Blocks: for a worker thread."""
        return self._images.brought()

    # Beginning ---------------------------------------------------------------------------------

    async def start(self, spec: RunSpec) -> UnixMs:
        check_spec(spec)
        info = await self._engine.call(lambda client: self._jobs.start(client, spec))
        try:
            await self._until_at_gate(spec.lease_id, info)
        except (StartFailed, ImageUnavailable, DiskFull):
            await self.remove(spec.lease_id)
            raise
        return config.started_at(info)

    async def release(self, lease_id: LeaseId, secrets: dict[str, str]) -> UnixMs:
        check_secrets(secrets)
        passage = await self._let_go(lease_id, await self._existing(lease_id), secrets)
        return passage.at if passage.first is None else passage.first

    async def restart(
        self, lease_id: LeaseId, secrets: dict[str, str], grace_seconds: float, nonce: bytes
    ) -> UnixMs:
        check_secrets(secrets)

        async def again(restart: Restart) -> Passage:
            now = await self._existing(lease_id)
            if config.run_of(now) == restart.run:
                await self._end(lease_id, grace_seconds)
                await self._restarts.begin_anew(lease_id, lambda: self._begin(lease_id))
                now = await self._existing(lease_id)
            return await self._let_go(lease_id, now, secrets)

        run = config.run_of(await self._existing(lease_id))
        return await self._restarts.once(lease_id, nonce, run, again)

    async def inside(self, lease_id: LeaseId, command: Sequence[str]) -> Inside:
        await self._running(lease_id)
        return await open_inside(self._engine, config.container_name(lease_id), command)

    async def program(
        self, lease_id: LeaseId, command: Sequence[str], terminal: Terminal | None = None
    ) -> Program:
        await self._running(lease_id)
        return await self._programs.open(lease_id, command, terminal)

    async def dial(self, lease_id: LeaseId, port: int, *, udp: bool = False) -> Dialed:
        dialed = None if udp else await self._porters.redial(lease_id, port)
        return dialed or await self._porters.dial(await self._running(lease_id), lease_id, port, udp=udp)

    async def _begin(self, lease_id: LeaseId) -> None:
        """The next run of a job that has ended."""
        ended = await self._existing(lease_id)
        await self._engine.call(lambda client: self._jobs.begin(client, lease_id, ended))

    async def _until_at_gate(self, lease_id: LeaseId, info: config.Info) -> None:
        """Return when the job waits at the gate or has been let go; raises why it died. One that does
        neither is killed: nobody shall compute for nothing while all who would stop it wait for this."""
        with trio.move_on_after(self._gate_seconds):
            return await self._come_to_gate(lease_id, info)
        await self._kill(lease_id, "SIGKILL")
        await self._until_ended(lease_id)
        image = info["Config"]["Image"]
        raise ImageBroken(f"the /bin/sh of the image {image} does not wait for its job to be let go")

    async def _come_to_gate(self, lease_id: LeaseId, info: config.Info) -> None:
        run, workspace, seconds = config.run_of(info), config.workspace_of(info), LOOK_SECONDS
        while not gate_seen(workspace) and not self._passages.intended(lease_id, run):
            if seconds >= LOOK_SECONDS_MOST or config.job_state(info) is JobState.EXITED:
                info = await self._existing(lease_id)
                if config.job_state(info) is JobState.EXITED and not gate_seen(workspace):
                    raise await self._died_at_gate(info)
            await trio.sleep(seconds)
            seconds = min(2 * seconds, LOOK_SECONDS_MOST)

    async def _died_at_gate(self, info: config.Info) -> QubixError:
        return await self._engine.call(lambda client: self._jobs.died_at_gate(client, info))

    async def _let_go(self, lease_id: LeaseId, info: config.Info, secrets: dict[str, str]) -> Passage:
        words = gate_words(secrets)

        async def say() -> None:
            await self._engine.call(lambda client: self._jobs.say(client, lease_id, words))

        await self._until_at_gate(lease_id, info)
        run, workspace = config.run_of(info), config.workspace_of(info)
        return await self._passages.let_go(lease_id, run, workspace, say, lambda: self._lives(lease_id))

    async def usage(self, leases: Collection[LeaseId]) -> dict[LeaseId, Usage]:
        names = {lease_id: config.container_name(lease_id) for lease_id in leases}
        return await self._usages.read(names, self._disk.used())

    # Asking ------------------------------------------------------------------------------------

    async def status(self, lease_id: LeaseId) -> JobStatus:
        info = await self._inspect(lease_id)
        state = config.job_state(info)
        if info is None or state is JobState.ABSENT:
            return JobStatus(JobState.ABSENT)
        passage = self._passages.of(lease_id, config.run_of(info), config.workspace_of(info))
        return JobStatus(state, config.started_at(info), passage.first if passage else None)

    async def wait(self, lease_id: LeaseId) -> JobExit:
        retry_seconds = RETRY_FIRST_SECONDS
        with self._ends.of(lease_id) as waiter:
            while True:
                seconds = ASK_SECONDS if await waiter.listen() else LOOK_AGAIN_SECONDS
                try:
                    info = await self._existing(lease_id)
                    if config.job_state(info) is not JobState.EXITED:
                        await self._programs.end_old(lease_id)
                        await self._watch(lease_id, info, waiter, seconds)
                    elif self._restarts.under_way(lease_id):
                        await waiter.woken(RETRY_FIRST_SECONDS)
                    else:
                        self._disk.forget(lease_id)
                        return await self._exit(lease_id, info)
                    retry_seconds = RETRY_FIRST_SECONDS
                except EngineUnreachable:
                    await trio.sleep(retry_seconds)
                    retry_seconds = min(2 * retry_seconds, RETRY_MOST_SECONDS)

    async def logs(self, lease_id: LeaseId, *, follow: bool, offset: int = 0) -> AsyncGenerator[bytes, None]:
        position = offset
        while True:
            await self._existing(lease_id)
            async with aclosing(said_by(self._engine, lease_id, follow, position)) as chunks:
                async for chunk in chunks:
                    position += len(chunk)
                    yield chunk
            # The stream ends with the job, and also with the engine: then go on from here.
            if not follow or not (await self._lives(lease_id) or self._restarts.under_way(lease_id)):
                return
            await trio.sleep(RETRY_FIRST_SECONDS)

    async def leases(self) -> frozenset[LeaseId]:
        return await self._engine.call(self._jobs.leases)

    async def containers(self) -> dict[str, LeaseId]:
        running = await self._engine.call(self._jobs.running)
        found = ((each["Id"], config.lease_of(each["Labels"])) for each in running)
        return {container: lease_id for container, lease_id in found if lease_id is not None}

    # Ending ------------------------------------------------------------------------------------

    async def stop(self, lease_id: LeaseId, grace_seconds: float) -> None:
        cancelled = await self._restarts.cancel(lease_id)
        live = await self._lives(lease_id)
        if live or cancelled:
            self._notes.note_reason(lease_id, ExitReason.STOPPED)
        if live:
            await self._end(lease_id, grace_seconds)

    async def pause(self, lease_id: LeaseId) -> None:
        self._porters.look_again(lease_id)
        if config.job_state(await self._existing(lease_id)) is JobState.RUNNING:
            await self._act(lambda client: client.pause(config.container_name(lease_id)))

    async def resume(self, lease_id: LeaseId) -> None:
        if config.job_state(await self._existing(lease_id)) is JobState.PAUSED:
            await self._act(lambda client: client.unpause(config.container_name(lease_id)))

    async def remove(self, lease_id: LeaseId) -> None:
        await self._engine.call(lambda client: self._jobs.remove(client, lease_id))
        self._porters.forget(lease_id)
        self._restarts.forget(lease_id)
        self._notes.forget(lease_id)
        self._disk.forget(lease_id)
        self._seen.forget(lease_id)

    async def _end(self, lease_id: LeaseId, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL; returns when the job has ended."""
        state = config.job_state(await self._inspect(lease_id))
        if state not in LIVE:
            return
        if state is JobState.PAUSED:
            await self.resume(lease_id)
        await self._kill(lease_id, "SIGTERM")
        with trio.move_on_after(grace_seconds) as grace:
            await self._until_ended(lease_id)
        if grace.cancelled_caught:
            await self._kill(lease_id, "SIGKILL")
            await self._until_ended(lease_id)

    async def _watch(self, lease_id: LeaseId, info: config.Info, waiter: Waiter, seconds: float) -> None:
        """Hold a job that runs to its disk limit until something may have happened to it, at most so long."""
        workspace, limit = config.workspace_of(info), config.disk_bytes_of(info)
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            self._seen.note(lease_id)
            if await self._disk.is_over(lease_id, workspace, limit, lambda: self._measure(info)):
                self._notes.note_reason(lease_id, ExitReason.DISK_LIMIT)
                await self._kill(lease_id, "SIGKILL")
            if await waiter.woken(self._disk.look_seconds):
                return

    async def _measure(self, info: config.Info) -> int:
        workspace, container, pid = config.workspace_of(info), info["Id"], info["State"]["Pid"]
        return await in_thread(
            lambda: usage_bytes(workspace) + unlinked_bytes(container, pid, workspace), self._engine.measures
        )

    async def _exit(self, lease_id: LeaseId, info: config.Info) -> JobExit:
        state, run = info["State"], config.run_of(info)
        if self._notes.reason(lease_id) is None:
            self._notes.note_reason(lease_id, await self._why(info))
        reason = self._notes.reason(lease_id) or ExitReason.EXITED
        finished = max(config.started_at(info), config.unix_ms(state["FinishedAt"]))
        passage = self._passages.of(lease_id, run, config.workspace_of(info))
        if passage is None or not passage.of_run(run):
            return JobExit(state["ExitCode"], reason, finished, finished)
        if reason is ExitReason.LOST:  # the engine's time is when it came back
            finished = min(finished, max(passage.at, self._seen.last(lease_id)))
        return JobExit(state["ExitCode"], reason, min(passage.at, finished), finished)

    async def _why(self, info: config.Info) -> ExitReason:
        """Why a container ended that we did not end."""
        if await self._measure(info) > config.disk_bytes_of(info):
            return ExitReason.DISK_LIMIT
        if info["State"]["ExitCode"] != UNKNOWN_CODE:
            return config.exit_reason(info["State"])
        saw_it = await self._engine.call(lambda client: self._jobs.saw_end(client, info))
        return config.exit_reason(info["State"]) if saw_it else ExitReason.LOST

    async def _kill(self, lease_id: LeaseId, signal: str) -> None:
        await self._act(lambda client: client.kill(config.container_name(lease_id), signal))

    async def _act(self, action: Callable[[Client], object]) -> None:
        """Do something to a container; no error if it has ended meanwhile."""

        def act(client: Client) -> None:
            with ignoring_ended():
                action(client)

        await self._engine.call(act)

    async def _until_ended(self, lease_id: LeaseId) -> None:
        with self._ends.of(lease_id) as waiter:
            await waiter.listen()
            while await self._lives(lease_id):
                await waiter.woken(LOOK_AGAIN_SECONDS)
                await waiter.listen()

    # Looking -----------------------------------------------------------------------------------

    async def _inspect(self, lease_id: LeaseId) -> config.Info | None:
        return await self._engine.call(lambda client: self._jobs.find(client, lease_id))

    async def _existing(self, lease_id: LeaseId) -> config.Info:
        info = await self._inspect(lease_id)
        if info is None or config.job_state(info) is JobState.ABSENT:
            raise job_missing(lease_id)
        return info

    async def _running(self, lease_id: LeaseId) -> config.Info:
        if config.job_state(info := await self._existing(lease_id)) is not JobState.RUNNING:
            raise job_missing(lease_id)
        return info

    async def _lives(self, lease_id: LeaseId) -> bool:
        return config.job_state(await self._inspect(lease_id)) in LIVE
