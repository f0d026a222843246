"""Chain over the native node protocol: keeps a connection to each configured node.

What is read counts when two nodes say it (node_quorum.py); transactions go to all of them. What proves
itself, the transactions whose digests a tick lists, is taken from any.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from escrow_bridge import wire_format as wire
from escrow_bridge.chain import Balance, Chain, Outcome, TickInfo
from escrow_bridge.node_peer import Address, NoAnswer, Peer, Timing
from escrow_bridge.node_quorum import Answer, Quorum, contract_answer, shown
from escrow_bridge.qubic import identity_of, parse_transaction, transaction_digest
from escrow_bridge.shared import Shared
from escrow_bridge.wire_format import Kind, Message
from protocol.errors import ChainUnreachable, ConfigInvalid, MessageInvalid
from protocol.units import QubicId, Tick

_LOG: Final = logging.getLogger(__name__)
EMPTY_TICK_TRUSTED: Final = range(2, 50)
"""Age in ticks at which "no data" means an empty tick; nodes forget ticks from an age of about 100."""


def parse_address(text: str) -> Address:
    """(host, port) of "host:port" or "[ipv6]:port". Raises ConfigInvalid."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigInvalid(f"{text!r} is not the address of a Qubic node; write host:port")
    return host.removeprefix("[").removesuffix("]").lower(), int(port)


class NodeChain:
    """Obtained from `open_node_chain`."""

    def __init__(self, addresses: Sequence[str], timing: Timing) -> None:
        parsed = [parse_address(text) for text in addresses]
        if len(set(parsed)) < len(parsed):
            raise ConfigInvalid("a Qubic node is named twice; its word would count as that of two")
        lot = trio.lowlevel.ParkingLot()
        self._peers = [Peer(address, timing, lot.unpark_all) for address in parsed]
        self._quorum = Quorum(self._peers, timing, lot)
        self._tick_info = Shared(self._ask_tick_info)

    @property
    def name(self) -> str:
        return f"the Qubic node{'s'[: len(self._peers) - 1]} {', '.join(peer.name for peer in self._peers)}"

    async def tick_info(self) -> TickInfo:
        return await self._tick_info()

    async def _ask_tick_info(self) -> TickInfo:
        async def attempt(peer: Peer) -> Answer[TickInfo]:
            info = await _own_tick_info(peer)
            says = f"epoch {info.epoch} since tick {info.initial_tick}"
            return Answer(info, (info.epoch, info.initial_tick), says, info.tick)

        return await self._quorum.ask(attempt, "the current tick")

    async def balance(self, owner: QubicId) -> Balance:
        async def attempt(peer: Peer) -> Answer[Balance]:
            replies = await peer.ask(Kind.REQUEST_ENTITY, owner, frozenset({Kind.ENTITY}))
            balance = Balance(*wire.parse_entity(replies[-1].payload, owner))
            return Answer(balance, balance.amount, f"{balance.amount} QU", balance.as_of)

        return await self._quorum.ask(attempt, f"the balance of {identity_of(owner)}")

    async def query(
        self, contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
    ) -> bytes:
        request = wire.pack_function_request(contract_index, input_type, payload)

        async def attempt(peer: Peer) -> Answer[bytes]:
            replies = await peer.ask(Kind.REQUEST_FUNCTION, request, frozenset({Kind.FUNCTION}))
            return contract_answer(replies[-1].payload, tick_at)

        what = f"the answer of function {input_type} of contract {contract_index}"
        return await self._quorum.ask(attempt, what)

    async def outcome(self, transaction: bytes) -> Outcome:
        tick = parse_transaction(transaction).tick
        if (await self.tick_info()).tick <= tick:
            return Outcome.PENDING
        known = await self._tick(tick)
        if isinstance(known, Outcome):
            return known
        return Outcome.INCLUDED if transaction_digest(transaction) in known else Outcome.MISSED

    async def transactions(self, tick: Tick) -> tuple[bytes, ...] | None:
        if (await self.tick_info()).tick <= tick:
            return None
        known = await self._tick(tick)
        if isinstance(known, Outcome):
            return () if known is Outcome.MISSED else None
        return await self._quorum.first(lambda peer: _fetch(peer, tick, known)) if known else ()

    async def _tick(self, tick: Tick) -> tuple[bytes, ...] | Outcome:
        """The digests of a past tick's transactions, in slot order; without data what that means."""

        async def attempt(peer: Peer) -> Answer[tuple[bytes, ...] | Outcome]:
            data = await _own_tick_data(peer, tick)
            if data is None:
                # By this node's own tick: one that is late has no data either, and does not know it yet.
                outcome = _outcome_without_data(await _own_tick_info(peer), tick)
                # Asked again, as it may have caught up between the two answers.
                data = await _own_tick_data(peer, tick)
                if data is None:
                    return Answer(outcome, outcome, f"it has none ({outcome.value})")
            return Answer(data.digests, data.digests, shown(b"".join(data.digests)))

        return await self._quorum.ask(attempt, f"the transactions in tick {tick}")

    async def broadcast(self, transaction: bytes) -> None:
        message = wire.encode(Kind.TRANSACTION, 0, transaction)
        sent: list[bool] = []

        async def send(peer: Peer) -> None:
            sent.append(await peer.send(message))

        async with trio.open_nursery() as nursery:
            for peer in await self._quorum.connected(1):
                nursery.start_soon(send, peer)
        if not any(sent):
            raise ChainUnreachable("no Qubic node took the transaction: the connections broke; try again")

    async def run(self) -> None:
        """Keep all connections up, for ever."""
        async with trio.open_nursery() as nursery:
            for peer in self._peers:
                nursery.start_soon(peer.run, random.Random())


async def _own_tick_info(peer: Peer) -> TickInfo:
    replies = await peer.ask(Kind.REQUEST_TICK_INFO, b"", frozenset({Kind.TICK_INFO}))
    return wire.parse_tick_info(replies[-1].payload)


async def _own_tick_data(peer: Peer, tick: Tick) -> wire.TickData | None:
    until = frozenset({Kind.TICK_DATA, Kind.END})
    last = (await peer.ask(Kind.REQUEST_TICK_DATA, wire.pack_tick(tick), until))[-1]
    return None if last.kind == Kind.END else wire.parse_tick_data(last.payload, tick)


async def _fetch(peer: Peer, tick: Tick, digests: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The transactions of a tick from one node, which must be those with these digests."""
    # Its own data first: the number of slots differs between versions, and the request depends on it.
    data = await _own_tick_data(peer, tick)
    if data is None:
        raise NoAnswer(f"it has no data of tick {tick}")
    request = wire.pack_tick_transactions_request(tick, data.slots)
    return _complete(await peer.ask(Kind.REQUEST_TICK_TRANSACTIONS, request, frozenset({Kind.END})), digests)


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
    if len(addresses) == 1:
        _LOG.warning(
            "only one Qubic node is configured, %s: it is believed in everything; name three or more",
            addresses[0],
        )
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
