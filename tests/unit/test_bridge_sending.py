"""Many transactions of one wallet: lost ones are sent again, none runs twice, one at a time if asked."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from escrow_bridge.bridge import Bridge
from escrow_bridge.chain import Balance
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.devnet.engine import Rules
from escrow_bridge.qubic import parse_transaction, transaction_digest
from escrow_bridge.transfer import TransferOrder
from protocol.errors import BalanceTooLow
from protocol.units import Qu, QubicId
from tests.support.chains import FUNDS, Store, World, make_world, wallet_of
from tests.support.many_leases import ManyLeases, losing

LEASES = 24


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    world = make_world()
    nursery.start_soon(world.tick_for_ever)
    return world


@pytest.mark.parametrize("one_pending", [False, True])
async def test_a_third_lost_and_two_deaths_each_voucher_is_paid_exactly_once(
    world: World, autojump_clock: MockClock, one_pending: bool
) -> None:
    many = ManyLeases(world, LEASES, one_pending)
    await many.open()
    world.chain.loses = losing(1 / 3)
    await many.redeem_all(die_after_ticks=(3, 9))
    assert many.deaths == 2
    assert many.paid_once() == LEASES
    assert many.sent() > 2 * LEASES, "something was lost and sent anew"


async def test_one_pending_sends_the_next_only_when_the_last_is_known(
    world: World, autojump_clock: MockClock
) -> None:
    many = ManyLeases(world, 6, one_pending=True)
    await many.open()
    ticks = [parse_transaction(raw).tick for raw in world.chain.broadcasts]
    assert ticks == sorted(ticks), "an older one was sent again after a newer"
    assert len(set(ticks)) == many.sent() == 6


async def test_without_that_setting_all_go_at_once(world: World, autojump_clock: MockClock) -> None:
    many = ManyLeases(world, 6)
    await many.open()
    assert len({parse_transaction(raw).tick for raw in world.chain.broadcasts}) == 1


@pytest.mark.parametrize("first", ["transfer", "deposit"])
async def test_a_balance_from_before_our_last_transaction_covers_nothing(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Else the second transfer would be in its tick without cover, and pass for sent."""
    bridge, real_balance, calls = world.bridge(world.caller), world.chain.balance, 0
    order = TransferOrder(wallet_of(2).public_key, Qu(FUNDS * 2 // 3))
    before = await real_balance(world.caller.public_key)

    async def old_for_a_while(owner: QubicId) -> Balance:
        nonlocal calls
        calls += 1
        return before if calls < 10 else await real_balance(owner)

    monkeypatch.setattr(world.chain, "balance", old_for_a_while)
    if first == "transfer":
        await bridge.transfer(order, b"", Store().save)
    else:
        await bridge.open_escrow(world.order(deposit=order.amount), b"", Store().save)
    calls, sent = 0, len(world.chain.broadcasts)
    with pytest.raises(BalanceTooLow, match=f"holds {FUNDS - order.amount} QU"):
        await bridge.transfer(order, b"", Store().save)
    assert calls == 10
    assert len(world.chain.broadcasts) == sent


@pytest.mark.parametrize(("tick_ms", "ahead"), [(1_000, 5), (250, 15), (5_000, 3)])
async def test_the_target_follows_the_observed_ticks(
    nursery: trio.Nursery, autojump_clock: MockClock, tick_ms: int, ahead: int
) -> None:
    """The node claims ticks of a second, whatever their true length."""
    world = make_world(Rules(tick_duration_ms=1_000))
    nursery.start_soon(_tick_every, world, tick_ms / 1_000)
    bridge = Bridge(world.chain, world.caller, CONTRACT_INDEX, poll_seconds=tick_ms / 4_000)
    count = 0
    async for _ in bridge.reader.ticks():
        count += 1
        if count == 8:
            break
    now = world.chain.engine.tick_info().tick
    await bridge.open_escrow(world.order(), b"", Store().save)
    assert {parse_transaction(raw).tick - now for raw in world.chain.broadcasts} == {ahead}
    assert len({transaction_digest(raw) for raw in world.chain.broadcasts}) == 1


async def _tick_every(world: World, seconds: float) -> None:
    while True:
        await trio.sleep(seconds)
        await world.chain.advance()
