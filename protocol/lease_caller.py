"""The caller's half of the lease machine: what each event does to a lease it pays for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from protocol import lease_extension, lease_job
from protocol import lease_model as m
from protocol.lease_model import Effect
from protocol.lease_state import ACTIVE, BEFORE_RUNNING, LIVE, Lease, Phase, Role
from protocol.messages import Gpu, Terms
from protocol.units import LeaseId, Qu, Seconds, UnixMs, amount_due

Step = tuple[Lease, tuple[Effect, ...]]

ACCEPT_PATIENCE_MS: Final = 30_000
"""An acceptance that is not acknowledged by then is given up; no money has moved."""
PROVISION_SLACK_MS: Final = 60_000
EXIT_PATIENCE_MS: Final = 120_000
"""How long a stopped job may take to report its end before the contract is asked to close."""
FETCH_PATIENCE_MS: Final = 3_600_000
SETTLE_PATIENCE_MS: Final = 60_000
METER_SLACK_MS: Final = 2_000
"""How far a provider's meter may run ahead of the caller's own watch (message delay, rounding up)."""

MOST_CREDIT_INTERVALS: Final = 4
NEVER_RAN: Final = -1
"""The exit code of a job that did not begin: it left nothing to fetch."""

DONE: Final = frozenset({"job.completed", "lease.duration_reached", "lease.idle", "lease.budget_reached"})


def new(
    lease_id: LeaseId,
    terms: Terms,
    *,
    signed_terms: bytes,
    peer_addresses: tuple[str, ...],
    name: str,
    output_dir: str,
    now: UnixMs,
    cards: tuple[Gpu, ...] = (),
    arch: str = "",
) -> Step:
    """A lease the caller has decided to take. `cards` and `arch`: what the offer says of the machine."""
    lease = Lease(
        lease_id=lease_id,
        role=Role.CALLER,
        terms=terms,
        phase=Phase.QUOTED,
        opened_at=now,
        timer_at=_at(now, ACCEPT_PATIENCE_MS),
        peer_addresses=peer_addresses,
        name=name,
        output_dir=output_dir,
        signed_terms=signed_terms,
        cards=cards,
        arch=arch,
    )
    return lease, (m.SendAccept(signed_terms),)


def accepted(lease: Lease, event: m.ReceiveAccepted) -> Step:
    return replace(lease, phase=Phase.FUNDING, timer_at=UnixMs(0)), (m.ChainOpen(), m.SendInputs())


def refused(lease: Lease, event: m.ReceiveRefused) -> Step:
    """A refusal before money moved ends the lease; afterwards the provider is told to wind up."""
    if lease.reason:
        return lease, ()
    lease = _blame(lease, Phase.FAILED, event.code, event.sentence)
    if lease.phase is Phase.QUOTED:
        return _end(lease, event.now), ()
    if lease.phase is Phase.FUNDING:  # the deposit is on its way and must be heard of to be got back
        return lease, ()
    return _wind_up(lease, event.now)


def opened(lease: Lease, event: m.ChainOpened) -> Step:
    lease = replace(
        lease,
        escrow_id=event.escrow_id,
        open_tick=event.open_tick,
        deadline_tick=event.deadline_tick,
        funded_at=event.now,
    )
    told = m.SendFunded(event.escrow_id, event.open_tick)
    if lease.reason:  # stopped or failed while the money was under way: get it back, and start nothing
        timer_at = _at(event.now, SETTLE_PATIENCE_MS)
        settling = replace(lease, phase=Phase.SETTLING, stop_asked_at=event.now, timer_at=timer_at)
        return settling, (m.SendStop(lease.reason), told)
    patience_ms = (lease.terms.pull_seconds + lease.terms.start_seconds) * 1_000 + _ready_ms(lease.terms)
    return replace(lease, phase=Phase.PROVISIONING, timer_at=_at(event.now, patience_ms)), (told,)


def _ready_ms(terms: Terms) -> int:
    """From the job's container to the job's being ready."""
    proof_ms = lease_job.PROOF_PATIENCE_MS if terms.proof else 0
    return proof_ms + terms.ready_seconds * 1_000 + PROVISION_SLACK_MS


def open_failed(lease: Lease, event: m.ChainOpenFailed) -> Step:
    lease = lease if lease.reason else _blame(lease, Phase.FAILED, event.code, event.sentence)
    return _end(lease, event.now), (m.SendStop(event.code),)


def inputs_sent(lease: Lease, event: m.ReceiveInputs) -> Step:
    """From here on it is the provider's fault if the job does not start."""
    return replace(lease, has_inputs=True), ()


def prepared(lease: Lease, event: m.ReceivePrepared) -> Step:
    """Nothing of the job has begun, and nothing is owed, before the machine is proved."""
    if lease.prepared or not lease.terms.proof:
        return lease, ()
    timer_at = max(lease.timer_at, _at(event.now, _ready_ms(lease.terms)))
    return replace(lease, prepared=True, timer_at=timer_at), (m.RunProve(),)


def proved(lease: Lease, event: m.RunProved) -> Step:
    """A machine that is not what was rented ends the lease, also later; what was signed stays paid."""
    if lease.reason:
        return lease, ()
    if event.code:
        return _wind_up(_blame(lease, Phase.FAILED, event.code, event.sentence), event.now)
    if lease.phase is not Phase.PROVISIONING or not lease.prepared or lease.proved:
        return lease, ()
    return replace(lease, proved=True), (m.SendGo(),)


def running(lease: Lease, event: m.ReceiveRunning) -> Step:
    """Billing began then, but only so long before it was heard of: nobody can watch the past. A job that
    started while we were stopping it is owed for, too; one that did not wait for our proof never is."""
    if lease.started_at:
        return lease, ()
    if lease.terms.proof and not lease.proved:
        if lease.reason:
            return lease, ()
        sentence = "the provider began the job before its machine was proved; nothing was paid"
        return _wind_up(_blame(lease, Phase.FAILED, "lease.proof_skipped", sentence), event.now)
    age_ms = min(event.age_ms, credit_seconds(lease.terms) * 1_000)
    started_at = UnixMs(max(event.now - age_ms, lease.funded_at))
    lease = replace(lease, started_at=started_at)
    if lease.phase is not Phase.PROVISIONING:
        return lease, ()
    lease = replace(lease, phase=Phase.RUNNING)
    return replace(lease, timer_at=_at(event.now, _silence_ms(lease))), ()


def metered(lease: Lease, event: m.ReceiveMeter) -> Step:
    """Sign for what was metered, as far as the caller's own watch agrees."""
    lease = replace(lease, timer_at=_at(event.now, _silence_ms(lease)))
    return _promise(lease, event.seconds, event.now)


def exited(lease: Lease, event: m.ReceiveExited) -> Step:
    """The job's own end, or that it never began. Comes late, too, when this side had gone on alone."""
    if lease.exited:
        return lease, ()
    lease = _with_exit(lease, event)
    if lease.phase is Phase.FUNDING:
        return lease, ()
    if not lease.started_at and event.exit_code == NEVER_RAN:
        return _settle_or_end(lease, event.now), ()
    lease, promised = _promise(lease, event.seconds, event.now)
    lease = replace(lease, phase=Phase.STOPPING, timer_at=_at(event.now, FETCH_PATIENCE_MS))
    return lease, (*promised, m.RunFetch(event.outputs_sha256, event.outputs_bytes))


def fetched(lease: Lease, event: m.RunFetched) -> Step:
    if not lease.exited:
        return lease, ()
    if event.code and lease.outcome is Phase.DONE:
        lease = _blame(lease, Phase.FAILED, event.code, event.sentence)
    return _settle_or_end(lease, event.now), ()


def stopped(lease: Lease, event: m.ActionStop) -> Step:
    if lease.phase in (Phase.STOPPING, Phase.SETTLING) or lease.reason:
        return lease, ()
    lease = _blame(lease, Phase.CANCELLED, "lease.stopped_by_caller", "you stopped it")
    if lease.phase is Phase.QUOTED:
        return _end(lease, event.now), (m.SendStop(lease.reason),)
    if lease.phase is Phase.FUNDING:
        return lease, ()
    return _wind_up(lease, event.now)


def paused(lease: Lease, event: m.ActionPause) -> Step:
    if lease.frozen:
        return lease, ()
    lease = replace(lease, frozen=True, asked=lease.asked + 1)
    return lease, (m.SendPause(lease.asked),)


def unpaused(lease: Lease, event: m.ActionResume) -> Step:
    if not lease.frozen:
        return lease, ()
    lease = replace(lease, frozen=False, asked=lease.asked + 1)
    return lease, (m.SendResume(lease.asked),)


def begun_anew(lease: Lease, event: m.ActionRestart) -> Step:
    if event.nonce in lease.nonces:
        return lease, ()
    nonces = (*lease.nonces, event.nonce)[-lease_job.REMEMBERED_NONCES :]
    return replace(lease, nonces=nonces), (m.SendRestart(event.nonce),)


def closed(lease: Lease, event: m.ChainClosed) -> Step:
    """The money has come to rest. The job's end and its outputs may still be on their way: the chain
    is often faster than the provider's word, and always when this node was down."""
    if lease.settled:
        return lease, ()
    lease = replace(lease, settled=True, paid=event.paid, refunded=event.refunded)
    if lease.phase is Phase.SETTLING:
        return _end(lease, event.now), ()
    if lease.exited:
        return lease, ()
    return replace(lease, phase=Phase.STOPPING, timer_at=_at(event.now, EXIT_PATIENCE_MS)), ()


def resumed(lease: Lease, event: m.ClockResumed) -> Step:
    if not lease.timer_at:
        return lease, ()
    patience_ms = _silence_ms(lease) if lease.phase in LIVE else SETTLE_PATIENCE_MS
    return replace(lease, timer_at=max(lease.timer_at, _at(event.now, patience_ms))), ()


def clock(lease: Lease, event: m.ClockPassed) -> Step:
    if not lease.timer_at or event.now < lease.timer_at:
        return lease, ()
    if lease.phase is Phase.QUOTED:
        sentence = "the provider did not answer the acceptance in time; no money has moved"
        return _end(_blame(lease, Phase.FAILED, "net.peer_unreachable", sentence), event.now), ()
    if lease.phase in BEFORE_RUNNING | LIVE:
        lease = _blame(lease, Phase.FAILED, "lease.provider_lost", "the provider fell silent")
        lease, told = _wind_up(lease, event.now)
        return _request_close(lease, told)
    if lease.phase is Phase.STOPPING and lease.exited and lease.outcome is Phase.DONE:
        sentence = "the job has ended, but its outputs and log could not be fetched in time"
        lease = _blame(lease, Phase.FAILED, "lease.outputs_missing", sentence)
    if lease.settled:
        if not lease.reason:
            lease = _blame(lease, Phase.FAILED, "lease.closed_early", "the provider closed the escrow early")
        return _end(lease, event.now), ()
    return _request_close(replace(lease, phase=Phase.SETTLING, timer_at=UnixMs(0)), ())


def credit_seconds(terms: Terms) -> Seconds:
    """How late a start may be heard of and is yet believed and paid for: as long as an honest provider
    goes on unpaid, for that is what it did if this node was away. More is not lent to anybody."""
    return Seconds(terms.interval_seconds * min(terms.unpaid_intervals + 1, MOST_CREDIT_INTERVALS))


def _promise(lease: Lease, seconds: Seconds, now: UnixMs) -> Step:
    """Sign for as much of the provider's seconds as our own watch has seen; the next meter brings the
    rest. The watch stops an interval after we asked for the end: a late one is worth nothing."""
    if not lease.started_at or lease.settled:
        return lease, ()
    terms = lease.terms
    if lease.stop_asked_at:
        now = min(now, _at(lease.stop_asked_at, terms.interval_seconds * 1_000))
    watched = (now - lease.started_at + METER_SLACK_MS) // 1_000
    agreed = Seconds(max(lease.seconds, min(seconds, watched, terms.max_seconds)))
    due = Qu(min(amount_due(terms.price_qu_per_hour, agreed), terms.deposit))
    lease = replace(lease, seconds=agreed)
    if due <= lease.promised:
        return lease, ()
    lease = replace(lease, promised=due, vouchers=lease.vouchers + 1)
    return lease, (m.SendVoucher(lease.escrow_id, due),)


def _with_exit(lease: Lease, event: m.ReceiveExited) -> Lease:
    lease = replace(
        lease,
        exited=True,
        exit_code=event.exit_code,
        outputs_sha256=event.outputs_sha256,
        outputs_bytes=event.outputs_bytes,
    )
    if lease.reason:
        return lease
    outcome = Phase.DONE if event.reason in DONE else Phase.FAILED
    return _blame(lease, outcome, event.reason, event.sentence)


def _wind_up(lease: Lease, now: UnixMs) -> Step:
    """Ask the provider to stop; it reports the end and closes the escrow."""
    stopping = replace(lease, phase=Phase.STOPPING, stop_asked_at=now, timer_at=_at(now, EXIT_PATIENCE_MS))
    return stopping, (m.SendStop(lease.reason),)


def _settle_or_end(lease: Lease, now: UnixMs) -> Lease:
    """The job is dealt with; what is left is the money."""
    if lease.settled:
        return _end(lease, now)
    return replace(lease, phase=Phase.SETTLING, timer_at=_at(now, SETTLE_PATIENCE_MS))


def _request_close(lease: Lease, effects: tuple[Effect, ...]) -> Step:
    if lease.closing:
        return lease, effects
    return replace(lease, closing=True), (*effects, m.ChainRequestClose(lease.escrow_id))


def _blame(lease: Lease, outcome: Phase, reason: str, sentence: str) -> Lease:
    """Peers can leave the reason empty; a lease that has one must not look as if it had none."""
    return replace(lease, outcome=outcome, reason=reason or "peer.no_reason", sentence=sentence)


def _end(lease: Lease, now: UnixMs) -> Lease:
    return replace(lease, phase=lease.outcome, timer_at=UnixMs(0), ended_at=now)


def _silence_ms(lease: Lease) -> int:
    """Waiting costs nothing, for nothing is signed meanwhile. Longer than the provider's own patience
    with an unpaid job, so that a cut line ends no job that could still go on."""
    return max(300_000, 20 * lease.terms.interval_seconds * 1_000)


def quiet_ms(lease: Lease, now: UnixMs) -> int:
    """How long ago the provider of a LIVE lease was last heard of, or this node last woke up."""
    return now - (lease.timer_at - _silence_ms(lease))


def _at(now: UnixMs, patience_ms: int) -> UnixMs:
    return UnixMs(now + patience_ms)


Handler = Callable[[Lease, Any], Step]
FUNDED_OPEN: Final = frozenset(
    {Phase.PROVISIONING, Phase.RUNNING, Phase.PAUSED, Phase.STOPPING, Phase.SETTLING}
)

TABLE: Final[Mapping[type, tuple[frozenset[Phase], Handler]]] = {
    m.ReceiveAccepted: (frozenset({Phase.QUOTED}), accepted),
    m.ReceiveRefused: (BEFORE_RUNNING | LIVE, refused),
    m.ChainOpened: (frozenset({Phase.FUNDING}), opened),
    m.ChainOpenFailed: (frozenset({Phase.FUNDING}), open_failed),
    m.ReceiveInputs: (ACTIVE, inputs_sent),
    m.ReceiveRunning: (frozenset({Phase.PROVISIONING, Phase.STOPPING, Phase.SETTLING}), running),
    m.ReceivePrepared: (frozenset({Phase.PROVISIONING}), prepared),
    m.RunProved: (LIVE | {Phase.PROVISIONING}, proved),
    m.ActionPause: (LIVE, paused),
    m.ActionResume: (LIVE, unpaused),
    m.ActionRestart: (LIVE, begun_anew),
    m.ReceiveMeter: (frozenset({Phase.RUNNING}), metered),
    m.ReceiveExited: (FUNDED_OPEN | {Phase.FUNDING}, exited),
    m.RunFetched: (frozenset({Phase.STOPPING}), fetched),
    m.ActionStop: (ACTIVE, stopped),
    m.ChainClosed: (FUNDED_OPEN, closed),
    m.ActionExtend: (LIVE, lease_extension.extend),
    m.ChainToppedUp: (FUNDED_OPEN, lease_extension.topped_up),
    m.ChainTopUpFailed: (FUNDED_OPEN, lease_extension.not_topped_up),
    m.ClockResumed: (ACTIVE, resumed),
    m.ClockPassed: (ACTIVE, clock),
}
"""Event -> (phases in which it means something, what it does). Anything else is ignored."""
