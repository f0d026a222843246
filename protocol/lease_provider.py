"""The provider's half of the lease machine: what each event does to a lease it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from protocol import lease_extension
from protocol import lease_job as job
from protocol import lease_model as m
from protocol.lease_job import Step, at, blame, end_job, longest, with_pause
from protocol.lease_model import Effect
from protocol.lease_state import ACTIVE, FUNDED, LIVE, Lease, Phase, Role
from protocol.messages import Terms
from protocol.units import LeaseId, Seconds, UnixMs, amount_due

FUNDING_PATIENCE_MS: Final = 180_000
"""Capacity is kept that long for a caller whose escrow has not been seen."""
UNPAID_PATIENCE_MS: Final = 120_000
"""How long a job stays paused for want of vouchers before it is stopped."""
UNPACK_MIB_PER_S: Final = 20
"""As slow as a disk may be on which the job's files are laid out before it starts."""
VOUCHER_PATIENCE_MS: Final = 60_000
"""How long the last voucher is waited for after the job has ended."""
REDEEM_EVERY_MS: Final = 1_200_000
"""A provider that vanishes loses no more than it earned since. Each time costs the contract fuel."""


BEFORE_START: Final = frozenset({Phase.FUNDING, Phase.PROVISIONING})
STOPPED: Final = frozenset({"lease.stopped_by_caller", "lease.stopped_by_provider"})


def new(lease_id: LeaseId, terms: Terms, *, peer_addresses: tuple[str, ...], now: UnixMs) -> Step:
    """A lease whose acceptance has just been verified. The image is fetched while money moves."""
    lease = Lease(
        lease_id=lease_id,
        role=Role.PROVIDER,
        terms=terms,
        phase=Phase.FUNDING,
        opened_at=now,
        timer_at=at(now, FUNDING_PATIENCE_MS),
        peer_addresses=peer_addresses,
    )
    return lease, (m.RunPull(),)


def inputs(lease: Lease, event: m.ReceiveInputs) -> Step:
    if lease.has_inputs:
        return lease, ()
    return _start_if_ready(
        replace(
            lease,
            has_inputs=True,
            restart=event.restart,
            restarts_allowed=event.restarts,
            awaits_ready=event.awaits_ready,
        ),
        event.now,
    )


def pulled(lease: Lease, event: m.RunPulled) -> Step:
    if lease.has_image:
        return lease, ()
    return _start_if_ready(replace(lease, has_image=True), event.now)


def told_funded(lease: Lease, event: m.ReceiveFunded) -> Step:
    if lease.escrow_id:
        return lease, ()
    return lease, (m.ChainVerify(event.escrow_id, event.open_tick),)


def opened(lease: Lease, event: m.ChainOpened) -> Step:
    if lease.escrow_id:
        return lease, ()
    lease = replace(
        lease,
        escrow_id=event.escrow_id,
        open_tick=event.open_tick,
        deadline_tick=event.deadline_tick,
        funded_at=event.now,
    )
    if lease.phase is Phase.SETTLING:  # it failed here before the money came: send it back
        return _settle(lease)
    patience_ms = (lease.terms.pull_seconds + lease.terms.start_seconds) * 1_000
    lease = replace(lease, phase=Phase.PROVISIONING, timer_at=at(event.now, patience_ms))
    return _start_if_ready(lease, event.now)


def open_failed(lease: Lease, event: m.ChainOpenFailed) -> Step:
    return _fail_before_start(lease, event.code, event.sentence, event.now)


def failed(lease: Lease, event: m.RunFailed) -> Step:
    return _fail_before_start(lease, event.code, event.sentence, event.now)


def clock(lease: Lease, event: m.ClockPassed) -> Step:
    if lease.phase is Phase.RUNNING:
        lease, metered = (lease, ()) if lease.unseen else _meter(lease, event.now)
        lease, begun = job.restart_if_due(lease, event.now)
        return lease, (*metered, *begun)
    if lease.timer_at and event.now >= lease.timer_at:
        return _out_of_time(lease, event.now)
    return _remind(lease, event.now) if lease.phase is Phase.PAUSED else (lease, ())


def voucher(lease: Lease, event: m.ReceiveVoucher) -> Step:
    if not lease.promised < event.cumulative <= lease.terms.deposit:
        return lease, ()
    lease = replace(lease, promised=event.cumulative, signature=event.signature, vouchers=lease.vouchers + 1)
    if lease.phase is Phase.PAUSED and not _overdue(lease, lease.seconds):
        lease = replace(with_pause(lease, event.now), phase=Phase.RUNNING, timer_at=UnixMs(0))
        return lease, job.paid_again(lease)
    if lease.phase is Phase.STOPPING and lease.collected and _paid_up(lease):
        return _settle(lease)
    return _redeem_if_due(lease, event.now)


def _redeem_if_due(lease: Lease, now: UnixMs) -> Step:
    if lease.phase not in LIVE or now - max(lease.started_at, lease.redeemed_at) < REDEEM_EVERY_MS:
        return lease, ()
    order = m.ChainRedeem(lease.escrow_id, lease.promised, lease.signature)
    return replace(lease, redeemed_at=now), (order,)


def stop_asked(lease: Lease, event: m.ReceiveStop) -> Step:
    return _stop(lease, "lease.stopped_by_caller", "the caller stopped it", event.now)


def stopped(lease: Lease, event: m.ActionStop) -> Step:
    return _stop(lease, "lease.stopped_by_provider", "the provider stopped it", event.now)


def collected(lease: Lease, event: m.RunCollected) -> Step:
    if lease.collected:
        return lease, ()
    lease = replace(
        lease, collected=True, outputs_sha256=event.outputs_sha256, outputs_bytes=event.outputs_bytes
    )
    told = _send_exited(lease)
    if lease.phase is Phase.SETTLING:
        lease = replace(lease, timer_at=UnixMs(0))
        return (_end(lease, event.now) if lease.settled else lease), (told,)
    if _paid_up(lease):
        lease, settled = _settle(lease)
        return lease, (told, *settled)
    return replace(lease, timer_at=at(event.now, VOUCHER_PATIENCE_MS)), (told,)


def discarded(lease: Lease, event: m.RunDiscarded) -> Step:
    if lease.collected:
        return lease, ()
    lease = replace(lease, collected=True)
    return (_end(lease, event.now) if lease.settled else lease), ()


def closing(lease: Lease, event: m.ChainClosing) -> Step:
    """The caller wants its money back: redeem inside the window, whatever the job does."""
    return _settle_now(lease, "lease.closed_by_caller", "the caller asked the contract to close", event.now)


def ticked(lease: Lease, event: m.TickPassed) -> Step:
    """Never let the deadline pass with an unredeemed voucher in hand."""
    margin = lease.terms.challenge_ticks
    if not lease.deadline_tick or event.tick < lease.deadline_tick - margin:
        return lease, ()
    return _settle_now(lease, "lease.deadline_near", "the escrow is about to expire", event.now)


def closed(lease: Lease, event: m.ChainClosed) -> Step:
    """The money has come to rest. A job that ran is still ended, packed and told of: it may be paid for."""
    if lease.settled:
        return lease, ()
    lease = replace(lease, settled=True, paid=event.paid, refunded=event.refunded)
    if lease.phase is not Phase.SETTLING:
        lease = blame(lease, Phase.FAILED, "lease.closed_elsewhere", "the escrow is gone from the contract")
        if lease.collected:
            return _end(lease, event.now), (m.RunDiscard(),)
        timer_at = at(event.now, job.STOP_PATIENCE_MS)
        return replace(lease, phase=Phase.SETTLING, exited=True, timer_at=timer_at), (m.RunDiscard(),)
    if not lease.collected:
        patience_ms = job.COLLECT_PATIENCE_MS if lease.exited else job.STOP_PATIENCE_MS
        return replace(lease, timer_at=at(event.now, patience_ms)), ()
    return _end(lease, event.now), ()


def resumed(lease: Lease, event: m.ClockResumed) -> Step:
    lease = job.missed(lease, event.now)
    if not lease.timer_at:
        return lease, ()
    return replace(lease, timer_at=max(lease.timer_at, at(event.now, VOUCHER_PATIENCE_MS))), ()


def _meter(lease: Lease, now: UnixMs) -> Step:
    terms = lease.terms
    seconds = _metered_seconds(lease, now)
    if seconds >= longest(terms):
        return end_job(replace(_over(lease), seconds=seconds), now)
    if seconds // terms.interval_seconds <= lease.seconds // terms.interval_seconds:
        return lease, ()
    lease = replace(lease, seconds=seconds)
    told = m.SendMeter(seconds)
    if not _overdue(lease, seconds):
        return lease, (told,)
    paused = replace(lease, phase=Phase.PAUSED, paused_at=now, timer_at=at(now, UNPAID_PATIENCE_MS))
    return paused, (told,) if lease.frozen else (told, m.RunPause())


def _over(lease: Lease) -> Lease:
    """The last second that was rented, or that the budget covers, has passed."""
    if longest(lease.terms) == lease.terms.max_seconds:
        return blame(lease, Phase.DONE, "lease.duration_reached", "the rented time is over")
    sentence = f"the next second would have cost more than the budget of {lease.terms.deposit:,} QU"
    return blame(lease, Phase.DONE, "lease.budget_reached", sentence)


def _remind(lease: Lease, now: UnixMs) -> Step:
    """Tell the meter again: a caller that heard late of the start signs for more as its watch goes on."""
    if now - max(lease.told_at, lease.paused_at) < lease.terms.interval_seconds * 1_000:
        return lease, ()
    return replace(lease, told_at=now), (m.SendMeter(lease.seconds),)


def _metered_seconds(lease: Lease, now: UnixMs) -> Seconds:
    elapsed = max(0, now - lease.started_at - lease.paused_ms) // 1_000
    return Seconds(max(lease.seconds, min(elapsed, longest(lease.terms))))


def _overdue(lease: Lease, seconds: Seconds) -> bool:
    """Are more than the agreed number of intervals unpaid?"""
    allowed = lease.terms.unpaid_intervals * lease.terms.interval_seconds
    owed = amount_due(lease.terms.price_qu_per_hour, Seconds(max(0, seconds - allowed)))
    return owed > lease.promised


def _paid_up(lease: Lease) -> bool:
    return lease.promised >= min(
        amount_due(lease.terms.price_qu_per_hour, lease.seconds), lease.terms.deposit
    )


def _out_of_time(lease: Lease, now: UnixMs) -> Step:
    match lease.phase:
        case Phase.FUNDING:
            lease = blame(lease, Phase.FAILED, "lease.not_funded", "the caller's escrow was not seen in time")
            return _end(lease, now), (_send_exited(lease), m.RunDiscard())
        case Phase.PROVISIONING:
            return _not_ready(lease, now)
        case Phase.PAUSED:
            return _stop(lease, "lease.unpaid", "vouchers stopped coming", now)
        case Phase.SETTLING if not lease.escrow_id:
            return _end(lease, now), ()
        case Phase.SETTLING if lease.settled:  # the engine lets go of nothing: give the job up
            return _end(lease, now), (m.RunDiscard(), _send_exited(lease))
        case Phase.STOPPING:
            return _settle(lease)
        case _:
            return replace(lease, timer_at=UnixMs(0)), ()


def _not_ready(lease: Lease, now: UnixMs) -> Step:
    if lease.released:
        sentence = f"the job was not ready within {lease.terms.ready_seconds} s"
        return _stop(lease, "lease.ready_timeout", sentence, now)
    if lease.container_at:
        sentence = "the caller neither proved the machine in time nor gave up"
        return _fail_before_start(lease, "lease.proof_timeout", sentence, now)
    return _fail_before_start(lease, "lease.start_timeout", "the job could not be started in time", now)


def _stop(lease: Lease, reason: str, sentence: str, now: UnixMs) -> Step:
    """A job that began is ended, packed and told of, also if it never became ready and nothing is owed."""
    outcome = Phase.CANCELLED if reason in STOPPED else Phase.FAILED
    if lease.phase in LIVE or (lease.phase is Phase.PROVISIONING and lease.released):
        return end_job(with_pause(blame(lease, outcome, reason, sentence), now), now)
    if lease.phase in (Phase.FUNDING, Phase.PROVISIONING):
        lease, effects = _fail_before_start(lease, reason, sentence, now)
        return replace(lease, outcome=outcome), effects
    return lease, ()


def _fail_before_start(lease: Lease, reason: str, sentence: str, now: UnixMs) -> Step:
    """Nothing ran, nothing is owed: tell the caller and send the deposit back when it is there."""
    lease = blame(lease, Phase.FAILED, reason, sentence)
    lease = replace(lease, phase=Phase.SETTLING, exited=True, timer_at=at(now, FUNDING_PATIENCE_MS))
    effects: tuple[Effect, ...] = (_send_exited(lease), m.RunDiscard())
    if not lease.escrow_id:
        return lease, effects
    lease, settled = _settle(lease)
    return lease, (*effects, *settled)


def _settle_now(lease: Lease, reason: str, sentence: str, now: UnixMs) -> Step:
    if lease.phase is Phase.SETTLING:
        return lease, ()
    effects: tuple[Effect, ...] = ()
    if lease.phase in BEFORE_START:
        lease, effects = replace(lease, exited=True), (m.RunDiscard(),)
    elif lease.phase in LIVE:
        lease = with_pause(lease, now)
        lease = lease if lease.unseen else replace(lease, seconds=_metered_seconds(lease, now))
        effects = (m.RunStop(),)
    lease, settled = _settle(lease if lease.reason else blame(lease, Phase.CANCELLED, reason, sentence))
    return lease, (*settled, *effects)


def _settle(lease: Lease) -> Step:
    order = m.ChainClose(lease.escrow_id, lease.promised, lease.signature)
    return replace(lease, phase=Phase.SETTLING, timer_at=UnixMs(0)), (order,)


def _start_if_ready(lease: Lease, now: UnixMs) -> Step:
    if lease.phase is not Phase.PROVISIONING or not (lease.has_inputs and lease.has_image):
        return lease, ()
    patience_s = lease.terms.start_seconds + lease.terms.wish.disk_mib // UNPACK_MIB_PER_S
    return replace(lease, timer_at=min(lease.timer_at, at(now, patience_s * 1_000))), (m.RunStart(),)


def _send_exited(lease: Lease) -> m.SendExited:
    return m.SendExited(
        exit_code=lease.exit_code,
        reason=lease.reason,
        sentence=lease.sentence,
        seconds=lease.seconds,
        outputs_sha256=lease.outputs_sha256,
        outputs_bytes=lease.outputs_bytes,
    )


def _end(lease: Lease, now: UnixMs) -> Lease:
    return replace(lease, phase=lease.outcome, timer_at=UnixMs(0), ended_at=now)


Handler = Callable[[Lease, Any], Step]
UNSETTLED: Final = BEFORE_START | LIVE | {Phase.STOPPING}
AWAITS_MONEY: Final = frozenset({Phase.FUNDING, Phase.SETTLING})

TABLE: Final[Mapping[type, tuple[frozenset[Phase], Handler]]] = {
    m.ReceiveInputs: (BEFORE_START, inputs),
    m.RunPulled: (BEFORE_START, pulled),
    m.ReceiveFunded: (AWAITS_MONEY, told_funded),
    m.ChainOpened: (AWAITS_MONEY, opened),
    m.ChainOpenFailed: (frozenset({Phase.FUNDING}), open_failed),
    m.RunFailed: (BEFORE_START, failed),
    m.RunStarted: (frozenset({Phase.PROVISIONING}), job.started),
    m.ReceiveGo: (frozenset({Phase.PROVISIONING}), job.go),
    m.RunReady: (frozenset({Phase.PROVISIONING}), job.ready),
    m.ReceivePause: (LIVE, job.pause_asked),
    m.ReceiveResume: (LIVE, job.resume_asked),
    m.ReceiveRestart: (LIVE, job.restart_asked),
    m.RunRestarted: (LIVE, job.restarted),
    m.RunSeen: (LIVE, job.seen),
    m.RunIdle: (frozenset({Phase.RUNNING}), job.idle),
    m.ClockPassed: (ACTIVE, clock),
    m.ReceiveVoucher: (LIVE | {Phase.STOPPING}, voucher),
    m.ReceiveStop: (UNSETTLED, stop_asked),
    m.ActionStop: (UNSETTLED, stopped),
    m.RunExited: (LIVE | {Phase.PROVISIONING, Phase.STOPPING, Phase.SETTLING}, job.exited),
    m.RunDiscarded: (frozenset({Phase.SETTLING}), discarded),
    m.RunCollected: (frozenset({Phase.STOPPING, Phase.SETTLING}), collected),
    m.ReceiveExtended: (LIVE, lease_extension.told_extended),
    m.ChainToppedUp: (FUNDED, lease_extension.topped_up),
    m.ChainClosing: (FUNDED, closing),
    m.TickPassed: (FUNDED, ticked),
    m.ChainClosed: (FUNDED, closed),
    m.ClockResumed: (ACTIVE, resumed),
}
"""Event -> (phases in which it means something, what it does). Anything else is ignored."""
