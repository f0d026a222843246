"""Runs jobs. `docker.py` for real, `process.py` for the loopback trial.

A job is known by its lease id alone: every call can be repeated, by this daemon or by the next
one after a crash, and has its effect once. Jobs outlive the daemon.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio

from protocol.images import LocalImage
from protocol.units import LeaseId, UnixMs


@dataclass(frozen=True)
class RunSpec:
    """One job, ready to run. `workspace` is a host directory that already holds the input files;
    the job sees it as /workspace (its working directory) and leaves output files in it."""

    lease_id: LeaseId
    image: str
    script: str
    """Run by `/bin/sh -eu -c` once the job is released."""
    env: dict[str, str]
    workspace: Path
    gpu_uuids: tuple[str, ...]
    cpu_millis: int
    """CPU limit in thousandths of a core."""
    memory_bytes: int
    disk_bytes: int
    """Limit on what the job may leave in its workspace."""
    pids_max: int = 512
    internet: bool = False
    """Without it the job has no network but its own loopback."""


class ExitReason(enum.StrEnum):
    EXITED = "exited"
    STOPPED = "stopped"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_LIMIT = "disk_limit"
    LOST = "lost"


class JobState(enum.StrEnum):
    ABSENT = "absent"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@dataclass(frozen=True)
class JobStatus:
    """What the engine knows of a job now."""

    state: JobState
    started_at: UnixMs | None = None
    released_at: UnixMs | None = None
    """When it was let go; None as long as it waits at the gate."""


@dataclass(frozen=True)
class JobExit:
    """How a job ended. Times are the engine's own, so they survive a daemon that was down."""

    code: int
    reason: ExitReason
    started_at: UnixMs
    finished_at: UnixMs


@dataclass(frozen=True)
class Stock:
    """What an offer says of the images here."""

    tags: tuple[bytes, ...] = ()
    """Of names and layers, as in `Offer.layers`; see protocol/images.py."""
    pull_mib_per_s: int = 0
    """0 if no image has come lately."""


@dataclass(frozen=True)
class Usage:
    """What a job has used since its container began, and what it holds now."""

    cpu_ns: int
    memory_bytes: int
    """Without cached files that nobody uses: the kernel takes those back when it needs room."""
    received_bytes: int
    sent_bytes: int
    disk_bytes: int | None = None
    """In its workspace, when that was last measured."""


Progress = Callable[[str, float], None]
"""(phase in words, share done 0..1) -- may be called from the daemon's thread only."""


class Inside(Protocol):
    """A program that runs inside a job's container, beside the job. `aclose` ends it.

    Errors of its pipes: StreamBroken.
    """

    async def send_all(self, data: bytes | bytearray | memoryview) -> None: ...

    async def send_eof(self) -> None: ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Its standard output; empty at the end. Standard error is dropped."""
        ...

    async def exit_code(self) -> int:
        """Wait until it has ended."""
        ...

    async def aclose(self) -> None: ...


OUTPUT: Final = 1
ERRORS: Final = 2


@dataclass(frozen=True)
class Terminal:
    """A terminal for a program to run on. `term` is its kind, for TERM."""

    columns: int
    rows: int
    term: str = "xterm-256color"


class Program(Protocol):
    """A program that a person runs beside a job. `aclose` ends it, with all of its session.

    Errors of its pipes: StreamBroken.
    """

    async def send_all(self, data: bytes | bytearray | memoryview) -> None: ...

    async def send_eof(self) -> None:
        """No more input; without effect on a terminal, which has ctrl-D for it."""
        ...

    async def receive_some(self) -> tuple[int, bytes] | None:
        """(OUTPUT or ERRORS, bytes); None at the end, which comes soon after the program's own end, also if
        something that it has begun could still write. A terminal's is all OUTPUT."""
        ...

    async def resize(self, columns: int, rows: int) -> None: ...

    async def signal(self, name: str) -> None:
        """Send a signal ("TERM") to the program and what it has begun."""
        ...

    async def exit_code(self) -> int:
        """Wait until it has ended; 128 + the number of a signal that ended it."""
        ...

    async def aclose(self) -> None: ...


Dialed = trio.SocketStream | trio.socket.SocketType | Inside
"""A TCP connection, a connected UDP socket, or where neither can be had a program that passes bytes on: for
UDP each datagram behind its length (u16, big-endian)."""


class Runner(Protocol):
    """Errors: EngineUnreachable, ImageUnavailable, StartFailed, JobMissing, DiskFull."""

    @property
    def name(self) -> str:
        """'docker' or 'process', with a runtime of its own "docker+runsc"."""
        ...

    async def check(self) -> None:
        """Return when the engine answers; else EngineUnreachable with what to do about it."""
        ...

    async def pull(self, image: str, progress: Progress) -> str:
        """Make the image present; return its digest ("sha256:..."). ImageUnavailable if it cannot."""
        ...

    async def stock(self) -> Stock:
        """Which images need not be fetched, and how fast others would come. EngineUnreachable."""
        ...

    async def image(self, name: str) -> LocalImage | None:
        """An image that is here, None if it is not. EngineUnreachable."""
        ...

    async def start(self, spec: RunSpec) -> UnixMs:
        """Create and start the job, or adopt the one that this lease already has. When it started.

        It waits at a gate, with all its cards and limits but not yet its script, until it is released.
        """
        ...

    async def release(self, lease_id: LeaseId, secrets: dict[str, str]) -> UnixMs:
        """Let the job begin, with `secrets` in its environment, which never enter logs, arguments or
        `docker inspect`. When it was; once only, however often it is asked. JobMissing if it has ended."""
        ...

    async def restart(
        self, lease_id: LeaseId, secrets: dict[str, str], grace_seconds: float, nonce: bytes
    ) -> UnixMs:
        """End the job if it runs and begin it anew in its workspace, past the gate. Once for each nonce.
        When it began anew: an exit that finished before belongs to an earlier run. JobMissing if there is
        none, StartFailed if it cannot."""
        ...

    async def inside(self, lease_id: LeaseId, command: Sequence[str]) -> Inside:
        """Run a program in the job's container, as the job's user and within its limits, also while it waits
        at the gate. JobMissing if it does not run, StartFailed if the program cannot."""
        ...

    async def program(
        self, lease_id: LeaseId, command: Sequence[str], terminal: Terminal | None = None
    ) -> Program:
        """Run a program beside a job that was let go, as `inside`; a shell if `command` is empty. JobMissing,
        StartFailed."""
        ...

    async def dial(self, lease_id: LeaseId, port: int, *, udp: bool = False) -> Dialed:
        """A connection with a port of the job's loopback. JobMissing if the job does not run, PortClosed if
        nothing listens there (UDP tells so only by what is sent), TunnelUnavailable."""
        ...

    async def status(self, lease_id: LeaseId) -> JobStatus: ...

    async def wait(self, lease_id: LeaseId) -> JobExit:
        """Wait for the end; returns at once for a job that has ended. JobMissing if there is none."""
        ...

    async def stop(self, lease_id: LeaseId, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL after the grace. No error if it has ended or never was."""
        ...

    async def pause(self, lease_id: LeaseId) -> None: ...

    async def resume(self, lease_id: LeaseId) -> None: ...

    def logs(self, lease_id: LeaseId, *, follow: bool, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Standard output and error, interleaved, from byte `offset` on; ends when the job has ended
        (follow) or at what is there now. Kept size is capped; use `contextlib.aclosing`."""
        ...

    async def usage(self, leases: Collection[LeaseId]) -> dict[LeaseId, Usage]:
        """What these jobs use, cheap enough for once a second. Those that cannot be told of are left out."""
        ...

    async def remove(self, lease_id: LeaseId) -> None:
        """Delete the job's container and log, never its workspace. No error if it is gone."""
        ...

    async def leases(self) -> frozenset[LeaseId]:
        """Every lease that has a job here, running or ended (for re-adoption and clean-up)."""
        ...

    async def containers(self) -> dict[str, LeaseId]:
        """Id of the container of each job that runs or is paused: whose processes are whose. Empty where
        jobs have none."""
        ...
