"""Both lease machines against every kind of bad luck: money stays right and every lease ends.

`QUBIX_LEASE_EXAMPLES=20000` (and `--hypothesis-seed=N`) runs more of them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.lease_state import Phase, Role
from protocol.relay_lease import RELAY
from protocol.units import Qu, Seconds, amount_due
from tests.support.lease_checks import check, check_end
from tests.support.lease_plan import Plan, make_terms
from tests.support.lease_world import LeaseWorld

EXAMPLES = int(os.environ.get("QUBIX_LEASE_EXAMPLES", "150"))
LONG_ENOUGH_MS = 3 * 3_600_000

roles = st.sampled_from(Role)
short_ms = st.integers(1, 40).map(lambda n: n * 500)
long_ms = st.sampled_from([1_000, 5_000, 20_000, 70_000, 130_000, 400_000])

actions = st.one_of(
    st.tuples(st.just("advance"), short_ms),
    st.tuples(st.just("advance"), long_ms),
    st.tuples(st.just("take_down"), roles, long_ms),
    st.tuples(st.just("crash_after_next_effect"), roles),
    st.tuples(st.just("cut_link"), long_ms),
    st.tuples(st.just("hide_chain"), roles, long_ms),
    st.tuples(st.just("stop"), roles),
    st.tuples(st.just("pause")),
    st.tuples(st.just("resume")),
    st.tuples(st.just("restart"), st.integers(0, 2)),
    st.tuples(st.just("restart_engine")),
    st.tuples(st.just("extend"), st.sampled_from([1, 30, 600])),
    st.tuples(st.just("extend"), st.sampled_from([1, 30, 600])),
    st.tuples(st.just("lose_top_up")),
    st.tuples(st.just("prove_again"), st.sampled_from(["", "", "proof.failed"])),
    st.tuples(st.just("idle")),
    st.tuples(st.just("lose_ack")),
    st.tuples(st.just("echo"), st.integers(1, 4)),
)

any_plan = st.builds(
    Plan,
    terms=st.builds(
        make_terms,
        price_qu_per_hour=st.sampled_from([0, 1, 3_599, 3_600_000, 777_777_777]).map(Qu),
        max_seconds=st.sampled_from([1, 60, 200, 800]).map(Seconds),
        interval_seconds=st.sampled_from([1, 5, 10]).map(Seconds),
        unpaid_intervals=st.sampled_from([1, 2, 5]),
        deadline_ticks=st.sampled_from([150, 600, 3_000]),
        challenge_ticks=st.sampled_from([16, 60]),
        proof=st.booleans(),
        idle_seconds=st.sampled_from([0, 60]).map(Seconds),
        budget=st.sampled_from([0, 0, 0, 20_000]).map(Qu),
        runner=st.sampled_from(["docker", "docker", RELAY]),
    ),
    delays_ms=st.lists(st.sampled_from([100, 1_000, 4_000, 9_000]), min_size=1, max_size=4).map(tuple),
    job_ms=st.sampled_from([500, 4_000, 20_000, 10_000_000, 10_000_000]),
    exit_code=st.sampled_from([0, 1]),
    pull_ms=st.sampled_from([500, 500, 5_000, 200_000]),
    stop_ms=st.sampled_from([500, 8_000, 400_000]),
    collect_ms=st.sampled_from([500, 10_000, 200_000]),
    upload_ms=st.sampled_from([500, 500, 5_000, 70_000]),
    skew_ms=st.sampled_from([0, -3_600_000, 3_600_000]),
    ready_ms=st.sampled_from([0, 0, 2_000, 60_000]),
    proof_ms=st.sampled_from([500, 20_000, 400_000]),
    restart=st.sampled_from(["never", "on_failure", "always"]),
    restarts=st.sampled_from([0, 1, 5]),
)

troubles = st.sampled_from(
    ["", "", "", "", "", "refuses", "pull_fails", "start_fails", "open_fails", "proof_fails", "dies_early"]
)
plans = st.builds(
    lambda plan, trouble: replace(plan, **{trouble: True}) if trouble else plan, any_plan, troubles
)


def act(world: LeaseWorld, action: tuple[Any, ...]) -> None:
    match action:
        case ("lose_ack",):
            world.lose_acks += 1
        case ("echo", count):
            world.echoes += count
        case ("crash_after_next_effect", role):
            (world.caller if role is Role.CALLER else world.provider).crash_next = True
        case (name, *arguments):
            getattr(world, name)(*arguments)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(plans, st.lists(actions, max_size=25))
def test_whatever_happens_the_money_is_right_and_the_lease_ends(plan: Plan, story: list[Any]) -> None:
    world = LeaseWorld(plan)
    for action in story:
        act(world, action)
        check(world)
    world.heal()
    world.settle_down(LONG_ENOUGH_MS)
    check_end(world)


@settings(max_examples=max(20, EXAMPLES // 6))
@given(
    st.sampled_from([1_000, 4_000, 20_000, 59_000]),
    st.sampled_from([1, 5, 10]).map(Seconds),
    st.lists(st.sampled_from([100, 500, 2_500]), min_size=1, max_size=4).map(tuple),
    st.sampled_from([0, -3_600_000, 3_600_000]),
)
def test_without_bad_luck_the_job_is_done_and_paid_to_the_second(
    job_ms: int, interval: Seconds, delays_ms: tuple[int, ...], skew_ms: int
) -> None:
    terms = make_terms(interval_seconds=interval)
    world = LeaseWorld(Plan(terms, delays_ms=delays_ms, job_ms=job_ms, skew_ms=skew_ms))
    world.settle_down(LONG_ENOUGH_MS)
    check_end(world)
    caller, provider = world.caller.lease, world.provider.lease
    assert caller and provider and world.escrow
    assert (caller.phase, provider.phase) == (Phase.DONE, Phase.DONE)
    assert caller.reason == provider.reason == "job.completed"
    assert world.escrow.paid == caller.promised == provider.promised == job_ms  # 1,000 QU a second


nuisances = st.one_of(
    st.tuples(st.just("advance"), short_ms),
    st.tuples(st.just("crash_after_next_effect"), roles),
    st.tuples(st.just("take_down"), roles, st.sampled_from([500, 3_000])),
    st.tuples(st.just("lose_ack")),
    st.tuples(st.just("echo"), st.integers(1, 4)),
)


@settings(max_examples=max(30, EXAMPLES // 3))
@given(st.lists(nuisances, max_size=25), st.sampled_from([1_000, 20_000, 40_000]))
def test_crashes_and_lost_or_doubled_messages_cost_nobody_anything(story: list[Any], job_ms: int) -> None:
    world = LeaseWorld(Plan(make_terms(), job_ms=job_ms))
    for action in story:
        act(world, action)
    world.heal()
    world.settle_down(LONG_ENOUGH_MS)
    check_end(world)
    caller, provider = world.caller.lease, world.provider.lease
    assert caller and provider
    assert caller.reason == provider.reason == "job.completed"
    assert world.fetched
    due = amount_due(provider.terms.price_qu_per_hour, provider.seconds)
    assert caller.paid == provider.paid == due >= job_ms
