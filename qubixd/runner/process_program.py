"""Programs that a person runs beside a job of the process runner: see `Program`."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
import subprocess
import termios
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import psutil
import trio

from protocol.errors import StreamBroken
from qubixd.runner import ERRORS, OUTPUT, Terminal
from qubixd.runner.process_inside import limited

CHUNK_BYTES: Final = 65_536
DRAIN_SECONDS: Final = 0.3
"""What a program said last may come so long after its end."""
TURNS: Final = 10
SHELLS: Final = ("bash", "sh")


class ProcessProgram:
    """One program; see `Program`."""

    def __init__(
        self,
        process: trio.Process,
        stdin: trio.abc.SendStream,
        outputs: Mapping[int, trio.abc.ReceiveStream],
        terminal: int | None,
    ) -> None:
        """`terminal`: the descriptor of its master's side."""
        self._process = process
        self._stdin = stdin
        self._outputs = dict(outputs)
        self._all = (stdin, *outputs.values())
        self._terminal = terminal
        self._ready: deque[tuple[int, bytes]] = deque()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stdin.send_all(data)
        except trio.BrokenResourceError as error:
            raise StreamBroken("the program beside the job reads no more") from error

    async def send_eof(self) -> None:
        if self._terminal is None:
            await self._stdin.aclose()

    async def receive_some(self) -> tuple[int, bytes] | None:
        while not self._ready and self._outputs:
            async with trio.open_nursery() as nursery:
                for kind in self._outputs:
                    nursery.start_soon(self._read, kind, nursery.cancel_scope)
                nursery.start_soon(self._until_drained, nursery.cancel_scope)
        return self._ready.popleft() if self._ready else None

    async def _read(self, kind: int, scope: trio.CancelScope) -> None:
        try:
            data = await self._outputs[kind].receive_some(CHUNK_BYTES)
        except trio.BrokenResourceError:  # a terminal whose last user has gone
            data = b""
        if data:
            self._ready.append((kind, bytes(data)))
        else:
            del self._outputs[kind]
        scope.cancel()

    async def _until_drained(self, scope: trio.CancelScope) -> None:
        await self._process.wait()
        await trio.sleep(DRAIN_SECONDS)
        self._outputs.clear()
        scope.cancel()

    async def resize(self, columns: int, rows: int) -> None:
        if self._terminal is not None and self._process.returncode is None:
            _resize(self._terminal, columns, rows)

    async def signal(self, name: str) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.Signals[f"SIG{name}"])

    async def exit_code(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            # Also what it has left behind: there is no container to end with.
            await trio.to_thread.run_sync(_end_session, self._process.pid)
            await self._process.wait()
            for pipe in self._all:
                await pipe.aclose()
        await trio.lowlevel.checkpoint()


def _end_session(leader: int) -> None:
    """Again until nobody of it is left: it may begin more meanwhile."""
    for _ in range(TURNS):
        living = [one for one in psutil.process_iter(["status"]) if _is_of(one, leader)]
        for one in living:
            with suppress(psutil.Error):
                one.kill()
        if not living:
            return


def _is_of(one: psutil.Process, leader: int) -> bool:
    with suppress(OSError):
        return os.getsid(one.pid) == leader and one.info["status"] != psutil.STATUS_ZOMBIE
    return False


def _resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def open_program(
    order: Mapping[str, Any], command: Sequence[str], terminal: Terminal | None
) -> ProcessProgram:
    """Begin a program, a shell if `command` is empty. StartFailed if it cannot be found."""
    path = order["env"]["PATH"]
    words = command or [next(shell for shell in SHELLS if shutil.which(shell, path=path))]
    if terminal is not None:
        return await _on_terminal(order, limited(order, words, terminal=True), terminal)
    process = await trio.lowlevel.open_process(
        limited(order, words),
        cwd=order["workspace"],
        env=order["env"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    return ProcessProgram(process, process.stdin, {OUTPUT: process.stdout, ERRORS: process.stderr}, None)


async def _on_terminal(order: Mapping[str, Any], words: list[str], terminal: Terminal) -> ProcessProgram:
    ours, its = os.openpty()
    try:
        _resize(ours, terminal.columns, terminal.rows)
        process = await trio.lowlevel.open_process(
            words,
            cwd=order["workspace"],
            env={**order["env"], "TERM": terminal.term},
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(its)
    both = trio.lowlevel.FdStream(ours)
    return ProcessProgram(process, both, {OUTPUT: both}, ours)
