"""Runs one job of the process runner and outlives the daemon; only the standard library, its own process.

Started as `python -I process_supervisor.py JOB_DIRECTORY RUN`; takes its order as JSON from the file `order`
and says "started" on standard output. Leaves in the job directory, each written whole: `started.RUN` and
`exit.RUN` (JSON, times in milliseconds), and `log`. The job's first standard input is the pipe `gate`. The
lock held on `lock.RUN` makes it the only one for this run of the job.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

LOG_BYTES_MAX: Final = 16 << 20
LOG_CUT_NOTE: Final = b"\n[the log ends here: it reached its largest size]\n"
CHUNK_BYTES: Final = 65_536
RETRY_SECONDS: Final = 0.5


def main(directory: Path, run: str) -> None:
    if os.fork():  # the daemon waits for its own child only
        os._exit(0)
    lock = (directory / f"lock.{run}").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another supervisor has this job already
    if (directory / f"started.{run}").exists():
        return  # it has run before
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not SIG_IGN: the job would inherit that, and a shell cannot trap what it began by ignoring.
        signal.signal(number, lambda *_: None)
    _supervise(directory, run, json.loads((directory / "order").read_text()))


def _supervise(directory: Path, run: str, order: dict[str, Any]) -> None:
    gate = _gate(directory, order)
    job = _start(order, gate)
    os.close(gate)
    assert job.stdout is not None
    started_ms = _now_ms()
    try:
        pids = {"pid": job.pid, "supervisor_pid": os.getpid()}
        _write(directory / f"started.{run}", {**pids, "started_at": started_ms})
    except OSError:
        os.killpg(job.pid, signal.SIGKILL)  # nobody would ever know of it, and the next try runs it again
        raise
    with suppress(OSError):  # the daemon may be gone by now; the job is not
        os.write(1, b"started\n")
    _let_go_of_the_daemon()
    copier = threading.Thread(target=_copy_log, args=(job.stdout, directory / "log"), daemon=True)
    copier.start()
    code = job.wait()
    finished_ms = _now_ms()
    with suppress(OSError):
        os.killpg(job.pid, signal.SIGKILL)  # what the script left behind ends with it
    copier.join(timeout=5)
    code = code if code >= 0 else 128 - code
    ended = {"code": code, "started_at": started_ms, "finished_at": finished_ms}
    _write_patiently(directory / f"exit.{run}", ended)


def _gate(directory: Path, order: dict[str, Any]) -> int:
    """The pipe through which the job is let go, new and empty, and nothing in the workspace that looks as
    if it waited there already."""
    pipe = directory / "gate"
    for left_over in (pipe, Path(order["workspace"]) / order["gate"]):
        with suppress(OSError):
            left_over.unlink()
    os.mkfifo(pipe, 0o600)
    return os.open(pipe, os.O_RDWR)  # also to write: so the job sees no end of it when a daemon dies


def _start(order: dict[str, Any], gate: int) -> subprocess.Popen[bytes]:
    def limit() -> None:
        for name, value in order["limits"].items():
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (most, most))
        if order["cpus"]:
            os.sched_setaffinity(0, order["cpus"])

    return subprocess.Popen(
        order["command"],
        cwd=order["workspace"],
        env=order["env"],
        stdin=gate,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=limit,  # noqa: PLW1509  no threads exist yet, so it is safe here
    )


def _let_go_of_the_daemon() -> None:
    """Point standard streams at nothing: the daemon reads our output to its end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _copy_log(source: IO[bytes], path: Path) -> None:
    with path.open("ab", buffering=0) as log:
        left = LOG_BYTES_MAX - log.tell()
        while chunk := os.read(source.fileno(), CHUNK_BYTES):
            if left <= 0:
                continue  # keep reading: a full pipe would stop the job
            log.write(chunk[:left])
            left -= len(chunk)
            if left <= 0:
                log.write(LOG_CUT_NOTE)


def _write(path: Path, content: dict[str, int]) -> None:
    unfinished = path.with_suffix(".part")
    with unfinished.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _write_patiently(path: Path, content: dict[str, int]) -> None:
    """Also where the disk is full for a while: without its record a job that has ended passes for lost."""
    while path.parent.exists():
        with suppress(OSError):
            _write(path, content)
            return
        time.sleep(RETRY_SECONDS)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
