"""Somebody or something is away for a while or for ever: what that costs is within what was agreed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
import trio.testing

from escrow_bridge.qubic import Transaction
from protocol.lease import max_loss
from protocol.lease_state import Lease, Phase, Role
from tests.support.rental import Rental, due, rental
from tests.support.world_jobs import job

pytestmark = pytest.mark.timeout(300)  # some play an hour, tick by tick

Clock = trio.testing.MockClock
UNPAID_PATIENCE_S = 120
"""After that long in pause the provider stops the job."""


async def test_a_caller_away_for_a_while_finds_its_job_paused_and_then_done(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=30))
        await one.until_paid(due(5))
        await one.world.kill(one.bob)
        paused = await one.until(one.alice, Phase.PAUSED)
        unpaid = due(paused.seconds) - paused.promised
        assert unpaid > due(paused.terms.unpaid_intervals * paused.terms.interval_seconds)
        assert unpaid <= max_loss(Role.PROVIDER, paused.terms)
        await trio.sleep(60)
        held = await one.until(one.alice, Phase.PAUSED)
        assert held.seconds == paused.seconds, "a pause is not billed"
        await one.world.start("bob")
        await one.until(one.alice, Phase.RUNNING)
        served, paid = await one.ended()
        assert (served.phase, paid.phase) == (Phase.DONE, Phase.DONE)
        assert due(30) <= paid.paid <= due(31)
        assert one.alice.engine.starts == [one.lease_id]
        one.check_books(served, paid)


async def test_a_caller_away_for_too_long_is_stopped_and_charged_what_it_signed(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(5))
        await one.world.kill(one.bob)
        served = await one.until(one.alice, Phase.FAILED)
        assert served.reason == "lease.unpaid"
        assert served.paid == served.promised >= due(5)
        assert due(served.seconds) - served.paid <= max_loss(Role.PROVIDER, served.terms)
        one.check_balances(served)
        await one.world.start("bob")
        served, paid = await one.ended()
        assert paid.phase is Phase.FAILED
        one.check_books(served, paid)


async def test_a_provider_away_for_half_an_hour_is_paid_for_what_it_did(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Its caller has given it up meanwhile and asked the contract to close."""
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=3_000))
        await one.until_paid(due(100))
        await one.world.kill(one.alice)
        await trio.sleep(1_800)
        await one.world.start("alice")
        served, paid = await one.ended()
        assert paid.reason == "lease.provider_lost"
        assert served.paid == paid.paid >= due(100)
        one.check_balances(served)


async def test_a_provider_that_dies_for_ever_gets_no_more_than_was_signed(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(5))
        await one.world.kill(one.alice)
        paid = await one.until(one.bob, Phase.FAILED)
        assert paid.reason == "lease.provider_lost"
        assert paid.paid <= paid.promised <= due(5) + max_loss(Role.CALLER, paid.terms)
        one.check_balances(paid)


async def test_a_provider_that_dies_before_the_job_began_costs_nothing(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until(one.bob, Phase.FUNDING)
        await one.world.kill(one.alice)
        paid = await one.until(one.bob, Phase.FAILED)
        assert paid.reason == "lease.provider_lost"
        one.check_nothing_paid(paid)
        assert paid.refunded == paid.terms.deposit


async def test_both_away_until_the_escrow_has_expired(tmp_path: Path, autojump_clock: Clock) -> None:
    """The contract gives everything back by itself. The ticks in which it did are forgotten by then: both
    know only that the escrow is gone, and write the worst down."""
    async with rental(tmp_path) as one:
        lease = await one.rent(job(seconds=1_000, hours=0.01))
        await one.until_paid(due(5))
        await one.world.kill(one.bob)
        await one.world.kill(one.alice)
        await one.world.chain.advance(lease.terms.deadline_ticks + 10)
        assert one.world.balance(one.bob) == one.world.funds
        await one.world.start("alice")
        await one.world.start("bob")
        served, paid = await one.ended()
        assert (served.phase, served.reason) == (Phase.CANCELLED, "lease.deadline_near")
        assert paid.phase is Phase.FAILED
        assert served.paid == served.promised and paid.paid == paid.promised
        one.check_whole()


@pytest.mark.parametrize(
    "phase", [Phase.QUOTED, Phase.FUNDING, Phase.PROVISIONING, Phase.RUNNING, Phase.STOPPING, Phase.SETTLING]
)
async def test_a_minute_without_the_chain_changes_nothing(
    tmp_path: Path, autojump_clock: Clock, phase: Phase
) -> None:
    async with rental(tmp_path) as one:
        one.when(one.bob, phase, lambda: one.world.nursery.start_soon(_no_chain_for_a_minute, one))
        await one.rent(job(seconds=20))
        served, paid = await one.ended()
        assert (served.phase, paid.phase) == (Phase.DONE, Phase.DONE)
        assert due(20) <= paid.paid <= due(21)
        one.check_books(served, paid)


async def _no_chain_for_a_minute(one: Rental) -> None:
    one.world.chain.reachable = False
    await trio.sleep(60)
    one.world.chain.reachable = True


@pytest.mark.parametrize("seed", range(4))
async def test_a_third_of_all_transactions_lost(tmp_path: Path, autojump_clock: Clock, seed: int) -> None:
    chance = random.Random(seed)
    fate: dict[bytes, bool] = {}

    def loses(transaction: Transaction) -> bool:
        """The same one is lost however often it is sent."""
        return fate.setdefault(transaction.signature, chance.random() < 1 / 3)

    async with rental(tmp_path) as one:
        one.world.chain.loses = loses
        ends = [await _one_job(one) for _ in range(3)]
        assert sum(fate.values()) > 0, "this seed loses something"
        total = sum(lease.paid for lease in ends)
        assert one.world.balance(one.bob) == one.world.funds - total


async def _one_job(one: Rental) -> Lease:
    await one.rent(job(seconds=5))
    served, paid = await one.ended()
    assert (served.phase, paid.phase) == (Phase.DONE, Phase.DONE)
    assert paid.paid == served.paid and due(5) <= paid.paid <= due(6)
    one.world.check_conservation()
    return paid


@pytest.mark.parametrize(
    "phase", [Phase.QUOTED, Phase.FUNDING, Phase.PROVISIONING, Phase.RUNNING, Phase.STOPPING]
)
async def test_a_connection_cut_for_a_while(tmp_path: Path, autojump_clock: Clock, phase: Phase) -> None:
    async with rental(tmp_path) as one:
        one.when(one.bob, phase, lambda: one.world.nursery.start_soon(_cut_off_for_15_seconds, one))
        await one.rent(job(seconds=20))
        served, paid = await one.ended()
        assert (served.phase, paid.phase) == (Phase.DONE, Phase.DONE)
        assert due(20) <= paid.paid <= due(21)
        one.check_books(served, paid)


async def _cut_off_for_15_seconds(one: Rental) -> None:
    one.world.net.cut(one.alice.peer, one.bob.peer)
    await trio.sleep(15)
    one.world.net.heal(one.alice.peer, one.bob.peer)


async def test_a_connection_cut_for_ever_while_the_job_runs(tmp_path: Path, autojump_clock: Clock) -> None:
    """Each thinks the other is gone; the contract settles it with the last voucher."""
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(5))
        one.world.net.cut(one.alice.peer, one.bob.peer)
        served, paid = await one.ended()
        assert due(5) <= paid.paid
        one.check_books(served, paid)


async def test_a_flapping_connection(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=20))
        for _ in range(15):
            await trio.sleep(1.3)
            one.world.net.cut(one.alice.peer, one.bob.peer)
            await trio.sleep(0.7)
            one.world.net.heal(one.alice.peer, one.bob.peer)
        served, paid = await one.ended()
        assert (served.phase, paid.phase) == (Phase.DONE, Phase.DONE)
        one.check_books(served, paid)
