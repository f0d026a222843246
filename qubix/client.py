"""The one client of the control API, on trio and on asyncio: requests and event streams over a socket.

    async with connect(socket_path) as client:
        view = await client.call("ps", PsArgs())
        async for item in client.stream("run", args): ...

There is no task behind it: whoever waits for an answer reads the socket, and puts what is for others
where these find it. So a request can be cancelled at any instant, and errors come bare.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel

from protocol import control
from protocol.control import HelloArgs, HelloView, LeaveArgs
from protocol.errors import (
    DaemonUnreachable,
    MessageInvalid,
    MessageTooLarge,
    QubixError,
    StreamBroken,
    UsageError,
    VersionMismatch,
)
from qubix.answers import Frame, typed

MAX_UNREAD_BYTES: Final = 1 << 26
"""Of one request, while others of its connection read on. It must not hold them up: who reads it may be the
one who waits for their answers. Where nobody reads at all, the daemon waits."""
CONNECT_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 0.05
"""Between tries at a socket at which too many others stand in line."""
CHUNK_BYTES: Final = 1 << 18
HELLO_SECONDS: Final = 30.0
"""A daemon on a busy machine may take a while; one that is stuck never answers."""
RESTART: Final = "restart it with `qubix down` and `qubix up` (jobs go on meanwhile)"
UNSPEAKABLE: Final = "a name in this request is not UTF-8 text, or a number in it has more than 64 bits"
TEAMS: Final = "its owner can share it with a group: `qubix up --control-group NAME`"


@dataclass
class _Inbox:
    """What has come for one request and nobody has taken yet."""

    frames: deque[tuple[Frame, int]] = field(default_factory=deque)
    """Each with its size in bytes."""
    unread: int = 0
    given_up: bool = False
    """More has come than is kept, and nothing is added any more."""

    def put(self, frame: Frame, size: int) -> None:
        self.frames.append((frame, size))
        self.unread += size

    def take(self) -> Frame:
        frame, size = self.frames.popleft()
        self.unread -= size
        return frame


class Client:
    """One connection. Several requests may be under way at once; closing it cancels them all."""

    def __init__(self, connected: socket.socket, where: Path) -> None:
        self._socket = connected
        self._where = where
        self._next_id = -1
        self._inboxes: dict[int, _Inbox] = {}
        self._writing = anyio.Lock(fast_acquire=True)
        self._has_reader = False
        self._news = anyio.Event()
        """Set when somebody's frame has come, or nobody reads any more."""
        self._arrived, self._unsent = bytearray(), bytearray()
        self._broken: QubixError | None = None
        self.hello: HelloView
        """What the daemon said of itself when this connection was made."""

    async def call(self, verb: str, args: object) -> Any:
        """The verb's answer (`control.ANSWERS`); events before it are skipped."""
        answer = None
        async for item in self.stream(verb, args):
            answer = item
        return answer

    async def stream(self, verb: str, args: object) -> AsyncGenerator[Any, None]:
        """The verb's events (`control.EVENTS`) as they come, and last of all its answer. One that is left
        early is no longer served either."""
        self._next_id += 1
        number = self._next_id
        inbox = self._inboxes[number] = _Inbox()
        ended = False
        try:
            await self._send({"id": number, "verb": verb, "args": control.to_body(args)})
            while not ended:
                frame = await self._receive(inbox, verb)
                ended = "event" not in frame
                yield typed(verb, frame)
        finally:
            if self._inboxes.pop(number, None) and not ended:
                self._leave(number)

    def close(self) -> None:
        """Whoever waits learns that it is over."""
        self._broken = self._broken or DaemonUnreachable(f"the connection to {self._where} was closed here")
        anyio.notify_closing(self._socket)
        self._socket.close()

    async def agree(self) -> HelloView:
        """Ask the daemon what it speaks. VersionMismatch if that is not what this package does."""
        try:
            with anyio.fail_after(HELLO_SECONDS):
                hello: HelloView = await self.call("hello", HelloArgs(control.API_VERSION))
        except TimeoutError as error:
            words = f"the daemon at {self._where} has not answered for {HELLO_SECONDS:.0f} s; see its log"
            raise DaemonUnreachable(words) from error
        except MessageInvalid as error:  # it is older than this verb
            raise VersionMismatch(older(self._where)) from error
        if hello.api_version < control.API_VERSION:
            raise VersionMismatch(older(self._where, hello.version))
        if hello.api_version > control.API_VERSION:
            raise VersionMismatch(newer(self._where, hello.version))
        return hello

    # --- sending ------------------------------------------------------------------------------

    async def _send(self, frame: Frame) -> None:
        if self._broken:
            raise self._broken
        try:
            packed = control.pack(frame)
        except (UnicodeEncodeError, OverflowError) as error:
            raise UsageError(UNSPEAKABLE) from error
        if len(packed) > control.MAX_FRAME_BYTES:
            raise MessageTooLarge(f"this request is larger than {control.MAX_FRAME_BYTES} bytes")
        self._unsent += packed
        async with self._writing:
            while not self._push():
                await anyio.wait_writable(self._socket)

    def _push(self) -> bool:
        """Hand over what the system takes just now. What a cancelled request leaves goes with the next."""
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._break() from error
        return True

    def _leave(self, number: int) -> None:
        """Tell the daemon that nobody waits for this request any more. Must not wait for anything itself."""
        if self._broken is None:
            self._next_id += 1
            frame = {"id": self._next_id, "verb": "leave", "args": control.to_body(LeaveArgs(number))}
            self._unsent += control.pack(frame)
            if not self._writing.locked():
                with suppress(DaemonUnreachable):
                    self._push()

    # --- receiving ----------------------------------------------------------------------------

    async def _receive(self, inbox: _Inbox, verb: str) -> Frame:
        await anyio.lowlevel.checkpoint()  # much may be there already, and others want to have a turn
        while not inbox.frames:
            if inbox.given_up:
                raise StreamBroken(unread(verb))
            if self._has_reader:
                await self._news.wait()
                continue
            self._has_reader = True
            try:
                await self._read_one()
            finally:  # one of those who wait reads on
                self._has_reader = False
                self._tell()
        return inbox.take()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def _read_one(self) -> None:
        """One more frame, to whom it belongs; an answer that nobody waits for any more is dropped."""
        frame, size = await self._next_frame()
        inbox = self._inboxes.get(frame["id"])
        if inbox is not None:
            inbox.put(frame, size)
            if inbox.unread > MAX_UNREAD_BYTES:
                inbox.given_up = True
                del self._inboxes[frame["id"]]
                self._leave(frame["id"])

    async def _next_frame(self) -> tuple[Frame, int]:
        while (data := self._cut()) is None:
            await self._read_more()
        try:
            return control.read_answer(data), len(data)
        except QubixError as error:
            self._broken = error
            raise

    def _cut(self) -> bytes | None:
        """The first whole frame of what has arrived."""
        if self._broken:
            raise self._broken
        start = control.FRAME_HEADER_BYTES
        end = start + int.from_bytes(self._arrived[:start], "big")
        if end - start > control.MAX_FRAME_BYTES:
            self._broken = MessageTooLarge(f"the daemon at {self._where} sent a frame of {end - start} bytes")
            raise self._broken
        if len(self._arrived) < max(start, end):
            return None
        data = bytes(self._arrived[start:end])
        del self._arrived[:end]
        return data

    async def _read_more(self) -> None:
        try:
            await anyio.wait_readable(self._socket)
            more = self._socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except (OSError, anyio.ClosedResourceError) as error:
            raise self._break() from error
        if not more:
            raise self._break()
        self._arrived += more

    def _break(self) -> QubixError:
        words = f"the qubix daemon at {self._where} ended before it had answered"
        self._broken = self._broken or DaemonUnreachable(words)
        return self._broken


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[Client]:
    """A client of the daemon whose control socket is at `path`. DaemonUnreachable if none answers,
    VersionMismatch if it speaks another version of the API."""
    client = Client(await _connected(path), path)
    try:
        client.hello = await client.agree()
        yield client
    finally:
        client.close()


async def _connected(path: Path) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.setblocking(False)
    try:
        with anyio.fail_after(CONNECT_SECONDS):
            while True:
                try:
                    connected.connect(str(path))
                    return connected
                except BlockingIOError:  # its queue is full
                    await anyio.sleep(AGAIN_SECONDS)
    except BaseException as error:
        connected.close()
        if isinstance(error, PermissionError):
            raise DaemonUnreachable(f"you may not speak to the qubix daemon at {path}; {TEAMS}") from error
        if isinstance(error, OSError):  # TimeoutError is one too
            words = f"no qubix daemon answers at {path}; start one with `qubix up`"
            raise DaemonUnreachable(words) from error
        raise


def unread(verb: str) -> str:
    return (
        f"{MAX_UNREAD_BYTES >> 20} MiB of what `{verb}` tells were not read, so it was ended; read it "
        "faster, or over a connection on which nothing else is asked"
    )


def older(where: Path, version: str = "") -> str:
    return f"the daemon at {where} is older{f' ({version})' if version else ''} than this qubix; {RESTART}"


def newer(where: Path, version: str) -> str:
    return f"the daemon at {where} is newer ({version}) than this qubix; update this one"
