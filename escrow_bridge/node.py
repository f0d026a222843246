"""Chain over the native node protocol: keeps a connection to each configured node.

Reads go to one node as long as it answers and then to the next; transactions go to all. A node that
lags behind what was already seen is not read from, so that state never seems to go backwards.
Reading two of three nodes against each other would change `_ask` alone.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from escrow_bridge import wire_format as wire
from escrow_bridge.chain import Balance, Chain, Outcome, TickInfo
from escrow_bridge.node_peer import Address, NoAnswer, Peer, Timing
from escrow_bridge.qubic import parse_transaction, transaction_digest
from escrow_bridge.wire_format import Kind, Message
from protocol.errors import ChainUnreachable, ConfigInvalid, MessageInvalid
from protocol.units import QubicId, Tick

_LOG: Final = logging.getLogger(__name__)
ROUNDS: Final = 2
"""How often every node is asked before giving up."""
MAX_LAG_TICKS: Final = 2
EMPTY_TICK_TRUSTED: Final = range(2, 50)
"""Age in ticks at which "no data" means an empty tick; nodes forget ticks from an age of about 100."""
T = TypeVar("T")


def parse_address(text: str) -> Address:
    """(host, port) of "host:port" or "[ipv6]:port". Raises ConfigInvalid."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigInvalid(f"{text!r} is not the address of a Qubic node; write host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(frozen=True)
class _Query:
    """One request and the replies that complete it."""

    kind: Kind
    payload: bytes
    until: frozenset[int]
    """Kinds that end the exchange; what came before counts as well."""


class NodeChain:
    """Obtained from `open_node_chain`."""

    def __init__(self, addresses: Sequence[str], timing: Timing) -> None:
        self._timing = timing
        self._lot = trio.lowlevel.ParkingLot()
        self._peers = [Peer(parse_address(text), timing, self._lot.unpark_all) for text in addresses]
        self._preferred = self._peers[0]
        self._highest = Tick(0)

    async def tick_info(self) -> TickInfo:
        query = _Query(Kind.REQUEST_TICK_INFO, b"", frozenset({Kind.TICK_INFO}))
        info = await self._ask(query, _last(wire.parse_tick_info))
        self._highest = max(self._highest, info.tick)
        return info

    async def balance(self, owner: QubicId) -> Balance:
        query = _Query(Kind.REQUEST_ENTITY, owner, frozenset({Kind.ENTITY}))
        return Balance(*await self._ask(query, _last(lambda payload: wire.parse_entity(payload, owner))))

    async def query(self, contract_index: int, input_type: int, payload: bytes) -> bytes:
        request = wire.pack_function_request(contract_index, input_type, payload)
        return await self._ask(
            _Query(Kind.REQUEST_FUNCTION, request, frozenset({Kind.FUNCTION})), _last(lambda output: output)
        )

    async def outcome(self, transaction_digest: bytes, tick: Tick) -> Outcome:
        info = await self.tick_info()
        if info.tick <= tick:
            return Outcome.PENDING
        data = await self._tick_data(tick)
        if data is not None:
            return Outcome.INCLUDED if transaction_digest in data.digests else Outcome.MISSED
        return _outcome_without_data(info, tick)

    async def transactions(self, tick: Tick) -> tuple[bytes, ...] | None:
        info = await self.tick_info()
        data = await self._tick_data(tick) if tick < info.tick else None
        if data is None:
            return () if _outcome_without_data(info, tick) is Outcome.MISSED else None
        if not data.digests:
            return ()
        request = wire.pack_tick_transactions_request(tick, data.slots)
        query = _Query(Kind.REQUEST_TICK_TRANSACTIONS, request, frozenset({Kind.END}))
        return await self._ask(query, lambda replies: _complete(replies, data.digests))

    async def _tick_data(self, tick: Tick) -> wire.TickData | None:
        query = _Query(Kind.REQUEST_TICK_DATA, wire.pack_tick(tick), frozenset({Kind.TICK_DATA, Kind.END}))
        return await self._ask(
            query,
            lambda replies: (
                None if replies[-1].kind == Kind.END else wire.parse_tick_data(replies[-1].payload, tick)
            ),
        )

    async def broadcast(self, transaction: bytes) -> None:
        message = wire.encode(Kind.TRANSACTION, 0, transaction)
        sent = [await peer.send(message) for peer in await self._connected()]
        if not any(sent):
            raise self._unreachable("the connection broke")

    async def _ask(self, query: _Query, parse: Callable[[list[Message]], T]) -> T:
        trouble = ""
        for _ in range(ROUNDS):
            for peer in await self._connected():
                try:
                    await self._check_lag(peer)
                    result = parse(await peer.ask(query.kind, query.payload, query.until))
                except (NoAnswer, MessageInvalid) as error:
                    _LOG.debug("node %s: %s", peer.name, error)
                    trouble = str(error)
                    continue
                self._preferred = peer
                return result
        raise self._unreachable(trouble)

    async def _check_lag(self, peer: Peer) -> None:
        if peer is self._preferred:
            return
        replies = await peer.ask(Kind.REQUEST_TICK_INFO, b"", frozenset({Kind.TICK_INFO}))
        tick = wire.parse_tick_info(replies[-1].payload).tick
        if tick + MAX_LAG_TICKS < self._highest:
            raise NoAnswer(f"it is at tick {tick}, behind tick {self._highest}")

    async def _connected(self) -> list[Peer]:
        """Connected nodes, the preferred one first; waits a little for the first connection."""
        with trio.move_on_after(self._timing.connect_seconds):
            while not any(peer.connected for peer in self._peers):
                await self._lot.park()
        found = [peer for peer in self._peers if peer.connected]
        if not found:
            raise self._unreachable(self._preferred.trouble)
        return sorted(found, key=lambda peer: peer is not self._preferred)

    def _unreachable(self, trouble: str) -> ChainUnreachable:
        names = ", ".join(peer.name for peer in self._peers)
        return ChainUnreachable(f"no Qubic node answers at {names} ({trouble}); check that it runs")

    async def run(self) -> None:
        """Keep all connections up, for ever."""
        async with trio.open_nursery() as nursery:
            for peer in self._peers:
                nursery.start_soon(peer.run, random.Random())


def _last(parse: Callable[[bytes], T]) -> Callable[[list[Message]], T]:
    return lambda replies: parse(replies[-1].payload)


def _outcome_without_data(info: TickInfo, tick: Tick) -> Outcome:
    """What "no data" for a tick means: not there yet, an empty tick, or forgotten."""
    age = info.tick - tick
    if age < EMPTY_TICK_TRUSTED.start:
        return Outcome.PENDING
    trusted = age < EMPTY_TICK_TRUSTED.stop and tick >= info.initial_tick
    return Outcome.MISSED if trusted else Outcome.UNKNOWN


def _complete(replies: Sequence[Message], digests: Sequence[bytes]) -> tuple[bytes, ...]:
    found = {transaction_digest(reply.payload): reply.payload for reply in replies}
    if not set(digests) <= set(found):
        raise MessageInvalid("not all transactions of a tick were sent")
    for digest in digests:
        parse_transaction(found[digest])
    return tuple(found[digest] for digest in digests)


@asynccontextmanager
async def open_node_chain(addresses: Sequence[str], timing: Timing | None = None) -> AsyncIterator[Chain]:
    """A Chain over the nodes at `addresses` ("host:port"); connects in the background.

    Raises ConfigInvalid for a wrong address; a node that is down shows as ChainUnreachable later.
    """
    if not addresses:
        raise ConfigInvalid("no Qubic node is configured; give at least one host:port")
    chain = NodeChain(addresses, timing or Timing())
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chain.run)
        try:
            yield chain
        except Exception as error:
            # Raised again outside of the nursery, which would wrap the caller's own error in a group.
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
