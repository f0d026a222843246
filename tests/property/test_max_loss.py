"""The numbers that are shown before signing are never exceeded, whoever stops answering, and when.

One daemon dies for ever at some moment of a story, or the other, or both, or none. The caller never pays for
more than ran and its number, dead or alive. The provider never works for more than it is paid and its number;
when it is its own daemon that died, what counts is the work until then, and the number for that. And no
deposit stays locked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from protocol import lease, lease_provider
from protocol.lease import max_loss, max_loss_if_gone
from protocol.lease_model import ChainRedeem, Effect
from protocol.lease_state import Role
from protocol.messages import Terms
from protocol.units import Qu, Seconds, amount_due
from tests.support.lease_plan import Job, Plan, make_terms
from tests.support.lease_world import LeaseWorld

EXAMPLES = int(os.environ.get("QUBIX_LEASE_EXAMPLES", "150"))
STEP_MS = 500
FOR_EVER_MS = 10**12
CASHING_MS = 4_000
DEATHS = ((), (Role.CALLER,), (Role.PROVIDER,), (Role.CALLER, Role.PROVIDER), (Role.PROVIDER, Role.CALLER))
"""Who dies for ever, one after the other."""

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
        proof=st.booleans(),
        budget=st.sampled_from([0, 0, 20_000]).map(Qu),
    ),
    delays_ms=st.lists(st.sampled_from([100, 1_000, 4_000]), min_size=1, max_size=4).map(tuple),
    job_ms=st.sampled_from([500, 20_000, 90_000, 10_000_000]),
    skew_ms=st.sampled_from([0, -3_600_000, 3_600_000]),
    stop_ms=st.just(500),
    ready_ms=st.sampled_from([0, 2_000]),
    proof_ms=st.sampled_from([500, 5_000]),
    restart=st.sampled_from(["never", "on_failure", "always"]),
    restarts=st.sampled_from([1, 5]),
)
stories = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(1, 60).map(lambda steps: steps * STEP_MS)),
        st.tuples(st.just("cut_link"), st.sampled_from([1_000, 20_000, 400_000])),
        st.tuples(st.just("stop"), st.sampled_from(Role)),
        st.tuples(st.just("lose_ack")),
        st.tuples(st.just("pause")),
        st.tuples(st.just("resume")),
        st.tuples(st.just("restart"), st.integers(0, 2)),
        st.tuples(st.just("restart_engine")),
        st.tuples(st.just("extend"), st.sampled_from([30, 200])),
        st.tuples(st.just("lose_top_up")),
    ),
    max_size=12,
)


class Measured(LeaseWorld):
    """Remembers what the engine did for the lease, also once the container is gone. A redeem takes some
    ticks, and is lost when the provider dies before."""

    work: Job | None = None
    worth_at_death: Qu | None = None

    def step(self) -> None:
        self.advance(STEP_MS)
        self.work = self.job or self.work

    @property
    def worth(self) -> Qu:
        """What was really done, at the agreed price, as far as the provider knew that it was agreed."""
        terms = self.terms(Role.PROVIDER)
        ran_ms = self.work.active_ms if self.work else 0
        return Qu(min(amount_due(terms.price_qu_per_hour, Seconds(ran_ms // 1_000)), terms.deposit))

    def terms(self, role: Role) -> Terms:
        """As that side was shown them last."""
        lease = self._side(role).lease
        return lease.terms if lease else self.plan.terms

    def die(self, role: Role) -> None:
        self.take_down(role, FOR_EVER_MS)
        if role is Role.PROVIDER:
            self.worth_at_death = self.worth

    def _takes_ms(self, effect: Effect) -> int:
        return CASHING_MS if isinstance(effect, ChainRedeem) else super()._takes_ms(effect)


@pytest.fixture(autouse=True, scope="module")
def often() -> Iterator[None]:
    """Vouchers are cashed that often, so that it matters within a short story."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease_provider, "REDEEM_EVERY_MS", 30_000)
        patch.setattr(lease, "CASHING_SECONDS", CASHING_MS // 1_000)
        yield


ROUNDED_DOWN = Plan(
    terms=make_terms(
        price_qu_per_hour=Qu(3_599),
        max_seconds=Seconds(60),
        interval_seconds=Seconds(1),
        unpaid_intervals=1,
        deadline_ticks=700,
        challenge_ticks=16,
        proof=False,
    ),
    delays_ms=(100,),
    job_ms=20_000,
    stop_ms=500,
    ready_ms=0,
    proof_ms=500,
    restart="on_failure",
    restarts=1,
)
"""A second is worth a little less than a QU: nothing is due for the first, so that it runs an interval on."""


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plans, stories, st.sampled_from(DEATHS), stories, stories)
@example(ROUNDED_DOWN, [("advance", 8_000), ("restart_engine",)], (Role.CALLER,), [], [])
def test_nobody_loses_more_than_was_shown(
    plan: Plan, before: list[Any], deaths: tuple[Role, ...], between: list[Any], after: list[Any]
) -> None:
    world, dead = Measured(plan), set[Role]()
    play(world, before, dead)
    for role, story in zip(deaths, (between, after), strict=False):
        world.die(role)
        dead.add(role)
        play(world, story, dead)
    for _ in range(2 * 6_000):  # until the deadline of any escrow
        world.step()
        if world.is_over():
            break
    check_losses(world)


def check_losses(world: Measured) -> None:
    paid = world.escrow.paid if world.escrow else Qu(0)
    terms = world.terms(Role.PROVIDER)
    assert world.escrow is None or world.escrow.gone, "money is locked for good"
    assert paid - world.worth <= max_loss(Role.CALLER, world.terms(Role.CALLER))
    if world.worth_at_death is None:
        assert world.worth - paid <= max_loss(Role.PROVIDER, terms)
    else:
        assert world.worth_at_death - paid <= max_loss_if_gone(terms)


def play(world: Measured, story: list[Any], dead: set[Role]) -> None:
    for name, *arguments in story:
        if name == "advance":
            for _ in range(arguments[0] // STEP_MS):
                world.step()
        elif name == "lose_ack":
            world.lose_acks += 1
        elif name == "cut_link" or not dead.intersection(arguments):
            getattr(world, name)(*arguments)


def test_what_was_not_cashed_is_lost_with_the_provider() -> None:
    """The second number is needed: here the first would not be true."""
    world = Measured(Plan(make_terms(max_seconds=Seconds(200), deadline_ticks=700), job_ms=10_000_000))
    play(world, [("advance", 40_000)], set())
    assert world.escrow and world.escrow.paid == 0 and world.worth >= 25_000
    world.die(Role.PROVIDER)
    play(world, [("advance", 1_000_000)], {Role.PROVIDER})
    assert world.worth_at_death and world.worth_at_death > max_loss(Role.PROVIDER, world.plan.terms)
    check_losses(world)
