"""Starts other parts of qubix as processes of their own and waits for the line that says they are ready.

Each prints one JSON object on standard output when it is ready, and `error: <sentence> [<code>]` as its
last words on standard error when it cannot start. Standard error goes to a log file.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from protocol.errors import QubixError, StartFailed
from tui.client import error_of
from tui.safe import safe_line

MAX_READY_BYTES: Final = 65_536
STOP_SECONDS: Final = 10.0
LOG_TAIL_BYTES: Final = 16_384
_LAST_WORDS: Final = re.compile(r"error: (?P<sentence>.+) \[(?P<code>[a-z_.]+)\]")


@dataclass(frozen=True)
class Child:
    """A process started here. `ready` is the object it printed when it was ready."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ready: dict[str, Any]


def end(children: Sequence[Child]) -> None:
    """Ask all of them to end, wait, and kill those that do not."""
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        if child.process.stdout:
            child.process.stdout.close()


def module_command(module: str, *options: str) -> list[str]:
    """Command that runs one of our modules, never one that happens to lie in the working directory."""
    return [sys.executable, "-P", "-m", module, *options]


async def start(
    name: str,
    command: Sequence[str],
    log: Path,
    seconds: float,
    env: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> Child:
    """Start `command`, in a session of its own with these descriptors left open, and wait until it is ready.

    The error it names if it ends instead, StartFailed if it says nothing in time.
    """
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as errors:
        since = errors.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env=env,
            pass_fds=descriptors,
        )
    try:
        return Child(name, process, log, await _ready(name, process, log, seconds, since))
    except BaseException:
        end([Child(name, process, log, {})])
        raise


async def _ready(
    name: str, process: subprocess.Popen[bytes], log: Path, seconds: float, since: int
) -> dict[str, Any]:
    assert process.stdout is not None
    reading = asyncio.create_task(asyncio.to_thread(process.stdout.readline, MAX_READY_BYTES))
    done, _ = await asyncio.wait({reading}, timeout=seconds)
    if not done:
        raise StartFailed(f"the {name} was not ready after {seconds:g} seconds; see {log}")
    line = reading.result()
    if not line:
        raise last_words(name, log, await asyncio.to_thread(process.wait), since)
    with suppress(ValueError):
        ready = json.loads(line)
        if isinstance(ready, dict):
            return ready
    raise StartFailed(f"the {name} said {safe_line(line.decode(errors='replace'), 80)!r} instead of JSON")


def last_words(name: str, log: Path, exit_code: int, since: int = 0) -> QubixError:
    """The error a process that has ended named at the end of its log, which began at byte `since`."""
    return error_in(name, log_tail(log, since=since), exit_code)


def error_in(name: str, lines: Sequence[str], exit_code: int) -> QubixError:
    """The error that a process which has ended named last in these lines."""
    for line in reversed(lines):
        match = _LAST_WORDS.fullmatch(line)
        if match:
            return error_of(match["code"], match["sentence"], exit_code if 0 < exit_code < 256 else 1)
    how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
    return StartFailed(f"the {name} {how} before its work was done")


def log_tail(log: Path, lines: int = 15, since: int = 0) -> list[str]:
    """The last lines of a log after byte `since`, harmless to print."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [safe_line(line) for line in text.splitlines()[-lines:]]
