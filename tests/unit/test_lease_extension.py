"""More time for a running lease, in both halves of the lease machine."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from protocol import lease_model as m
from protocol.lease_job import longest
from protocol.lease_model import Event
from protocol.lease_state import Phase, locked
from protocol.messages import Extension, encode
from protocol.units import Qu, Seconds, Tick, UnixMs, amount_due
from tests.support.lease_checks import check_end
from tests.support.lease_plan import LEASE, Plan, make_terms
from tests.support.lease_play import TERMS, at, play, running_caller, running_provider, told_exited
from tests.support.lease_world import LeaseWorld

MORE = Extension(LEASE, 1, Seconds(90), Qu(90_000), 3_100, UnixMs(0))
"""Half a minute more than the terms, which say 60 s for 60,000 QU and 3,000 ticks from tick 1,000 on."""
PAID = m.ChainToppedUp(Qu(90_000), Tick(4_100), at(21))
TOLD = m.ReceiveExtended(MORE, at(22))


def order(more: Extension = MORE, name: str = "first") -> m.ActionExtend:
    return m.ActionExtend(more, encode(more), name, at(20))


def test_the_caller_takes_the_new_terms_when_the_money_is_locked_and_tells() -> None:
    lease, effects = play(running_caller(), order())
    assert effects == [m.ChainTopUp(1, Qu(60_000), Qu(90_000), Tick(4_100))]
    assert (lease.terms, locked(lease)) == (TERMS, 60_000)
    lease, effects = play(lease, PAID)
    assert effects == [m.SendExtended(encode(MORE))]
    assert (lease.terms.max_seconds, lease.terms.deposit, lease.deadline_tick) == (90, 90_000, 4_100)
    assert lease.extension == encode(MORE) and lease.extending is None


def test_the_provider_takes_them_in_whatever_order_the_news_comes() -> None:
    news: list[Event] = [PAID, PAID, TOLD, TOLD]
    for events in permutations(news):
        lease, effects = play(running_provider(), *events)
        assert longest(lease.terms) == 90 and not effects
        assert (lease.terms.deposit, lease.deadline_tick, lease.extensions) == (90_000, 4_100, 1)


@pytest.mark.parametrize(("deposit", "deadline"), [(89_999, 4_100), (90_000, 4_099)])
def test_the_provider_believes_only_the_contract(deposit: int, deadline: int) -> None:
    lease, _ = play(running_provider(), TOLD, m.ChainToppedUp(Qu(deposit), Tick(deadline), at(21)))
    assert lease.terms == TERMS and lease.extending == MORE
    lease, effects = play(lease, m.ReceiveVoucher(Qu(60_000), b"s", at(69)), m.ClockPassed(at(71)))
    assert m.RunStop() in effects and lease.reason == "lease.duration_reached"


def test_a_provider_that_is_paid_for_more_works_for_more() -> None:
    lease, _ = play(running_provider(), PAID, TOLD)
    lease, effects = play(lease, m.ReceiveVoucher(Qu(60_000), b"s", at(69)), m.ClockPassed(at(71)))
    assert lease.phase is Phase.RUNNING and m.RunStop() not in effects
    lease, effects = play(lease, m.ReceiveVoucher(Qu(90_000), b"s", at(99)), m.ClockPassed(at(101)))
    assert lease.promised == 90_000 and m.RunStop() in effects


def test_an_order_is_paid_once_and_one_at_a_time() -> None:
    lease, effects = play(running_caller(), order(), order(), order(replace(MORE, number=2), "second"))
    assert len(effects) == 1
    lease, _ = play(lease, m.ChainTopUpFailed(1, "the wallet was empty", at(30)))
    assert (lease.terms, lease.not_extended, lease.extending) == (TERMS, "the wallet was empty", None)
    lease, effects = play(lease, order(replace(MORE, number=2)))
    assert not effects, "the first order has been tried, under that name it is over"
    lease, effects = play(lease, order(replace(MORE, number=2), "second"))
    assert isinstance(effects[0], m.ChainTopUp) and not lease.not_extended
    lease, _ = play(lease, m.ChainTopUpFailed(1, "told again after a crash", at(31)))
    assert lease.extending, "what becomes of an older one says nothing about this one"


@pytest.mark.parametrize(
    "wrong",
    [
        {"lease_id": bytes(32)},
        {"max_seconds": 60},
        {"deposit": 60_000},
        {"deposit": 89_999},
        {"deadline_ticks": 2_999},
    ],
)
def test_an_extension_that_adds_nothing_or_is_not_paid_in_full_is_none(wrong: dict[str, Any]) -> None:
    more = replace(MORE, **wrong)
    caller, provider = running_caller(), running_provider()
    assert play(caller, order(more)) == (caller, [])
    assert play(provider, m.ReceiveExtended(more, at(20))) == (provider, [])


def test_what_is_agreed_on_later_counts_and_what_was_before_does_not_come_back() -> None:
    longer = replace(MORE, number=2, max_seconds=Seconds(120), deposit=Qu(120_000))
    lease, _ = play(running_provider(), m.ReceiveExtended(longer, at(22)), TOLD)
    lease, _ = play(lease, m.ChainToppedUp(Qu(120_000), Tick(4_100), at(23)), TOLD)
    assert (lease.terms.max_seconds, lease.extensions) == (120, 2)


def test_money_that_comes_after_the_end_is_only_money() -> None:
    lease, _ = play(running_caller(), order(), told_exited(21))
    lease, effects = play(lease, PAID)
    assert not effects and lease.extending is None and "goes back" in lease.not_extended
    assert (lease.terms, locked(lease), lease.deadline_tick) == (TERMS, 90_000, 4_100)


def test_the_time_that_a_budget_allowed_is_what_is_added_to() -> None:
    terms = make_terms(budget=Qu(20_000))
    more = replace(MORE, max_seconds=Seconds(50), deposit=Qu(50_000))
    lease, _ = play(running_caller(terms), order(more), replace(PAID, deposit=Qu(50_000)))
    assert (longest(lease.terms), lease.terms.budget) == (50, 50_000)


def extended_world(plan: Plan) -> LeaseWorld:
    world = LeaseWorld(plan)
    world.advance(20_000)
    world.extend(60)
    return world


def check_extended(world: LeaseWorld) -> None:
    world.heal()
    world.settle_down(3 * 3_600_000)
    check_end(world)
    caller, provider = world.caller.lease, world.provider.lease
    assert caller and provider and world.escrow
    assert caller.reason == provider.reason == "job.completed"
    assert world.escrow.deposit == 120_000 == world.escrow.paid + world.escrow.refunded
    assert world.escrow.paid == amount_due(caller.terms.price_qu_per_hour, provider.seconds) >= 90_000


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_job_runs_beyond_the_first_end_and_is_paid_to_the_second(lost: int) -> None:
    world = extended_world(Plan(make_terms(), job_ms=90_000))
    world.top_ups.lost = lost
    check_extended(world)
    assert world.escrow and world.escrow.paid == 90_000


@pytest.mark.parametrize("after_ms", range(0, 12_000, 500))
@pytest.mark.parametrize("who", ["caller", "provider"])
def test_a_death_at_any_moment_of_it_changes_nothing(who: str, after_ms: int) -> None:
    world = extended_world(Plan(make_terms(), job_ms=90_000, delays_ms=(1_000,)))
    if after_ms:
        world.advance(after_ms)
    side: Any = getattr(world, who)
    world.take_down(side.role, 3_000)
    check_extended(world)


@pytest.mark.parametrize("who", ["caller", "provider"])
def test_what_was_done_before_a_death_and_not_noted_is_done_again(who: str) -> None:
    for nth in range(6):
        world = extended_world(Plan(make_terms(), job_ms=90_000))
        world.advance(500 + 1_500 * nth)
        getattr(world, who).crash_next = True
        check_extended(world)
