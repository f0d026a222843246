"""Programs that run beside a job of the process runner: in its workspace, with its environment and limits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import trio

from protocol.errors import StartFailed, StreamBroken

# Sets the limits in the process that becomes the program: this daemon has threads, so nothing may run in
# its own child before that. Arguments: JSON of limits, processors and whether standard input is to be the
# terminal of the program, then the command.
LIMITED: Final = """
import fcntl, json, os, resource, sys, termios
limits, cpus, terminal = json.loads(sys.argv[1])
if terminal:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
for name, value in limits.items():
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (most, most))
if cpus:
    os.sched_setaffinity(0, cpus)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class ProcessInside:
    """One program; see `Inside`."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send_all(data)
        except trio.BrokenResourceError as error:
            raise StreamBroken("the program beside the job reads no more") from error

    async def send_eof(self) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert self._process.stdout is not None
        return bytes(await self._process.stdout.receive_some(max_bytes))

    async def exit_code(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def aclose(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with what the program began
        with trio.CancelScope(shield=True):
            await self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    await pipe.aclose()
        await trio.lowlevel.checkpoint()


async def open_inside(order: Mapping[str, Any], command: Sequence[str]) -> ProcessInside:
    """Begin a program under the limits of the job's `order`. StartFailed if it cannot be found."""
    words = limited(order, command)
    process = await trio.lowlevel.open_process(
        words,
        cwd=order["workspace"],
        env=order["env"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return ProcessInside(process)


def limited(order: Mapping[str, Any], command: Sequence[str], *, terminal: bool = False) -> list[str]:
    """The command that becomes a program under the limits of an order. StartFailed if it cannot be found."""
    name = os.path.join(order["workspace"], command[0]) if "/" in command[0] else command[0]
    found = shutil.which(name, path=order["env"]["PATH"])
    if found is None:
        raise StartFailed(f"there is no program {command[0][:80]!r} to run beside the job")
    limits = json.dumps([order["limits"], order["cpus"], terminal])
    return [sys.executable, "-I", "-c", LIMITED, limits, found, *command[1:]]
