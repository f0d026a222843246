"""Several nodes, some of them dead, lagging, silent or lying: what two say counts, or one sentence tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from escrow_bridge.chain import Chain, Outcome
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, FIRST_TICK
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.devnet.server import GREETING, Server
from escrow_bridge.escrow import read_info
from escrow_bridge.node import open_node_chain
from escrow_bridge.node_peer import Timing
from escrow_bridge.node_quorum import MAX_LAG_TICKS
from escrow_bridge.qubic import sign_transaction, transaction_digest
from escrow_bridge.wire_format import MessageReader
from protocol.errors import ChainDisagrees, ChainUnreachable
from protocol.units import Qu, Tick
from tests.support.hostile_nodes import (
    Twist,
    busy,
    deaf,
    emptying,
    forging,
    hasty,
    hiding,
    huge,
    inventing,
    lying,
    mute,
    noisy,
    out_of_time,
    richer,
    rude,
    short,
    silent,
)
from tests.support.nodes import BRISK, FAST, OTHER, RICH, Handler, engine_at, never_sent, node, serving


@asynccontextmanager
async def chain_over(*handlers: Handler, timing: Timing = FAST) -> AsyncIterator[Chain]:
    async with serving(*handlers) as addresses, open_node_chain(addresses, timing) as chain:
        yield chain


async def all_reads(chain: Chain, engine: Engine) -> None:
    """Every read, checked against the engine, which has one transaction in the tick before the last."""
    now = engine.tick_info()
    tick = Tick(now.tick - 2)
    digests = engine.past(tick)
    assert digests
    assert await chain.tick_info() == now
    assert (await chain.balance(RICH.public_key)).amount == engine.balance(RICH.public_key)
    assert (await read_info(chain, CONTRACT_INDEX)).contract_index == CONTRACT_INDEX
    assert await chain.outcome(next(iter(digests.values()))) is Outcome.INCLUDED
    assert await chain.outcome(never_sent(tick)) is Outcome.MISSED
    assert await chain.transactions(tick) == tuple(digests.values())


def engine_with_a_transaction() -> Engine:
    engine = engine_at(5)
    tick = Tick(engine.tick_info().tick + 3)
    assert engine.submit(sign_transaction(RICH, OTHER.public_key, Qu(300), tick)) is None
    for _ in range(5):
        engine.advance()
    return engine


LIES: dict[str, Twist] = {
    "richer": richer(5),
    "ahead": out_of_time(1_000),
    "behind": out_of_time(-500),
    "forging": forging,
    "hiding": hiding,
    "inventing": inventing,
}


@pytest.mark.attack
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("lie", LIES)
async def test_one_lying_node_of_three_changes_nothing(lie: str, place: int) -> None:
    engine = engine_with_a_transaction()
    handlers = [node(engine), node(engine)]
    handlers.insert(place, lying(engine, LIES[lie]))
    async with chain_over(*handlers) as chain:
        for _ in range(3):
            await all_reads(chain, engine)


@pytest.mark.attack
@pytest.mark.parametrize(
    "broken", [silent, rude, mute, deaf, huge, hasty, noisy, busy, short], ids=lambda h: h.__name__
)
async def test_one_broken_node_of_three_changes_nothing(broken: Handler) -> None:
    engine = engine_with_a_transaction()
    async with chain_over(broken, node(engine), node(engine)) as chain:
        await all_reads(chain, engine)


@pytest.mark.attack
async def test_more_nodes_are_asked_when_the_first_three_do_not_agree() -> None:
    engine = engine_with_a_transaction()
    liars = [lying(engine, richer(amount)) for amount in (1, 2)]
    async with chain_over(*liars, mute, node(engine), node(engine)) as chain:
        assert (await chain.balance(RICH.public_key)).amount == 700
        with trio.fail_after(FAST.answer_seconds):
            # From now on those that differed or failed are asked last.
            assert (await chain.balance(RICH.public_key)).amount == 700


@pytest.mark.attack
@pytest.mark.parametrize(
    ("lie", "read", "sentence"),
    [
        ("richer", lambda chain: chain.balance(RICH.public_key), r"the balance of [A-Z]{60}.* 1000 QU"),
        ("ahead", lambda chain: chain.tick_info(), "the current tick.* at tick 10001000"),
        (
            "inventing",
            lambda chain: chain.query(CONTRACT_INDEX, 2, b""),
            "the answer of function 2 of contract 28",
        ),
    ],
)
async def test_two_nodes_must_agree_or_one_sentence_says_who_differs(
    lie: str, read: Callable[[Chain], Awaitable[object]], sentence: str
) -> None:
    engine = engine_at()
    async with (
        serving(node(engine), lying(engine, LIES[lie])) as addresses,
        open_node_chain(addresses, FAST) as chain,
    ):
        with pytest.raises(ChainDisagrees, match=f"do not agree on {sentence}") as raised:
            await read(chain)
    assert all(f"{address} says" in str(raised.value) for address in addresses)
    assert "\n" not in str(raised.value)


async def test_answers_from_different_ticks_are_the_same_answer() -> None:
    early, late = engine_at(4), engine_at(4 + MAX_LAG_TICKS)
    async with chain_over(node(early), node(late)) as chain:
        assert (await chain.tick_info()).tick == FIRST_TICK + 4
        balance = await chain.balance(RICH.public_key)
        assert (balance.amount, balance.as_of) == (1_000, FIRST_TICK + 4)
        assert (await read_info(chain, CONTRACT_INDEX)).tick == FIRST_TICK + 4


async def test_nodes_that_differ_for_a_moment_are_asked_again() -> None:
    early, late = engine_at(9), engine_at(9)
    early.host.credit(OTHER.public_key, 7)

    async def lately(stream: trio.SocketStream) -> None:
        """As `late`, which gets to know what `early` knows when it has been asked once."""
        await stream.send_all(GREETING)
        server, reader = Server(late), MessageReader(stream)
        while (message := await reader.receive()) is not None:
            await stream.send_all(b"".join(server.answers(message)))
            if not late.balance(OTHER.public_key):
                late.host.credit(OTHER.public_key, 7)

    async with chain_over(node(early), lately, timing=replace(FAST, agree_seconds=30.0)) as chain:
        assert (await chain.balance(OTHER.public_key)).amount == 7


@pytest.mark.attack
async def test_a_late_node_and_a_liar_do_not_make_a_tick_empty() -> None:
    engine = engine_with_a_transaction()
    tick = Tick(engine.tick_info().tick - 2)
    late = engine_at(tick + 1 - FIRST_TICK)

    async with chain_over(node(late), emptying(engine), node(engine), node(engine)) as chain:
        (raw,) = (engine.past(tick) or {}).values()
        for _ in range(3):
            assert await chain.outcome(raw) is Outcome.INCLUDED


async def test_one_node_left_of_three_is_not_enough() -> None:
    engine = engine_at()
    async with serving(node(engine), node(engine)) as gone:
        pass
    async with serving(node(engine)) as living, open_node_chain([*gone, *living], FAST) as chain:
        with pytest.raises(ChainUnreachable, match="1 of 3 Qubic nodes answer and 2 must say the same"):
            await chain.tick_info()


async def test_nodes_behind_what_was_seen_are_not_read_from() -> None:
    ahead, behind = engine_at(10), engine_at(10 - MAX_LAG_TICKS - 1)
    cut = trio.CancelScope()

    async def mortal(stream: trio.SocketStream) -> None:
        if not cut.cancel_called:
            with cut:
                await node(ahead)(stream)

    async with chain_over(mortal, node(ahead), node(behind), node(behind)) as chain:
        assert (await chain.tick_info()).tick == FIRST_TICK + 10
        cut.cancel()
        with pytest.raises(ChainUnreachable, match="behind tick"):
            while True:
                assert (await chain.tick_info()).tick == FIRST_TICK + 10
        behind.advance()
        assert (await chain.tick_info()).tick == FIRST_TICK + 8


@pytest.mark.attack
async def test_every_node_is_told_of_a_transaction_whatever_the_others_do() -> None:
    engines = [engine_at(), engine_at()]
    raw = sign_transaction(RICH, OTHER.public_key, Qu(1), Tick(FIRST_TICK + 5))
    async with chain_over(deaf, node(engines[0]), mute, node(engines[1])) as chain:
        await chain.tick_info()
        await chain.broadcast(raw)
        await chain.tick_info()  # both honest nodes have read everything sent before this
    for engine in engines:
        for _ in range(6):
            engine.advance()
        assert engine.past(Tick(FIRST_TICK + 5)) == {transaction_digest(raw): raw}


async def test_nodes_in_different_epochs_are_waited_for() -> None:
    changed, slow = engine_at(3), engine_at(3)
    changed.end_epoch()
    changed.advance()
    async with chain_over(node(changed), node(slow)) as chain:
        with pytest.raises(ChainDisagrees, match=r"(?=.*epoch 101 since tick)(?=.*epoch 100 since tick)"):
            await chain.tick_info()
        slow.end_epoch()
        slow.advance()
        assert await chain.tick_info() == changed.tick_info()


async def test_a_silent_epoch_change_is_waited_out() -> None:
    engine = engine_at(3)
    async with chain_over(*[Server(engine).handle for _ in range(3)], timing=BRISK) as chain:
        assert (await chain.tick_info()).epoch == 100
        engine.silent = True
        with pytest.raises(ChainUnreachable, match="no answer within"):
            await chain.tick_info()
        engine.end_epoch()
        engine.advance()
        engine.silent = False
        assert (await chain.tick_info()).epoch == 101
