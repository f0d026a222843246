"""`qubix attach` and `qubix exec`: a program beside a job, with this terminal or with pipes."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from typing import Any, Final

from protocol import terminal_frames as frames
from protocol.control_tunnels import ConnectArgs, PathView
from protocol.errors import QubixError, StreamBroken, UsageError
from protocol.terminal_frames import MAX_CELLS
from tui import show
from tui.places import control_socket, data_dir
from tui.safe import SafeStream
from tui.screen import Screen
from tui.terminal_modes import Escapes
from tui.tunnel import CHUNK_BYTES, Tunnel, open_tunnel, read_fd, write_fd

INTERRUPTED: Final = 130
NO_CODE: Final = 255
CTRL_D: Final = b"\x04"
KILLED: Final = 128 + signal.SIGKILL
"""Of a program whose exit code is none."""
HELP: Final = "~. leaves, ~^Z suspends, ~~ is one ~, ~? says this; each at the beginning of a line"
FORWARDED: Final = {signal.SIGINT: "INT", signal.SIGQUIT: "QUIT", signal.SIGTERM: "TERM"}
"""Without a terminal: to the program. The second of them within a short time is for qubix itself."""
AGAIN_SECONDS: Final = 3.0


def attach_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lease", metavar="LEASE", help="a lease, or the start of its id")


def exec_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lease", metavar="LEASE", help="a lease, or the start of its id")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "-t", "--terminal", action="store_const", const=True, help="with a terminal of its own"
    )
    choice.add_argument(
        "-T",
        "--no-terminal",
        dest="terminal",
        action="store_const",
        const=False,
        help="without one; by default it has one if standard input and output are one",
    )
    parser.add_argument("command", metavar="COMMAND", nargs="+", help="the program and its words")


async def attach(options: argparse.Namespace) -> int:
    if not (os.isatty(0) and os.isatty(1)):
        raise UsageError("attach is for a terminal; `qubix exec LEASE -- COMMAND` runs without one")
    return await _run(options, [], terminal=True)


async def exec_(options: argparse.Namespace) -> int:
    terminal = options.terminal
    if terminal is None:
        terminal = os.isatty(0) and os.isatty(1)
    return await _run(options, options.command, terminal=terminal)


async def _run(options: argparse.Namespace, command: list[str], *, terminal: bool) -> int:
    columns, rows = size_here()
    args = ConnectArgs(
        options.lease,
        "program",
        command=command,
        terminal=terminal,
        columns=columns,
        rows=rows,
        term=term_here(),
    )
    async with open_tunnel(control_socket(data_dir(options.data_dir)), args) as tunnel:
        with Screen(active=terminal and os.isatty(0)) as screen:
            return await Session(tunnel, screen, terminal=terminal).run()


def size_here() -> tuple[int, int]:
    """Columns and rows of the terminal, of a usual one where there is none."""
    for fd in (0, 1, 2):
        with suppress(OSError):
            size = os.get_terminal_size(fd)
            return min(max(size.columns, 1), MAX_CELLS), min(max(size.lines, 1), MAX_CELLS)
    return 80, 24


def term_here() -> str:
    term = os.environ.get("TERM", "")
    return term if re.fullmatch(r"[A-Za-z0-9+._-]{1,64}", term) else "xterm-256color"


class Session:
    """One program from its first byte to its exit code."""

    def __init__(self, tunnel: Tunnel, screen: Screen, *, terminal: bool) -> None:
        self._tunnel, self._screen, self._terminal = tunnel, screen, terminal
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._over: asyncio.Future[int] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked_at = -AGAIN_SECONDS

    async def run(self) -> int:
        """The exit code. What cut it off is raised."""
        try:
            with self._signals():
                for work in (self._output(), self._input(), self._paths()):
                    self._start(work)
                return await self._over
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """A part that fails ends the whole."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._over.done():
            self._over.set_exception(error)

    def _end(self, code: int) -> None:
        if not self._over.done():
            self._over.set_result(code)

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            with suppress(ConnectionError):  # that it is cut off, and why, is found out by `_output`
                await self._loop.sock_sendall(self._tunnel.socket, data)

    # --- from the program ---------------------------------------------------------------------

    async def _output(self) -> None:
        reader, fds = frames.reader_from_program(), {frames.Output: 1, frames.Errors: 2}
        safe = {fd: SafeStream() for fd in (1, 2) if os.isatty(fd) and not self._terminal}
        while data := await self._received():
            for frame in reader.feed(data):
                match frame:
                    case frames.Exit(code):
                        if code == KILLED and self._screen.active:
                            self._screen.note("the program was killed; `qubix ps` shows how its job is")
                        return self._end(code if 0 <= code < NO_CODE else NO_CODE)
                    case frames.Output(output) | frames.Errors(output):
                        fd = fds[type(frame)]
                        await self._show(fd, output, safe.get(fd))
        error = await self._tunnel.error()
        raise error or StreamBroken("the connection ended before the program did")

    async def _received(self) -> bytes:
        try:
            return await self._loop.sock_recv(self._tunnel.socket, CHUNK_BYTES)
        except ConnectionError:
            return b""

    async def _show(self, fd: int, output: bytes, safe: SafeStream | None) -> None:
        """As it is where the program has a terminal; else what cannot harm this one."""
        if self._screen.active:
            self._screen.passes(output)
        await write_fd(fd, safe.feed(output).encode() if safe else output)

    # --- to the program -----------------------------------------------------------------------

    async def _input(self) -> None:
        keys = Escapes() if self._screen.active else None
        last = b"\n"
        while data := await read_fd(0):
            last = data[-1:]
            for kept, order in keys.feed(data) if keys else [(data, b"")]:
                if kept:
                    await self._send(frames.pack_data(frames.Input, kept))
                self._obey(order)
        if self._terminal and not self._screen.active:  # the first one ends a line that has begun
            await self._send(frames.pack_data(frames.Input, CTRL_D if last == b"\n" else 2 * CTRL_D))
        await self._send(frames.pack(frames.InputEnd()))

    def _obey(self, order: bytes) -> None:
        match order:
            case Escapes.LEAVE:
                self._screen.note("left; the job goes on")
                self._end(INTERRUPTED)
            case Escapes.HELP:
                self._screen.note(HELP)
            case Escapes.SUSPEND:
                self._screen.suspend()
                self._resized()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        own: dict[signal.Signals, Callable[[], None]] = {signal.SIGHUP: partial(self._end, INTERRUPTED)}
        if self._terminal:
            own[signal.SIGWINCH] = self._resized
        if self._screen.active:  # its keys travel as input, so what comes as a signal is meant for us
            own |= dict.fromkeys(FORWARDED, partial(self._end, INTERRUPTED))
        else:
            own |= {number: partial(self._forward, name) for number, name in FORWARDED.items()}
        for number, act in own.items():
            self._loop.add_signal_handler(number, act)
        try:
            yield
        finally:
            for number in own:
                self._loop.remove_signal_handler(number)

    def _forward(self, name: str) -> None:
        """To the program; whoever insists leaves it behind."""
        now = self._loop.time()
        if now - self._asked_at < AGAIN_SECONDS:
            return self._end(INTERRUPTED)
        self._asked_at = now
        self._start(self._send(frames.pack(frames.Signal(name))))

    def _resized(self) -> None:
        self._start(self._send(frames.pack(frames.Resize(*size_here()))))

    # --- the path -----------------------------------------------------------------------------

    async def _paths(self) -> None:
        """Say when it is lost, found again or another."""
        told: PathView | None = None
        with suppress(QubixError):  # that the tunnel has ended, too, is found out by `_output`
            async with aclosing(self._tunnel.follow()) as items:
                async for item in items:
                    if isinstance(item, PathView):
                        self._tell(told, item)
                        told = item

    def _tell(self, before: PathView | None, now: PathView) -> None:
        if now.waiting and not (before and before.waiting):
            self._screen.note(
                "the path to the job is lost; waiting for another" + " (~. leaves)" * self._screen.active
            )
        elif before and (before.waiting or before.kind != now.kind) and not now.waiting:
            self._screen.note(f"the job is reached {show.path_words(now)}")
            if self._screen.modes.full_screen:  # let the program draw over the note
                columns, rows = size_here()
                sizes = (frames.Resize(columns, max(1, rows - 1)), frames.Resize(columns, rows))
                self._start(self._send(b"".join(map(frames.pack, sizes))))
