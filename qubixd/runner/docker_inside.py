"""Programs that run inside a job's container, beside the job, by the engine's `exec`.

The engine ends no such program, not even with the connection to it, so ours begins as a shell that tells
its process id, and `aclose` has another one kill it. Blocking calls go to worker threads; what a thread
has read after its reader gave up waits for the next one, so that a cancelled read loses nothing.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import trio
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from protocol.errors import QubixError, StartFailed, StreamBroken
from qubixd.runner.common import in_thread
from qubixd.runner.docker_engine import HTTP_CONFLICT, Client, DockerEngine, ignoring_ended

CHUNK_BYTES: Final = 65_536
HEADER: Final = struct.Struct(">BxxxL")
"""Before each piece of output: which stream, and how many bytes."""
STANDARD_OUTPUT: Final = 1
ASK_SECONDS: Final = 0.02
ASK_SECONDS_MOST: Final = 0.5
END_SECONDS: Final = 10.0
PID_DIGITS_MOST: Final = 10

# The program's own process tells its id, then becomes the program: in a session of its own.
BEGIN: Final = 'command -v -- "$1" >/dev/null || exit 127; echo $$; exec "$@" 2>/dev/null'
END: Final = 'kill -KILL -- "-$1" 2>/dev/null || kill -KILL "$1"'


class DockerInside:
    """One program; see `Inside`."""

    def __init__(self, engine: DockerEngine, container: str, exec_id: str, attached: Any) -> None:
        self._engine = engine
        self._container = container
        self._exec_id = exec_id
        self._attached = attached
        # The SDK wraps a plain socket for some transports and not for others.
        self._socket = getattr(attached, "_sock", attached)
        self._socket.settimeout(None)
        self._read = _reader(attached, self._socket)
        self._reading = threading.Lock()
        self._ready = bytearray()
        self._left = 0
        """Bytes of the present piece of output that have not come yet."""
        self._pid = 0
        self._closed = False

    async def begin(self) -> None:
        """Take in the process id. StartFailed if none comes."""
        line = b""
        while not line.endswith(b"\n") and len(line) <= PID_DIGITS_MOST:
            one = await self.receive_some(1)
            if not one:
                code = await self.exit_code()
                raise StartFailed(f"the program could not be run in the job's container (exit code {code})")
            line += one
        if not line.strip().isdigit():
            raise StartFailed("the shell of the job's image does not tell its process id")
        self._pid = int(line)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._blocking(lambda: self._socket.sendall(data))

    async def send_eof(self) -> None:
        await self._blocking(lambda: self._socket.shutdown(1))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        size = CHUNK_BYTES if max_bytes is None else max_bytes
        await self._blocking(self._fill)
        chunk = bytes(self._ready[:size])
        del self._ready[:size]
        return chunk

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
                await self._engine.call(self._kill)
            await in_thread(self._hang_up, self._engine.blocking)
        await trio.lowlevel.checkpoint()

    async def _ask(self) -> Any:
        return await self._engine.call(lambda client: client.exec_inspect(self._exec_id))

    async def _blocking(self, work: Callable[[], object]) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this program was ended")
        try:
            await in_thread(work, self._engine.blocking)
        except (OSError, ValueError) as error:
            raise StreamBroken(f"the pipe to a program beside the job broke: {error}") from error

    def _fill(self) -> None:
        """Have something ready, unless the output has ended. One thread at a time."""
        with self._reading:
            while not self._ready:
                if not self._left:
                    header = self._exactly(HEADER.size)
                    if not header:
                        return
                    stream, size = HEADER.unpack(header)
                    if stream != STANDARD_OUTPUT:
                        self._exactly(size)
                        continue
                    self._left = size
                chunk = self._read(min(self._left, CHUNK_BYTES))
                if not chunk:
                    return
                self._left -= len(chunk)
                self._ready += chunk

    def _exactly(self, size: int) -> bytes:
        """As many bytes; none at the end."""
        parts = bytearray()
        while len(parts) < size:
            part = self._read(min(size - len(parts), CHUNK_BYTES))
            if not part:
                return b""
            parts += part
        return bytes(parts)

    def _kill(self, client: Client) -> None:
        with ignoring_ended():
            if self._pid and client.exec_inspect(self._exec_id)["Running"]:
                killer = client.exec_create(self._container, ["/bin/sh", "-c", END, "qubix", str(self._pid)])
                # Not waited for: whatever /bin/sh is in this image, it may say much and never end.
                client.exec_start(killer["Id"], detach=True)

    def _hang_up(self) -> None:
        with suppress(OSError):  # wakes whoever still reads
            self._socket.shutdown(2)
        with suppress(OSError, DockerException, RequestException):
            self._attached.close()


def _reader(attached: Any, socket: Any) -> Callable[[int], bytes]:
    """Reads at most so many bytes. Where the SDK has read the answer's head through a buffer, the first
    output may lie in there already."""
    buffered = getattr(getattr(attached, "_response", None), "raw", None)
    file = getattr(getattr(buffered, "_fp", None), "fp", None)
    read: Callable[[int], bytes] = getattr(file, "read1", socket.recv)
    return read


async def open_inside(engine: DockerEngine, container: str, command: Sequence[str]) -> DockerInside:
    """Begin a program. StartFailed if it cannot be found, EngineUnreachable."""

    def begin(client: Client) -> DockerInside:
        options = {"stdin": True, "stdout": True, "stderr": False}
        try:
            made = client.exec_create(container, ["/bin/sh", "-c", BEGIN, "qubix", *command], **options)
            attached = client.exec_start(made["Id"], socket=True)
        except APIError as error:
            if error.status_code == HTTP_CONFLICT:
                raise StartFailed("the job's container takes no program now: it is paused or ends") from error
            raise StartFailed(f"the engine could not run a program: {error.explanation}") from error
        return DockerInside(engine, container, made["Id"], attached)

    inside = await engine.call(begin)
    try:
        await inside.begin()
    except BaseException:
        await inside.aclose()
        raise
    return inside
