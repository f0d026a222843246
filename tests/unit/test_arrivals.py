"""Money that comes by itself: what is told of it, what is left open, and nothing twice."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import ledger.arrivals
from escrow_bridge.chain import Balance
from escrow_bridge.qubic import identity_of, sign_transaction, transaction_digest
from ledger import transactions
from ledger.arrivals import KEPT, Arrival, Mark
from ledger.store import Store, inline, open_store
from ledger.transactions import SignedTransaction
from protocol.errors import ChainUnreachable
from protocol.units import Qu, QubicId, Tick, UnixMs
from qubixd.arrivals import MAX_TICKS, NEW_CHAIN_TICKS, Arrivals, explain, opening
from qubixd.wallet_desk import _arrived
from tests.support.chains import FUNDS, World, make_world
from tui import show
from tui.screens.wallet import moved
from tui.screens.wallet_entry import pairs, signed

NOW = UnixMs(1_700_000_000_000)


def transfer(amount: int, tick: int = 7) -> Arrival:
    return Arrival(b"%032d" % amount, "received", amount, b"s" * 32, tick, tick, NOW)


def kinds(some: tuple[Arrival, ...]) -> list[tuple[str, int]]:
    return [(one.kind, one.amount) for one in some]


@pytest.mark.parametrize(
    ("balance", "found", "busy", "told"),
    [
        (150, [50], False, [("received", 50)]),
        (150, [20, 30], False, [("received", 20), ("received", 30)]),
        (160, [50], False, [("received", 50), ("unexplained", 10)]),
        (110, [], False, [("unexplained", 10)]),
        (90, [], False, [("unexplained", -10)]),
        (100, [50], False, []),  # in its tick, and its sender had nothing
        (120, [50], False, [("unexplained", 20)]),
        (20, [50], True, [("unchecked", 50)]),
        (900, [], True, []),
    ],
)
def test_what_came_must_add_up(balance: int, found: list[int], busy: bool, told: list[object]) -> None:
    before, now = Mark(5, 100, 0), Balance(Qu(balance), Tick(9))
    assert kinds(explain(before, now, [transfer(one) for one in found], NOW, busy=busy)) == told


def test_an_empty_wallet_opens_with_nothing() -> None:
    assert opening(Balance(Qu(0), Tick(9)), NOW) == ()


@asynccontextmanager
async def looking() -> AsyncIterator[tuple[World, Store, Arrivals]]:
    world = make_world()
    async with open_store(":memory:", inline) as store:
        yield world, store, arrivals_of(world, store)


def arrivals_of(world: World, store: Store) -> Arrivals:
    return Arrivals(store, world.chain, world.caller.public_key, lambda: NOW)


async def pay(world: World, amount: int) -> bytes:
    """The provider pays the caller; the transaction, once its tick is past."""
    tick = Tick(world.chain.engine.tick_info().tick + 5)
    raw = sign_transaction(world.provider, world.caller.public_key, Qu(amount), tick)
    await world.chain.broadcast(raw)
    await world.chain.advance(6)
    return raw


async def all_of(store: Store) -> list[tuple[str, int]]:
    return kinds(await ledger.arrivals.newest(store, 99))


async def test_a_transfer_is_told_once_with_its_sender_and_tick() -> None:
    async with looking() as (world, store, arrivals):
        told: list[Arrival] = []
        arrivals.on_arrival.append(told.append)
        await arrivals.look()
        raw = await pay(world, 4_321)
        for _ in range(3):
            await arrivals.look()
            await world.chain.advance(2)
        assert [one.kind for one in told] == ["opening", "received"]
        assert sorted(await all_of(store)) == [("opening", FUNDS), ("received", 4_321)]
        (one,) = [one for one in await ledger.arrivals.newest(store, 99) if one.kind == "received"]
        assert one.arrival_id == transaction_digest(raw) and one.source == world.provider.public_key
        again = arrivals_of(world, store)
        again._mark = await ledger.arrivals.mark(store)
        await again.look()
        assert len(await all_of(store)) == 2


async def test_what_nothing_explains_is_told_at_the_second_look() -> None:
    async with looking() as (world, store, arrivals):
        await arrivals.look()
        world.chain.engine.host.credit(world.caller.public_key, Qu(77))
        await world.chain.advance(2)
        await arrivals.look()
        assert await all_of(store) == [("opening", FUNDS)]
        await world.chain.advance(2)
        await arrivals.look()
        assert ("unexplained", 77) in await all_of(store)


async def test_beside_a_payment_of_ones_own_a_transfer_is_unchecked_and_a_rest_not_told() -> None:
    async with looking() as (world, store, arrivals):
        await arrivals.look()
        tick = world.chain.engine.tick_info().tick + 1
        own = SignedTransaction(b"d" * 32, b"p", "transfer", tick, 5, world.provider.public_key, NOW)
        await transactions.note(store, own)
        world.chain.engine.host.credit(world.caller.public_key, Qu(9))
        await pay(world, 50)
        for _ in range(2):
            await arrivals.look()
            await world.chain.advance(1)
        assert sorted(await all_of(store)) == [("opening", FUNDS), ("unchecked", 50)]


async def test_a_chain_out_of_reach_moves_no_mark_and_a_new_one_is_begun_with() -> None:
    async with looking() as (world, store, arrivals):
        await arrivals.look()
        await pay(world, 50)
        world.chain.reachable = False
        with pytest.raises(ChainUnreachable):
            await arrivals.look()
        world.chain.reachable = True
        await arrivals.look()
        assert ("received", 50) in await all_of(store)
        before = arrivals._mark
        assert before is not None
        arrivals._mark = replace(before, tick=before.tick + NEW_CHAIN_TICKS + 9)
        await arrivals.look()
        assert (await ledger.arrivals.mark(store)) == before


async def test_after_a_long_absence_only_the_last_ticks_are_read() -> None:
    async with looking() as (world, store, arrivals):
        await arrivals.look()
        await pay(world, 50)
        await world.chain.advance(MAX_TICKS)
        await pay(world, 8)
        await arrivals.look()
        await world.chain.advance(1)
        await arrivals.look()
        assert sorted(await all_of(store)) == [("opening", FUNDS), ("received", 8), ("unexplained", 50)]


async def test_dust_takes_no_more_room_than_is_meant_for_it(tmp_path: Path) -> None:
    async with open_store(":memory:", inline) as store:
        dust = [replace(transfer(number + 1), tick=number) for number in range(KEPT + 5)]
        await ledger.arrivals.note(store, dust, Mark(1, 2, 3))
        kept = await ledger.arrivals.newest(store, KEPT + 9)
        assert len(kept) == KEPT and min(one.tick for one in kept) == 5


def test_the_history_says_what_is_known() -> None:
    seen = _arrived(transfer(50))
    assert (seen.kind, seen.state, seen.qu) == ("received", "received", 50)
    assert seen.sender == identity_of(b"s" * 32) and seen.sentence == "transferred in tick 7"
    unsure = _arrived(replace(transfer(50), kind="unchecked"))
    assert unsure.qu == 0 and unsure.amount == 50 and "cannot be told" in unsure.sentence
    gone = _arrived(Arrival(b"x", "unexplained", -9, b"", 5, 8, NOW))
    assert gone.qu == -9 and gone.id == "ticks-5-8" and "same seed" in gone.sentence and not gone.sender
    came = _arrived(Arrival(b"x", "unexplained", 9, b"", 5, 8, NOW))
    assert "contract" in came.sentence


async def test_the_source_is_somebody_else() -> None:
    """What the wallet sends to itself moves nothing."""
    async with looking() as (world, store, arrivals):
        await arrivals.look()
        me: QubicId = world.caller.public_key
        tick = Tick(world.chain.engine.tick_info().tick + 5)
        await world.chain.broadcast(sign_transaction(world.caller, me, Qu(5), tick))
        await world.chain.advance(6)
        world.chain.engine.host.credit(me, Qu(5))
        for _ in range(2):
            await arrivals.look()
            await world.chain.advance(1)
        assert sorted(await all_of(store)) == [("opening", FUNDS), ("unexplained", 5)]


def test_a_wallet_shows_what_came_and_what_is_open() -> None:
    seen, unsure = _arrived(transfer(50)), _arrived(replace(transfer(50), kind="unchecked"))
    assert (moved(seen), moved(unsure)) == ("+50", "(+50)")
    assert dict(pairs(seen))["from"] == identity_of(b"s" * 32) and not str(signed(seen))
    table = Console(width=200, record=True, file=io.StringIO())
    table.print(show.history_table([seen, unsure]))
    text = table.export_text()
    assert "transferred in tick 7, from" in text and "unchecked" in text
