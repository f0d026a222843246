"""One TCP port for all: the first byte of a connection says what it wants.

0x13 is libp2p (the length of "/multistream/1.0.0\\n"), "Q" asks from where it comes, and whatever else
somebody has asked for, such as 0x16 of TLS, is theirs. All count as handshakes until they have shown who
they are.

The question is 16 bytes, "QUBIX/1\\n" and 8 of the asker's choice; the answer those 8 and "IP:PORT\\n". Then
the connection stays open for half a minute, so that a router keeps its outside for it.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from typing import Final

import trio

from qubixd.wire import SocketHandler, address_text
from qubixd.wire_libp2p.limits import Limits

log = logging.getLogger(__name__)

LIBP2P: Final = 0x13
ECHO: Final = ord("Q")
ECHO_HELLO: Final = b"QUBIX/1\n"
ECHO_BYTES: Final = 16
_ECHO_OPEN_SECONDS: Final = 30.0


class Door:
    """What is not libp2p's among the connections of the port."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._handlers: dict[int, SocketHandler] = {ECHO: self._echo}
        self._echoes: Counter[str] = Counter()
        self._nursery: trio.Nursery | None = None

    def take(self, first: int, handler: SocketHandler) -> None:
        assert first not in (LIBP2P, ECHO), "that byte has an owner"
        self._handlers[first] = handler

    async def is_libp2p(self, stream: trio.SocketStream) -> bool:
        """Whether it is; any other connection has been served or refused when this returns. The caller limits
        the time, and closes its own descriptor in any case."""
        first = await stream.socket.recv(1, socket.MSG_PEEK)
        if first == bytes([LIBP2P]):
            return True
        handler = self._handlers.get(first[0]) if first else None
        if handler is not None:
            await self._hand_over(stream, handler)
        return False

    async def _hand_over(self, stream: trio.SocketStream, handler: SocketHandler) -> None:
        """Trio's listener closes its stream when we return, so the handler gets another descriptor."""
        own = trio.SocketStream(stream.socket.dup())
        try:
            await handler(own)
        except BaseException:
            own.socket.close()
            raise

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold what is held open after its answer."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def _echo(self, stream: trio.SocketStream) -> None:
        question = b""
        while len(question) < ECHO_BYTES:
            chunk = await stream.receive_some(ECHO_BYTES - len(question))
            question += chunk
            if not chunk or not ECHO_HELLO.startswith(question[: len(ECHO_HELLO)]):
                stream.socket.close()
                return
        host, port = stream.socket.getpeername()[:2]
        text = address_text(host.removeprefix("::ffff:"), port)
        await stream.send_all(question[len(ECHO_HELLO) :] + f"{text}\n".encode())
        self._hold(stream, host)

    def _hold(self, stream: trio.SocketStream, ip: str) -> None:
        few = self._echoes[ip] < self._limits.echoes_per_ip and self._echoes.total() < self._limits.echoes
        if self._nursery is None or not few:
            stream.socket.close()
            return
        self._echoes[ip] += 1
        self._nursery.start_soon(self._until_gone, stream, ip)

    async def _until_gone(self, stream: trio.SocketStream, ip: str) -> None:
        try:
            with trio.move_on_after(_ECHO_OPEN_SECONDS):
                await stream.receive_some(1)
        except trio.BrokenResourceError:
            log.debug("who had asked for its address from %s is gone", ip)
        finally:
            stream.socket.close()
            self._echoes[ip] -= 1
            if not self._echoes[ip]:
                del self._echoes[ip]
