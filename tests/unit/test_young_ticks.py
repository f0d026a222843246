"""A tick that is not known yet is waited for: it is never taken for forgotten, however old it grows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from escrow_bridge.devnet.local import LocalChain
from escrow_bridge.escrow import Settled
from escrow_bridge.sending import YOUNG_TICKS
from protocol.errors import ChainUnreachable
from protocol.units import Qu, Tick
from tests.support.chains import Store, World, make_world


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    world = make_world()
    nursery.start_soon(world.tick_for_ever)
    return world


def lag(monkeypatch: pytest.MonkeyPatch, chain: LocalChain, ticks: int) -> None:
    """Past ticks are known so much later, as by an archive that lags behind."""
    real = chain.transactions

    async def late(tick: Tick) -> tuple[bytes, ...] | None:
        if tick < chain.engine.tick_info().tick <= tick + ticks:
            raise ChainUnreachable("the archive does not know it yet")
        return await real(tick)

    monkeypatch.setattr(chain, "transactions", late)


async def test_a_tick_that_grew_old_between_two_answers_is_asked_about_again(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    escrow = await world.open(1_000)
    await world.bridge(world.provider).close(world.closing(escrow.escrow_id, 400), b"", Store().save)
    real, stalled = world.chain.transactions, False

    async def stalls(tick: Tick) -> tuple[bytes, ...] | None:
        nonlocal stalled
        if not stalled:
            stalled = True
            await world.chain.advance(YOUNG_TICKS + 2)
            return None
        return await real(tick)

    monkeypatch.setattr(world.chain, "transactions", stalls)
    ended = await world.bridge(world.caller).reader.how_it_ended(escrow)
    assert ended == Settled(Qu(400), Qu(600), certain=True)


async def test_an_archive_far_behind_still_tells_how_it_ended(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    escrow = await world.open(1_000)
    await world.bridge(world.provider).close(world.closing(escrow.escrow_id, 400), b"", Store().save)
    lag(monkeypatch, world.chain, 40)
    ended = await world.bridge(world.caller).reader.how_it_ended(escrow)
    assert ended == Settled(Qu(400), Qu(600), certain=True)


async def test_beside_an_archive_far_behind_a_forgotten_deposit_is_found(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ledger was put back to before it; else the same would be locked a second time."""
    first = await world.open(1_000)
    await world.chain.advance(10)
    lag(monkeypatch, world.chain, 40)
    order = replace(world.order(1_000), look_back=True)
    again = await world.bridge(world.caller).open_escrow(order, b"", Store().save)
    assert (again.escrow_id, world.locked) == (first.escrow_id, 1_000)
