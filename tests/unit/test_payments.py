"""Transfers by the daemon: paid once, whatever is lost, killed or asked twice; and the wallet's history."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from escrow_bridge.chain import Balance
from escrow_bridge.qubic import identity_of, parse_transaction
from protocol import control_wallet
from protocol.control_wallet import HistoryArgs, PaymentView, SendArgs, WaitingEvent
from protocol.errors import BalanceTooLow, UsageError
from protocol.units import MAX_QU, QubicId
from qubixd.arrivals import LOOK_SECONDS
from qubixd.control import history, send
from tests.support.many_leases import losing
from tests.support.rental import due, rental
from tests.support.world import Killed, Person, World
from tests.support.world_jobs import job

Clock = trio.testing.MockClock
IDENTITY = identity_of(bytes(range(32)))


async def nobody(event: object) -> None: ...


async def pay(person: Person, amount: int, payment_id: str = "p1", identity: str = IDENTITY) -> PaymentView:
    return await send(person.up, SendArgs(payment_id, identity, amount), nobody)


async def listed(person: Person) -> list[control_wallet.HistoryEntry]:
    """What the node did itself."""
    entries = (await history(person.up, HistoryArgs(), nobody)).entries
    return [one for one in entries if one.kind != "received"]


async def came(person: Person) -> list[tuple[str, int]]:
    """What came by itself, after two more looks."""
    await trio.sleep(3 * LOOK_SECONDS)
    entries = (await history(person.up, HistoryArgs(), nobody)).entries
    return [(one.state, one.qu) for one in entries if one.kind == "received"]


@asynccontextmanager
async def bobs_world(root: Path) -> AsyncIterator[tuple[World, Person]]:
    async with World(root) as world:
        yield world, await world.start("bob")


def received(world: World) -> int:
    return world.chain.engine.balance(parse_transaction(world.chain.broadcasts[0]).destination)


async def test_a_payment_is_final_once_and_costs_its_amount(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bobs_world(tmp_path) as (world, bob):
        paid = await pay(bob, 1_000)
        assert (paid.state, paid.amount, paid.identity) == ("sent", 1_000, IDENTITY)
        assert await pay(bob, 1_000) == paid, "the same id again"
        assert world.balance(bob) == world.funds - 1_000
        assert received(world) == 1_000
        (entry,) = await listed(bob)
        assert (entry.kind, entry.id, entry.state, entry.qu) == ("send", "p1", "sent", -1_000)
        assert (entry.to, entry.amount) == (IDENTITY, 1_000) and "carried out" in entry.sentence
        assert entry.transactions == paid.transactions
        assert paid.transactions[0].hash.islower() and len(paid.transactions[0].hash) == 60
        with pytest.raises(UsageError, match="another payment"):
            await pay(bob, 1_001)


async def test_asked_for_twice_at_once_and_in_numbers(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bobs_world(tmp_path) as (world, bob):
        world.chain.loses = losing(1 / 3)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(partial(pay, bob, 1_000, f"p{number % 10}"))
        assert received(world) == 10_000
        assert world.balance(bob) == world.funds - 10_000


@pytest.mark.parametrize("after", range(1, 8))
async def test_killed_at_any_commit_it_is_paid_once(
    tmp_path: Path, autojump_clock: Clock, after: int
) -> None:
    async with bobs_world(tmp_path) as (world, bob):
        bob.kill_after = bob.commits + after
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pay_and_die, bob)
                await bob.dead.wait()
                nursery.cancel_scope.cancel()
        if bob.node is None:
            await world.start("bob")
        bob.kill_after = None
        assert (await pay(bob, 1_000)).state == "sent"
        assert world.balance(bob) == world.funds - 1_000


async def _pay_and_die(bob: Person) -> None:
    with suppress(Killed):  # whoever asks may be what dies of it
        await pay(bob, 1_000)


async def test_after_a_restart_an_old_balance_covers_nothing(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the second payment would be in its tick without cover, and pass for sent."""
    async with bobs_world(tmp_path) as (world, bob):
        most, before = world.funds * 2 // 3, await world.chain.balance(bob.wallet.public_key)
        assert (await pay(bob, most)).state == "sent"
        real_balance, calls = world.chain.balance, 0

        async def old_for_a_while(owner: QubicId) -> Balance:
            nonlocal calls
            calls += 1
            return before if calls < 20 else await real_balance(owner)

        monkeypatch.setattr(world.chain, "balance", old_for_a_while)
        await world.kill(bob)
        await world.start("bob")
        failed = await pay(bob, most, "p2")
        assert failed.state == "failed" and f"holds {world.funds - most} QU" in failed.sentence
        assert received(world) == most and calls >= 20


async def test_who_waits_is_told_why_and_the_log_once_a_minute(
    tmp_path: Path, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []

    async def tell(event: object) -> None:
        told.append(event)

    async with bobs_world(tmp_path) as (world, bob), trio.open_nursery() as nursery:
        nursery.start_soon(send, bob.up, SendArgs("p1", IDENTITY, 1_000), tell)
        while not world.chain.broadcasts:
            await trio.sleep(0.1)
        world.chain.reachable = False
        with caplog.at_level(logging.INFO):
            await trio.sleep(600)
        world.chain.reachable = True
    assert told == [WaitingEvent("the chain was cut off"), WaitingEvent("")]
    lines = [one.getMessage() for one in caplog.records if "cut off" in one.getMessage()]
    assert 9 <= len(lines) <= 10 and set(lines) == {"waiting for the chain: the chain was cut off"}


async def test_more_than_there_is_moves_nothing(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bobs_world(tmp_path) as (world, bob):
        failed = await pay(bob, world.funds + 1)
        assert failed.state == "failed" and "send it at least 1 QU" in failed.sentence
        assert world.chain.broadcasts == [] and world.balance(bob) == world.funds
        assert [(one.state, one.qu) for one in await listed(bob)] == [("failed", 0)]


@pytest.mark.parametrize(
    ("identity", "amount"),
    [("X" * 60, 1), (IDENTITY[:-1] + "A", 1), ("", 1), (IDENTITY, MAX_QU + 1), ("own", 1)],
)
async def test_what_cannot_be_a_payment(
    tmp_path: Path, autojump_clock: Clock, identity: str, amount: int
) -> None:
    async with bobs_world(tmp_path) as (world, bob):
        with pytest.raises(UsageError):
            await pay(bob, amount, identity=bob.wallet.identity if identity == "own" else identity)
        assert await listed(bob) == [] and world.chain.broadcasts == []


async def test_all_of_the_wallet_beside_a_deposit_is_not_covered(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """A transaction without cover is in its tick and moves nothing: it must not be signed."""
    async with rental(tmp_path) as one:
        lease = await one.rent(job(seconds=3, hours=1))
        while not one.world.chain.broadcasts:
            await trio.sleep(0.1)
        assert (await pay(one.bob, one.world.funds - lease.terms.deposit + 1)).state == "failed"
        assert (await pay(one.bob, 1_000, "p2")).state == "sent"
        _, paid = await one.ended()
        assert one.world.balance(one.bob) == one.world.funds - 1_000 - paid.paid
        kinds = {entry.kind: entry for entry in await listed(one.bob)}
        assert kinds["caller"].qu == -paid.paid <= -due(3)
        assert [one.action for one in kinds["caller"].transactions] == ["open"]
        (served,) = await listed(one.alice)
        assert served.qu > 0 and {one.action for one in served.transactions} == {"close"}
        for person in (one.bob, one.alice):
            assert await came(person) == [("opening", one.world.funds)], "no escrow's end is money from afar"


async def test_a_payment_is_checked_without_a_trace(tmp_path: Path, autojump_clock: Clock) -> None:
    async with bobs_world(tmp_path) as (world, bob):

        async def check(amount: int, identity: str = IDENTITY) -> PaymentView:
            return await send(bob.up, SendArgs("p1", identity, amount, check=True), nobody)

        assert (await check(world.funds)).state == "checked"
        with pytest.raises(BalanceTooLow, match="this needs"):
            await check(world.funds + 1)
        with pytest.raises(UsageError):
            await check(1, IDENTITY[:-1] + ("A" if IDENTITY[-1] != "A" else "B"))
        assert not await listed(bob) and not world.chain.broadcasts
