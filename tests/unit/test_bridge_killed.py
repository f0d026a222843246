"""A daemon killed at any step of any order, and started again on a node that is behind: each effect happens
once, never twice, never not at all; and what is reported is what happened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count

import pytest
import trio
from trio.testing import MockClock

from escrow_bridge.bridge import Bridge, RequestCloseOrder
from escrow_bridge.layout import EscrowView
from escrow_bridge.qubic import Transaction, Wallet
from escrow_bridge.sending import Save
from escrow_bridge.transfer import TransferOrder, Transferred
from protocol.errors import BalanceTooLow
from protocol.units import LeaseId, Qu, Tick, net_of
from tests.support.chains import FUNDS, TICK_SECONDS, Crash, World, adding, wallet_of
from tests.support.many_leases import ManyLeases, sent_by
from tests.support.mortal import Disk, Life, Twins, heal

LAG = 12
"""Ticks: the late node does not even know the escrow's opening."""
HEALS_AFTER = 15
MOST_STEPS = 200
OTHER = wallet_of(2)
MOST = Qu(FUNDS * 2 // 3)
Do = Callable[[Bridge, bytes, Save], Awaitable[object]]


async def pay(world: World, escrow: EscrowView) -> tuple[Wallet, Do, Callable[[], bool]]:
    order = TransferOrder(OTHER.public_key, Qu(300))
    return world.caller, lambda b, s, save: b.transfer(order, s, save), lambda: world.balance(OTHER) == 300


async def lock(world: World, escrow: EscrowView) -> tuple[Wallet, Do, Callable[[], bool]]:
    order = replace(world.order(777), terms=LeaseId(b"another lease".ljust(32)))
    return (
        world.caller,
        lambda b, s, save: b.open_escrow(order, s, save),
        lambda: world.locked == 777 + escrow.deposit,
    )


async def redeem(world: World, escrow: EscrowView) -> tuple[Wallet, Do, Callable[[], bool]]:
    order = replace(world.voucher(escrow.escrow_id, 400), opened=escrow.open_tick)
    return (
        world.provider,
        lambda b, s, save: b.redeem(order, s, save),
        lambda: world.balance(world.provider) == FUNDS + net_of(Qu(400)),
    )


async def close(world: World, escrow: EscrowView) -> tuple[Wallet, Do, Callable[[], bool]]:
    order = replace(world.closing(escrow.escrow_id, 400), opened=escrow.open_tick)
    return (
        world.provider,
        lambda b, s, save: b.close(order, s, save),
        lambda: (
            world.balance(world.provider) == FUNDS + net_of(Qu(400))
            and world.balance(world.caller) == FUNDS - 400
        ),
    )


async def ask_back(world: World, escrow: EscrowView) -> tuple[Wallet, Do, Callable[[], bool]]:
    order = RequestCloseOrder(escrow.escrow_id, escrow.open_tick)

    async def do(bridge: Bridge, scratch: bytes, save: Save) -> None:
        assert await bridge.request_close(order, scratch, save) is not None

    return world.caller, do, lambda: world.locked == escrow.deposit


async def add(world: World, escrow: EscrowView) -> tuple[Wallet, Do, Callable[[], bool]]:
    order = adding(escrow, 500)
    return (
        world.caller,
        lambda b, s, save: b.top_up(order, s, save),
        lambda: world.locked == 1_500 and world.balance(world.caller) == FUNDS - 1_500,
    )


Case = Callable[[World, EscrowView], Awaitable[tuple[Wallet, Do, Callable[[], bool]]]]
ORDERS: tuple[Case, ...] = (pay, lock, redeem, close, ask_back, add)


def losing_the_first() -> Callable[[Transaction], bool]:
    ticks: list[Tick] = []

    def loses(transaction: Transaction) -> bool:
        ticks.append(transaction.tick)
        return transaction.tick == ticks[0]

    return loses


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("loses_first", [False, True])
@pytest.mark.parametrize("order", ORDERS)
async def test_killed_at_each_step_it_happens_once(
    autojump_clock: MockClock, order: Case, loses_first: bool, late: bool
) -> None:
    deaths = 0
    for dies_at in count(1):
        assert dies_at < MOST_STEPS
        world = World(Twins(LAG))
        async with trio.open_nursery() as ticking:
            ticking.start_soon(world.tick_for_ever)
            escrow = await world.open(1_000)
            wallet, do, is_done = await order(world, escrow)
            world.chain.loses = losing_the_first() if loses_first else lambda transaction: False
            since, disk, life = world.chain.engine.tick_info().tick, Disk(), Life(dies_at)
            try:
                await do(life.bridge(world, wallet, disk, late=False), b"", life.saver(disk, disk))
            except Crash:
                deaths += 1
            await _next_life(world, wallet, disk, do, late=late)
            assert is_done(), f"killed at step {dies_at} it did not happen"
            sent = sent_by(world.chain.engine, wallet, since)
            assert len(sent) == 1, f"killed at step {dies_at} it was sent {len(sent)} times"
            ticking.cancel_scope.cancel()
        if life.steps < dies_at:
            break
    assert deaths > 10


async def _next_life(world: World, wallet: Wallet, disk: Disk, do: Do, *, late: bool) -> None:
    """Goes on from what the disk has, at a node that catches up after a while."""
    twins, life = world.chain, Life()
    assert isinstance(twins, Twins)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heal, twins, HEALS_AFTER)
        bridge = life.bridge(world, wallet, disk, late=late)
        await do(bridge, disk.scratch, life.saver(disk, disk))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("loses_first", [False, True])
async def test_killed_with_a_transfer_under_way_the_next_one_is_covered_or_refused(
    autojump_clock: MockClock, loses_first: bool
) -> None:
    """Both are of two thirds of the wallet. Without cover the second would be in its tick, move nothing, and
    pass for sent."""
    for dies_at in count(1):
        world, results = World(Twins(LAG)), dict[int, bool]()
        async with trio.open_nursery() as ticking:
            ticking.start_soon(world.tick_for_ever)
            await trio.sleep(TICK_SECONDS)
            world.chain.loses = losing_the_first() if loses_first else lambda transaction: False
            whole, disks, life = Disk(), (Disk(), Disk()), Life(dies_at)
            bridge = life.bridge(world, world.caller, whole, late=False)
            try:
                await _pay_most(bridge, 0, results, disks, life, whole)
            except Crash:
                assert not results
            await _both(world, results, disks, whole)
            ticking.cancel_scope.cancel()
        assert sorted(results.values()) == [False, True], f"killed at step {dies_at}"
        assert world.balance(OTHER) == MOST, f"killed at step {dies_at}"
        if life.steps < dies_at:
            break


async def _both(world: World, results: dict[int, bool], disks: tuple[Disk, Disk], whole: Disk) -> None:
    """The next life, at a late node: what is not final goes on, and another transfer is asked for at once."""
    twins, life = world.chain, Life()
    assert isinstance(twins, Twins)
    bridge = life.bridge(world, world.caller, whole, late=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heal, twins, HEALS_AFTER)
        for number in {0, 1} - results.keys():
            nursery.start_soon(_pay_most, bridge, number, results, disks, life, whole)


async def _pay_most(
    bridge: Bridge, number: int, results: dict[int, bool], disks: tuple[Disk, Disk], life: Life, whole: Disk
) -> None:
    order, disk = TransferOrder(OTHER.public_key, MOST), disks[number]
    try:
        done = await bridge.transfer(order, disk.scratch, life.saver(disk, whole))
        results[number] = done.certain
    except BalanceTooLow:
        results[number] = False


async def test_a_transfer_of_long_ago_is_not_sent_again(autojump_clock: MockClock) -> None:
    """Nobody can say any more whether it was in its tick."""
    world = World(Twins())
    async with trio.open_nursery() as ticking:
        ticking.start_soon(world.tick_for_ever)
        escrow = await world.open(1_000)
        wallet, do, is_done = await pay(world, escrow)
        disk, life = Disk(), Life()
        with trio.move_on_after(2 * TICK_SECONDS):
            await do(life.bridge(world, wallet, disk, late=False), b"", life.saver(disk, disk))
        await world.chain.advance(world.chain.engine.rules.keep_ticks + 40)
        sent = len(world.chain.broadcasts)
        bridge = life.bridge(world, wallet, disk, late=False)
        result = await do(bridge, disk.scratch, life.saver(disk, disk))
        assert is_done() and len(world.chain.broadcasts) == sent
        assert isinstance(result, Transferred) and not result.certain
        ticking.cancel_scope.cancel()


@pytest.mark.parametrize("loses_first", [False, True])
async def test_killed_at_each_step_of_a_shared_transaction_each_voucher_is_paid_once(
    autojump_clock: MockClock, loses_first: bool
) -> None:
    """The orders know of the transaction, or not, each by itself; and each goes on by itself."""
    for dies_at in count(1):
        many = ManyLeases(World(Twins(LAG)), 3)
        world = many.world
        async with trio.open_nursery() as ticking:
            ticking.start_soon(world.tick_for_ever)
            await many.open()
            world.chain.loses = losing_the_first() if loses_first else lambda transaction: False
            since, whole, life = world.chain.engine.tick_info().tick, Disk(), Life(dies_at)
            disks = [Disk() for _ in range(many.count)]
            try:
                await _cash(many, disks, life, whole, late=False)
            except* Crash:
                pass
            await _cash(many, disks, Life(), whole, late=True)
            many.check_cashed(since, most=2)
            ticking.cancel_scope.cancel()
        if life.steps < dies_at:
            break
    assert dies_at > 10


async def _cash(many: ManyLeases, disks: list[Disk], life: Life, whole: Disk, *, late: bool) -> None:
    twins = many.world.chain
    assert isinstance(twins, Twins)
    bridge = life.bridge(many.world, many.world.provider, whole, late=late)
    async with trio.open_nursery() as nursery:
        for number, disk in enumerate(disks):
            save = life.saver(disk, whole)
            nursery.start_soon(bridge.redeem, many.voucher(number), disk.scratch, save)
        if late:
            await heal(twins, HEALS_AFTER)
