"""The front end's side of a tunnel: a control connection that is the raw stream once it has been answered.

Nothing may be read ahead on it, for what follows the answer belongs to the tunnel, and perhaps to another
process that is handed the socket. How it travels and why it ended is asked on a second connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol import control
from protocol.control_tunnels import ConnectArgs, ConnectView, PathView, TunnelArgs, TunnelEnd
from protocol.errors import DaemonUnreachable, MessageTooLarge, QubixError, StreamBroken
from tui.client import CONNECT_SECONDS, connect, error_of, typed

CHUNK_BYTES: Final = 256 * 1024
PIPE_BYTES: Final = 4_096
"""A pipe that can be written to takes so many without blocking."""
END_SECONDS: Final = 10.0
QUIET_SECONDS: Final = 2.0
"""What takes longer than this is told a person who waits."""


@dataclass
class Tunnel:
    socket: socket.socket
    view: ConnectView
    place: Path
    """The daemon's control socket."""

    async def follow(self) -> AsyncGenerator[PathView | TunnelEnd, None]:
        """How it travels, at each change, and last of all how it ended."""
        async with (
            connect(self.place) as client,
            aclosing(client.stream("tunnel", TunnelArgs(self.view.tunnel))) as items,
        ):
            async for item in items:
                yield item

    async def error(self) -> QubixError | None:
        """What has cut it off, to be asked once its bytes have come to an end; None if nothing has.
        DaemonUnreachable if there is nobody to ask."""
        self.socket.close()
        async with asyncio.timeout(END_SECONDS), aclosing(self.follow()) as items:
            async for item in items:
                if isinstance(item, TunnelEnd) and item.code:
                    return error_of(item.code, item.sentence, StreamBroken.exit_code)
        return None


@asynccontextmanager
async def open_tunnel(place: Path, args: ConnectArgs) -> AsyncIterator[Tunnel]:
    """A tunnel, closed at the end of the block. What keeps it from opening is raised; that it takes long
    is told on standard error."""
    sock = await _connected(place)
    try:
        opening = asyncio.create_task(_open(sock, args, place))
        try:
            done, _ = await asyncio.wait({opening}, timeout=QUIET_SECONDS)
            if not done and sys.stderr.isatty():
                sys.stderr.write("Looking for a way to the job ...\n")
            view = await opening
        finally:
            opening.cancel()
        yield Tunnel(sock, view, place)
    finally:
        sock.close()


async def _connected(place: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(sock, str(place))
    except (OSError, TimeoutError) as error:
        sock.close()
        raise DaemonUnreachable(f"no qubix daemon answers at {place}; start one with `qubix up`") from error
    return sock


async def _open(sock: socket.socket, args: ConnectArgs, place: Path) -> ConnectView:
    request = {"id": 1, "verb": "connect", "args": control.to_body(args)}
    try:
        await asyncio.get_running_loop().sock_sendall(sock, control.pack(request))
        size = int.from_bytes(await _exactly(sock, control.FRAME_HEADER_BYTES), "big")
        if size > control.MAX_FRAME_BYTES:
            raise MessageTooLarge(f"the daemon at {place} sent a frame of {size} bytes")
        frame = control.read_answer(await _exactly(sock, size))
    except OSError as error:
        raise DaemonUnreachable(f"the qubix daemon at {place} ended before it had answered") from error
    view: ConnectView = typed("connect", frame)
    return view


async def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data


# --- standard input and output ----------------------------------------------------------------


async def read_fd(fd: int) -> bytes:
    """What has come from a pipe, terminal or file; empty at its end."""
    await _ready(fd, writing=False)
    try:
        return os.read(fd, CHUNK_BYTES)
    except BlockingIOError:
        return await read_fd(fd)
    except OSError:
        return b""  # a terminal that is gone


async def write_fd(fd: int, data: bytes) -> None:
    """All of it, without keeping the event loop from its work while a reader takes its time."""
    blocks = not (stat.S_ISREG(os.fstat(fd).st_mode))
    view = memoryview(data)
    while view:
        await _ready(fd, writing=True)
        try:
            view = view[os.write(fd, view[:PIPE_BYTES] if blocks else view) :]
        except BlockingIOError:
            continue


async def _ready(fd: int, *, writing: bool) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    try:
        add(fd, ready.set)
    except PermissionError:
        return  # an ordinary file: always ready
    try:
        await ready.wait()
    finally:
        remove(fd)
