"""The job's own life in the lease machine: gate, proof, ready, pauses, restarts, idling, the budget."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol import lease_model as m
from protocol.lease_job import PROOF_PATIENCE_MS, longest
from protocol.lease_state import Lease, Phase
from protocol.messages import Terms
from protocol.units import Qu, Seconds, UnixMs, amount_due, seconds_covered
from tests.support.lease_plan import make_terms
from tests.support.lease_play import (
    at,
    closed,
    collected,
    funded,
    job_exited,
    new_caller,
    new_provider,
    opened,
    paused_provider,
    play,
    running_caller,
    running_provider,
    told_exited,
    voucher,
)

PROVED = make_terms(proof=True)
ONCE = b"nonce--1"
AGAIN = b"nonce--2"


def gated(terms: Terms = PROVED, **order: object) -> Lease:
    """Its container waits at the gate since second 8."""
    inputs = replace(m.ReceiveInputs(at(3)), **order)  # type: ignore[arg-type]  # fields of the event
    return play(
        new_provider(terms), m.RunPulled(at(2)), inputs, funded(4), opened(5), m.RunStarted(at(8), at(8))
    )[0]


def restarting(policy: str = "on_failure", times: int = 2) -> Lease:
    """Runs since second 10."""
    return replace(running_provider(), restart=policy, restarts_allowed=times)


def provisioning(terms: Terms = PROVED) -> Lease:
    return play(new_caller(terms), m.ReceiveAccepted(at(1)), opened(5))[0]


# --- the gate -------------------------------------------------------------------------------------


def test_nothing_begins_before_the_machine_is_proved() -> None:
    lease, effects = play(gated(), m.RunReady(at(9), at(9)), m.ReceiveFunded(b"e" * 32, 1_000, at(9)))  # type: ignore[arg-type]  # ids of a test
    assert (lease.phase, effects) == (Phase.PROVISIONING, [])
    lease, effects = play(lease, m.ReceiveGo(at(20)), m.ReceiveGo(at(20)), m.RunReady(at(21), at(21)))
    assert effects == [m.RunGo(), m.SendRunning(at(21))]
    assert (lease.phase, lease.started_at) == (Phase.RUNNING, at(21))


def test_go_counts_only_when_the_container_waits() -> None:
    before = play(new_provider(PROVED), m.RunPulled(at(2)), m.ReceiveInputs(at(3)), funded(4), opened(5))[0]
    assert play(before, m.ReceiveGo(at(6))) == (before, [])


def test_without_a_proof_the_job_begins_at_once() -> None:
    lease, effects = play(gated(make_terms()), m.ReceiveGo(at(9)))
    assert lease.released and effects == []


def test_a_caller_that_neither_proves_nor_gives_up_is_not_waited_for() -> None:
    lease, effects = play(gated(), m.ClockPassed(UnixMs(at(8) + PROOF_PATIENCE_MS)))
    assert (lease.phase, lease.reason, lease.seconds) == (Phase.SETTLING, "lease.proof_timeout", 0)
    assert [type(one) for one in effects] == [m.SendExited, m.RunDiscard, m.ChainClose]


def test_the_caller_proves_once_and_says_go() -> None:
    lease, effects = play(
        provisioning(), m.ReceivePrepared(at(9)), m.ReceivePrepared(at(9)), m.RunProved("", "", at(15))
    )
    assert effects == [m.RunProve(), m.SendGo()]
    lease, _ = play(lease, m.ReceiveRunning(500, at(17)))
    assert (lease.phase, lease.started_at) == (Phase.RUNNING, at(16.5))


def test_a_machine_that_fails_its_proof_is_not_paid() -> None:
    failed = m.RunProved("proof.wrong", "the answer is wrong", at(15))
    lease, effects = play(provisioning(), m.ReceivePrepared(at(9)), failed, m.ReceiveRunning(0, at(16)))
    assert effects == [m.RunProve(), m.SendStop("proof.wrong")]
    assert (lease.phase, lease.outcome, lease.started_at) == (Phase.STOPPING, Phase.FAILED, 0)
    lease, effects = play(lease, m.ReceiveMeter(Seconds(10), at(30)), replace(told_exited(31), exit_code=-1))
    assert (lease.phase, lease.promised, effects) == (Phase.SETTLING, 0, [])


@pytest.mark.parametrize("heard", [(), (m.ReceivePrepared(at(9)),)])
def test_a_provider_that_does_not_wait_for_the_proof_gets_no_voucher(heard: tuple[m.Event, ...]) -> None:
    lease, effects = play(
        provisioning(), *heard, m.ReceiveRunning(0, at(10)), m.ReceiveMeter(Seconds(5), at(15))
    )
    assert (lease.reason, lease.promised) == ("lease.proof_skipped", 0)
    assert m.SendStop("lease.proof_skipped") in effects
    lease, effects = play(lease, m.ReceiveRunning(0, at(16)), told_exited(20, seconds=10))
    assert (lease.promised, [type(one) for one in effects]) == (0, [m.RunFetch])


def test_a_later_proof_that_fails_ends_the_lease_and_what_was_signed_stays() -> None:
    running, _ = play(running_caller(), m.ReceiveMeter(Seconds(5), at(15)), m.RunProved("", "", at(16)))
    assert running.phase is Phase.RUNNING
    lease, effects = play(running, m.RunProved("proof.too_slow", "it was too slow", at(17)))
    assert (lease.phase, lease.outcome, lease.promised) == (Phase.STOPPING, Phase.FAILED, 5_000)
    assert effects == [m.SendStop("proof.too_slow")]


# --- ready ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit_", "reason"),
    [
        (job_exited(20, 1), "job.not_ready"),
        (job_exited(20, 0), "job.not_ready"),
        (job_exited(20, 137, "out_of_memory"), "job.out_of_memory"),
    ],
)
def test_a_job_that_ends_before_it_is_ready_costs_nothing_and_leaves_its_log(
    exit_: m.RunExited, reason: str
) -> None:
    lease, effects = play(gated(make_terms(), awaits_ready=True), exit_, exit_, collected(21))
    assert (lease.phase, lease.outcome, lease.reason) == (Phase.SETTLING, Phase.FAILED, reason)
    told = effects[1]
    assert isinstance(told, m.SendExited) and (told.seconds, told.outputs_bytes) == (0, 7)
    assert effects[2] == m.ChainClose(lease.escrow_id, Qu(0), b"")
    lease, effects = play(provisioning(make_terms()), told_exited(22, seconds=0, reason=reason))
    assert (lease.phase, effects) == (Phase.STOPPING, [m.RunFetch(b"o" * 32, 7)])


def test_a_job_that_is_never_ready_is_ended_in_time() -> None:
    waiting = gated(make_terms(), awaits_ready=True)
    assert play(waiting, m.ClockPassed(at(8 + 44.9))) == (waiting, [])
    lease, effects = play(waiting, m.ClockPassed(at(8 + 45)))
    assert (lease.phase, lease.outcome, lease.reason) == (
        Phase.STOPPING,
        Phase.FAILED,
        "lease.ready_timeout",
    )
    assert effects == [m.RunStop()]
    lease, _ = play(lease, job_exited(55, 143, "stopped"), collected(56))
    assert (lease.phase, lease.seconds) == (Phase.SETTLING, 0)


def test_a_short_job_that_need_not_get_ready_is_paid_though_its_end_is_told_first() -> None:
    lease, _ = play(gated(make_terms()), job_exited(9.5))
    assert lease.phase is Phase.PROVISIONING
    lease, effects = play(lease, m.RunReady(at(8.2), at(9.6)), job_exited(9.5))
    assert (lease.reason, lease.seconds) == ("job.completed", 2)
    assert effects == [m.SendRunning(at(8.2)), m.RunCollect()]


def test_a_container_that_dies_at_its_gate_is_no_job() -> None:
    lease, _ = play(gated(), job_exited(9, 137))
    assert (lease.phase, lease.reason, lease.seconds) == (Phase.STOPPING, "job.not_ready", 0)


# --- pauses ---------------------------------------------------------------------------------------


def test_a_pause_of_the_callers_is_paid_for() -> None:
    frozen, effects = play(running_provider(), m.ReceivePause(1, at(12)), m.ReceivePause(1, at(12)))
    assert (frozen.phase, frozen.frozen, effects) == (Phase.RUNNING, True, [m.RunPause()])
    lease, effects = play(frozen, m.ClockPassed(at(15)), voucher(5_000, 15), m.ReceiveResume(2, at(17)))
    assert (lease.seconds, effects) == (5, [m.SendMeter(Seconds(5)), m.RunResume()])


def test_a_late_pause_freezes_nothing() -> None:
    thawed, _ = play(running_provider(), m.ReceivePause(1, at(12)), m.ReceiveResume(2, at(13)))
    assert play(thawed, m.ReceivePause(1, at(20))) == (thawed, [])


def test_a_voucher_does_not_thaw_what_the_caller_froze() -> None:
    lease, effects = play(
        running_provider(), m.ReceivePause(1, at(12)), *(m.ClockPassed(at(s)) for s in (15, 20, 25))
    )
    assert lease.phase is Phase.PAUSED and effects.count(m.RunPause()) == 1
    lease, effects = play(lease, voucher(15_000, 30))
    assert (lease.phase, effects) == (Phase.RUNNING, [])
    assert play(lease, m.ReceiveResume(2, at(31)))[1] == [m.RunResume()]


def test_the_caller_cannot_thaw_what_it_does_not_pay() -> None:
    lease, effects = play(paused_provider(), m.ReceivePause(1, at(26)), m.ReceiveResume(2, at(27)))
    assert (lease.phase, effects) == (Phase.PAUSED, [])
    assert play(lease, voucher(15_000, 30))[1] == [m.RunResume()]


def test_the_caller_numbers_its_pauses() -> None:
    lease, effects = play(
        running_caller(),
        m.ActionResume(at(11)),
        m.ActionPause(at(12)),
        m.ActionPause(at(12)),
        m.ActionResume(at(13)),
    )
    assert effects == [m.SendPause(1), m.SendResume(2)] and not lease.frozen


# --- restarts -------------------------------------------------------------------------------------


def test_a_restart_happens_once_for_each_nonce() -> None:
    asked = m.ReceiveRestart(ONCE, at(12))
    _, effects = play(running_provider(), asked, asked, m.ReceiveRestart(AGAIN, at(13)), asked)
    assert effects == [m.RunRestart(ONCE), m.RunRestart(AGAIN)]
    assert play(running_caller(), *[m.ActionRestart(ONCE, at(12))] * 2)[1] == [m.SendRestart(ONCE)]


def test_the_end_of_the_run_before_a_restart_is_passed_over() -> None:
    lease, _ = play(running_provider(), m.ReceiveRestart(ONCE, at(12)), job_exited(13, 143))
    assert lease.phase is Phase.RUNNING, "while it is under way"
    lease, _ = play(lease, m.RunRestarted(ONCE, at(14), at(14.5)), job_exited(13, 143))
    assert lease.phase is Phase.RUNNING, "told of late"
    lease, effects = play(lease, replace(job_exited(14), now=at(15)))
    assert (lease.phase, lease.seconds, effects) == (Phase.STOPPING, 4, [m.RunCollect()])


def test_a_job_that_cannot_begin_anew_has_ended() -> None:
    failed = m.RunRestarted(ONCE, UnixMs(0), at(14))
    lease, _ = play(running_provider(), m.ReceiveRestart(ONCE, at(12)), failed)
    assert play(lease, job_exited(13, 143))[0].reason == "job.failed"
    tried = replace(restarting(times=9), restarts=1, restarting=ONCE)
    lease, _ = play(tried, failed, job_exited(13, 1, "lost"))
    assert lease.reason == "job.lost", "it is not tried again and again"


def test_what_is_frozen_or_unpaid_stays_so_when_it_is_begun_anew() -> None:
    frozen, _ = play(running_provider(), m.ReceivePause(1, at(11)))
    assert play(frozen, m.ReceiveRestart(ONCE, at(26)))[1] == [m.RunRestart(ONCE), m.RunPause()]
    unpaid, effects = play(paused_provider(), m.ReceiveRestart(ONCE, at(26)), m.ReceiveRestart(AGAIN, at(27)))
    assert effects == [], "each would let the job run for nothing until it is frozen again"
    assert play(unpaid, voucher(15_000, 30))[1] == [m.RunRestart(AGAIN), m.RunResume()]
    both, _ = play(unpaid, m.ReceivePause(1, at(28)))
    assert play(both, voucher(15_000, 30))[1] == [m.RunRestart(AGAIN), m.RunPause()]


def test_a_job_is_begun_anew_by_its_policy_with_growing_waits_until_it_is_enough() -> None:
    lease, effects = play(restarting(), job_exited(12, 1), job_exited(12, 1), m.ClockPassed(at(12.9)))
    assert (lease.phase, effects) == (Phase.RUNNING, [])
    lease, effects = play(lease, m.ClockPassed(at(13)))
    (first,) = effects
    assert isinstance(first, m.RunRestart)
    lease, _ = play(lease, m.RunRestarted(first.nonce, at(13.5), at(13.6)), job_exited(14, 1))
    assert lease.restart_at == at(16), "twice as long"
    lease, effects = play(lease, m.ClockPassed(at(16)))
    second = effects[-1]
    assert isinstance(second, m.RunRestart) and second.nonce != first.nonce
    lease, effects = play(lease, m.RunRestarted(second.nonce, at(16.5), at(16.6)), job_exited(18, 1))
    assert (lease.reason, lease.seconds, effects) == ("job.failed", 8, [m.RunCollect()])


@pytest.mark.parametrize(
    ("policy", "code", "reason", "again"),
    [
        ("never", 1, "exited", False),
        ("on_failure", 0, "exited", False),
        ("on_failure", 137, "out_of_memory", True),
        ("on_failure", 137, "lost", True),
        ("always", 0, "exited", True),
        ("always", 143, "stopped", False),
        ("always", 1, "disk_limit", False),
        ("always", -1, "gone", False),
    ],
)
def test_which_ends_are_the_last(policy: str, code: int, reason: str, again: bool) -> None:
    lease, _ = play(restarting(policy), job_exited(12, code, reason))
    assert (lease.phase is Phase.RUNNING) is again


def test_nobody_pays_for_a_provider_that_was_away_when_the_job_ended() -> None:
    """It ended at second 20, and the daemon came back at 100."""
    late = replace(job_exited(20, 1), now=at(101))
    lease, _ = play(restarting(), m.ClockResumed(at(100)), m.ClockPassed(at(100.5)), late)
    lease, _ = play(lease, voucher(10_000, 101), m.ClockPassed(at(102)), m.ClockPassed(at(106)))
    assert lease.seconds == 15, "ten seconds before, five since"


def test_nobody_pays_for_a_provider_that_was_away_when_it_should_have_begun_anew() -> None:
    lease, _ = play(restarting(), voucher(10_000, 19), job_exited(20, 1), m.ClockResumed(at(121)))
    lease, _ = play(lease, m.ClockPassed(at(121)))
    assert lease.paused_ms == 100_000 and lease.restarting


# --- the meter ------------------------------------------------------------------------------------


def test_the_meter_stands_still_until_the_job_is_seen_again() -> None:
    lease, effects = play(running_provider(), m.ClockResumed(at(18)), m.ClockPassed(at(19)))
    assert (lease.seconds, effects) == (0, [])
    there, effects = play(lease, m.RunSeen(True, at(20)), m.ClockPassed(at(20)))
    assert (there.seconds, effects[0]) == (10, m.SendMeter(Seconds(10))), "it ran all the time"
    ended, _ = play(lease, job_exited(14))
    assert ended.seconds == 4, "it had ended long before"
    assert play(running_provider(), m.RunSeen(False, at(13)), m.ClockPassed(at(16)))[1] == []


def test_a_job_that_does_nothing_is_ended() -> None:
    terms = make_terms(idle_seconds=Seconds(60))
    lease, effects = play(running_provider(terms), m.RunIdle(at(80)))
    assert (lease.phase, lease.outcome, lease.reason, effects) == (
        Phase.STOPPING,
        Phase.DONE,
        "lease.idle",
        [m.RunStop()],
    )
    for kept in (running_provider(), play(running_provider(terms), m.ReceivePause(1, at(11)))[0]):
        assert play(kept, m.RunIdle(at(80))) == (kept, [])
    assert play(running_caller(terms), told_exited(90, reason="lease.idle"))[0].outcome is Phase.DONE


def test_a_job_ends_with_the_last_second_that_its_budget_covers() -> None:
    terms = make_terms(budget=Qu(7_500), interval_seconds=Seconds(1), unpaid_intervals=100)
    assert (terms.deposit, longest(terms)) == (7_500, 7)
    before, _ = play(running_provider(terms), m.ClockPassed(at(16.9)))
    assert before.phase is Phase.RUNNING
    lease, effects = play(before, m.ClockPassed(at(17)))
    assert (lease.reason, lease.outcome, effects) == ("lease.budget_reached", Phase.DONE, [m.RunStop()])
    lease, _ = play(
        lease, voucher(7_000, 17), job_exited(19, 143, "stopped"), collected(20), closed(25, 7_000)
    )
    assert (lease.phase, lease.seconds) == (Phase.DONE, 7)
    assert (
        play(running_caller(terms), told_exited(90, reason="lease.budget_reached"))[0].outcome is Phase.DONE
    )


@pytest.mark.parametrize(
    ("price", "amount"), [(1, 0), (1, 1), (3_599, 5), (3_600, 7), (10**9, 10**6), (7, 0)]
)
def test_what_an_amount_covers(price: int, amount: int) -> None:
    covered = seconds_covered(Qu(price), Qu(amount))
    assert amount_due(Qu(price), covered) <= amount < amount_due(Qu(price), Seconds(covered + 1))
