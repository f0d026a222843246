"""The asyncio side of the control API: requests and event streams over a daemon's control socket.

    async with connect(socket_path) as client:
        view = await client.call("ps", PsArgs())
        async for item in client.stream("run", args): ...

What the daemon says is checked against protocol.control before anyone sees it. An error it answers
with is raised as the QubixError it names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta

from protocol import control
from protocol.codec import convert
from protocol.errors import DaemonUnreachable, MessageInvalid, MessageTooLarge, PeerRefused, QubixError

QUEUE_FRAMES: Final = 64
"""Frames of one request that wait for a slow reader before the whole connection waits."""
CONNECT_SECONDS: Final = 5.0

Frame = dict[str, Any]


@dataclass(frozen=True)
class ErrorBody:
    """An error as the daemon puts it into an answer."""

    code: Annotated[str, Meta(min_length=1, max_length=128)]
    message: str
    exit_code: Annotated[int, Meta(ge=1, le=255)]


class Client:
    """One connection. Several requests may be under way at once; closing it cancels them all."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: Path) -> None:
        self._reader = reader
        self._writer = writer
        self._where = where
        self._next_id = 0
        self._waiting: dict[int, asyncio.Queue[Frame | QubixError]] = {}
        self._broken: QubixError | None = None

    async def call(self, verb: str, args: object) -> Any:
        """The verb's answer (`control.ANSWERS`); events before it are skipped."""
        answer = None
        async for item in self.stream(verb, args):
            answer = item
        return answer

    async def stream(self, verb: str, args: object) -> AsyncGenerator[Any, None]:
        """The verb's events (`control.EVENTS`) as they come, and last of all its answer."""
        self._next_id += 1
        number = self._next_id
        queue = self._waiting[number] = asyncio.Queue(QUEUE_FRAMES)
        try:
            await self._send({"id": number, "verb": verb, "args": control.to_body(args)})
            ended = False
            while not ended:
                item = await queue.get()
                if isinstance(item, QubixError):
                    raise item
                ended = "event" not in item
                yield typed(verb, item)
        finally:
            del self._waiting[number]
            while not queue.empty():  # lets `receive` go on if it waits for room here
                queue.get_nowait()

    async def receive(self) -> None:
        """Hand out frames until the connection ends; everyone who waits then learns why."""
        try:
            while True:
                frame = control.read_answer(await self._read_frame())
                queue = self._waiting.get(frame["id"])
                if queue is not None:
                    await queue.put(frame)
        except QubixError as error:
            self._broken = error
        except OSError:
            self._broken = self._gone()
        for queue in list(self._waiting.values()):
            await queue.put(self._broken)

    async def _send(self, frame: Frame) -> None:
        if self._broken:
            raise self._broken
        packed = control.pack(frame)
        if len(packed) > control.MAX_FRAME_BYTES:
            raise MessageTooLarge(f"this request is larger than {control.MAX_FRAME_BYTES} bytes")
        try:
            self._writer.write(packed)
            await self._writer.drain()
        except OSError as error:
            raise self._gone() from error

    async def _read_frame(self) -> bytes:
        try:
            header = await self._reader.readexactly(control.FRAME_HEADER_BYTES)
            size = int.from_bytes(header, "big")
            if size > control.MAX_FRAME_BYTES:
                raise MessageTooLarge(f"the daemon at {self._where} sent a frame of {size} bytes")
            return await self._reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise self._gone() from error

    def _gone(self) -> DaemonUnreachable:
        return DaemonUnreachable(f"the qubix daemon at {self._where} ended before it had answered")


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[Client]:
    """A client of the daemon whose control socket is at `path`; DaemonUnreachable if none answers."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
    except (OSError, TimeoutError) as error:
        raise DaemonUnreachable(f"no qubix daemon answers at {path}; start one with `qubix up`") from error
    client = Client(reader, writer, path)
    receiver = asyncio.create_task(client.receive())
    try:
        yield client
    finally:
        receiver.cancel()
        writer.close()
        await asyncio.gather(receiver, return_exceptions=True)


def typed(verb: str, frame: Frame) -> Any:
    """The event or answer in a frame, typed; the error in it, raised."""
    if "event" in frame and verb in control.EVENTS:
        return convert(frame["event"], control.EVENTS[verb], f"event of {verb}")
    if "ok" in frame:
        return convert(frame["ok"], control.ANSWERS[verb], f"answer to {verb}")
    if "error" in frame:
        body: ErrorBody = convert(frame["error"], ErrorBody, f"error of {verb}")
        raise error_of(body.code, body.message, body.exit_code)
    raise MessageInvalid(f"the daemon's answer to {verb} holds neither an event nor an end")


def error_of(code: str, message: str, exit_code: int) -> QubixError:
    """An error of the tree with this code; for a code that is not in it, one made to measure."""
    for kind in _tree(QubixError):
        if kind.code == code and kind is not PeerRefused:
            return kind(message)
    other = type("RemoteError", (QubixError,), {"code": code, "exit_code": exit_code})
    error: QubixError = other(message)
    return error


def _tree(kind: type[QubixError]) -> Iterator[type[QubixError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
