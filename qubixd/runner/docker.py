"""Runs jobs in containers of a Docker engine, as strangers' code: see docker_config for every limit.

All calls go through the SDK in worker threads with limiters of their own. The engine is asked again
rather than remembered, so a daemon that has just started knows as much as one that never stopped.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from protocol.errors import EngineUnreachable, ImageUnavailable, StartFailed
from protocol.images import MAX_TAGS, LocalImage, tags_of
from protocol.units import LeaseId, UnixMs
from qubixd.runner import ExitReason, JobExit, JobState, JobStatus, Progress, RunSpec, Stock
from qubixd.runner import docker_config as config
from qubixd.runner.common import (
    DISK_CHECK_SECONDS,
    JobNotes,
    check_image_name,
    check_spec,
    in_thread,
    job_missing,
)
from qubixd.runner.docker_engine import (
    HTTP_CONFLICT,
    Client,
    DockerEngine,
    LayerShares,
    LogBatches,
    ignoring_ended,
    image_unavailable,
    start_failed,
)
from qubixd.runner.docker_images import Pace, local_image, newest_images
from qubixd.runner.workspace import give_to, usage_bytes

LIVE: Final = (JobState.RUNNING, JobState.PAUSED)
RETRY_FIRST_SECONDS: Final = 0.2
RETRY_MOST_SECONDS: Final = 10.0
JOB_UID: Final = 65_432
"""User and group of every job when the daemon is root: outside the ranges of people and of services."""


class DockerRunner:
    """The Runner of a machine with a Docker engine (DOCKER_HOST or the usual socket)."""

    name = "docker"

    def __init__(
        self, state_dir: Path, *, limiter_tokens: int = 16, disk_check_seconds: float = DISK_CHECK_SECONDS
    ) -> None:
        """Nothing is contacted yet. `state_dir` is this daemon's own and names its containers."""
        self._notes = JobNotes(state_dir / "docker")
        self._home = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:32]
        self._engine = DockerEngine(limiter_tokens)
        self._pace = Pace()
        self._wanted: deque[str] = deque(maxlen=MAX_TAGS)
        """Ids of the images that jobs asked for, the last first."""
        self._disk_check_seconds = disk_check_seconds

    # Interface ---------------------------------------------------------------------------------

    async def check(self) -> None:
        await self._engine.call(lambda client: client.ping())

    async def pull(self, image: str, progress: Progress) -> str:
        check_image_name(image)
        found = await self._engine.call(lambda client: _image(client, image))
        if found is None:
            await self._pull(image, progress)
            found = await self._engine.call(lambda client: _image(client, image))
        if found is None:
            raise ImageUnavailable(f"the engine pulled {image} but does not have it")
        progress("image ready", 1.0)
        image_id = str(found["Id"])
        with suppress(ValueError):
            self._wanted.remove(image_id)
        self._wanted.appendleft(image_id)
        return image_id

    async def stock(self) -> Stock:
        wanted = tuple(self._wanted)
        tags = await self._engine.call(lambda client: tags_of(newest_images(client, wanted)))
        return Stock(tags, self._pace.mib_per_s)

    async def image(self, name: str) -> LocalImage | None:
        check_image_name(name)
        found = await self._engine.call(lambda client: _image(client, name))
        return None if found is None else local_image(found)

    async def start(self, spec: RunSpec) -> UnixMs:
        check_spec(spec)
        return await self._engine.call(lambda client: self._start(client, spec))

    async def status(self, lease_id: LeaseId) -> JobStatus:
        info = await self._inspect(lease_id)
        state = config.job_state(info)
        return JobStatus(state, None if info is None or state is JobState.ABSENT else config.started_at(info))

    async def wait(self, lease_id: LeaseId) -> JobExit:
        retry_seconds = RETRY_FIRST_SECONDS
        while True:
            try:
                info = await self._inspect(lease_id)
                retry_seconds = RETRY_FIRST_SECONDS
            except EngineUnreachable:
                await trio.sleep(retry_seconds)
                retry_seconds = min(2 * retry_seconds, RETRY_MOST_SECONDS)
                continue
            if info is None or config.job_state(info) is JobState.ABSENT:
                raise job_missing(lease_id)
            await self._enforce_disk_limit(lease_id, info)
            if config.job_state(info) is JobState.EXITED:
                return self._exit(lease_id, info)
            await self._wait_some(lease_id, self._disk_check_seconds)

    async def stop(self, lease_id: LeaseId, grace_seconds: float) -> None:
        state = config.job_state(await self._inspect(lease_id))
        if state not in LIVE:
            return
        self._notes.note_reason(lease_id, ExitReason.STOPPED)
        if state is JobState.PAUSED:
            await self.resume(lease_id)
        await self._kill(lease_id, "SIGTERM")
        with trio.move_on_after(grace_seconds) as grace:
            await self._until_ended(lease_id)
        if grace.cancelled_caught:
            await self._kill(lease_id, "SIGKILL")
            await self._until_ended(lease_id)

    async def pause(self, lease_id: LeaseId) -> None:
        if config.job_state(await self._existing(lease_id)) is JobState.RUNNING:
            await self._act(lambda client: client.pause(config.container_name(lease_id)))

    async def resume(self, lease_id: LeaseId) -> None:
        if config.job_state(await self._existing(lease_id)) is JobState.PAUSED:
            await self._act(lambda client: client.unpause(config.container_name(lease_id)))

    async def logs(self, lease_id: LeaseId, *, follow: bool, offset: int = 0) -> AsyncGenerator[bytes, None]:
        position = offset
        while True:
            await self._existing(lease_id)
            stream = await self._engine.call(lambda client: _open_logs(client, lease_id, follow))
            skip = position
            try:
                while (chunk := await in_thread(stream.take, self._engine.blocking)) is not None:
                    skip, chunk = max(0, skip - len(chunk)), chunk[skip:]
                    position += len(chunk)
                    if chunk:
                        yield chunk
            finally:
                stream.close()
            # The stream ends with the job, and also with the engine: then go on from here.
            if not follow or config.job_state(await self._inspect(lease_id)) not in LIVE:
                return
            await trio.sleep(RETRY_FIRST_SECONDS)

    async def remove(self, lease_id: LeaseId) -> None:
        if await self._inspect(lease_id) is not None:
            await self._engine.call(lambda client: _remove(client, config.container_name(lease_id)))
        self._notes.forget(lease_id)

    async def leases(self) -> frozenset[LeaseId]:
        mine = {"label": f"{config.LABEL_HOME}={self._home}"}
        found = await self._engine.call(lambda client: client.containers(all=True, filters=mine))
        leases = (config.lease_of(container["Labels"]) for container in found)
        return frozenset(lease for lease in leases if lease is not None)

    # Starting (in a worker thread) -------------------------------------------------------------

    def _start(self, client: Client, spec: RunSpec) -> UnixMs:
        info = self._find(client, spec.lease_id) or self._create(client, spec)
        name = config.container_name(spec.lease_id)
        if info["State"]["Status"] == "created":
            self._start_created(client, spec, name)
            info = client.inspect_container(name)
        if config.job_state(info) is JobState.RUNNING:
            self._deliver_secrets(client, spec, name)
        return config.started_at(info)

    def _create(self, client: Client, spec: RunSpec) -> config.Info:
        image = _image(client, spec.image)
        if image is None:
            raise ImageUnavailable(f"the image {spec.image} is not on this machine; pull it first")
        user = self._prepare_workspace(spec)
        volumes = (image.get("Config") or {}).get("Volumes") or {}
        options = config.container_options(spec, image, user, self._home)
        try:
            host_config = client.create_host_config(**config.host_options(spec, volumes))
            client.create_container(**options, host_config=host_config)
        except APIError as error:
            if error.status_code != HTTP_CONFLICT:
                raise start_failed(error) from error
        info = self._find(client, spec.lease_id)
        if info is None:
            raise StartFailed("another daemon on this Docker engine already has a container for this lease")
        return info

    def _prepare_workspace(self, spec: RunSpec) -> str:
        """Let the job write in its workspace; the user to run it as, "uid:gid"."""
        if not spec.workspace.is_dir():
            raise StartFailed(f"the job's workspace {spec.workspace} is not a directory")
        if os.geteuid() != 0:
            return f"{os.geteuid()}:{os.getegid()}"
        try:
            give_to(spec.workspace, JOB_UID, JOB_UID)
        except OSError as error:
            raise StartFailed(f"cannot prepare the workspace {spec.workspace}: {error.strerror}") from error
        return f"{JOB_UID}:{JOB_UID}"

    def _start_created(self, client: Client, spec: RunSpec, name: str) -> None:
        try:
            client.start(name)
        except APIError as error:
            with suppress(APIError):
                _remove(client, name)
            raise start_failed(error) from error

    def _deliver_secrets(self, client: Client, spec: RunSpec, name: str) -> None:
        """Once, or once more after a crash in between: what is not read stays unread in the pipe."""
        if not spec.secrets or self._notes.read(spec.lease_id, "secrets") is not None:
            return
        attached = client.attach_socket(name, params={"stdin": 1, "stream": 1})
        # The SDK wraps a plain socket for some transports and not for others.
        sock = getattr(attached, "_sock", attached)
        try:
            sock.sendall(config.secrets_payload(spec.secrets))
        finally:
            attached.close()
        self._notes.write_if_possible(spec.lease_id, "secrets", "delivered")

    # Ending ------------------------------------------------------------------------------------

    async def _enforce_disk_limit(self, lease_id: LeaseId, info: config.Info) -> None:
        """End the job if its workspace is too large; after its end, only note that it was."""
        if self._notes.reason(lease_id) is not None:
            return
        labels = info["Config"]["Labels"]
        workspace, limit = Path(labels[config.LABEL_WORKSPACE]), int(labels[config.LABEL_DISK_BYTES])
        used = await in_thread(lambda: usage_bytes(workspace), self._engine.blocking)
        if used > limit:
            self._notes.note_reason(lease_id, ExitReason.DISK_LIMIT)
            await self._kill(lease_id, "SIGKILL")

    def _exit(self, lease_id: LeaseId, info: config.Info) -> JobExit:
        state = info["State"]
        code, started = state["ExitCode"], config.started_at(info)
        finished = max(started, config.unix_ms(state["FinishedAt"]))
        return JobExit(code, self._notes.note_reason(lease_id, config.exit_reason(state)), started, finished)

    async def _kill(self, lease_id: LeaseId, signal: str) -> None:
        await self._act(lambda client: client.kill(config.container_name(lease_id), signal))

    async def _act(self, action: Callable[[Client], object]) -> None:
        """Do something to a container; no error if it has ended meanwhile."""

        def act(client: Client) -> None:
            with ignoring_ended():
                action(client)

        await self._engine.call(act)

    async def _until_ended(self, lease_id: LeaseId) -> None:
        while config.job_state(await self._inspect(lease_id)) in LIVE:
            await self._wait_some(lease_id, self._disk_check_seconds)

    async def _wait_some(self, lease_id: LeaseId, seconds: float) -> None:
        """Until the job ends, at most about `seconds`; whatever else happens shows in the next inspect."""

        def wait(client: Client) -> bool:
            try:
                client.wait(config.container_name(lease_id), timeout=seconds)
            except (RequestException, DockerException) as error:
                return "timed out" in str(error).lower()
            return True

        if not await self._engine.call_blocking(wait):
            await trio.sleep(RETRY_FIRST_SECONDS)

    # Asking ------------------------------------------------------------------------------------

    def _find(self, client: Client, lease_id: LeaseId) -> config.Info | None:
        """This daemon's container for a lease."""
        try:
            info: config.Info = client.inspect_container(config.container_name(lease_id))
        except NotFound:
            return None
        return info if info["Config"]["Labels"].get(config.LABEL_HOME) == self._home else None

    async def _inspect(self, lease_id: LeaseId) -> config.Info | None:
        return await self._engine.call(lambda client: self._find(client, lease_id))

    async def _existing(self, lease_id: LeaseId) -> config.Info:
        info = await self._inspect(lease_id)
        if info is None or config.job_state(info) is JobState.ABSENT:
            raise job_missing(lease_id)
        return info

    async def _pull(self, image: str, progress: Progress) -> None:
        shares, began = LayerShares(), trio.current_time()
        stream = await self._engine.call(lambda client: _open_pull(client, image))
        while (event := await self._engine.next(stream)) is not None:
            if "error" in event:
                raise image_unavailable(image, str(event["error"]))
            progress("pulling the image", shares.add(event))
        self._pace.add(shares.total_bytes, trio.current_time() - began)


def _image(client: Client, image: str) -> config.Info | None:
    try:
        info: config.Info = client.inspect_image(image)
    except NotFound:
        return None
    return info


def _open_logs(client: Client, lease_id: LeaseId, follow: bool) -> LogBatches:
    return LogBatches(client.logs(config.container_name(lease_id), stream=True, follow=follow))


def _open_pull(client: Client, image: str) -> Iterator[dict[str, Any]]:
    """Anonymous: an image a stranger names must not be fetched with the provider's own credentials."""
    try:
        stream: Iterator[dict[str, Any]] = client.pull(image, stream=True, decode=True, auth_config={})
    except APIError as error:
        raise image_unavailable(image, str(error.explanation)) from error
    return stream


def _remove(client: Client, name: str) -> None:
    with ignoring_ended():
        client.remove_container(name, v=True, force=True)
