"""What both runners share: the check of a job at the door, the shell prefix, notes that survive the daemon.

A note is a small file of one job under the runner's state directory, written whole or not at all, so
that the next daemon knows why this one stopped a job.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import trio

from protocol.errors import DiskFull, ImageUnavailable, JobMissing, StartFailed
from protocol.units import LeaseId, UnixMs
from qubixd.runner import ExitReason, RunSpec

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_SECRETS_BYTES: Final = 65_536
MAX_ARGUMENT_BYTES: Final = 120_000
"""Script, and each variable with its value: Linux takes no single one above 128 KiB."""
LEASE_ID_BYTES: Final = 32
SEEN_SECONDS: Final = 5.0
DISK_CHECK_SECONDS: Final = 5.0
"""How often a running job's workspace is measured."""
FILE_SIZE_MARGIN_BYTES: Final = 1 << 20
"""A single file may grow this far past the disk limit, so that the measure sees the limit passed."""

_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_IMAGE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")
_GPU_UUID: Final = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{1,80}")
RESERVED_ENV_PREFIXES: Final = ("LD_", "NVIDIA_", "GLIBC_TUNABLES", "GCONV_PATH")
"""Read by programs of the host that run before the container is closed (loader, GPU hooks), so
neither an image nor a job may set them; a script can still export LD_LIBRARY_PATH itself."""


async def in_thread(work: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
    """`work` in a worker thread; cancelling returns at once and leaves the thread to finish."""
    return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)


def check_spec(spec: RunSpec) -> None:
    """StartFailed or ImageUnavailable if anything in `spec` could mean more to an engine than it says."""
    if len(spec.lease_id) != LEASE_ID_BYTES:
        raise StartFailed(f"a lease id has {LEASE_ID_BYTES} bytes, this one has {len(spec.lease_id)}")
    check_image_name(spec.image)
    for name, value in spec.env.items():
        _check_variable(name, value)
    for uuid in spec.gpu_uuids:
        if not _GPU_UUID.fullmatch(uuid):
            raise StartFailed(f"{uuid!r} is not the UUID of a GPU")
    if min(spec.cpu_millis, spec.memory_bytes, spec.disk_bytes, spec.pids_max) <= 0:
        raise StartFailed("a job needs CPU, memory, disk and process limits above zero")
    if "\0" in spec.script or len(spec.script.encode()) > MAX_ARGUMENT_BYTES:
        raise StartFailed(f"the job's script contains a NUL or is longer than {MAX_ARGUMENT_BYTES} bytes")


def check_secrets(secrets: Mapping[str, str]) -> None:
    """StartFailed if these cannot be variables of a job."""
    for name, value in secrets.items():
        _check_variable(name, value)
    if sum(len(name) + len(value.encode()) for name, value in secrets.items()) > MAX_SECRETS_BYTES:
        raise StartFailed(f"the job's secrets are larger than {MAX_SECRETS_BYTES} bytes together")


def check_image_name(image: str) -> None:
    """ImageUnavailable unless `image` is a plain image reference (it becomes part of an engine URL)."""
    if not _IMAGE_NAME.fullmatch(image) or ".." in image:
        raise ImageUnavailable(f"{image[:80]!r} is not the name of a container image")


def _check_variable(name: str, value: str) -> None:
    if not _ENV_NAME.fullmatch(name):
        raise StartFailed(f"{name[:80]!r} cannot be the name of an environment variable")
    if name.startswith(RESERVED_ENV_PREFIXES):
        raise StartFailed(f"a job may not set {name}; export it inside the script if it is needed there")
    if "\0" in value or len(value.encode()) > MAX_ARGUMENT_BYTES:
        raise StartFailed(f"the value of {name} contains a NUL or is longer than {MAX_ARGUMENT_BYTES} bytes")


def prepared(script: str) -> str:
    """The script with a few words in front, on its first line so that line numbers stay.

    Errors join the output in one pipe, the only way to keep their order. Stopping signals the whole
    process group: without the trap the shell would die first and take its program's grace with it;
    with it the shell ends after the program has.
    """
    return f"exec 2>&1; trap 'exit 143' TERM; {script}"


class JobNotes:
    """The note files of all jobs of one runner: `root`/<lease hex>/<name>."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._reasons: dict[LeaseId, ExitReason] = {}

    def directory(self, lease_id: LeaseId) -> Path:
        return self.root / lease_id.hex()

    def write(self, lease_id: LeaseId, name: str, text: str) -> None:
        """Durable when this returns. DiskFull if it cannot be kept."""
        directory = self.directory(lease_id)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(directory / name, text.encode())
        except OSError as error:
            raise DiskFull(f"cannot keep notes of a job in {directory}: {error.strerror}") from error

    def write_if_possible(self, lease_id: LeaseId, name: str, text: str) -> None:
        """For what must go on even with a full disk; a warning if it could not be kept."""
        try:
            self.write(lease_id, name, text)
        except DiskFull as error:
            log.warning("%s", error)

    def read(self, lease_id: LeaseId, name: str) -> str | None:
        try:
            return (self.directory(lease_id) / name).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def note_reason(self, lease_id: LeaseId, reason: ExitReason) -> ExitReason:
        """Remember why a job ended, or why we are about to end it. The first reason stays and is returned."""
        noted = self.reason(lease_id)
        if noted is not None:
            return noted
        self._reasons[lease_id] = reason
        self.write_if_possible(lease_id, "reason", reason.value)
        return reason

    def reason(self, lease_id: LeaseId) -> ExitReason | None:
        if (known := self._reasons.get(lease_id)) is not None:
            return known
        noted = self.read(lease_id, "reason")
        return None if noted is None else ExitReason(noted)

    def forget_reason(self, lease_id: LeaseId) -> None:
        """The job begins anew."""
        self._reasons.pop(lease_id, None)
        (self.directory(lease_id) / "reason").unlink(missing_ok=True)

    def forget(self, lease_id: LeaseId) -> None:
        self._reasons.pop(lease_id, None)
        shutil.rmtree(self.directory(lease_id), ignore_errors=True)


class Seen:
    """When each job was last seen alive, for an end that nobody saw. Kept as the time of an empty file."""

    def __init__(self, notes: JobNotes) -> None:
        self._notes = notes
        self._noted: dict[LeaseId, float] = {}

    def note(self, lease_id: LeaseId) -> None:
        """Now, each few seconds. Not forced to the disk: what a crash takes away makes the job shorter."""
        now = time.monotonic()
        if now - self._noted.get(lease_id, -math.inf) >= SEEN_SECONDS:
            self._noted[lease_id] = now
            with suppress(OSError):
                self._path(lease_id).touch()

    def forget(self, lease_id: LeaseId) -> None:
        self._noted.pop(lease_id, None)

    def last(self, lease_id: LeaseId) -> UnixMs:
        """0 if never."""
        with suppress(OSError):
            return UnixMs(self._path(lease_id).stat().st_mtime_ns // 1_000_000)
        return UnixMs(0)

    def _path(self, lease_id: LeaseId) -> Path:
        return self._notes.directory(lease_id) / "seen"


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` with `data` so that a reader, or a crash, sees the old or the new file, whole."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def job_missing(lease_id: LeaseId) -> JobMissing:
    return JobMissing(f"there is no job for lease {lease_id.hex()[:16]} on this machine")
