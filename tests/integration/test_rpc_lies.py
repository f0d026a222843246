"""An RPC that hides a transaction of ours, wholly or in parts: it is not taken for missed and sent anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from escrow_bridge.bridge import Bridge
from escrow_bridge.chain import Chain, Outcome
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, FIRST_TICK
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.devnet.rpc_server import ARCHIVE, LIVE, RpcServer
from escrow_bridge.qubic import sign_transaction, transaction_hash
from escrow_bridge.rpc import SETTLED_TICKS, open_rpc_chain
from escrow_bridge.rpc_quorum import open_rpc_chains
from escrow_bridge.transfer import TransferOrder, Transferred
from protocol.errors import ChainDisagrees, ChainUnreachable, ConfigInvalid
from protocol.units import Qu, Tick
from tests.support.chains import Store
from tests.support.nodes import FAST, OTHER, RICH, engine_at, never_sent, serving

TICK = Tick(FIRST_TICK + 8)
DATA, LIST, BY_HASH = (
    f"{ARCHIVE}/{name}" for name in ("getTickData", "getTransactionsForTick", "getTransactionByHash")
)
RECORD = f"{LIVE}/balances"


class Hiding(RpcServer):
    """The devnet's RPC, which leaves everything of RICH out of the answers of some paths."""

    lies_in: Collection[str] = ()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        status, answer = super().answer(method, path, body)
        lie = next((LIES[one] for one in self.lies_in if path.startswith(one)), None)
        return (status, answer) if lie is None or status != 200 else lie(self.engine, answer)


def _no_data(engine: Engine, answer: Any) -> tuple[int, Any]:
    ours = {transaction_hash(raw) for raw in _of_rich(engine)}
    data = answer["tickData"] or {"transactionHashes": []}
    left = [name for name in data["transactionHashes"] if name not in ours]
    return 200, {"tickData": {**data, "transactionHashes": left} if left else None}


def _no_transactions(engine: Engine, answer: Any) -> tuple[int, Any]:
    others = [one for one in answer["transactions"] if one["source"] != RICH.identity]
    return 200, {"transactions": others}


def _no_record(engine: Engine, answer: Any) -> tuple[int, Any]:
    answer["balance"]["latestOutgoingTransferTick"] = 0
    return 200, answer


def _of_rich(engine: Engine) -> list[bytes]:
    past = (engine.past(Tick(tick)) or {} for tick in range(FIRST_TICK, engine.tick_info().tick))
    return [raw for included in past for raw in included.values() if raw.startswith(RICH.public_key)]


LIES: dict[str, Callable[[Engine, Any], tuple[int, Any]]] = {
    DATA: _no_data,
    LIST: _no_transactions,
    BY_HASH: lambda engine, answer: (404, {"code": 5, "message": "transaction not found"}),
    RECORD: _no_record,
}


@asynccontextmanager
async def hiding(engine: Engine, *lies_in: str) -> AsyncIterator[tuple[Hiding, Chain]]:
    server = Hiding(engine)
    server.lies_in = lies_in
    async with (
        serving(server.handle) as addresses,
        open_rpc_chain(f"rpc+http://{addresses[0]}", FAST) as chain,
    ):
        yield server, chain


def one_sent(*, beside_another: bool) -> tuple[Engine, bytes]:
    engine = engine_at(5)
    engine.host.credit(OTHER.public_key, 10)
    raw = sign_transaction(RICH, OTHER.public_key, Qu(300), TICK)
    assert engine.submit(raw) is None
    if beside_another:
        assert engine.submit(sign_transaction(OTHER, RICH.public_key, Qu(1), TICK)) is None
    for _ in range(10):
        engine.advance()
    return engine, raw


@pytest.mark.attack
@pytest.mark.parametrize("beside_another", [False, True])
@pytest.mark.parametrize(
    "lies_in", [(DATA,), (DATA, LIST), (DATA, BY_HASH), (DATA, LIST, BY_HASH), (DATA, LIST, RECORD)]
)
async def test_a_hidden_transaction_is_a_contradiction(
    lies_in: tuple[str, ...], beside_another: bool
) -> None:
    engine, raw = one_sent(beside_another=beside_another)
    async with hiding(engine, *lies_in) as (server, chain):
        with pytest.raises(ChainDisagrees, match=f"contradicts itself about tick {TICK}: .*another one"):
            await chain.outcome(raw)
        server.lies_in = ()
        assert await chain.outcome(raw) is Outcome.INCLUDED


@pytest.mark.attack
async def test_an_empty_tick_that_is_none_is_not_read_as_one() -> None:
    engine, _ = one_sent(beside_another=False)
    async with hiding(engine, DATA) as (_, chain):
        with pytest.raises(ChainDisagrees, match="contradicts itself"):
            await chain.transactions(TICK)


async def test_a_tick_is_empty_only_when_the_archive_is_well_beyond_it() -> None:
    engine = engine_at(5)
    async with hiding(engine) as (server, chain):
        tick = engine.tick_info().tick
        while server.last_processed < tick + SETTLED_TICKS:
            assert await chain.outcome(never_sent(tick)) is Outcome.PENDING
            engine.advance()
        assert await chain.outcome(never_sent(tick)) is Outcome.MISSED


async def test_an_account_record_from_before_the_tick_says_nothing() -> None:
    engine = engine_at(15)

    def old(engine: Engine, answer: Any) -> tuple[int, Any]:
        answer["balance"]["validForTick"] = TICK if stale else TICK + 1
        return 200, answer

    stale = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIES, RECORD, old)
        async with hiding(engine, RECORD) as (_, chain):
            assert await chain.outcome(never_sent(TICK)) is Outcome.PENDING
            stale = False
            assert await chain.outcome(never_sent(TICK)) is Outcome.MISSED


ALL = tuple(LIES)
"""Hidden everywhere alike: no contradiction is left."""


@asynccontextmanager
async def three_operators(engine: Engine, *lies_in: tuple[str, ...]) -> AsyncIterator[Chain]:
    servers = [Hiding(engine) for _ in range(3)]
    for server, lies in zip(servers, lies_in, strict=False):
        server.lies_in = lies
    async with (
        serving(*(server.handle for server in servers)) as addresses,
        open_rpc_chains([f"rpc+http://{one}" for one in addresses], FAST) as chain,
    ):
        yield chain


@pytest.mark.attack
async def test_a_single_operator_that_lies_about_everything_is_believed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As docs/chains.md says; for that there are several."""
    engine, raw = one_sent(beside_another=True)
    server = Hiding(engine)
    server.lies_in = ALL
    async with (
        serving(server.handle) as addresses,
        open_rpc_chains([f"rpc+http://{addresses[0]}"], FAST) as chain,
    ):
        assert await chain.outcome(raw) is Outcome.MISSED
    assert "only one Qubic RPC is configured" in caplog.text


@pytest.mark.attack
async def test_one_of_three_operators_that_lies_about_everything_changes_nothing() -> None:
    engine, raw = one_sent(beside_another=True)
    async with three_operators(engine, ALL) as chain:
        for _ in range(3):
            assert await chain.outcome(raw) is Outcome.INCLUDED
            assert raw in (await chain.transactions(TICK) or ())


@pytest.mark.attack
async def test_two_operators_that_differ_decide_nothing() -> None:
    engine, raw = one_sent(beside_another=True)
    async with three_operators(engine, ALL, (), (DATA,)) as chain:
        with pytest.raises(ChainDisagrees, match=r"RPCs do not agree on the outcome .* says missed"):
            await chain.outcome(raw)


@pytest.mark.attack
async def test_one_of_three_operators_that_is_down_is_done_without() -> None:
    engine, raw = one_sent(beside_another=False)
    async with serving(Hiding(engine).handle) as gone:
        pass
    async with serving(Hiding(engine).handle, Hiding(engine).handle) as addresses:
        urls = [f"rpc+http://{one}" for one in (*gone, *addresses)]
        async with open_rpc_chains(urls, FAST) as chain:
            assert await chain.outcome(raw) is Outcome.INCLUDED
            await chain.broadcast(never_sent(engine.tick_info().tick))
        async with open_rpc_chains(urls[:2], FAST) as chain:
            with pytest.raises(ChainUnreachable, match=f"1 of 2 Qubic RPCs answer .*{gone[0]}"):
                await chain.tick_info()
        with pytest.raises(ConfigInvalid, match="named twice"):
            async with open_rpc_chains([urls[0], urls[0] + "/"], FAST):
                pass


@pytest.mark.attack
async def test_a_transfer_is_sent_once_although_one_operator_lies_about_everything() -> None:
    engine = engine_at(5)
    async with three_operators(engine, ALL) as chain, trio.open_nursery() as ticking:
        ticking.start_soon(_tick, engine)
        bridge = Bridge(chain, RICH, CONTRACT_INDEX, tick_offset=12, poll_seconds=0.02)
        sent = await bridge.transfer(TransferOrder(OTHER.public_key, Qu(300)), b"", Store().save)
        ticking.cancel_scope.cancel()
    assert sent.certain and len(_of_rich(engine)) == 1 and engine.balance(OTHER.public_key) == 300


async def _tick(engine: Engine) -> None:
    while True:
        await trio.sleep(0.05)
        engine.advance()


@pytest.mark.attack
async def test_a_transfer_hidden_for_a_while_is_sent_once() -> None:
    engine, results = engine_at(5), list[Transferred]()

    async def pay(bridge: Bridge) -> None:
        order = TransferOrder(OTHER.public_key, Qu(300))
        results.append(await bridge.transfer(order, b"", Store().save))

    async with hiding(engine, DATA, LIST, BY_HASH) as (server, chain), trio.open_nursery() as nursery:
        nursery.start_soon(pay, Bridge(chain, RICH, CONTRACT_INDEX, tick_offset=4, poll_seconds=0.01))
        while engine.balance(OTHER.public_key) == 0:
            await trio.sleep(0.02)
            engine.advance()
        for _ in range(10):
            await trio.sleep(0.02)
            engine.advance()
        assert not results, "it was taken for missed, or for final"
        server.lies_in = ()
    assert [one.certain for one in results] == [True]
    assert len(_of_rich(engine)) == 1 and engine.balance(OTHER.public_key) == 300
