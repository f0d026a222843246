"""The daemon's side of the control socket: who may open it, and requests served beside each other."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from protocol import control
from protocol.control_tunnels import ConnectArgs, ConnectView
from protocol.errors import (
    AlreadyRunning,
    ConfigInvalid,
    MessageInvalid,
    QubixError,
    UsageError,
    WireError,
)
from qubixd import tunnel_desk
from qubixd.node import Node
from qubixd.why import code_of
from qubixd.wire import receive_frame

log = logging.getLogger("qubix.control")

MAX_REQUESTS_AT_ONCE: Final = 64
"""Of one connection."""
MAX_REQUESTS_READ: Final = 128
"""Those that wait for their turn included; further ones stay in the socket."""
TURN_SECONDS: Final = 10.0
"""A request waits no longer for its turn: streams may never end, and then nothing that is asked would be
heard, not even that they are left."""
MAX_UNIX_PATH_BYTES: Final = 100
"""The system's limit is 104 to 108."""
Emit = Callable[[object], Awaitable[None]]
"""Sends one event of the request being served."""
Verb = Callable[[Node, Any, Emit], Awaitable[object]]


async def listen(path: Path, group: str = "") -> trio.SocketListener:
    """A socket that only its owner can open, and where `group` is named, that group. AlreadyRunning if a
    daemon answers there, ConfigInvalid if it cannot be made."""
    if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        raise ConfigInvalid(f"the path of the control socket is too long: {path}; choose another --data-dir")
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        await _refuse_if_alive(path)
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # of the whole process: so nothing else may have a turn meanwhile
    try:
        listening.bind(str(path))
    except OSError as error:
        listening.close()
        raise ConfigInvalid(f"the control socket {path} cannot be made: {error.strerror}") from error
    finally:
        os.umask(before)
    if group:
        share(path, group)
    listening.listen(64)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def share(path: Path, group: str) -> None:
    """Let that group speak to the socket, and pass through the folder it is in. ConfigInvalid."""
    try:
        number = grp.getgrnam(group).gr_gid
        os.chown(path.parent, -1, number)
        path.parent.chmod(0o710)
        os.chown(path, -1, number)
        path.chmod(0o660)
    except KeyError as error:
        raise ConfigInvalid(f"--control-group: this machine has no group {group!r}") from error
    except OSError as error:
        words = f"the control socket cannot be shared with the group {group!r}: {error.strerror}"
        raise ConfigInvalid(f"{words}; is the daemon's user a member of it?") from error


async def _refuse_if_alive(path: Path) -> None:
    with contextlib.suppress(OSError):
        stream = await trio.open_unix_socket(str(path))
        await stream.aclose()
        raise AlreadyRunning(f"a daemon already answers at {path}")


async def serve_connection(node: Node, verbs: Mapping[str, Verb], stream: trio.SocketStream) -> None:
    """Requests of one front end, each to its answer, until it hangs up."""
    outgoing, written = trio.open_memory_channel[bytes](0)
    connection = _Connection(node, verbs, stream, outgoing)
    try:
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(_write, stream, written)
            while (data := await receive_frame(stream, control.MAX_FRAME_BYTES)) is not None:
                verb = _verb_of(data)
                if verb == "leave":  # served at once: it is what makes room for others
                    await connection.serve(data)
                    continue
                await connection.unread.acquire()
                if verb == "connect":  # nothing more may be read: what follows is not for us
                    await connection.serve(data)
                    connection.unread.release()
                else:
                    nursery.start_soon(connection.serve_beside, data)
            nursery.cancel_scope.cancel()
    except* (WireError, trio.BrokenResourceError, trio.ClosedResourceError):
        log.debug("a front end went away")


async def _write(stream: trio.SocketStream, written: trio.MemoryReceiveChannel[bytes]) -> None:
    """Frames one after the other, each whole: whoever is cancelled while it speaks tears nothing."""
    async for data in written:
        await stream.send_all(data)


@dataclass(frozen=True)
class _Connection:
    node: Node
    verbs: Mapping[str, Verb]
    stream: trio.SocketStream
    outgoing: trio.MemorySendChannel[bytes]
    unread: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(MAX_REQUESTS_READ))
    """Requests that may still be read."""
    free: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(MAX_REQUESTS_AT_ONCE))
    """Requests that may still be taken on beside those being served."""
    under_way: dict[int, trio.CancelScope] = field(default_factory=dict)
    """By request id."""

    async def serve_beside(self, data: bytes) -> None:
        try:
            await self.serve(data)
        finally:
            self.unread.release()

    async def serve(self, data: bytes) -> None:
        """One request, to its answer."""
        request_id = 0
        try:
            request = control.read_head(data)
            request_id = request.id
            args = control.read_args(request)
            if isinstance(args, ConnectArgs):
                return await self._connect(request_id, args)
            if isinstance(args, control.LeaveArgs):
                return await self._leave(request_id, args)
            with trio.CancelScope() as self.under_way[request_id]:
                async with self._turn():
                    emit = partial(self._send_event, request_id)
                    answer = await self.verbs[request.verb](self.node, args, emit)
                    await self._send({"id": request_id, "ok": control.to_body(answer)})
        except QubixError as error:
            await self._send_error(request_id, error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception:
            log.exception("a bug: a request could not be served")
            await self._send_error(request_id, QubixError("something went wrong inside qubixd; see its log"))
        finally:
            self.under_way.pop(request_id, None)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """UsageError if it does not come."""
        with trio.move_on_after(TURN_SECONDS) as waiting:
            await self.free.acquire()
        if waiting.cancelled_caught:
            raise UsageError(
                f"{MAX_REQUESTS_AT_ONCE} requests of this connection go on and none has ended; end one of "
                "them, or open another connection"
            )
        try:
            yield
        finally:
            self.free.release()

    async def _leave(self, request_id: int, args: control.LeaveArgs) -> None:
        """Nobody waits for that request any more. It may have ended meanwhile."""
        if scope := self.under_way.get(args.request):
            scope.cancel()
        await self._send({"id": request_id, "ok": control.to_body(control.Done())})

    async def _connect(self, request_id: int, args: ConnectArgs) -> None:
        """This connection becomes a tunnel: after the answer nothing of ours may travel on it."""
        if self.unread.value != MAX_REQUESTS_READ - 1:
            raise UsageError("`connect` needs a connection on which nothing else is asked")

        async def answer(view: ConnectView) -> None:
            await self.stream.send_all(control.pack({"id": request_id, "ok": control.to_body(view)}))

        await tunnel_desk.connect(self.node, args, self.stream, answer)

    async def _send_error(self, request_id: int, error: QubixError) -> None:
        body = {"code": code_of(error), "message": str(error), "exit_code": error.exit_code}
        await self._send({"id": request_id, "error": body})

    async def _send_event(self, request_id: int, event: object) -> None:
        await self._send({"id": request_id, "event": control.to_body(event)})

    async def _send(self, frame: dict[str, Any]) -> None:
        await self.outgoing.send(control.pack(frame))


def _verb_of(data: bytes) -> str:
    """Empty for a frame that is no request, which `serve` will say."""
    try:
        return control.read_head(data).verb
    except MessageInvalid:
        return ""
