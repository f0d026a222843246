"""What every Chain does, whoever provides it: one devnet read over the node protocol and over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

from escrow_bridge.chain import Chain, Outcome
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, FIRST_TICK
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.devnet.local import LocalChain
from escrow_bridge.devnet.rpc_server import ARCHIVE_LAG_TICKS, RpcServer
from escrow_bridge.escrow import read_info, read_reading
from escrow_bridge.node import open_node_chain
from escrow_bridge.qubic import contract_id, sign_transaction
from escrow_bridge.rpc import SETTLED_TICKS, open_rpc_chain
from escrow_bridge.rpc_quorum import open_rpc_chains
from protocol.errors import ChainUnreachable
from protocol.units import EscrowId, Qu, Tick
from tests.support.chains import wallet_of
from tests.support.nodes import FAST, OTHER, RICH, engine_at, never_sent, node, serving

Opener = Callable[[Engine], AbstractAsyncContextManager[Chain]]


@asynccontextmanager
async def local(engine: Engine) -> AsyncIterator[Chain]:
    yield LocalChain(engine)


@asynccontextmanager
async def one_node(engine: Engine) -> AsyncIterator[Chain]:
    async with serving(node(engine)) as addresses, open_node_chain(addresses, FAST) as chain:
        yield chain


@asynccontextmanager
async def three_nodes(engine: Engine) -> AsyncIterator[Chain]:
    handlers = [node(engine) for _ in range(3)]
    async with serving(*handlers) as addresses, open_node_chain(addresses, FAST) as chain:
        yield chain


@asynccontextmanager
async def rpc(engine: Engine) -> AsyncIterator[Chain]:
    async with (
        serving(RpcServer(engine).handle) as addresses,
        open_rpc_chain(f"rpc+http://{addresses[0]}", FAST) as chain,
    ):
        yield chain


@asynccontextmanager
async def three_rpcs(engine: Engine) -> AsyncIterator[Chain]:
    handlers = [RpcServer(engine).handle for _ in range(3)]
    async with (
        serving(*handlers) as addresses,
        open_rpc_chains([f"rpc+http://{one}" for one in addresses], FAST) as chain,
    ):
        yield chain


OPENERS: dict[str, Opener] = {
    "local": local,
    "node": one_node,
    "nodes": three_nodes,
    "rpc": rpc,
    "rpcs": three_rpcs,
}
LATER = 1 + ARCHIVE_LAG_TICKS + SETTLED_TICKS
"""So many ticks after a tick, everybody knows what was in it."""


@dataclass
class Network:
    engine: Engine
    chain: Chain

    def advance(self, ticks: int) -> None:
        for _ in range(ticks):
            self.engine.advance()


@pytest.fixture(params=OPENERS)
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    engine = engine_at(5)
    async with OPENERS[request.param](engine) as chain:
        yield Network(engine, chain)


async def test_the_tick(network: Network) -> None:
    assert await network.chain.tick_info() == network.engine.tick_info()
    network.engine.end_epoch()
    network.advance(3)
    info = await network.chain.tick_info()
    assert info == network.engine.tick_info()
    assert (info.epoch, info.initial_tick) == (101, FIRST_TICK + 6)


async def test_balances_with_their_tick(network: Network) -> None:
    for owner, amount in ((RICH.public_key, 1_000), (wallet_of(5).public_key, 0)):
        balance = await network.chain.balance(owner)
        assert (balance.amount, balance.as_of) == (amount, FIRST_TICK + 5)


async def test_a_transaction_from_broadcast_to_its_tick(network: Network) -> None:
    tick = Tick(FIRST_TICK + 8)
    raws = [sign_transaction(RICH, OTHER.public_key, Qu(amount), tick) for amount in (300, 50, 1)]
    raws.append(sign_transaction(RICH, contract_id(CONTRACT_INDEX), Qu(0), tick, 99, bytes(range(200))))
    for raw in raws:
        await network.chain.broadcast(raw)
        await network.chain.tick_info()  # a node has read everything sent before this
    assert await network.chain.outcome(raws[0]) is Outcome.PENDING
    network.advance(3)
    assert await network.chain.outcome(raws[0]) is Outcome.PENDING
    assert await network.chain.transactions(tick) is None
    network.advance(LATER)
    for raw in raws:
        assert await network.chain.outcome(raw) is Outcome.INCLUDED
    assert await network.chain.outcome(never_sent(tick)) is Outcome.MISSED
    assert await network.chain.transactions(tick) == tuple(raws)
    assert (await network.chain.balance(OTHER.public_key)).amount == 351


async def test_an_empty_tick(network: Network) -> None:
    network.advance(LATER)
    assert await network.chain.outcome(never_sent(Tick(FIRST_TICK + 5))) is Outcome.MISSED
    assert await network.chain.transactions(Tick(FIRST_TICK + 5)) == ()


async def test_a_transaction_that_is_dropped_is_missed(network: Network) -> None:
    tick = Tick(FIRST_TICK + 8)
    good = sign_transaction(RICH, OTHER.public_key, Qu(300), tick)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    too_near = sign_transaction(RICH, OTHER.public_key, Qu(300), Tick(FIRST_TICK + 6))
    broke = sign_transaction(OTHER, RICH.public_key, Qu(0), tick)
    for raw in (forged, too_near, broke):
        await network.chain.broadcast(raw)
    await network.chain.tick_info()
    network.advance(4 + LATER)
    for raw in (forged, too_near, broke):
        assert await network.chain.outcome(raw) is Outcome.MISSED
    assert (await network.chain.balance(RICH.public_key)).amount == 1_000


async def test_told_twice_runs_once(network: Network) -> None:
    raw = sign_transaction(RICH, OTHER.public_key, Qu(300), Tick(FIRST_TICK + 8))
    for _ in range(3):
        await network.chain.broadcast(raw)
    await network.chain.tick_info()
    network.advance(4)
    assert (await network.chain.balance(OTHER.public_key)).amount == 300


async def test_contract_functions(network: Network) -> None:
    info = await read_info(network.chain, CONTRACT_INDEX)
    assert (info.contract_index, info.tick) == (CONTRACT_INDEX, FIRST_TICK + 5)
    reading = await read_reading(network.chain, CONTRACT_INDEX, EscrowId(bytes(32)))
    assert (reading.tick, reading.view) == (FIRST_TICK + 5, None)
    assert await network.chain.query(CONTRACT_INDEX, 60_000, b"") == b""
    assert await network.chain.query(CONTRACT_INDEX + 1, 2, b"") == b""


async def test_a_network_that_is_silent_for_a_moment(network: Network) -> None:
    if isinstance(network.chain, LocalChain):
        network.chain.reachable = False
    network.engine.silent = True
    with pytest.raises(ChainUnreachable) as raised:
        await network.chain.tick_info()
    assert str(raised.value).count("\n") == 0
    network.engine.silent = False
    if isinstance(network.chain, LocalChain):
        network.chain.reachable = True
    assert await network.chain.tick_info() == network.engine.tick_info()
