"""Redeeming, closing and learning how a channel ended, against the compiled contract."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from escrow_bridge import layout
from escrow_bridge.bridge import CloseOrder, FinalizeOrder, RedeemOrder, RequestCloseOrder
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.escrow import Settled
from escrow_bridge.layout import EscrowView, Function, Procedure
from escrow_bridge.qubic import Transaction, Wallet, contract_id, sign_transaction
from protocol.errors import BalanceTooLow, VoucherInvalid
from protocol.units import EscrowId, Qu, Tick, fee_of, net_of
from tests.support.chains import FUNDS, TICK_SECONDS, Crash, Store, World, make_world, wallet_of


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    world = make_world()
    nursery.start_soon(world.tick_for_ever)
    return world


async def test_redeem_pays_the_provider_and_can_be_repeated(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    bridge, store = world.bridge(world.provider), Store()
    for cumulative in (100, 250):
        voucher = world.voucher(escrow.escrow_id, cumulative)
        view = await bridge.redeem(voucher, b"", store.save)
        assert view is not None and view.paid == cumulative
        sent = len(world.chain.broadcasts)
        assert await bridge.redeem(voucher, store.scratch, store.save) == view
        assert await bridge.redeem(voucher, b"", store.save) == view
        assert len(world.chain.broadcasts) == sent
    assert world.balance(world.provider) == FUNDS + net_of(Qu(250))
    assert world.locked == 750 + fee_of(Qu(250))


async def test_wrong_vouchers_are_refused_before_sending(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    bridge = world.bridge(world.provider)
    good = world.voucher(escrow.escrow_id, 100)
    above = world.voucher(escrow.escrow_id, 1_001)
    sent = len(world.chain.broadcasts)
    for wrong, reason in (
        (replace(good, cumulative=Qu(101)), "not signed"),
        (replace(good, signature=bytes(64)), "not signed"),
        (above, "holds 1000 QU"),
    ):
        with pytest.raises(VoucherInvalid, match=reason):
            await bridge.redeem(wrong, b"", Store().save)
    assert len(world.chain.broadcasts) == sent


async def test_an_empty_wallet_is_told_and_somebody_else_can_redeem(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = make_world(provider_funds=Qu(0))
    nursery.start_soon(world.tick_for_ever)
    escrow = await world.open(1_000)
    voucher = world.voucher(escrow.escrow_id, 100)
    with pytest.raises(BalanceTooLow, match="holds 0 QU"):
        await world.bridge(world.provider).redeem(voucher, b"", Store().save)
    await world.bridge(world.caller).redeem(voucher, b"", Store().save)
    assert world.balance(world.provider) == net_of(Qu(100))


async def test_close_divides_the_deposit(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    settled = await world.bridge(world.provider).close(
        world.closing(escrow.escrow_id, 400), b"", Store().save
    )
    assert settled == Settled(Qu(400), Qu(600), certain=True)
    assert world.balance(world.caller) == FUNDS - 400
    assert world.balance(world.provider) == FUNDS + net_of(Qu(400))
    assert world.locked == fee_of(Qu(400))


@pytest.mark.parametrize("redeemed", [0, 300])
async def test_close_without_a_better_voucher_gives_the_rest_back(
    world: World, autojump_clock: MockClock, redeemed: int
) -> None:
    escrow = await world.open(1_000)
    bridge = world.bridge(world.provider)
    if redeemed:
        await bridge.redeem(world.voucher(escrow.escrow_id, redeemed), b"", Store().save)
    settled = await bridge.close(CloseOrder(escrow.escrow_id, Qu(0), bytes(64)), b"", Store().save)
    assert settled == Settled(Qu(redeemed), Qu(1_000 - redeemed), certain=True)


@pytest.mark.parametrize("quarters", range(0, 29, 3))
async def test_close_survives_dying_at_any_instant(
    world: World, autojump_clock: MockClock, quarters: int
) -> None:
    escrow = await world.open(1_000)
    order, store, settled = world.closing(escrow.escrow_id, 400), Store(), []
    with trio.move_on_after(quarters * TICK_SECONDS / 4 + 0.01):
        settled.append(await world.bridge(world.provider).close(order, b"", store.save))
    for _ in range(2):
        settled.append(await world.bridge(world.provider).close(order, store.scratch, store.save))
    assert set(settled) == {Settled(Qu(400), Qu(600), certain=True)}


@pytest.mark.parametrize("dies_before", [True, False])
@pytest.mark.parametrize("dies_at", [1, 2, 3])
async def test_close_survives_lost_transactions_and_dying_at_saves(
    world: World, autojump_clock: MockClock, dies_at: int, dies_before: bool
) -> None:
    escrow = await world.open(1_000)
    first: list[Tick] = []

    def loses(transaction: Transaction) -> bool:
        first.append(transaction.tick)
        return transaction.tick == first[0]

    world.chain.loses = loses
    order, store = world.closing(escrow.escrow_id, 400), Store(dies_at=dies_at, dies_before=dies_before)
    with pytest.raises(Crash):
        await world.bridge(world.provider).close(order, b"", store.save)
    settled = await world.bridge(world.provider).close(order, store.scratch, store.save)
    assert settled == Settled(Qu(400), Qu(600), certain=True)
    assert world.balance(world.provider) == FUNDS + net_of(Qu(400))


async def test_close_of_a_gone_escrow_says_so(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    order = world.closing(escrow.escrow_id, 400)
    await world.bridge(world.provider).close(order, b"", Store().save)
    assert await world.bridge(world.provider).close(order, b"", Store().save) is None


async def test_close_long_forgotten_by_the_node_is_marked_uncertain(
    world: World, autojump_clock: MockClock
) -> None:
    escrow = await world.open(1_000, deadline_ticks=3_000)
    order, store = world.closing(escrow.escrow_id, 400), Store()
    with trio.move_on_after(2 * TICK_SECONDS):
        await world.bridge(world.provider).close(order, b"", store.save)
    await world.chain.advance(world.chain.engine.rules.keep_ticks + 10)
    settled = await world.bridge(world.provider).close(order, store.scratch, store.save)
    assert settled == Settled(Qu(400), Qu(600), certain=False)


async def test_too_late_a_voucher_pays_nothing_and_close_says_what_happened(
    world: World, autojump_clock: MockClock
) -> None:
    escrow = await world.open(1_000, deadline_ticks=40)
    bridge = world.bridge(world.provider)
    await world.chain.advance(escrow.deadline_tick - world.chain.engine.tick_info().tick - 2)
    with pytest.raises(VoucherInvalid, match="too late"):
        await bridge.redeem(world.voucher(escrow.escrow_id, 100), b"", Store().save)
    settled = await bridge.close(world.closing(escrow.escrow_id, 100), b"", Store().save)
    assert settled == Settled(Qu(0), Qu(1_000), certain=True)
    assert world.balance(world.caller) == FUNDS


async def test_caller_closes_waits_and_gets_the_rest_back(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    caller, provider = world.bridge(world.caller), world.bridge(world.provider)
    closing = await caller.request_close(RequestCloseOrder(escrow.escrow_id), b"", Store().save)
    assert closing is not None and closing.close_tick >= world.chain.engine.tick_info().tick
    assert await caller.request_close(RequestCloseOrder(escrow.escrow_id), b"", Store().save) == closing
    await provider.redeem(world.voucher(escrow.escrow_id, 70), b"", Store().save)
    await caller.finalize(FinalizeOrder(escrow.escrow_id), b"", Store().save)
    assert await caller.reader.read(escrow.escrow_id) is None
    assert world.balance(world.caller) == FUNDS - 70
    assert await caller.reader.how_it_ended(escrow) == Settled(Qu(70), Qu(930), certain=True)
    await caller.finalize(FinalizeOrder(escrow.escrow_id), b"", Store().save)


async def test_caller_learns_how_the_provider_closed(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    provider = world.bridge(world.provider)
    await provider.redeem(world.voucher(escrow.escrow_id, 100), b"", Store().save)
    await provider.close(world.closing(escrow.escrow_id, 400), b"", Store().save)
    ended = await world.bridge(world.caller).reader.how_it_ended(escrow)
    assert ended == Settled(Qu(400), Qu(600), certain=True)


async def test_what_the_contract_ignores_counts_for_nothing(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000, deadline_ticks=40)
    stranger = wallet_of(2)
    world.chain.engine.host.credit(stranger.public_key, 10)
    forged = replace(world.voucher(escrow.escrow_id, 900), signature=bytes(64))
    elsewhere = world.voucher(EscrowId(bytes(32)), 800)
    for procedure, order in ((Procedure.REDEEM, forged), (Procedure.REDEEM, elsewhere)):
        send(world, stranger, procedure, order)
    send(world, stranger, Procedure.CLOSE, world.voucher(escrow.escrow_id, 700))
    await world.chain.advance(escrow.deadline_tick - world.chain.engine.tick_info().tick - 3)
    send(world, stranger, Procedure.REDEEM, world.voucher(escrow.escrow_id, 600))
    await world.chain.advance(30)
    caller = world.bridge(world.caller)
    assert await caller.reader.read(escrow.escrow_id) is None
    assert await caller.reader.how_it_ended(escrow) == Settled(Qu(0), Qu(1_000), certain=True)
    assert world.balance(world.caller) == FUNDS


async def test_a_redeem_after_the_challenge_window_counts_for_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    escrow = await world.open(1_000)
    caller = world.bridge(world.caller)
    closing = await caller.request_close(RequestCloseOrder(escrow.escrow_id), b"", Store().save)
    assert closing is not None
    await world.chain.advance(closing.close_tick - world.chain.engine.tick_info().tick - 3)
    send(world, world.provider, Procedure.REDEEM, world.voucher(escrow.escrow_id, 600))
    await caller.finalize(FinalizeOrder(escrow.escrow_id), b"", Store().save)
    assert await caller.reader.how_it_ended(escrow) == Settled(Qu(0), Qu(1_000), certain=True)
    assert world.balance(world.caller) == FUNDS


@pytest.mark.parametrize(
    ("count", "bonds", "paid"), [(9, 9, 400), (9, 8, 0), (8, 8, 250), (8, 9, 250), (10, 10, 0), (0, 9, 0)]
)
async def test_vouchers_cashed_by_the_batch_count_as_the_contract_counts_them(
    world: World, autojump_clock: MockClock, count: int, bonds: int, paid: int
) -> None:
    escrow = await world.open(1_000)
    orders = [world.voucher(escrow.escrow_id, cumulative) for cumulative in (100, 100, 50, 1_001, 250, 70)]
    orders.append(replace(world.voucher(escrow.escrow_id, 900), signature=bytes(64)))
    orders.append(world.voucher(EscrowId(bytes(32)), 800))
    orders.append(world.voucher(escrow.escrow_id, 400))
    vouchers = [layout.pay_input(order.escrow_id, order.cumulative, order.signature) for order in orders]
    payload = layout.redeem_many_input(vouchers)[:-8] + count.to_bytes(8, "little")
    submit(world, world.caller, Procedure.REDEEM_MANY, payload, Qu(bonds * layout.SIGNATURE_BOND))
    await world.chain.advance(5)
    order = CloseOrder(escrow.escrow_id, Qu(0), bytes(64))
    await world.bridge(world.provider).close(order, b"", Store().save)
    assert world.balance(world.provider) == FUNDS + net_of(Qu(paid))
    ended = await world.bridge(world.caller).reader.how_it_ended(escrow)
    assert ended == Settled(Qu(paid), Qu(1_000 - paid), certain=True)


def send(world: World, wallet: Wallet, procedure: Procedure, order: RedeemOrder) -> None:
    payload = layout.pay_input(order.escrow_id, order.cumulative, order.signature)
    submit(world, wallet, procedure, payload, layout.SIGNATURE_BOND)


def submit(world: World, wallet: Wallet, procedure: Procedure, payload: bytes, amount: Qu) -> None:
    tick = Tick(world.chain.engine.tick_info().tick + 3)
    raw = sign_transaction(wallet, contract_id(CONTRACT_INDEX), amount, tick, procedure, payload)
    assert world.chain.engine.submit(raw) is None


async def test_how_it_ended_is_unknown_once_the_ticks_are_forgotten(
    world: World, autojump_clock: MockClock
) -> None:
    escrow = await world.open(1_000, deadline_ticks=40)
    await world.chain.advance(world.chain.engine.rules.keep_ticks + 60)
    assert await world.bridge(world.caller).reader.how_it_ended(escrow) is None


async def test_watch_tells_how_it_is_in_every_tick(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    escrow = await world.open(1_000)
    seen: list[EscrowView | None] = []

    async def settle() -> None:
        bridge = world.bridge(world.provider)
        await bridge.redeem(world.voucher(escrow.escrow_id, 100), b"", Store().save)
        world.chain.reachable = False
        await trio.sleep(3 * TICK_SECONDS)
        world.chain.reachable = True
        await bridge.close(world.closing(escrow.escrow_id, 400), b"", Store().save)

    nursery.start_soon(settle)
    async with aclosing(world.bridge(world.caller).reader.watch(escrow.escrow_id, escrow.open_tick)) as views:
        async for view in views:
            seen.append(view)
            if view is None:
                break
    amounts = [view and view.paid for view in seen]
    assert list(dict.fromkeys(amounts)) == [0, 100, None]
    instants = [view.as_of for view in seen if view]
    assert instants == sorted(set(instants)) and len(instants) > 5


async def test_watch_and_how_it_ended_ignore_a_lagging_node(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await world.chain.query(CONTRACT_INDEX, Function.GET_ESCROW, bytes(32))
    escrow = await world.open(1_000)
    bridge, real_query, calls = world.bridge(world.caller), world.chain.query, 0
    assert await bridge.reader.read(escrow.escrow_id) == escrow

    async def sometimes_old(
        contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
    ) -> bytes:
        nonlocal calls
        calls += 1
        return before if calls % 2 else await real_query(contract_index, input_type, payload)

    monkeypatch.setattr(world.chain, "query", sometimes_old)
    async with aclosing(bridge.reader.watch(escrow.escrow_id, escrow.open_tick)) as views:
        assert await anext(views) == escrow
        assert [await anext(views) for _ in range(10)] == [escrow] * 10
    assert calls > 10
    assert await bridge.reader.how_it_ended(escrow) is None


async def test_a_node_that_is_behind_after_a_restart_does_not_pass_for_the_end(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a provider would throw away a running job and its vouchers."""
    before = await world.chain.query(CONTRACT_INDEX, Function.GET_ESCROW, bytes(32))
    escrow = await world.open(1_000)
    real_query, calls = world.chain.query, 0

    async def old_for_a_while(
        contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
    ) -> bytes:
        nonlocal calls
        calls += 1
        return (
            before if calls < 10 else await real_query(contract_index, input_type, payload, tick_at=tick_at)
        )

    monkeypatch.setattr(world.chain, "query", old_for_a_while)
    async with aclosing(
        world.bridge(world.provider).reader.watch(escrow.escrow_id, escrow.open_tick)
    ) as views:
        assert await anext(views) == escrow
    calls = 0
    assert (
        await world.bridge(world.provider).reader.how_it_ended(replace(escrow, as_of=escrow.open_tick))
        is None
    )
    assert calls >= 10


async def test_a_refusal_for_want_of_fuel_can_be_tried_again(world: World, autojump_clock: MockClock) -> None:
    escrow = await world.open(1_000)
    bridge, store, order = world.bridge(world.provider), Store(), world.closing(escrow.escrow_id, 400)
    world.chain.engine.host.set_reserve(CONTRACT_INDEX, 0)
    with pytest.raises(VoucherInvalid, match="out of fuel"):
        await bridge.close(order, b"", store.save)
    world.chain.engine.host.set_reserve(CONTRACT_INDEX, 1_000_000)
    settled = await bridge.close(order, store.scratch, store.save)
    assert settled == Settled(Qu(400), Qu(600), certain=True)


async def test_ticks_come_once_each_and_in_order(world: World, autojump_clock: MockClock) -> None:
    seen: list[Tick] = []
    async with aclosing(world.bridge(world.caller).reader.ticks()) as infos:
        async for info in infos:
            seen.append(info.tick)
            if len(seen) == 5:
                break
    assert seen == list(range(seen[0], seen[0] + 5))
