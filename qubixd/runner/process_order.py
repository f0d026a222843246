"""What the supervisor of the process runner is told of a job, and how it is started and spoken to."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

from qubixd.runner import RunSpec
from qubixd.runner.common import FILE_SIZE_MARGIN_BYTES, prepared
from qubixd.runner.gate import GATE, gate_command

SUPERVISOR: Final = Path(__file__).with_name("process_supervisor.py")
OPEN_FILES: Final = 4_096


def supervise(directory: Path, run: str) -> None:
    """Start the supervisor of one run and wait until it has started the job, or given up."""
    with (directory / "errors").open("wb") as errors:
        subprocess.run(
            [sys.executable, "-I", str(SUPERVISOR), str(directory), run],
            cwd="/",
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            check=False,
        )


def say_to(pipe: Path, words: bytes) -> None:
    """Nothing if nobody listens: the job has ended, or is no more at the gate."""
    with suppress(OSError):
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "wb", buffering=0) as gate:
            left = memoryview(words)
            while left:
                left = left[gate.write(left) :]


def order_of(spec: RunSpec) -> dict[str, Any]:
    """What the supervisor reads. The job's environment starts empty, not with the daemon's."""
    basics = {"PATH": os.defpath, "HOME": str(spec.workspace.resolve()), "LANG": "C.UTF-8"}
    return {
        "command": gate_command(prepared(spec.script)),
        "gate": GATE,
        "workspace": str(spec.workspace.resolve()),
        "disk_bytes": spec.disk_bytes,
        "env": {**basics, **spec.env},
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
