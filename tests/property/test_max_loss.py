"""The number that is shown before signing is never exceeded, whoever stops answering, and when.

One daemon dies for ever at some moment of a story (or none does). The caller never pays for more than ran
and its number; the provider, as long as its own daemon lives, never works for more than it is paid and its
number. And no deposit stays locked.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.lease import max_loss
from protocol.lease_state import Role
from protocol.units import Qu, Seconds, amount_due
from tests.support.lease_plan import Job, Plan, make_terms
from tests.support.lease_world import LeaseWorld

EXAMPLES = int(os.environ.get("QUBIX_LEASE_EXAMPLES", "150"))
STEP_MS = 500
FOR_EVER_MS = 10**12

plans = st.builds(
    Plan,
    terms=st.builds(
        make_terms,
        price_qu_per_hour=st.sampled_from([1, 3_599, 3_600_000, 777_777_777]).map(Qu),
        max_seconds=st.sampled_from([1, 60, 200]).map(Seconds),
        interval_seconds=st.sampled_from([1, 5, 10]).map(Seconds),
        unpaid_intervals=st.sampled_from([1, 2, 5]),
        deadline_ticks=st.just(700),
        challenge_ticks=st.sampled_from([16, 60]),
    ),
    delays_ms=st.lists(st.sampled_from([100, 1_000, 4_000]), min_size=1, max_size=4).map(tuple),
    job_ms=st.sampled_from([500, 20_000, 90_000, 10_000_000]),
    skew_ms=st.sampled_from([0, -3_600_000, 3_600_000]),
    stop_ms=st.just(500),
)
stories = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(1, 60).map(lambda steps: steps * STEP_MS)),
        st.tuples(st.just("cut_link"), st.sampled_from([1_000, 20_000, 400_000])),
        st.tuples(st.just("stop"), st.sampled_from(Role)),
        st.tuples(st.just("lose_ack")),
    ),
    max_size=12,
)


class Measured(LeaseWorld):
    """Remembers what the engine did for the lease, also once the container is gone."""

    work: Job | None = None

    def step(self) -> None:
        self.advance(STEP_MS)
        self.work = self.job or self.work

    @property
    def worth(self) -> Qu:
        """What was really done, at the agreed price."""
        terms = self.plan.terms
        ran_ms = self.work.active_ms if self.work else 0
        return Qu(min(amount_due(terms.price_qu_per_hour, Seconds(ran_ms // 1_000)), terms.deposit))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plans, stories, st.sampled_from([None, *Role]), stories)
def test_nobody_loses_more_than_was_shown(
    plan: Plan, before: list[Any], dies: Role | None, after: list[Any]
) -> None:
    world = Measured(plan)
    play(world, before, None)
    if dies is not None:
        world.take_down(dies, FOR_EVER_MS)
    play(world, after, dies)
    for _ in range(2 * 1_500):  # until the deadline of any escrow
        world.step()
        if world.is_over():
            break
    paid = world.escrow.paid if world.escrow else Qu(0)
    assert world.escrow is None or world.escrow.gone, "money is locked for good"
    assert paid - world.worth <= max_loss(Role.CALLER, plan.terms)
    if dies is not Role.PROVIDER:
        assert world.worth - paid <= max_loss(Role.PROVIDER, plan.terms)


def play(world: Measured, story: list[Any], dead: Role | None) -> None:
    for name, *arguments in story:
        if name == "advance":
            for _ in range(arguments[0] // STEP_MS):
                world.step()
        elif name == "lose_ack":
            world.lose_acks += 1
        elif name == "cut_link" or arguments != [dead]:
            getattr(world, name)(*arguments)
