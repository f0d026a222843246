"""The ways a lease ends while everybody is there: each with the right reason and exact books."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from escrow_bridge import layout
from escrow_bridge.devnet.engine import LEAST_KEPT_TICKS
from ledger import transactions
from protocol import lease_provider
from protocol.lease_provider import REDEEM_EVERY_MS
from protocol.lease_state import Phase
from protocol.units import net_of
from tests.support.rental import due, rental
from tests.support.world_jobs import job

pytestmark = pytest.mark.timeout(300)  # some play an hour, tick by tick

Clock = trio.testing.MockClock


async def test_a_job_that_fails_is_paid_for_its_time(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=7, exit_code=3))
        served, paid = await one.ended()
        assert (served.phase, served.reason) == (paid.phase, paid.reason) == (Phase.FAILED, "job.failed")
        assert paid.exit_code == 3 and "exit code 3" in paid.sentence
        assert paid.paid == due(7)
        assert (one.bob.root / "out" / "result.txt").read_text() == "ran 7 3\n", "outputs come all the same"
        one.check_books(served, paid)


async def test_a_provider_that_vanishes_keeps_what_it_has_cashed(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Away longer than the challenge window, it loses what it earned since it last cashed, no more."""
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=10_000, hours=3))
        await one.until_paid(due(REDEEM_EVERY_MS // 1_000 + 60))
        await one.world.kill(one.alice)
        paid = await one.until(one.bob, Phase.FAILED)
        assert due(REDEEM_EVERY_MS // 1_000) <= paid.paid < paid.promised
        assert paid.paid + paid.refunded == paid.terms.deposit
        one.check_balances(paid)


async def test_a_long_job_is_cashed_twice_and_paid_once(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_500))
        served, paid = await one.ended()
        assert served.redeemed_at and paid.paid == due(1_500)
        assert served.phase is paid.phase is Phase.DONE
        one.check_books(served, paid)


async def test_two_jobs_are_cashed_by_one_transaction(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_provider, "REDEEM_EVERY_MS", 20_000)
    async with rental(tmp_path) as one:
        alice, bob, world = one.alice, one.bob, one.world
        leases = [await world.rent(bob, job(seconds=35)) for _ in range(2)]
        ended = [await world.until_ended(lease.lease_id, alice, bob) for lease in leases]
        for served, paid in ended:
            assert served.redeemed_at and paid.paid == served.paid == due(35)
        signed = [await transactions.about(alice.up.parts.store, lease.lease_id) for lease in leases]
        for (first, second), name in zip(zip(*signed, strict=True), ("redeem", "close"), strict=True):
            assert first.action == second.action == name
            assert (first.digest == second.digest) == (name == "redeem")
        assert signed[0][0].amount == 2 * layout.SIGNATURE_BOND
        assert world.balance(bob) == world.funds - 2 * due(35)
        assert world.balance(alice) == world.funds + 2 * net_of(due(35))


async def test_the_caller_stops_it(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(5))
        await one.stop(one.bob)
        served, paid = await one.ended()
        assert (paid.phase, paid.reason) == (Phase.CANCELLED, "lease.stopped_by_caller")
        assert (served.phase, served.reason) == (Phase.CANCELLED, "lease.stopped_by_caller")
        assert due(5) <= paid.paid <= due(8)
        assert paid.paid >= due(served.seconds - 1)
        assert one.alice.engine.jobs == {}
        one.check_books(served, paid)


async def test_the_provider_stops_it(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(5))
        await one.stop(one.alice)
        served, paid = await one.ended()
        assert (served.phase, served.reason) == (Phase.CANCELLED, "lease.stopped_by_provider")
        assert (paid.phase, paid.reason) == (Phase.FAILED, "lease.stopped_by_provider")
        assert due(5) <= paid.paid <= due(8)
        one.check_books(served, paid)


async def test_the_caller_stops_before_the_money_is_there(tmp_path: Path, autojump_clock: Clock) -> None:
    """The deposit is on its way and cannot be called back: it comes back whole."""
    async with rental(tmp_path) as one:
        await one.rent()
        await one.until(one.bob, Phase.FUNDING)
        await one.stop(one.bob)
        served, paid = await one.ended()
        assert (paid.phase, paid.reason) == (Phase.CANCELLED, "lease.stopped_by_caller")
        assert one.alice.engine.starts == []
        one.check_nothing_paid(served, paid)


async def test_the_caller_stops_at_once(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent()
        await one.stop(one.bob)
        served, paid = await one.ended()
        assert paid.phase is Phase.CANCELLED
        assert one.alice.engine.starts == []
        one.check_nothing_paid(served, paid)


async def test_an_image_that_is_missing_costs_nothing(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        one.alice.engine.missing_images.add("test:1")
        await one.rent()
        served, paid = await one.ended()
        assert (paid.phase, paid.reason) == (Phase.FAILED, "runner.image_unavailable")
        assert "test:1" in paid.sentence
        one.check_nothing_paid(served, paid)


async def test_an_image_that_does_not_come_in_time_costs_nothing(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        one.alice.engine.pull_seconds = 100_000
        await one.rent()
        served, paid = await one.ended()
        assert (paid.phase, paid.reason) == (Phase.FAILED, "lease.pull_timeout")
        assert one.alice.engine.starts == []
        one.check_nothing_paid(served, paid)


async def test_the_rented_time_is_over(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        lease = await one.rent(job(seconds=1_000, hours=0.005))
        assert lease.terms.max_seconds == 18
        served, paid = await one.ended()
        assert (served.phase, served.reason) == (Phase.DONE, "lease.duration_reached")
        assert (paid.phase, paid.reason) == (Phase.DONE, "lease.duration_reached")
        assert paid.paid == lease.terms.deposit == due(18) and paid.refunded == 0
        assert (one.bob.root / "out" / "result.txt").exists()
        one.check_books(served, paid)


async def test_a_lease_longer_than_the_nodes_memory_of_ticks_has_exact_books(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """How the escrow ended is read from its last ticks; those in which it opened are long forgotten."""
    async with rental(tmp_path) as one:
        rules = one.world.chain.engine.rules
        one.world.chain.engine.rules = replace(rules, keep_ticks=LEAST_KEPT_TICKS)
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(150))
        await one.world.kill(one.alice)
        paid = await one.until(one.bob, Phase.FAILED)
        assert paid.promised >= due(150) and paid.paid == 0, "the contract gave all of it back"
        one.check_balances(paid)


async def test_a_job_that_ends_at_once(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=0))
        served, paid = await one.ended()
        assert (served.phase, paid.phase) == (Phase.DONE, Phase.DONE)
        assert paid.paid <= due(1)
        one.check_books(served, paid)


async def test_the_job_is_lost_by_the_engine(tmp_path: Path, autojump_clock: Clock) -> None:
    """As after a reboot without the container: what was metered is owed, no more."""
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(5))
        await one.world.kill(one.alice)
        one.alice.engine.jobs.clear()
        await trio.sleep(5)
        await one.world.start("alice")
        served, paid = await one.ended()
        assert (served.phase, served.reason) == (paid.phase, paid.reason) == (Phase.FAILED, "job.lost")
        assert due(5) <= paid.paid <= due(7)
        one.check_books(served, paid)


async def test_a_job_ends_while_it_is_paused(tmp_path: Path, autojump_clock: Clock) -> None:
    """Killed from outside, say: the pause is not billed."""
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until_paid(due(5))
        one.world.net.cut(one.alice.peer, one.bob.peer)
        paused = await one.until(one.alice, Phase.PAUSED)
        await trio.sleep(20)
        await one.alice.engine.stop(one.lease_id, 0)
        one.world.net.heal(one.alice.peer, one.bob.peer)
        served, paid = await one.ended()
        assert paid.phase is Phase.DONE or paid.reason == "job.failed"
        assert served.seconds <= paused.seconds + 1
        assert paid.paid <= due(served.seconds)
        one.check_books(served, paid)


async def test_two_leases_in_a_row_and_at_once(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        first = await one.rent(job(seconds=5))
        second = await one.rent(job(seconds=9))
        ends = [await one.world.until_ended(lease.lease_id, one.alice, one.bob) for lease in (first, second)]
        await one.rent(job(seconds=3))
        ends.append(await one.ended())
        assert [paid.paid for _, paid in ends] == [due(5), due(9), due(3)]
        assert one.world.balance(one.bob) == one.world.funds - due(17)
        one.world.check_conservation()
