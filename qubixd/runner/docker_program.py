"""Programs that run in a job's container, beside the job, by the engine's `exec`: see `Program`.

The engine ends no such program, not even with the connection to it, so ours begins as a shell that tells its
process id and then becomes the program, in a session of its own; `aclose` has another one kill that
session. What has left the session, as a daemon does, was meant to stay and ends with the container.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from docker.errors import APIError

from protocol.errors import QubixError, StartFailed
from protocol.units import LeaseId
from qubixd.runner import OUTPUT, Terminal
from qubixd.runner.common import JobNotes
from qubixd.runner.docker_config import container_name
from qubixd.runner.docker_engine import HTTP_CONFLICT, Client, DockerEngine, ignoring_ended
from qubixd.runner.docker_pipe import Demultiplexer, Pipe, pipe_of

ASK_SECONDS: Final = 0.02
ASK_SECONDS_MOST: Final = 0.5
BEGIN_SECONDS: Final = 60.0
END_SECONDS: Final = 10.0
PID_CHARS_MOST: Final = 12
GO: Final = b"\n"
GO_ECHOED: Final = b"\r\n"

# The program's own process tells its id, then becomes the program. On a terminal it waits until that has its
# size; what is typed there meanwhile is echoed.
SHELL: Final = ("/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi")
BEGIN: Final = 'command -v -- "$1" >/dev/null || exit 127; echo $$; exec "$@"'
BEGIN_QUIET: Final = f"{BEGIN} 2>/dev/null"
BEGIN_ON_TERMINAL: Final = 'command -v -- "$1" >/dev/null || exit 127; echo $$; IFS= read -r _; exec "$@"'
# Again until nobody of the session is left: it may begin more meanwhile.
END: Final = """for turn in 1 2 3 4 5 6 7 8 9 10; do
  left=
  for each in /proc/[0-9]*; do
    IFS= read -r line 2>/dev/null <"$each/stat" || continue
    set -- "$1" ${line##*) }
    [ "$5" = "$1" ] && [ "$2" != Z ] && left=1 && kill -KILL "${each#/proc/}"
  done 2>/dev/null
  [ "$left" ] || break
done"""
SIGNAL: Final = 'kill "-$2" -- "-$1" 2>/dev/null || kill "-$2" "$1"'


class DockerProgram:
    """One program; see `Program`."""

    def __init__(self, engine: DockerEngine, container: str, exec_id: str, pipe: Pipe, *, tty: bool) -> None:
        self._engine = engine
        self._container = container
        self.exec_id = exec_id
        self._pipe = pipe
        self._streams = None if tty else Demultiplexer()
        self._ready: deque[tuple[int, bytes]] = deque()
        self.pid = 0
        self.forget: Callable[[], None] = lambda: None
        """Called when it has been closed."""
        self._closed = False

    async def begin(self, command: str, terminal: Terminal | None) -> None:
        """Take in the process id. StartFailed if none comes."""
        line = b""
        while b"\n" not in line:
            part = await self.receive_some()
            if part is None or len(line) > PID_CHARS_MOST:
                code = await self.exit_code() if part is None else 0
                raise _not_begun(command, code)
            line += part[1] if part[0] == OUTPUT else b""
        line, _, rest = line.partition(b"\n")
        if not line.strip().isdigit():
            raise StartFailed("the shell of the job's image does not tell its process id")
        self.pid = int(line)
        if terminal is not None:
            rest += await self._take_terminal(terminal, len(rest))
        if rest:
            self._ready.appendleft((OUTPUT, rest))

    async def _take_terminal(self, terminal: Terminal, known: int) -> bytes:
        """Let the program go once the terminal has its size. What it said after the echo of that."""
        await self.resize(terminal.columns, terminal.rows)
        await self.send_all(GO)
        said = b""
        while len(said) + known < len(GO_ECHOED) and (part := await self.receive_some()) is not None:
            said += part[1]
        return said.removeprefix(GO_ECHOED)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check()
        await self._pipe.send_all(data)

    async def send_eof(self) -> None:
        self._check()
        if self._streams is not None:  # the engine would let a terminal's last words go
            await self._pipe.send_eof()

    async def receive_some(self) -> tuple[int, bytes] | None:
        while not self._ready:
            self._check()
            data = await self._pipe.receive_some()
            if not data:
                return None
            self._ready.extend([(OUTPUT, data)] if self._streams is None else self._streams.feed(data))
        return self._ready.popleft()

    async def resize(self, columns: int, rows: int) -> None:
        def resize(client: Client) -> None:
            with suppress(APIError):  # it has ended
                client.exec_resize(self.exec_id, height=rows, width=columns)

        await self._engine.call(resize)

    async def signal(self, name: str) -> None:
        words = SIGNAL, str(self.pid), name
        await self._engine.call(lambda client: _run_beside(client, self._container, *words))

    async def exit_code(self) -> int:
        seconds = ASK_SECONDS
        while (state := await self._ask())["Running"] or state["ExitCode"] is None:
            await trio.sleep(seconds)
            seconds = min(2 * seconds, ASK_SECONDS_MOST)
        return int(state["ExitCode"])

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True), trio.move_on_after(END_SECONDS):
            with suppress(QubixError):
                await self._engine.call(lambda client: kill(client, self._container, self.exec_id, self.pid))
                self.forget()
            await self._pipe.aclose()
        await trio.lowlevel.checkpoint()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this program was ended")

    async def _ask(self) -> Any:
        return await self._engine.call(lambda client: client.exec_inspect(self.exec_id))


def kill(client: Client, container: str, exec_id: str, pid: int) -> None:
    """End a program, if it runs, and its session."""
    with ignoring_ended():
        if pid and client.exec_inspect(exec_id)["Running"]:
            _run_beside(client, container, END, str(pid))


def _run_beside(client: Client, container: str, script: str, *words: str) -> None:
    """Not waited for: whatever /bin/sh is in this image, it may say much and never end."""
    with ignoring_ended():
        made = client.exec_create(container, ["/bin/sh", "-c", script, "qubix", *words])
        client.exec_start(made["Id"], detach=True)


class Programs:
    """The programs that persons run beside the jobs of one daemon. Each is noted in a file, so that the next
    daemon ends what one that was killed has left running."""

    def __init__(self, engine: DockerEngine, notes: JobNotes) -> None:
        self._engine = engine
        self._notes = notes
        self._mine: set[str] = set()

    async def open(
        self, lease_id: LeaseId, command: Sequence[str], terminal: Terminal | None
    ) -> DockerProgram:
        """See `Runner.program`. The job runs."""
        program = await open_program(self._engine, container_name(lease_id), command, terminal=terminal)
        note = self._folder(lease_id) / program.exec_id
        self._mine.add(program.exec_id)
        program.forget = lambda: self._forget(note)
        with suppress(OSError):  # a full disk
            note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            note.write_text(str(program.pid))
        return program

    async def end_old(self, lease_id: LeaseId) -> None:
        """End what is another daemon's. EngineUnreachable."""
        notes = self._folder(lease_id)
        for note in [notes / name for name in (os.listdir(notes) if notes.is_dir() else ())]:
            if note.name not in self._mine:
                with suppress(OSError, ValueError):
                    await self._engine.call(partial(_end_noted, container_name(lease_id), note))
                self._forget(note)

    def _folder(self, lease_id: LeaseId) -> Path:
        return self._notes.directory(lease_id) / "programs"

    def _forget(self, note: Path) -> None:
        self._mine.discard(note.name)
        with suppress(OSError):
            note.unlink()


def _end_noted(container: str, note: Path, client: Client) -> None:
    kill(client, container, note.name, int(note.read_text()))


async def open_program(
    engine: DockerEngine,
    container: str,
    command: Sequence[str],
    *,
    terminal: Terminal | None = None,
    quiet: bool = False,
) -> DockerProgram:
    """Begin a program, a shell if `command` is empty; `quiet` drops its standard error. StartFailed if it
    cannot be found, EngineUnreachable."""
    words = command or SHELL
    script = BEGIN_ON_TERMINAL if terminal else BEGIN_QUIET if quiet else BEGIN

    def begin(client: Client) -> tuple[str, Any]:
        options: dict[str, Any] = {"stdin": True, "stdout": True, "stderr": not quiet}
        if terminal is not None:
            options |= {"tty": True, "environment": {"TERM": terminal.term}}
        try:
            made = client.exec_create(container, ["/bin/sh", "-c", script, "qubix", *words], **options)
            return made["Id"], client.exec_start(made["Id"], tty=terminal is not None, socket=True)
        except APIError as error:
            if error.status_code == HTTP_CONFLICT:
                raise StartFailed("the job's container takes no program now: it is paused or ends") from error
            raise StartFailed(f"the engine could not run a program: {error.explanation}") from error

    # Not to be cancelled before its process id is known: nobody could end it.
    with trio.CancelScope(shield=True), trio.move_on_after(BEGIN_SECONDS):
        exec_id, attached = await engine.call(begin)
        pipe = pipe_of(attached, engine.blocking)
        program = DockerProgram(engine, container, exec_id, pipe, tty=terminal is not None)
        try:
            await program.begin(words[0], terminal)
            return program
        except BaseException:
            await program.aclose()
            raise
    raise StartFailed("no program began: the engine, or the shell of the job's image, does not answer")


def _not_begun(command: str, code: int) -> StartFailed:
    if code == 127:
        return StartFailed(f"there is no program {command[:80]!r} in the job's container")
    return StartFailed(f"the program could not be run in the job's container (exit code {code})")
