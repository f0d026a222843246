"""The engine in the small world of the lease tests, and proving: what `Run...` effects do there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import lease_model as m
from protocol.lease_model import Effect, Event
from protocol.lease_state import LIVE, Phase
from protocol.units import UnixMs
from tests.support.lease_plan import STEP_MS, Job, Plan, Side

if TYPE_CHECKING:
    from tests.support.lease_world import LeaseWorld


def engine_step(world: LeaseWorld) -> None:
    job, lease = world.job, world.provider.lease
    if job is None or lease is None or not job.released_at:
        return
    due_later = world.clock(world.provider) <= lease.restart_at
    between = job.ended_at and (due_later or (world.provider.up and (lease.restart_at or lease.restarting)))
    unpaid = lease.phase is Phase.PAUSED and (job.paused or job.ended_at)
    if job.ready_at and not unpaid and (between or not job.ended_at):
        job.active_ms += STEP_MS
    if job.ended_at or job.paused:
        return
    job.left_ms -= STEP_MS
    if job.left_ms <= 0:
        job.ended_at = world.now


def run(world: LeaseWorld, side: Side, effect: Effect) -> tuple[bool, Event | None]:
    now, job = world.clock(side), world.job
    match effect:
        case m.RunPull():
            failed = m.RunFailed("runner.image_unavailable", "no such image", now)
            return True, failed if world.plan.pull_fails else m.RunPulled(now)
        case m.RunStart():
            return True, _start(world, side)
        case m.RunGo():
            return _go(world, now)
        case m.RunProve():
            if world.plan.proof_fails:
                return True, m.RunProved("proof.failed", "the machine is not what was rented", now)
            return True, m.RunProved("", "", now)
        case m.RunRestart(nonce):
            return True, _restart(world, side, nonce)
        case m.RunPause() | m.RunResume():
            if job and not job.ended_at:
                job.paused = isinstance(effect, m.RunPause)
        case m.RunStop() | m.RunDiscard():
            if job and not job.ended_at:
                job.ended_at, job.killed, job.paused = world.now, True, False
            if isinstance(effect, m.RunDiscard):
                world.job = None
                return True, m.RunDiscarded(now)
        case m.RunCollect():
            world.stored = world.stored or b"o" * 32
            world.job = None
            return True, m.RunCollected(world.stored, 10, now)
        case m.RunFetch():
            return _fetch(world, now)
        case _:
            raise AssertionError(effect)
    return True, None


def _start(world: LeaseWorld, side: Side) -> Event:
    now = world.clock(side)
    assert world.order_here, "started without its inputs"
    if world.plan.start_fails:
        return m.RunFailed("runner.start_failed", "the engine refused", now)
    if world.job is None:
        world.jobs_started += 1
        world.job = Job(world.now, world.plan.job_ms)
    return m.RunStarted(UnixMs(world.job.started_at + side.skew_ms), now)


def _go(world: LeaseWorld, now: UnixMs) -> tuple[bool, Event | None]:
    """Done when the job is ready; one that has ended never is."""
    job = world.job
    if job is None or (job.ended_at and not job.released_at):
        return True, None
    job.released_at = job.released_at or world.now
    if world.plan.dies_early:
        job.ended_at = job.ended_at or world.now
    if job.ended_at and world.plan.ready_ms:
        return True, None
    world.job_began_at = job.ready_at = job.ready_at or world.now
    return True, m.RunReady(UnixMs(job.ready_at + world.provider.skew_ms), now)


def _restart(world: LeaseWorld, side: Side, nonce: bytes) -> Event | None:
    now, job = world.clock(side), world.job
    if not side.lease or side.lease.phase not in LIVE:
        return None
    if job is None:
        return m.RunRestarted(nonce, UnixMs(0), now)
    if nonce not in job.nonces:
        job.nonces.append(nonce)
        job.started_at, job.left_ms, job.ended_at = world.now, world.plan.job_ms, 0
        job.paused = job.lost = False
    return m.RunRestarted(nonce, UnixMs(job.started_at + side.skew_ms), now)


def _fetch(world: LeaseWorld, now: UnixMs) -> tuple[bool, Event | None]:
    if world.now < world.link_down_until or not world.provider.up:
        return False, None
    if world.stored is None:
        return True, m.RunFetched("net.refused", "the provider has no outputs of this lease", now)
    world.fetched = True
    return True, m.RunFetched("", "", now)


def takes_ms(plan: Plan, effect: Effect) -> int:
    """How long an effect that is no message takes."""
    match effect:
        case m.RunPull():
            return plan.pull_ms
        case m.RunStart():
            return plan.start_ms
        case m.RunGo():
            return plan.ready_ms
        case m.RunProve():
            return plan.proof_ms
        case m.RunRestart():
            return plan.start_ms
        case m.RunStop() | m.RunDiscard():
            return plan.stop_ms
        case m.RunCollect():
            return plan.collect_ms
        case m.SendInputs():
            return plan.upload_ms
        case _:
            return 0
