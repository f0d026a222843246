"""Locking a deposit: exactly once, whatever is lost, cut, crashed or repeated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from escrow_bridge.bridge import MAX_ATTEMPTS, Bridge
from escrow_bridge.chain import Outcome
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.layout import Function, escrow_id
from escrow_bridge.qubic import Transaction
from protocol.errors import BalanceTooLow, ChainDisagrees, ChainUnreachable, FundingFailed, LedgerBroken
from protocol.units import LeaseId, Tick
from tests.support.chains import FUNDS, TERMS, TICK_SECONDS, Crash, Store, World, make_world


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    world = make_world()
    nursery.start_soon(world.tick_for_ever)
    return world


async def test_opens_with_exactly_the_deposit(world: World, autojump_clock: MockClock) -> None:
    view = await world.open(1_000)
    expected = escrow_id(
        world.caller.public_key, world.provider.public_key, TERMS, CONTRACT_INDEX, view.open_tick
    )
    assert view.escrow_id == expected
    assert (view.deposit, view.paid, view.close_tick) == (1_000, 0, 0)
    assert view.deadline_tick == view.open_tick + 200
    assert (world.balance(world.caller), world.locked) == (FUNDS - 1_000, 1_000)


async def test_too_low_a_balance_is_told_before_anything_is_sent(
    world: World, autojump_clock: MockClock
) -> None:
    store = Store()
    with pytest.raises(BalanceTooLow, match="send it at least 1 QU"):
        await world.bridge(world.caller).open_escrow(world.order(FUNDS + 1), b"", store.save)
    assert (store.saves, world.chain.broadcasts) == (0, [])


@pytest.mark.parametrize(("deadline", "challenge"), [(1, 16), (10**9, 16), (200, 0)])
async def test_terms_the_contract_refuses_cost_nothing(
    world: World, autojump_clock: MockClock, deadline: int, challenge: int
) -> None:
    order = replace(world.order(), deadline_ticks=deadline, challenge_ticks=challenge)
    with pytest.raises(FundingFailed, match="ticks, not"):
        await world.bridge(world.caller).open_escrow(order, b"", Store().save)
    assert world.chain.broadcasts == []


async def test_a_lost_transaction_is_sent_again_for_a_later_tick(
    world: World, autojump_clock: MockClock
) -> None:
    lost: set[Tick] = set()

    def loses(transaction: Transaction) -> bool:
        if len(lost) < 2:
            lost.add(transaction.tick)
        return transaction.tick in lost

    world.chain.loses = loses
    view = await world.open(1_000)
    assert len(lost) == 2 and view.open_tick > max(lost)
    assert world.locked == 1_000


async def test_a_network_that_loses_everything_ends_in_an_error(
    world: World, autojump_clock: MockClock
) -> None:
    world.chain.loses = lambda transaction: True
    store = Store()
    with pytest.raises(FundingFailed, match="lost all"):
        await world.bridge(world.caller).open_escrow(world.order(), b"", store.save)
    assert (store.saves, world.balance(world.caller)) == (MAX_ATTEMPTS, FUNDS)


@pytest.mark.parametrize("dies_before", [True, False])
@pytest.mark.parametrize("dies_at", [1, 2])
async def test_dying_at_a_save_never_locks_twice(
    world: World, autojump_clock: MockClock, dies_at: int, dies_before: bool
) -> None:
    first: list[Tick] = []

    def loses(transaction: Transaction) -> bool:
        first.append(transaction.tick)
        return transaction.tick == first[0]

    world.chain.loses = loses
    store = Store(dies_at=dies_at, dies_before=dies_before)
    with pytest.raises(Crash):
        await world.bridge(world.caller).open_escrow(world.order(), b"", store.save)
    await trio.sleep(3 * TICK_SECONDS)
    view = await world.bridge(world.caller).open_escrow(world.order(), store.scratch, store.save)
    assert view.deposit == world.locked == 1_000


@pytest.mark.parametrize("quarters", range(0, 33, 2))
async def test_dying_at_any_instant_never_locks_twice(
    world: World, autojump_clock: MockClock, quarters: int
) -> None:
    store = Store()
    with trio.move_on_after(quarters * TICK_SECONDS / 4 + 0.01):
        await world.bridge(world.caller).open_escrow(world.order(), b"", store.save)
    for pause in (0, 5):
        await trio.sleep(pause)
        await world.bridge(world.caller).open_escrow(world.order(), store.scratch, store.save)
    assert world.locked == 1_000


async def test_calling_again_finds_the_same_escrow(world: World, autojump_clock: MockClock) -> None:
    store = Store()
    bridge = world.bridge(world.caller)
    view = await bridge.open_escrow(world.order(), b"", store.save)
    sent = len(world.chain.broadcasts)
    assert await bridge.open_escrow(world.order(), store.scratch, store.save) == view
    assert (len(world.chain.broadcasts), store.saves) == (sent, 1)


async def test_an_unreachable_chain_is_told_before_and_waited_for_after_sending(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    store = Store()
    world.chain.reachable = False
    with pytest.raises(ChainUnreachable):
        await world.bridge(world.caller).open_escrow(world.order(), b"", store.save)

    async def save_and_cut(scratch: bytes) -> None:
        await store.save(scratch)
        world.chain.reachable = store.saves > 1

    async def mend() -> None:
        await trio.sleep(20 * TICK_SECONDS)
        world.chain.reachable = True

    world.chain.reachable = True
    nursery.start_soon(mend)
    view = await world.bridge(world.caller).open_escrow(world.order(), b"", save_and_cut)
    assert (view.deposit, world.locked, store.saves) == (1_000, 1_000, 2)


async def test_two_deposits_of_all_the_money_in_one_tick_lock_one(
    world: World, autojump_clock: MockClock
) -> None:
    results: list[str] = []

    async def attempt(bridge: Bridge, terms: int) -> None:
        order = replace(world.order(FUNDS - 1), terms=LeaseId(bytes([terms] * 32)))
        try:
            await bridge.open_escrow(order, b"", Store().save)
            results.append("open")
        except FundingFailed as error:
            results.append(str(error))

    async with trio.open_nursery() as nursery:
        for terms in (1, 2):
            nursery.start_soon(attempt, world.bridge(world.caller), terms)
    assert "open" in results
    assert any("holds only 1 QU" in result for result in results)
    assert world.locked == FUNDS - 1


async def test_too_old_to_tell_is_never_sent_again(world: World, autojump_clock: MockClock) -> None:
    store = Store(dies_at=1)
    with pytest.raises(Crash):
        await world.bridge(world.caller).open_escrow(world.order(), b"", store.save)
    await world.chain.advance(world.chain.engine.rules.keep_ticks + 10)
    with pytest.raises(FundingFailed, match="cannot be told"):
        await world.bridge(world.caller).open_escrow(world.order(), store.scratch, store.save)
    assert (store.saves, world.chain.broadcasts) == (1, [])


async def test_a_node_that_wrongly_says_missed_causes_no_second_deposit(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lies(transaction: bytes) -> Outcome:
        return Outcome.MISSED

    monkeypatch.setattr(world.chain, "outcome", lies)
    view = await world.open(1_000)
    assert view.deposit == world.locked == 1_000


async def test_a_confused_node_does_not_decide_about_money_already_sent(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_query, answers = world.chain.query, []

    async def confused(
        contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
    ) -> bytes:
        answers.append(input_type)
        if input_type == Function.GET_ESCROW and len(answers) < 8:
            return b""
        return await real_query(contract_index, input_type, payload)

    monkeypatch.setattr(world.chain, "query", confused)
    view = await world.open(1_000)
    assert len(answers) >= 8
    assert view.deposit == world.locked == 1_000


async def test_a_lagging_answer_is_no_proof_that_nothing_was_opened(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_query, asked = world.chain.query, []
    before = await real_query(CONTRACT_INDEX, Function.GET_ESCROW, bytes(32))

    async def lagging(
        contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
    ) -> bytes:
        asked.append(input_type)
        if input_type == Function.GET_ESCROW and len(asked) < 8:
            return before
        return await real_query(contract_index, input_type, payload)

    monkeypatch.setattr(world.chain, "query", lagging)
    view = await world.open(1_000)
    assert len(asked) >= 8
    assert view.deposit == world.locked == 1_000


async def test_a_contract_without_fuel_gives_the_deposit_back(
    world: World, autojump_clock: MockClock
) -> None:
    world.chain.engine.host.set_reserve(CONTRACT_INDEX, 0)
    with pytest.raises(FundingFailed, match="gave it back"):
        await world.open(1_000)
    assert world.balance(world.caller) == FUNDS


async def test_a_network_without_the_contract_is_told_before_sending(
    world: World, autojump_clock: MockClock
) -> None:
    bridge = Bridge(world.chain, world.caller, CONTRACT_INDEX + 1)
    with pytest.raises(ChainDisagrees, match="check the contract index"):
        await bridge.open_escrow(world.order(), b"", Store().save)
    assert world.chain.broadcasts == []


async def test_broken_scratch_is_told(world: World, autojump_clock: MockClock) -> None:
    for scratch in (b"\xc1", b"\x93\x01\x02\x03", b"x" * 50):
        with pytest.raises(LedgerBroken):
            await world.bridge(world.caller).open_escrow(world.order(), scratch, Store().save)


async def test_impossible_offsets_are_refused(world: World, autojump_clock: MockClock) -> None:
    for offset in (2, 32):
        with pytest.raises(ValueError, match="ticks ahead"):
            Bridge(world.chain, world.caller, CONTRACT_INDEX, tick_offset=offset)
