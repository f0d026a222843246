"""A hole through two routers: both sides dial at once, each from a port whose outside it told the other.

The steps and the waits are those that worked when they were measured (docs/paths.md). A port is used for one
attempt only; asking address echoes from it opens the way and tells how the router shows it.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import trio

from protocol.errors import MessageInvalid, PeerUnreachable
from qubixd.paths.endpoints import Endpoint, parse

log = logging.getLogger("qubix.paths")

ATTEMPT_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = (0.01, 0.08)
ECHO_SECONDS: Final = 2.0
ECHOES_SECONDS: Final = 4.0
ECHO_QUESTION: Final = b"QUBIX/1\n"
_NONCE_BYTES: Final = 8
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_MAX_ANSWER_BYTES: Final = _NONCE_BYTES + 64


@dataclass(frozen=True)
class Hole:
    """A port of this machine, and what it looked like to each node that was asked."""

    port: int
    seen: tuple[Endpoint, ...]

    @property
    def is_symmetric(self) -> bool:
        """The router shows another port to everyone, so no one can be told where to knock."""
        return len(set(self.seen)) > 1


@asynccontextmanager
async def drilled(echoes: Sequence[Endpoint], port: int = 0) -> AsyncIterator[Hole]:
    """A port (fresh, or the one that is wanted) as up to two echoes see it; what was said with them stays
    open for the block, as the router closes the hole when it ends. PeerUnreachable if no echo answers."""
    kept: list[trio.SocketStream] = []
    try:
        seen = []
        port = port or free_port()
        with trio.move_on_after(ECHOES_SECONDS):
            for echo in echoes:
                with suppress(PeerUnreachable):
                    stream, end = await observed(echo, port)
                    kept.append(stream)
                    seen.append(end)
                if len(seen) == 2:
                    break
        if not seen:
            raise PeerUnreachable("no node that tells this one its outer address could be asked")
        yield Hole(port, tuple(seen))
    finally:
        for stream in kept:
            await trio.aclose_forcefully(stream)


async def observed(echo: Endpoint, port: int = 0) -> tuple[trio.SocketStream, Endpoint]:
    """How a node sees a connection from this port; the connection is the caller's to close.
    PeerUnreachable if it cannot be reached, or does not answer as an address echo does."""
    stream = None
    try:
        with trio.fail_after(ECHO_SECONDS):
            stream = trio.SocketStream(await connect(echo, port))
            # Its end must leave nothing behind: the same port may have to ask the same node again.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            return stream, await _asked(stream)
    except (OSError, trio.TooSlowError, trio.BrokenResourceError, MessageInvalid) as error:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise PeerUnreachable(f"{echo} did not say how it sees this node") from error
    except BaseException:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise


async def _asked(stream: trio.SocketStream) -> Endpoint:
    nonce = os.urandom(_NONCE_BYTES)
    await stream.send_all(ECHO_QUESTION + nonce)
    answer = b""
    while not answer.endswith(b"\n") or len(answer) <= _NONCE_BYTES:
        chunk = await stream.receive_some(_MAX_ANSWER_BYTES)
        answer += chunk
        if not chunk or len(answer) > _MAX_ANSWER_BYTES:
            raise MessageInvalid("this is not an address echo")
    if answer[:_NONCE_BYTES] != nonce or (not answer.isascii() and not answer[_NONCE_BYTES:].isascii()):
        raise MessageInvalid("this is not an address echo")
    return parse(answer[_NONCE_BYTES:-1].decode("ascii"))


async def punch(port: int, remote: Endpoint) -> trio.SocketStream:
    """Knock from `port` until the other side, which does the same, is through; bound it by a deadline."""
    while True:
        with trio.move_on_after(ATTEMPT_SECONDS), suppress(OSError):
            return trio.SocketStream(await connect(remote, port))
        await trio.sleep(random.uniform(*PAUSE_SECONDS))


async def connect(remote: Endpoint, port: int = 0) -> trio.socket.SocketType:
    """A connected TCP socket; from `port`, which other connections may share. OSError."""
    sock = trio.socket.socket(socket.AF_INET6 if ":" in remote.ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if port:
            _share(sock)
            await sock.bind(("::" if ":" in remote.ip else "0.0.0.0", port))
        await sock.connect(remote)
    except BaseException:
        sock.close()
        raise
    return sock


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        return int(sock.getsockname()[1])


def may_use(port: int) -> bool:
    """Whether this process may open connections from it: low ports belong to the administrator."""
    with socket.socket() as sock:
        _share(sock)
        try:
            sock.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def _share(sock: trio.socket.SocketType | socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
