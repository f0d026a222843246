"""The gate at which every job waits: the job's shell reads standard input before it becomes the job.

A file GATE in the workspace says that it waits, its going (or a word in it, where an image has no `rm`)
that it was let go. So the daemon sees both without a word in the job's log, and from outside. Secrets come
in through the gate: they are in no file, no argument and no setting of a container.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import trio

from protocol.errors import EngineUnreachable, StartFailed
from protocol.units import LeaseId, UnixMs
from qubixd.runner.common import JobNotes, job_missing

T = TypeVar("T")
Ask = Callable[[], Awaitable[T]]

GATE: Final = ".qubix-gate"
NOTE: Final = "passage"
LOOK_SECONDS: Final = 0.005
LOOK_SECONDS_MOST: Final = 0.1
PASS_SECONDS: Final = 1.0
"""In which a job that was let go has to be gone from the gate, before it is told again."""
PASS_TRIES: Final = 30

# Each line says by its first character what it is: "<" begins the secrets anew, so that what a daemon
# sent that died in the middle does not count, "=" is a line of shell, ">" ends them and opens the gate.
WAIT_AT_GATE: Final = f""": >{GATE}
qubix__s=
while :; do
  IFS= read -r qubix__l
  case $qubix__l in
  '<') qubix__s= ;;
  '>') break ;;
  =*) qubix__s="$qubix__s${{qubix__l#=}}
" ;;
  esac
done
eval "$qubix__s"; unset qubix__l qubix__s
rm -f {GATE} 2>/dev/null || echo open >{GATE}
exec /bin/sh -eu -c "$1" </dev/null
"""


def gate_command(script: str) -> list[str]:
    """The job's command, run in its workspace: waits at the gate, then becomes `script`."""
    return ["/bin/sh", "-eu", "-c", WAIT_AT_GATE, "qubix", script]


def gate_words(secrets: Mapping[str, str]) -> bytes:
    """What opens the gate: shell exports. Saying it again does no harm, wherever it broke off before."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in secrets.items())
    lines = "".join(f"={line}\n" for line in exports.split("\n")[:-1])
    return f"\n<\n{lines}>\n".encode()


def gate_seen(workspace: Path) -> str | None:
    """The file by which a job waits, in a way that no other file can take its place; None if none waits."""
    try:
        info = os.stat(workspace / GATE, follow_symlinks=False)
    except OSError:
        return None
    return f"{info.st_dev}:{info.st_ino}:{info.st_ctime_ns}" if stat.S_ISREG(info.st_mode) else None


def clear_gate(workspace: Path) -> None:
    """Take the file away, whoever made it; a directory there will keep the job from starting."""
    with suppress(OSError):
        (workspace / GATE).unlink()


async def _passes(workspace: Path, gate: str) -> bool:
    """Wait for a job that was let go to leave the gate; False if it stays."""
    with trio.move_on_after(PASS_SECONDS):
        seconds = LOOK_SECONDS
        while gate_seen(workspace) == gate:
            await trio.sleep(seconds)
            seconds = min(2 * seconds, LOOK_SECONDS_MOST)
        clear_gate(workspace)  # where the image has no `rm`
        return True
    return False


@dataclass(frozen=True)
class Passage:
    """A job let go, or about to be."""

    run: str
    """Which of the job's runs: a restarted one waits at the gate again."""
    at: UnixMs
    opened: bool = False
    """False: the daemon may have died before, during or after saying the words."""
    gate: str = ""
    """The file at which it waited then; the job may make another of that name."""
    first: UnixMs | None = None
    """When the first run was let go."""

    def of_run(self, run: str) -> bool:
        """Whether that run was let go."""
        return self.opened and self.run == run


class Passages:
    """The durable notes of when jobs were let go."""

    def __init__(self, notes: JobNotes) -> None:
        self._notes = notes

    def of(self, lease_id: LeaseId, run: str, workspace: Path) -> Passage | None:
        """What is known; of this `run` only if it has been let go. If a daemon died in between, the file
        at the gate tells whether its words arrived."""
        known = self._read(lease_id)
        if known is None or known.opened or known.run != run or gate_seen(workspace) == known.gate:
            return known
        return self._opened(lease_id, known)

    def intended(self, lease_id: LeaseId, run: str) -> bool:
        """Whether somebody has at least begun to let that run go."""
        known = self._read(lease_id)
        return known is not None and known.run == run

    def _intend(self, lease_id: LeaseId, run: str, gate: str) -> Passage:
        """To be called before the words are said. DiskFull if it cannot be kept."""
        known = self._read(lease_id)
        return self._keep(lease_id, Passage(run, now_ms(), gate=gate, first=known.first if known else None))

    def _opened(self, lease_id: LeaseId, passage: Passage) -> Passage:
        """The words have arrived."""
        first = passage.at if passage.first is None else passage.first
        return self._keep(lease_id, replace(passage, opened=True, first=first))

    async def let_go(
        self, lease_id: LeaseId, run: str, workspace: Path, say: Ask[None], lives: Ask[bool]
    ) -> Passage:
        """Open the gate of a job's present run, once. JobMissing if it no more lives."""
        known = self.of(lease_id, run, workspace)
        if known is not None and known.of_run(run):
            return known
        if not await lives():
            raise job_missing(lease_id)
        if (gate := gate_seen(workspace)) is None:
            known = self.of(lease_id, run, workspace)
            if known is not None and known.of_run(run):
                return known  # by another who let it go at the same time
            raise StartFailed(f"the job's file {GATE} is gone, so nothing tells whether it began")
        passage = self._intend(lease_id, run, gate)
        for _ in range(PASS_TRIES):
            await say()
            if await _passes(workspace, gate):
                return self._opened(lease_id, passage)
            if not await lives():
                raise job_missing(lease_id)
        raise EngineUnreachable(
            "what a job waits for at its start does not reach it; is the machine too busy?"
        )

    def _read(self, lease_id: LeaseId) -> Passage | None:
        text = self._notes.read(lease_id, NOTE)
        return None if text is None else Passage(**json.loads(text))

    def _keep(self, lease_id: LeaseId, passage: Passage) -> Passage:
        self._notes.write(lease_id, NOTE, json.dumps(asdict(passage)))
        return passage


def now_ms() -> UnixMs:
    return UnixMs(time.time_ns() // 1_000_000)
