"""The provider's half of the lease machine: the good way, and each way it can go wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol import lease_model as m
from protocol import lease_provider
from protocol.lease_job import COLLECT_PATIENCE_MS, STOP_PATIENCE_MS
from protocol.lease_provider import FUNDING_PATIENCE_MS, UNPAID_PATIENCE_MS, VOUCHER_PATIENCE_MS
from protocol.lease_state import Lease, Phase
from protocol.units import Qu, Seconds, Tick
from tests.support.lease_plan import ESCROW, LEASE
from tests.support.lease_play import (
    TERMS,
    at,
    closed,
    collected,
    funded,
    job_exited,
    new_provider,
    opened,
    paused_provider,
    play,
    ready_provider,
    running_provider,
    voucher,
)

CLOSE_UNPAID = m.ChainClose(ESCROW, Qu(0), b"")


def names(effects: list[m.Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def close_at(amount: int) -> m.ChainClose:
    return m.ChainClose(ESCROW, Qu(amount), b"signature of %d" % amount)


def exited_provider() -> Lease:
    """The job ended at second 20, its outputs are packed, no voucher has come."""
    return play(running_provider(), job_exited(20), collected(21))[0]


def test_the_image_is_pulled_while_the_money_moves() -> None:
    assert lease_provider.new(LEASE, TERMS, peer_addresses=(), now=at(0))[1] == (m.RunPull(),)


def test_the_good_way() -> None:
    lease, effects = play(
        new_provider(),
        m.RunPulled(at(2)),
        m.ReceiveInputs(at(3)),
        funded(4),
        opened(5),
        m.RunStarted(at(8), at(8.5)),
        m.RunReady(at(10), at(10.5)),
        m.ClockPassed(at(14.9)),
        m.ClockPassed(at(15)),
        voucher(5_000, 15.2),
        job_exited(20),
        voucher(10_000, 20.5),
        collected(21),
        closed(25, 10_000),
    )
    assert effects == [
        m.ChainVerify(ESCROW, Tick(1_000)),
        m.RunStart(),
        m.RunGo(),
        m.SendRunning(at(10)),
        m.SendMeter(Seconds(5)),
        m.RunCollect(),
        m.SendExited(
            0, "job.completed", "the job ended by itself with exit code 0", Seconds(10), b"o" * 32, 7
        ),
        close_at(10_000),
    ]
    assert (lease.phase, lease.reason) == (Phase.DONE, "job.completed")
    assert (lease.paid, lease.refunded) == (10_000, 50_000)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_starts_once_when_image_inputs_and_money_are_there(order: tuple[int, ...]) -> None:
    events = (m.RunPulled(at(2)), m.ReceiveInputs(at(3)), opened(5))
    twice = [events[i] for i in order for _ in range(2)]
    lease, effects = play(new_provider(), funded(1), *twice, funded(6))
    assert effects.count(m.RunStart()) == 1
    assert lease.phase is Phase.PROVISIONING


def test_a_quick_pull_leaves_no_more_time_for_the_start() -> None:
    """The two have time-outs of their own; files of 20 MiB more take a second more."""
    terms = replace(TERMS, pull_seconds=Seconds(1_800), start_seconds=Seconds(120))
    terms = replace(terms, wish=replace(terms.wish, disk_mib=200))
    waiting, _ = play(new_provider(terms), m.RunPulled(at(2)), funded(4), opened(5))
    assert waiting.timer_at == at(5 + 1_920)
    starting, _ = play(waiting, m.ReceiveInputs(at(7)))
    assert starting.timer_at == at(7 + 130)


def test_vouchers_only_rise_and_stay_within_the_deposit() -> None:
    lease, _ = play(running_provider(), voucher(3_000, 12), voucher(2_000, 13), voucher(60_001, 14))
    assert (lease.promised, lease.signature, lease.vouchers) == (3_000, b"signature of 3000", 1)


def test_a_long_lease_is_cashed_now_and_then() -> None:
    """An absence then costs what was earned since, whatever the caller asks of the contract meanwhile."""
    every = lease_provider.REDEEM_EVERY_MS / 1_000
    lease, effects = play(running_provider(), voucher(3_000, 9 + every))
    assert effects == []
    lease, effects = play(lease, voucher(4_000, 10 + every), voucher(5_000, 11 + every))
    assert effects == [m.ChainRedeem(ESCROW, Qu(4_000), b"signature of 4000")]
    _, effects = play(lease, voucher(6_000, 10 + 2 * every))
    assert effects == [m.ChainRedeem(ESCROW, Qu(6_000), b"signature of 6000")]


def test_pauses_when_more_than_the_agreed_intervals_are_unpaid_and_goes_on_when_paid() -> None:
    lease, effects = play(running_provider(), m.ClockPassed(at(15)), m.ClockPassed(at(20)))
    assert names(effects) == ["SendMeter", "SendMeter"], "two intervals may be unpaid"
    lease, effects = play(lease, m.ClockPassed(at(25)))
    assert (lease.phase, names(effects)) == (Phase.PAUSED, ["SendMeter", "RunPause"])
    lease, effects = play(lease, voucher(4_999, 30))
    assert (lease.phase, effects) == (Phase.PAUSED, [])
    lease, effects = play(lease, voucher(5_000, 35))
    assert (lease.phase, effects) == (Phase.RUNNING, [m.RunResume()])
    assert play(lease, m.ClockPassed(at(39.9)))[1] == [], "the pause is not metered"
    assert play(lease, m.ClockPassed(at(40)))[1][:1] == [m.SendMeter(Seconds(20))]


def test_stops_a_job_that_stays_unpaid() -> None:
    lease, effects = play(paused_provider(), m.ClockPassed(at(25 + UNPAID_PATIENCE_MS / 1_000)))
    assert (lease.phase, lease.reason, effects) == (Phase.STOPPING, "lease.unpaid", [m.RunStop()])
    lease, effects = play(lease, job_exited(147, 137, "stopped"))
    assert lease.seconds == 17, "15 before the pause and 2 to be stopped"
    lease, effects = play(lease, collected(148), m.ClockPassed(at(148 + VOUCHER_PATIENCE_MS / 1_000)))
    assert names(effects) == ["SendExited", "ChainClose"]
    assert play(lease, closed(250, 0))[0].phase is Phase.FAILED


def test_stops_when_the_rented_time_is_over() -> None:
    paid = replace(running_provider(), promised=Qu(60_000))
    lease, effects = play(paid, m.ClockPassed(at(70)))
    assert effects == [m.RunStop()]
    lease, effects = play(lease, job_exited(72, 137, "stopped"))
    assert (lease.outcome, lease.reason, lease.seconds) == (Phase.DONE, "lease.duration_reached", 60)


@pytest.mark.parametrize(
    ("code", "why", "reason", "outcome"),
    [
        (0, "exited", "job.completed", Phase.DONE),
        (3, "exited", "job.failed", Phase.FAILED),
        (137, "out_of_memory", "job.out_of_memory", Phase.FAILED),
        (1, "disk_limit", "job.disk_limit", Phase.FAILED),
        (-1, "lost", "job.lost", Phase.FAILED),
    ],
)
def test_how_a_job_ended_decides_how_the_lease_ends(code: int, why: str, reason: str, outcome: Phase) -> None:
    lease, _ = play(running_provider(), job_exited(20, code, why))
    assert (lease.reason, lease.outcome, lease.exit_code) == (reason, outcome, code)


def test_begun_seconds_count() -> None:
    assert play(running_provider(), job_exited(10.001))[0].seconds == 1


def test_a_pause_before_the_end_is_not_billed() -> None:
    assert play(paused_provider(), job_exited(95))[0].seconds == 15


def test_a_pause_before_a_close_is_not_billed() -> None:
    lease, _ = play(paused_provider(), m.ChainClosing(at(85)))
    assert lease.seconds == 15
    assert play(lease, job_exited(86, 137, "stopped"))[0].seconds == 16


def test_waits_for_the_last_voucher_but_not_for_ever() -> None:
    assert play(exited_provider(), voucher(10_000, 22))[1] == [close_at(10_000)]
    late = m.ClockPassed(at(21 + VOUCHER_PATIENCE_MS / 1_000))
    assert play(exited_provider(), voucher(9_000, 22), late)[1] == [close_at(9_000)]


def test_packing_is_told_once() -> None:
    lease = exited_provider()
    assert play(lease, collected(50)) == (lease, [])


@pytest.mark.parametrize(
    ("lease", "event", "reason", "outcome", "effects"),
    [
        (
            new_provider(),
            m.RunFailed("runner.image_unavailable", "no such image", at(9)),
            "runner.image_unavailable",
            Phase.FAILED,
            ["SendExited", "RunDiscard"],
        ),
        (
            new_provider(),
            m.ChainOpenFailed("lease.escrow_wrong", "no escrow", at(9)),
            "lease.escrow_wrong",
            Phase.FAILED,
            ["SendExited", "RunDiscard"],
        ),
        (
            new_provider(),
            m.ReceiveStop("x", at(9)),
            "lease.stopped_by_caller",
            Phase.CANCELLED,
            ["SendExited", "RunDiscard"],
        ),
        (
            ready_provider(),
            m.ActionStop(at(9)),
            "lease.stopped_by_provider",
            Phase.CANCELLED,
            ["SendExited", "RunDiscard", "ChainClose"],
        ),
        (
            ready_provider(),
            m.RunFailed("runner.start_failed", "no", at(9)),
            "runner.start_failed",
            Phase.FAILED,
            ["SendExited", "RunDiscard", "ChainClose"],
        ),
        (
            ready_provider(),
            m.ClockPassed(at(5 + 90)),
            "lease.start_timeout",
            Phase.FAILED,
            ["SendExited", "RunDiscard", "ChainClose"],
        ),
    ],
)
def test_before_the_start_nothing_is_owed(
    lease: Lease, event: m.Event, reason: str, outcome: Phase, effects: list[str]
) -> None:
    after, asked = play(lease, event, event)
    assert (after.phase, after.reason, after.outcome) == (Phase.SETTLING, reason, outcome)
    assert names(asked) == effects
    assert not after.escrow_id or asked[-1] == CLOSE_UNPAID


def test_money_that_comes_after_the_failure_is_sent_back() -> None:
    failed, _ = play(new_provider(), m.RunFailed("runner.image_unavailable", "no such image", at(3)))
    lease, effects = play(failed, m.RunDiscarded(at(3)), funded(4), opened(5), closed(9, 0))
    assert effects == [m.ChainVerify(ESCROW, Tick(1_000)), CLOSE_UNPAID]
    assert (lease.phase, lease.refunded) == (Phase.FAILED, TERMS.deposit)


def test_a_failed_lease_does_not_wait_for_money_for_ever() -> None:
    failed, _ = play(new_provider(), m.RunFailed("runner.image_unavailable", "no such image", at(3)))
    lease, effects = play(failed, m.ClockPassed(at(3 + FUNDING_PATIENCE_MS / 1_000)))
    assert (lease.phase, lease.reason, effects) == (Phase.FAILED, "runner.image_unavailable", [])


def test_a_second_claim_that_is_wrong_does_not_undo_the_first() -> None:
    wrong = m.ChainOpenFailed("lease.escrow_wrong", "no such escrow", at(30))
    settling, _ = play(exited_provider(), voucher(10_000, 22))
    assert play(settling, wrong) == (settling, [])


def test_capacity_is_not_kept_for_a_caller_who_does_not_pay() -> None:
    lease, effects = play(new_provider(), m.ClockPassed(at(FUNDING_PATIENCE_MS / 1_000)))
    assert (lease.phase, lease.reason) == (Phase.FAILED, "lease.not_funded")
    assert names(effects) == ["SendExited", "RunDiscard"]


@pytest.mark.parametrize(
    "event", [m.ChainClosing(at(18)), m.TickPassed(Tick(4_000 - TERMS.challenge_ticks), at(18))]
)
def test_the_last_voucher_is_redeemed_while_the_contract_still_takes_it(event: m.Event) -> None:
    lease, effects = play(running_provider(), voucher(5_000, 15), event, event)
    assert effects == [close_at(5_000), m.RunStop()]
    lease, effects = play(lease, closed(20, 5_000), job_exited(20.5, 137, "stopped"), collected(21))
    assert names(effects) == ["RunCollect", "SendExited"], "the job is paid for: its outputs are owed"
    assert (lease.phase, lease.seconds) == (Phase.CANCELLED, 11)


def test_the_deadline_is_far() -> None:
    lease = running_provider()
    assert play(lease, m.TickPassed(Tick(3_999 - TERMS.challenge_ticks), at(11))) == (lease, [])


def test_a_stop_asked_while_it_starts_throws_the_job_away() -> None:
    lease, effects = play(
        ready_provider(), m.ChainClosing(at(8)), m.RunStarted(at(10), at(10)), closed(12, 0)
    )
    assert (effects, lease.phase) == ([CLOSE_UNPAID, m.RunDiscard()], Phase.SETTLING)
    assert play(lease, m.RunDiscarded(at(13)))[0].phase is Phase.CANCELLED, (
        "it takes up the machine until then"
    )


def test_an_engine_that_does_not_end_the_job_does_not_hold_up_the_money() -> None:
    lease, _ = play(running_provider(), voucher(2_000, 12), m.ReceiveStop("x", at(12)))
    lease, effects = play(lease, m.ClockPassed(at(12 + STOP_PATIENCE_MS / 1_000)), closed(320, 2_000))
    assert (effects, lease.phase) == ([close_at(2_000)], Phase.SETTLING)
    lease, effects = play(lease, closed(321, 2_000), m.ClockPassed(at(320 + STOP_PATIENCE_MS / 1_000)))
    assert (names(effects), lease.phase) == (["RunDiscard", "SendExited"], Phase.CANCELLED)


def test_packing_that_takes_for_ever_does_not_hold_up_the_money() -> None:
    lease, _ = play(running_provider(), job_exited(20))
    assert play(lease, m.ClockPassed(at(20 + COLLECT_PATIENCE_MS / 1_000)))[1] == [CLOSE_UNPAID]


@pytest.mark.parametrize(
    "lease",
    [ready_provider(), running_provider(), paused_provider(), play(running_provider(), job_exited(20))[0]],
)
def test_an_escrow_that_is_gone_ends_everything(lease: Lease) -> None:
    after, effects = play(lease, closed(99, 0))
    assert (after.phase, after.reason) == (Phase.SETTLING, "lease.closed_elsewhere")
    assert effects == [m.RunDiscard()]
    assert play(after, m.RunDiscarded(at(100)))[0].phase is Phase.FAILED
    assert play(after, m.ClockPassed(at(99 + STOP_PATIENCE_MS / 1_000)))[0].phase is Phase.FAILED


def test_after_sleep_patience_starts_afresh() -> None:
    lease, effects = play(paused_provider(), m.ClockResumed(at(9_000)), m.ClockPassed(at(9_050)))
    assert (lease.phase, effects) == (Phase.PAUSED, [m.SendMeter(Seconds(15))])


def test_a_paused_provider_tells_the_meter_again_every_interval() -> None:
    """The caller may have been able to sign for a part only."""
    seconds = [25.5, 29.9, 30, 30.5, 34.9, 35, 40]
    lease, effects = play(paused_provider(), *(m.ClockPassed(at(second)) for second in seconds))
    assert (lease.phase, effects) == (Phase.PAUSED, [m.SendMeter(Seconds(15))] * 3)
