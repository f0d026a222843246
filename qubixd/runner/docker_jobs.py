"""The containers of one daemon's jobs on a Docker engine. Everything here blocks: for worker threads."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Final

from docker.errors import APIError, NotFound

from protocol.errors import ImageBroken, ImageUnavailable, QubixError, StartFailed, WrongArchitecture
from protocol.units import LeaseId
from qubixd.runner import RunSpec
from qubixd.runner import docker_config as config
from qubixd.runner.docker_engine import HTTP_CONFLICT, Client, disk_full, ignoring_ended, start_failed
from qubixd.runner.fence import LABEL_FENCE, Fences
from qubixd.runner.gate import clear_gate
from qubixd.runner.porter import LABEL_PORTER, Porters
from qubixd.runner.workspace import give_to

JOB_UID: Final = 65_432
"""User and group of every job when the daemon is root: outside the ranges of people and of services."""
SEND_SECONDS: Final = 30.0
LAST_WORDS_BYTES: Final = 300
KILLED_CODES: Final = (128 + signal.SIGKILL, 128 + signal.SIGTERM)
NO_SHELL: Final = ("no such file", "not found")


class Containers:
    """Finds and makes containers, known by their leases."""

    def __init__(self, home: str, fences: Fences, porters: Porters, runtime: str = "") -> None:
        """`home`: the label of this daemon's containers. `runtime`: "" for the engine's own."""
        self._home = home
        self._fences = fences
        self._porters = porters
        self._runtime = runtime

    def find(self, client: Client, lease_id: LeaseId) -> config.Info | None:
        """This daemon's container for a lease."""
        try:
            info: config.Info = client.inspect_container(config.container_name(lease_id))
        except NotFound:
            return None
        return info if info["Config"]["Labels"].get(config.LABEL_HOME) == self._home else None

    def running(self, client: Client) -> list[config.Info]:
        """What the engine's list says of each job that runs or is paused."""
        mine = [config.LABEL_LEASE, f"{config.LABEL_HOME}={self._home}"]
        found: list[config.Info] = client.containers(filters={"label": mine})
        return found

    def leases(self, client: Client) -> frozenset[LeaseId]:
        """Every lease that has a container here, its own, a fence or a porter."""
        mine = {"label": f"{config.LABEL_HOME}={self._home}"}
        found = client.containers(all=True, filters=mine)
        labels = (config.LABEL_LEASE, LABEL_FENCE, LABEL_PORTER)
        leases = (config.lease_of(each["Labels"], label) for each in found for label in labels)
        return frozenset(lease for lease in leases if lease is not None)

    def start(self, client: Client, spec: RunSpec) -> config.Info:
        """The job's container, started if it never was."""
        info = self.find(client, spec.lease_id)
        if info is None:
            info = self._create(client, spec)
        if info["State"]["Status"] != "created":
            return info
        try:
            return self.begin(client, spec.lease_id, info)
        except BaseException:
            with suppress(APIError):
                self.remove(client, spec.lease_id)
            raise

    def begin(self, client: Client, lease_id: LeaseId, info: config.Info) -> config.Info:
        """Start a container that does not run, behind its fence if it has one; it comes to the gate."""
        if config.is_fenced(info):
            self._fences.start(client, lease_id)
        clear_gate(config.workspace_of(info))
        try:
            client.start(info["Id"])
        except APIError as error:
            raise start_failed(error) from error
        begun: config.Info = client.inspect_container(info["Id"])
        return begun

    def say(self, client: Client, lease_id: LeaseId, words: bytes) -> None:
        """Write to the standard input of a container. What is not read stays unread."""
        attached = client.attach_socket(config.container_name(lease_id), params={"stdin": 1, "stream": 1})
        # The SDK wraps a plain socket for some transports and not for others.
        sock = getattr(attached, "_sock", attached)
        try:
            sock.settimeout(SEND_SECONDS)
            sock.sendall(words)
        finally:
            attached.close()

    def died_at_gate(self, client: Client, info: config.Info) -> QubixError:
        """Why a job that nobody let go has ended: the image's doing if not the machine's."""
        image, code = info["Config"]["Image"], info["State"]["ExitCode"]
        said = client.logs(info["Id"], tail=1).decode(errors="replace").strip()[-LAST_WORDS_BYTES:]
        if full := disk_full(said.lower()):
            return full
        if code in KILLED_CODES:
            return StartFailed(
                f"the job's container was ended from outside before the job began (code {code})"
            )
        if "exec format error" in said.lower():
            return WrongArchitecture(
                f"the image {image} is made for another kind of processor than this machine's"
            )
        if "/bin/sh" in said and any(words in said.lower() for words in NO_SHELL):
            return ImageBroken(f"the image {image} has no /bin/sh, which runs a job's script")
        return ImageBroken(f"the job's container ended before the job began (exit code {code}): {said}")

    def saw_end(self, client: Client, info: config.Info) -> bool:
        """Whether the engine was there when a container ended. It remembers some hundred events, and none
        from before its own start."""
        since, now = config.started_at(info) // 1000, int(time.time())
        asked = {"container": info["Id"], "event": "die"}
        events = client.events(since=since, until=now + 1, filters=asked, decode=True)
        return any(True for _ in events)

    def remove(self, client: Client, lease_id: LeaseId) -> None:
        """Also a container that was only half made."""
        self._porters.remove(client, lease_id)
        if self.find(client, lease_id) is not None:
            with ignoring_ended():
                client.remove_container(config.container_name(lease_id), v=True, force=True)
        self._fences.remove(client, lease_id)

    def _create(self, client: Client, spec: RunSpec) -> config.Info:
        image = image_info(client, spec.image)
        if image is None:
            raise ImageUnavailable(f"the image {spec.image} is not on this machine; pull it first")
        user = _prepare_workspace(spec)
        volumes = (image.get("Config") or {}).get("Volumes") or {}
        options = config.container_options(spec, image, user, self._home)
        if spec.internet:
            self._fences.start(client, spec.lease_id)
        try:
            host_config = client.create_host_config(**config.host_options(spec, volumes, self._runtime))
            client.create_container(**options, host_config=host_config)
        except APIError as error:
            if error.status_code != HTTP_CONFLICT:
                self._fences.remove(client, spec.lease_id)
                raise start_failed(error) from error
        info = self.find(client, spec.lease_id)
        if info is None:
            raise StartFailed("another daemon on this Docker engine already has a container for this lease")
        return info


def image_info(client: Client, image: str) -> config.Info | None:
    """What the engine knows of an image it has."""
    try:
        info: config.Info = client.inspect_image(image)
    except NotFound:
        return None
    return info


def _prepare_workspace(spec: RunSpec) -> str:
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
