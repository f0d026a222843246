"""What must always hold in the small world of the lease tests, and what must hold at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import lease_model as m
from protocol.lease_caller import METER_SLACK_MS
from protocol.lease_model import Effect
from protocol.lease_state import LIVE, TERMINAL, Lease, Phase
from protocol.units import Qu, Seconds, amount_due, fee_of, net_of
from tests.support.lease_plan import Side

if TYPE_CHECKING:
    from tests.support.lease_world import LeaseWorld


def check_step(
    world: LeaseWorld, side: Side, before: Lease, after: Lease, effects: tuple[Effect, ...]
) -> None:
    if before.phase in TERMINAL:
        assert after == before and not effects, "an ended lease changed"
    assert before.promised <= after.promised <= after.terms.deposit
    assert after.seconds >= before.seconds
    assert world.escrow is None or after.terms.deposit <= world.escrow.deposit, "agreed on what is not locked"
    if after.terms != before.terms:
        ordered = world.top_ups.ordered
        assert before.phase in LIVE and after.terms.deposit <= ordered, "more time that nobody agreed on"
    if after.phase in TERMINAL:
        assert after.reason and after.ended_at and not after.timer_at
        if after.escrow_id and side is world.caller:
            assert after.settled, "ended with its money still locked"
    if after.settled:
        assert world.escrow
        assert (after.paid, after.refunded) == (world.escrow.paid, world.escrow.refunded)


def check_effect(world: LeaseWorld, side: Side, effect: Effect) -> None:
    if isinstance(effect, m.ChainOpen):
        assert world.provider.lease is not None, "money moved before the provider had accepted"
    if isinstance(effect, m.SendVoucher):
        assert side.lease
        watched_ms = world.clock(side) - side.lease.started_at + METER_SLACK_MS
        really_ms = world.now - world.job_began_at + METER_SLACK_MS
        for ms in (watched_ms, really_ms):
            due = amount_due(world.plan.terms.price_qu_per_hour, Seconds(ms // 1_000))
            assert effect.cumulative <= due, "promised more than its own watch had seen"


def check(world: LeaseWorld) -> None:
    assert world.caller.lease
    promised = world.caller.lease.promised
    held = world.provider.lease.promised if world.provider.lease else Qu(0)
    assert held <= promised, "the provider holds a voucher that nobody signed"
    if world.escrow:
        assert world.escrow.paid <= held
        most = max(world.plan.terms.deposit, world.top_ups.ordered)
        assert world.escrow.deposit <= most, "more was locked than was ever agreed on"
        if world.escrow.gone:
            paid = world.escrow.paid
            assert world.escrow.deposit == paid + world.escrow.refunded
            assert net_of(paid) + fee_of(paid) == paid
    assert world.jobs_started <= 1, "the job was started twice"
    _check_meter(world)
    _check_exposure(world, held)


def _check_meter(world: LeaseWorld) -> None:
    """Each second in which the machine was the job's counts once, whoever went down and came back; rounding
    up, a step of the world and the news of an end take two more."""
    lease = world.provider.lease
    if lease and world.job:
        assert lease.seconds <= world.job.active_ms // 1_000 + 2, "a second was counted twice"


def _check_exposure(world: LeaseWorld, held: Qu) -> None:
    """While it runs, no more goes unpaid than the terms say, one interval and a moment to notice."""
    lease = world.provider.lease
    if not lease or lease.phase is not Phase.RUNNING or world.provider.was_down or not world.job:
        return
    terms = world.plan.terms
    allowed_s = (terms.unpaid_intervals + 1) * terms.interval_seconds + 1
    owed = amount_due(terms.price_qu_per_hour, Seconds(world.job.active_ms // 1_000))
    limit = amount_due(terms.price_qu_per_hour, Seconds(allowed_s)) + 1
    assert owed - held <= limit, f"{owed - held} QU unpaid, {limit} agreed"


def check_end(world: LeaseWorld) -> None:
    """What must hold once nothing happens any more."""
    for side in world.sides():
        assert side.lease is None or side.lease.phase in TERMINAL, f"stuck: {side.lease}"
        assert not side.outbox, f"never done: {side.outbox}"
    assert world.escrow is None or world.escrow.gone, "money is locked for good"
    assert world.job is None, "a container was left behind"
    caller = world.caller.lease
    assert caller
    if caller.phase is Phase.DONE:
        assert world.fetched, "done without its outputs"
