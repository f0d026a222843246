"""One connection to one Qubic node: greeting, requests matched by dejavu, reconnecting with back-off."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import trio

from escrow_bridge.wire_format import Kind, Message, MessageReader, encode
from protocol.errors import WireError

_LOG: Final = logging.getLogger(__name__)
Address = tuple[str, int]
MAX_REPLIES: Final = 8_192
"""More than the transactions of a full tick with 4096 slots."""
TRY_AGAIN_LIMIT: Final = 5


@dataclass(frozen=True)
class Timing:
    """How patient to be with nodes; all in seconds."""

    connect_seconds: float = 5.0
    """For the connection and the greeting, and for how long a request waits for a connection."""
    answer_seconds: float = 5.0
    first_retry_seconds: float = 0.2
    last_retry_seconds: float = 10.0
    agree_seconds: float = 3.0
    """How long nodes that do not say the same are asked again."""


class NoAnswer(Exception):
    """This node gave no usable answer; another may."""


class _TooSlow(NoAnswer):
    """Not even a broken connection: silence."""


class Peer:
    """One node. `run` keeps the connection; the other methods may be called from any task."""

    def __init__(self, address: Address, timing: Timing, on_connected: Callable[[], object]) -> None:
        self.name = f"{address[0]}:{address[1]}"
        self.trouble = "no greeting yet"
        self._address = address
        self._timing = timing
        self._on_connected = on_connected
        self._stream: trio.SocketStream | None = None
        self._send_lock = trio.Lock()
        self._waiting: dict[int, trio.MemorySendChannel[Message]] = {}

    @property
    def connected(self) -> bool:
        return self._stream is not None

    async def run(self, random: Random) -> None:
        """Connect, read, and connect again after a growing, jittered pause, for ever."""
        pause = self._timing.first_retry_seconds
        while True:
            if await self._one_connection():
                pause = self._timing.first_retry_seconds
            await trio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, self._timing.last_retry_seconds)

    async def _one_connection(self) -> bool:
        """Serve one connection to its end; whether it got as far as the greeting."""
        greeted = False
        try:
            with trio.fail_after(self._timing.connect_seconds):
                stream = await trio.open_tcp_stream(*self._address)
            async with stream:
                reader = MessageReader(stream)
                with trio.fail_after(self._timing.connect_seconds):
                    await self._greeting(reader)
                greeted, self._stream, self.trouble = True, stream, "the connection broke"
                self._on_connected()
                await self._read(reader)
        except trio.TooSlowError:
            self.trouble = "no greeting in time: unreachable, or all of its connections are taken"
        except (OSError, WireError, NoAnswer, trio.ClosedResourceError) as error:
            self.trouble = str(error) or "the connection was closed"
        finally:
            self._stream = None
            self._fail_waiting()
        _LOG.debug("node %s: %s", self.name, self.trouble)
        return greeted

    async def _greeting(self, reader: MessageReader) -> None:
        first = await reader.receive()
        if first is None or first.kind != Kind.PEERS:
            raise NoAnswer("it did not greet as a Qubic node does")

    async def _read(self, reader: MessageReader) -> None:
        while (message := await reader.receive()) is not None:
            # Whatever else the node gossips to its peers is none of ours.
            channel = self._waiting.get(message.dejavu)
            if channel is not None:
                try:
                    channel.send_nowait(message)
                except trio.WouldBlock:
                    raise NoAnswer("it sent more replies than any request has") from None
        self.trouble = "it closed the connection"

    def _fail_waiting(self) -> None:
        for channel in self._waiting.values():
            channel.close()
        self._waiting.clear()

    async def send(self, message: bytes) -> bool:
        """Send a message without an answer; whether the connection took it."""
        stream = self._stream
        if stream is None:
            return False
        try:
            with trio.fail_after(self._timing.answer_seconds):
                async with self._send_lock:
                    await self._send_whole(stream, message)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return False
        return True

    async def _send_whole(self, stream: trio.SocketStream, message: bytes) -> None:
        try:
            with trio.fail_after(self._timing.answer_seconds) as scope:
                # An answer that is not needed any more must not cost a connection half-way.
                scope.shield = True
                await stream.send_all(message)
        except BaseException:
            # Half a message may be out: nothing sent after it would be understood.
            await self._drop(stream)
            raise

    async def _drop(self, stream: trio.SocketStream) -> None:
        """Give a connection up; `run` makes the next one."""
        if self._stream is stream:
            self._stream = None
        await trio.aclose_forcefully(stream)

    async def ask(self, kind: Kind, payload: bytes, until: frozenset[int]) -> list[Message]:
        """All replies to a request up to the first of a kind in `until`. Raises NoAnswer."""
        for _ in range(TRY_AGAIN_LIMIT):
            stream = self._stream
            try:
                replies = await self._ask_once(kind, payload, until | {Kind.TRY_AGAIN})
            except _TooSlow:
                # The connection may be half open; a fresh one tells.
                if stream is not None:
                    await self._drop(stream)
                raise
            if replies[-1].kind != Kind.TRY_AGAIN:
                return replies
            await trio.sleep(self._timing.first_retry_seconds)
        raise NoAnswer("it kept saying that it is busy")

    async def _ask_once(self, kind: Kind, payload: bytes, until: frozenset[int]) -> list[Message]:
        # Nodes drop an exact repeat in silence, from whichever connection: never reuse a dejavu.
        dejavu = secrets.randbelow((1 << 32) - 1) + 1
        sender, receiver = trio.open_memory_channel[Message](MAX_REPLIES)
        self._waiting[dejavu] = sender
        try:
            with receiver, trio.fail_after(self._timing.answer_seconds):
                if not await self.send(encode(kind, dejavu, payload)):
                    raise NoAnswer(self.trouble)
                return await self._collect(receiver, until)
        except trio.TooSlowError:
            raise _TooSlow(f"no answer within {self._timing.answer_seconds:g} s") from None
        finally:
            self._waiting.pop(dejavu, None)

    async def _collect(
        self, receiver: trio.MemoryReceiveChannel[Message], until: frozenset[int]
    ) -> list[Message]:
        replies: list[Message] = []
        async for message in receiver:
            replies.append(message)
            if message.kind in until:
                return replies
        raise NoAnswer(self.trouble)
