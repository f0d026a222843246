"""The job's own life in the provider's half of the lease machine: gate, go, ready, pauses, restarts, end."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

from protocol import lease_model as m
from protocol.lease_model import Effect
from protocol.lease_state import LIVE, Lease, Phase
from protocol.messages import Terms
from protocol.relay_lease import is_relay
from protocol.units import Seconds, UnixMs, seconds_covered

Step = tuple[Lease, tuple[Effect, ...]]

PROOF_PATIENCE_MS: Final = 300_000
"""How long the caller may take to prove the machine, with the job waiting at its gate."""
STOP_PATIENCE_MS: Final = 300_000
"""How long the engine may take to end a job before the money is settled without it."""
COLLECT_PATIENCE_MS: Final = 1_800_000
"""How long packing the outputs may take before the money is settled without them."""
FIRST_RESTART_MS: Final = 1_000
LONGEST_RESTART_MS: Final = 60_000
"""How long after its end a job is begun anew: each time twice as long."""
LATE_EXIT_MS: Final = 60_000
"""How long after a restart the end of the run before it may yet be told of."""
REMEMBERED_NONCES: Final = 16

REASON_OF_EXIT: Final = {
    "out_of_memory": ("job.out_of_memory", "the job used more memory than it had rented"),
    "disk_limit": ("job.disk_limit", "the job wrote more than it had rented"),
    "lost": ("job.lost", "the job's process vanished"),
    "gone": ("job.lost", "the job's container is gone"),
}
RESTARTABLE: Final = frozenset({"exited", "out_of_memory", "lost"})


# --- until it is ready --------------------------------------------------------------------------


def started(lease: Lease, event: m.RunStarted) -> Step:
    """The container is there, and nothing of the job runs yet."""
    if lease.container_at:
        return lease, ()
    lease = replace(lease, container_at=UnixMs(max(1, event.started_at)))
    if not lease.terms.proof:
        return _let_go(lease, event.now)
    return replace(lease, timer_at=at(event.now, PROOF_PATIENCE_MS)), (m.SendPrepared(),)


def go(lease: Lease, event: m.ReceiveGo) -> Step:
    if not lease.container_at or lease.released:
        return lease, ()
    return _let_go(lease, event.now)


def _let_go(lease: Lease, now: UnixMs) -> Step:
    timer_at = at(now, lease.terms.ready_seconds * 1_000)
    return replace(lease, released=True, timer_at=timer_at), (m.RunGo(),)


def ready(lease: Lease, event: m.RunReady) -> Step:
    """Billing begins."""
    if not lease.released:
        return lease, ()
    started_at = UnixMs(max(1, event.started_at))
    lease = replace(lease, phase=Phase.RUNNING, started_at=started_at, timer_at=UnixMs(0))
    return lease, (m.SendRunning(started_at),)


# --- while it runs ------------------------------------------------------------------------------


def pause_asked(lease: Lease, event: m.ReceivePause) -> Step:
    """Freeze it, if want of vouchers has not done so already."""
    if event.sequence <= lease.asked:
        return lease, ()
    changed = not lease.frozen and lease.phase is Phase.RUNNING
    return replace(lease, asked=event.sequence, frozen=True), (m.RunPause(),) if changed else ()


def resume_asked(lease: Lease, event: m.ReceiveResume) -> Step:
    """Thaw it, unless vouchers are wanting too."""
    if event.sequence <= lease.asked:
        return lease, ()
    changed = lease.frozen and lease.phase is Phase.RUNNING
    return replace(lease, asked=event.sequence, frozen=False), (m.RunResume(),) if changed else ()


def restart_asked(lease: Lease, event: m.ReceiveRestart) -> Step:
    if event.nonce in lease.nonces:
        return lease, ()
    nonces = (*lease.nonces, event.nonce)[-REMEMBERED_NONCES:]
    return _restart(replace(lease, nonces=nonces), event.nonce)


def restart_if_due(lease: Lease, now: UnixMs) -> Step:
    """Begin the job anew that has ended, once its wait is over. Not while vouchers are wanting."""
    if lease.phase is not Phase.RUNNING or not lease.restart_at or now < lease.restart_at:
        return lease, ()
    number = lease.restarts.to_bytes(8, "big")
    return _restart(lease, hashlib.sha256(b"restart" + lease.lease_id + number).digest()[:8])


def _restart(lease: Lease, nonce: bytes) -> Step:
    """While vouchers are wanting it waits: each restart would let the job run a little for nothing."""
    lease = replace(lease, restarting=nonce, restart_at=UnixMs(0))
    if lease.phase is Phase.PAUSED:
        return lease, ()
    return lease, (m.RunRestart(nonce), *((m.RunPause(),) if lease.frozen else ()))


def paid_again(lease: Lease) -> tuple[Effect, ...]:
    """What a job does that was paused for want of vouchers. What was frozen before stays frozen."""
    begun = (m.RunRestart(lease.restarting),) if lease.restarting else ()
    if lease.frozen:
        return (*begun, m.RunPause()) if begun else ()
    return (*begun, m.RunResume())


def restarted(lease: Lease, event: m.RunRestarted) -> Step:
    if event.nonce != lease.restarting:
        return lease, ()
    if not event.began_at:  # nor will it another time
        lease = replace(lease, restarts_allowed=lease.restarts)
    return replace(lease, restarting=b"", restarted_at=event.began_at, unseen=False), ()


def idle(lease: Lease, event: m.RunIdle) -> Step:
    if not lease.terms.idle_seconds or lease.frozen:
        return lease, ()
    sentence = f"the job had done nothing for {lease.terms.idle_seconds} s"
    return end_job(blame(lease, Phase.DONE, "lease.idle", sentence), event.now)


def seen(lease: Lease, event: m.RunSeen) -> Step:
    """If it is there, it was there all the time, and all of that is billed; else its end will be told."""
    return replace(lease, unseen=not event.there), ()


def missed(lease: Lease, now: UnixMs) -> Lease:
    """This node was away. What it owed the job then, beginning it anew, is not billed; and nothing of a
    relay, which is this node itself."""
    if lease.phase not in LIVE:
        return lease
    if is_relay(lease.terms):
        return _not_billed_since(lease, now) if lease.phase is Phase.RUNNING else lease
    if not lease.restart_at:
        return replace(lease, unseen=True)
    late_ms = max(0, now - lease.restart_at) if lease.phase is Phase.RUNNING else 0
    return replace(lease, paused_ms=lease.paused_ms + late_ms, restart_at=max(lease.restart_at, now))


def _not_billed_since(lease: Lease, now: UnixMs) -> Lease:
    """The meter goes on from where it was last told."""
    away_ms = now - lease.started_at - lease.seconds * 1_000
    return replace(lease, paused_ms=max(lease.paused_ms, away_ms))


# --- its end ------------------------------------------------------------------------------------


def exited(lease: Lease, event: m.RunExited) -> Step:
    if lease.exited or _is_of_an_earlier_run(lease, event) or _is_ready_soon(lease):
        return lease, ()
    if lease.phase in LIVE and _is_to_restart(lease, event):
        return _restart_later(lease, event)
    lease = _with_exit(lease, event)
    phase = Phase.SETTLING if lease.phase is Phase.SETTLING else Phase.STOPPING
    timer_at = at(event.now, COLLECT_PATIENCE_MS)
    return replace(lease, phase=phase, exited=True, timer_at=timer_at), (m.RunCollect(),)


def _is_of_an_earlier_run(lease: Lease, event: m.RunExited) -> bool:
    """While a restart waits or is under way, and just after it, the engine may tell of the end before it."""
    if lease.phase not in LIVE:
        return False
    late = event.finished_at < lease.restarted_at and abs(event.now - lease.restarted_at) < LATE_EXIT_MS
    return late or bool(lease.restart_at or lease.restarting)


def _is_ready_soon(lease: Lease) -> bool:
    """A job that need not get ready was ready when it began: word of that is on its way, and comes first."""
    return lease.phase is Phase.PROVISIONING and lease.released and not lease.awaits_ready


def _is_to_restart(lease: Lease, event: m.RunExited) -> bool:
    failed = event.exit_code != 0 or event.reason != "exited"
    wanted = lease.restart == "always" or (lease.restart == "on_failure" and failed)
    return wanted and event.reason in RESTARTABLE and lease.restarts < lease.restarts_allowed


def _restart_later(lease: Lease, event: m.RunExited) -> Step:
    """The meter runs on, but not over the time in which nobody was here to see the job's end."""
    unseen_ms = 0 if lease.phase is Phase.PAUSED else max(0, event.now - event.finished_at)
    unseen_ms = min(unseen_ms, max(0, event.now - lease.started_at))
    wait_ms = min(LONGEST_RESTART_MS, FIRST_RESTART_MS << min(lease.restarts, 16))
    lease = replace(lease, restarts=lease.restarts + 1, restart_at=at(event.now, wait_ms))
    return replace(lease, unseen=False, paused_ms=lease.paused_ms + unseen_ms), ()


def _with_exit(lease: Lease, event: m.RunExited) -> Lease:
    lease = with_pause(lease, event.finished_at)
    ran_ms = max(0, event.finished_at - lease.started_at - lease.paused_ms) if lease.started_at else 0
    seconds = Seconds(min(-(-ran_ms // 1_000), longest(lease.terms)))
    lease = replace(lease, seconds=max(lease.seconds, seconds), exit_code=event.exit_code)
    return lease if lease.reason else _blamed_for_exit(lease, event)


def _blamed_for_exit(lease: Lease, event: m.RunExited) -> Lease:
    if event.reason in REASON_OF_EXIT:
        return blame(lease, Phase.FAILED, *REASON_OF_EXIT[event.reason])
    if not lease.released:
        return blame(lease, Phase.FAILED, "job.not_ready", "the job's container ended before the job began")
    how = f"ended by itself with exit code {event.exit_code}"
    if not lease.started_at:
        return blame(lease, Phase.FAILED, "job.not_ready", f"the job {how} before it was ready")
    if event.exit_code == 0:
        return blame(lease, Phase.DONE, "job.completed", f"the job {how}")
    return blame(lease, Phase.FAILED, "job.failed", f"the job {how}")


# --- for both files of the provider's half --------------------------------------------------------


def end_job(lease: Lease, now: UnixMs) -> Step:
    """Have the engine end it; its outputs are packed and what is owed is settled."""
    stopping = replace(lease, phase=Phase.STOPPING, timer_at=at(now, STOP_PATIENCE_MS))
    return stopping, (m.RunStop(),)


def longest(terms: Terms) -> Seconds:
    """For how long a job may run: the rented time, or less if the deposit does not cover it."""
    return Seconds(min(terms.max_seconds, seconds_covered(terms.price_qu_per_hour, terms.deposit)))


def with_pause(lease: Lease, until: UnixMs) -> Lease:
    """A pause for want of vouchers that is over is not billed."""
    if lease.phase is not Phase.PAUSED:
        return lease
    return replace(lease, paused_ms=lease.paused_ms + max(0, until - lease.paused_at))


def blame(lease: Lease, outcome: Phase, reason: str, sentence: str) -> Lease:
    return replace(lease, outcome=outcome, reason=reason, sentence=sentence)


def at(now: UnixMs, patience_ms: int) -> UnixMs:
    return UnixMs(now + patience_ms)
