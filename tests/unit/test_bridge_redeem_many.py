"""Several vouchers in one transaction: fewer transactions, each voucher judged, paid and remembered alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from escrow_bridge import layout
from escrow_bridge.layout import Procedure
from escrow_bridge.qubic import parse_transaction, sign_transaction
from escrow_bridge.redeeming import GATHER_SECONDS
from escrow_bridge.sending import saved_transaction
from protocol.errors import VoucherInvalid
from protocol.units import Qu, Tick, net_of
from tests.support.chains import TICK_SECONDS, Crash, Store, World, make_world
from tests.support.many_leases import DEPOSIT, ManyLeases, losing, sent_by

LEASES = 20
BATCHES = -(-LEASES // layout.MAX_REDEEM_BATCH)


@pytest.fixture
async def many(nursery: trio.Nursery) -> ManyLeases:
    world = make_world()
    nursery.start_soon(world.tick_for_ever)
    many = ManyLeases(world, LEASES)
    await many.open()
    return many


def now(world: World) -> Tick:
    return world.chain.engine.tick_info().tick


@pytest.mark.parametrize("one_pending", [False, True])
async def test_what_is_due_together_goes_together(
    autojump_clock: MockClock, many: ManyLeases, one_pending: bool
) -> None:
    since, many.one_pending = now(many.world), one_pending
    await many.cash_all(many.bridge(many.world.provider))
    many.check_cashed(since, BATCHES)
    raws = sent_by(many.world.chain.engine, many.world.provider, since)
    assert sorted(parse_transaction(raw).amount for raw in raws) == [200, 900, 900]
    assert {store.saves for store in many.stores} == {1}
    assert {saved_transaction(store.scratch) for store in many.stores} == set(raws)


async def test_a_voucher_by_itself_is_redeemed_as_ever(autojump_clock: MockClock, many: ManyLeases) -> None:
    since = now(many.world)
    await many.cash(many.bridge(many.world.provider), 3)
    (raw,) = sent_by(many.world.chain.engine, many.world.provider, since)
    assert parse_transaction(raw).input_type == Procedure.REDEEM


async def test_what_comes_a_little_later_goes_with_the_next(
    autojump_clock: MockClock, many: ManyLeases
) -> None:
    since, bridge = now(many.world), many.bridge(many.world.provider)
    async with trio.open_nursery() as nursery:
        for number in range(LEASES):
            nursery.start_soon(many.cash, bridge, number)
            await trio.sleep(GATHER_SECONDS / 4)
    many.check_cashed(since, LEASES // 2)


@pytest.mark.parametrize("wrong", [{"signature": bytes(64)}, {"cumulative": Qu(501)}])
async def test_a_wrong_voucher_is_refused_alone(
    autojump_clock: MockClock, many: ManyLeases, wrong: dict[str, Any]
) -> None:
    since, bridge = now(many.world), many.bridge(many.world.provider)
    many.views, many.count = many.views[:5], 5

    async def try_it() -> None:
        with pytest.raises(VoucherInvalid):
            await bridge.redeem(replace(many.voucher(0), **wrong), b"", Store().save)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_it)
        nursery.start_soon(many.cash_all, bridge)
    many.check_cashed(since, 1)


async def test_a_wallet_with_one_bond_cashes_one_after_the_other(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = make_world(provider_funds=layout.SIGNATURE_BOND)
    nursery.start_soon(world.tick_for_ever)
    many = ManyLeases(world, 4)
    await many.open()
    await many.cash_all(many.bridge(world.provider))
    earned = sum(net_of(many.promised(number)) for number in range(4))
    assert world.balance(world.provider) == layout.SIGNATURE_BOND + earned


async def test_a_batch_whose_bonds_are_spent_meanwhile_is_told_and_can_be_tried_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """It is in its tick and nothing of it was carried out: no voucher may pass for cashed."""
    world = make_world(provider_funds=Qu(300))
    nursery.start_soon(world.tick_for_ever)
    many = ManyLeases(world, 3)
    await many.open()
    bridge, told = many.bridge(world.provider), list[str]()

    async def save(scratch: bytes) -> None:
        tick = parse_transaction(saved_transaction(scratch)).tick if saved_transaction(scratch) else None
        if tick and not told:
            raw = sign_transaction(world.provider, world.caller.public_key, Qu(299), Tick(tick - 1))
            world.chain.engine.submit(raw)

    async def cash(number: int) -> None:
        with pytest.raises(VoucherInvalid) as error:
            await bridge.redeem(many.voucher(number), b"", save)
        told.append(str(error.value))

    async with trio.open_nursery() as trying:
        for number in range(3):
            trying.start_soon(cash, number)
    assert len(told) == 3 and all("did not hold the bond" in one for one in told)
    assert (world.balance(world.provider), world.locked) == (1, 3 * DEPOSIT)
    world.chain.engine.host.credit(world.provider.public_key, 299)
    await many.cash_all(bridge)
    assert world.balance(world.provider) == 300 + sum(net_of(many.promised(number)) for number in range(3))


@pytest.mark.parametrize("after_seconds", [0.5, GATHER_SECONDS + 0.5, GATHER_SECONDS + 3])
@pytest.mark.parametrize("one_pending", [False, True])
async def test_when_the_one_who_leads_is_gone_the_others_go_on(
    autojump_clock: MockClock, many: ManyLeases, one_pending: bool, after_seconds: float
) -> None:
    many.one_pending = one_pending
    bridge, since = many.bridge(many.world.provider), now(many.world)

    async def gone() -> None:
        with trio.move_on_after(after_seconds):
            await many.cash(bridge, 0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(gone)
        await trio.sleep(0.1)
        for number in range(1, LEASES):
            nursery.start_soon(many.cash, bridge, number)
    await many.cash(bridge, 0)
    many.check_cashed(since, BATCHES + 3)


@pytest.mark.parametrize("leaving", [range(1, LEASES), range(layout.MAX_REDEEM_BATCH, LEASES), (9,)])
async def test_who_waits_for_a_batch_may_go_away(
    autojump_clock: MockClock, many: ManyLeases, leaving: Sequence[int]
) -> None:
    """Also the one that was to lead the next."""
    many.one_pending, since = True, now(many.world)
    bridge = many.bridge(many.world.provider)

    async def cash(number: int) -> None:
        with trio.move_on_after(GATHER_SECONDS + 1 if number in leaving else 1_000):
            await many.cash(bridge, number)

    async with trio.open_nursery() as nursery:
        for number in range(LEASES):
            nursery.start_soon(cash, number)
    for number in leaving:
        await many.cash(bridge, number)
    many.check_cashed(since, LEASES)


async def test_a_third_lost_and_two_deaths_each_voucher_is_paid_once(
    autojump_clock: MockClock, many: ManyLeases
) -> None:
    since = now(many.world)
    many.world.chain.loses = losing(1 / 3)
    for ticks in (4, 9):
        with trio.move_on_after(ticks * TICK_SECONDS):
            await many.cash_all(many.bridge(many.world.provider))
    await many.cash_all(many.bridge(many.world.provider))
    many.check_cashed(since, LEASES)


@pytest.mark.parametrize("dies_before", [True, False])
@pytest.mark.parametrize("dies_at", range(0, LEASES, 3))
async def test_dead_between_the_saves_of_a_batch(
    autojump_clock: MockClock, many: ManyLeases, dies_at: int, dies_before: bool
) -> None:
    """Some orders know of the shared transaction, others do not: each goes on by itself."""
    since = now(many.world)
    many.stores[dies_at] = Store(dies_at=1, dies_before=dies_before)
    with pytest.RaisesGroup(Crash):
        await many.cash_all(many.bridge(many.world.provider))
    many.stores[dies_at].dies_at = 0
    await many.cash_all(many.bridge(many.world.provider))
    many.check_cashed(since, 2 * BATCHES + 1)
