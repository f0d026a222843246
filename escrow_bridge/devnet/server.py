"""The devnet's network side: makes ticks on the clock and answers the native node protocol.

Like a real node it greets, answers what it understands, and drops the rest in silence, an exact
repeat of an earlier message included.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

import trio

from escrow_bridge import wire_format as wire
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.qubic import k12
from escrow_bridge.wire_format import Kind, Message, MessageReader, encode
from protocol.errors import MessageInvalid, WireError

_LOG: Final = logging.getLogger(__name__)
MAX_REQUEST_BYTES: Final = 4_096
MAX_CONNECTIONS: Final = 256
MAX_REMEMBERED: Final = 100_000
"""Messages remembered in order to drop their exact repeats."""
IDLE_SECONDS: Final = 600.0
SEND_SECONDS: Final = 10.0
GREETING: Final = encode(Kind.PEERS, 1, bytes(4 * 4))


async def make_ticks(engine: Engine) -> NoReturn:
    """Advance the engine once per tick duration, without drift as long as the machine keeps up."""
    seconds = engine.rules.tick_duration_ms / 1_000
    due = trio.current_time() + seconds
    while True:
        await trio.sleep_until(due)
        epoch = engine.host.epoch
        engine.advance()
        if engine.host.epoch != epoch and engine.rules.silence_ms:
            await _be_silent(engine)
        due = max(due + seconds, trio.current_time())


async def _be_silent(engine: Engine) -> None:
    engine.silent = True
    await trio.sleep(engine.rules.silence_ms / 1_000)
    engine.silent = False


@dataclass
class Server:
    """Answers connections over one engine; `handle` goes to `trio.serve_tcp` and the like."""

    engine: Engine
    connections: int = 0
    _seen: dict[bytes, None] = field(default_factory=dict)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """One connection from greeting to end; beyond MAX_CONNECTIONS there is no greeting."""
        self.connections += 1
        try:
            if self.connections <= MAX_CONNECTIONS:
                await self._serve(stream)
        except (WireError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            _LOG.debug("connection ended: %s", error)
        finally:
            self.connections -= 1

    async def _serve(self, stream: trio.abc.Stream) -> None:
        await stream.send_all(GREETING)
        reader = MessageReader(stream, MAX_REQUEST_BYTES)
        while True:
            with trio.fail_after(IDLE_SECONDS):
                message = await reader.receive()
            if message is None:
                return
            answer = b"".join(self.answers(message))
            if answer:
                with trio.fail_after(SEND_SECONDS):
                    await stream.send_all(answer)

    def answers(self, message: Message) -> Iterator[bytes]:
        """The messages, encoded, that answer one."""
        handler = _HANDLERS.get(message.kind)
        if handler is None or self.engine.silent or not self._is_new(message):
            return
        try:
            for kind, payload in handler(self.engine, message.payload):
                yield encode(kind, message.dejavu, payload)
        except MessageInvalid as error:
            _LOG.debug("dropped a message of type %d: %s", message.kind, error)

    def _is_new(self, message: Message) -> bool:
        key = k12(encode(Kind(message.kind), message.dejavu, message.payload))
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return True


Replies = Iterator[tuple[Kind, bytes]]


def _transaction(engine: Engine, payload: bytes) -> Replies:
    drop = engine.submit(payload)
    if drop is not None:
        _LOG.debug("dropped a transaction: %s", drop)
    yield from ()


def _tick_info(engine: Engine, payload: bytes) -> Replies:
    if payload:
        raise MessageInvalid("a request for tick info holds nothing")
    yield Kind.TICK_INFO, wire.pack_tick_info(engine.tick_info())


def _entity(engine: Engine, payload: bytes) -> Replies:
    owner = wire.parse_owner(payload)
    yield Kind.ENTITY, wire.pack_entity(owner, engine.entity(owner), engine.tick_info().tick)


def _tick_data(engine: Engine, payload: bytes) -> Replies:
    tick = wire.parse_tick(payload, "a request for tick data")
    included = engine.past(tick)
    if included:
        yield Kind.TICK_DATA, wire.pack_tick_data(engine.host.epoch, tick, tuple(included))
    else:
        yield Kind.END, b""


def _tick_transactions(engine: Engine, payload: bytes) -> Replies:
    tick, unwanted = wire.parse_tick_transactions_request(payload)
    for slot, raw in enumerate((engine.past(tick) or {}).values()):
        if slot not in unwanted:
            yield Kind.TRANSACTION, raw
    yield Kind.END, b""


def _function(engine: Engine, payload: bytes) -> Replies:
    yield Kind.FUNCTION, engine.host.query(*wire.parse_function_request(payload))


_HANDLERS: Final[dict[int, Callable[[Engine, bytes], Replies]]] = {
    Kind.TRANSACTION: _transaction,
    Kind.REQUEST_TICK_INFO: _tick_info,
    Kind.REQUEST_ENTITY: _entity,
    Kind.REQUEST_TICK_DATA: _tick_data,
    Kind.REQUEST_TICK_TRANSACTIONS: _tick_transactions,
    Kind.REQUEST_FUNCTION: _function,
}
