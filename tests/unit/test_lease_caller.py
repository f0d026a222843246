"""The caller's half of the lease machine: the good way, and each way it can go wrong."""

from __future__ import annotations

import pytest

from protocol import lease_caller
from protocol import lease_model as m
from protocol.lease import max_loss
from protocol.lease_caller import EXIT_PATIENCE_MS, FETCH_PATIENCE_MS, SETTLE_PATIENCE_MS
from protocol.lease_state import Lease, Phase, Role
from protocol.units import Qu, Seconds, Tick
from tests.support.lease_plan import ESCROW, LEASE, make_terms
from tests.support.lease_play import (
    TERMS,
    at,
    closed,
    new_caller,
    opened,
    play,
    running_caller,
    told_exited,
)

FETCH = m.RunFetch(b"o" * 32, 7)
REQUEST_CLOSE = m.ChainRequestClose(ESCROW)
STOPPED = "lease.stopped_by_caller"


def funding() -> Lease:
    return play(new_caller(), m.ReceiveAccepted(at(1)))[0]


def provisioning() -> Lease:
    return play(funding(), opened(5))[0]


def stopping() -> Lease:
    return play(running_caller(), m.ActionStop(at(12)))[0]


def test_a_new_lease_sends_the_acceptance_and_moves_no_money() -> None:
    lease, effects = lease_caller.new(
        LEASE, TERMS, signed_terms=b"t", peer_addresses=("a",), name="n", output_dir="/o", now=at(0)
    )
    assert lease.phase is Phase.QUOTED
    assert effects == (m.SendAccept(b"t"),)


def test_the_good_way() -> None:
    lease, effects = play(
        new_caller(),
        m.ReceiveAccepted(at(1)),
        opened(5),
        m.ReceiveRunning(age_ms=500, now=at(10.5)),
        m.ReceiveMeter(Seconds(5), at(15)),
        told_exited(20),
        m.RunFetched("", "", at(22)),
        closed(24, 10_000),
    )
    assert effects == [
        m.ChainOpen(),
        m.SendInputs(),
        m.SendFunded(ESCROW, Tick(1_000)),
        m.SendVoucher(ESCROW, Qu(5_000)),
        m.SendVoucher(ESCROW, Qu(10_000)),
        FETCH,
    ]
    assert (lease.phase, lease.reason) == (Phase.DONE, "job.completed")
    assert (lease.paid, lease.refunded, lease.vouchers) == (10_000, 50_000, 2)


def test_signs_for_no_more_than_its_own_watch_has_seen_and_catches_up_with_the_next_meter() -> None:
    lease, effects = play(running_caller(), m.ReceiveMeter(Seconds(9), at(13)))
    assert effects == [m.SendVoucher(ESCROW, Qu(5_000))], "3 seconds watched, and 2 of slack"
    lease, effects = play(lease, m.ReceiveMeter(Seconds(9), at(14)), m.ReceiveMeter(Seconds(9), at(19)))
    assert effects == [m.SendVoucher(ESCROW, Qu(6_000)), m.SendVoucher(ESCROW, Qu(9_000))]


def test_signs_nothing_while_it_hears_nothing() -> None:
    """Whatever the last meter claimed: time that nobody has metered is not paid for in advance."""
    lease, _ = play(running_caller(), m.ReceiveMeter(Seconds(60), at(13)))
    assert play(lease, *(m.ClockPassed(at(second)) for second in range(14, 100)))[1] == []


def test_signs_nothing_for_the_time_before_the_start_was_heard_of() -> None:
    """A provider must not bill how long the image took, by claiming to have started when the money came."""
    terms = make_terms(deposit=Qu(10**9), max_seconds=Seconds(3_600))
    waiting, _ = play(new_caller(terms), m.ReceiveAccepted(at(1)), opened(5))
    running = m.ReceiveRunning(age_ms=3_600_000, now=at(90))
    lease, _ = play(waiting, running, m.ReceiveMeter(Seconds(85), at(90)), told_exited(90, 85))
    assert 0 < lease.promised <= max_loss(Role.CALLER, terms)


def test_an_end_is_worth_no_more_than_an_interval_after_it_was_asked_for() -> None:
    """Neither by claiming more than ran, nor by ending late, nor by keeping the outputs back meanwhile."""
    heard, _ = play(running_caller(), m.ReceiveMeter(Seconds(2), at(12)))
    stopped, _ = play(heard, m.ActionStop(at(12)))
    lease, _ = play(stopped, told_exited(100, 60, STOPPED))
    lease, _ = play(lease, *(m.ClockPassed(at(second)) for second in range(100, 200)))
    assert lease.promised - heard.promised <= max_loss(Role.CALLER, TERMS)


def test_a_job_started_against_our_word_is_worth_no_more_either() -> None:
    stopped, _ = play(funding(), m.ActionStop(at(2)), opened(5))
    lease, _ = play(stopped, m.ReceiveRunning(age_ms=0, now=at(5)), told_exited(60, 55, STOPPED))
    assert lease.promised <= max_loss(Role.CALLER, TERMS)


def test_never_signs_above_the_deposit_or_the_rented_time() -> None:
    _, effects = play(running_caller(), m.ReceiveMeter(Seconds(10**7), at(10**6)))
    assert effects == [m.SendVoucher(ESCROW, TERMS.deposit)]
    poor = running_caller(make_terms(deposit=Qu(7_500)))
    assert play(poor, m.ReceiveMeter(Seconds(60), at(99)))[1] == [m.SendVoucher(ESCROW, Qu(7_500))]


def test_a_start_before_the_money_was_there_is_not_believed() -> None:
    lease, _ = play(provisioning(), m.ReceiveRunning(age_ms=3_600_000, now=at(10)))
    assert lease.started_at == at(5)


def test_a_start_is_heard_once() -> None:
    lease = stopping()
    assert play(lease, m.ReceiveRunning(age_ms=0, now=at(14))) == (lease, [])


def test_a_job_that_starts_while_it_is_being_stopped_is_paid_for_and_fetched() -> None:
    stopped, _ = play(provisioning(), m.ActionStop(at(9)))
    lease, effects = play(stopped, m.ReceiveRunning(age_ms=0, now=at(9)), told_exited(11, 2, STOPPED))
    assert effects == [m.SendVoucher(ESCROW, Qu(2_000)), FETCH]
    assert (lease.phase, lease.outcome, lease.reason) == (Phase.STOPPING, Phase.CANCELLED, STOPPED)


@pytest.mark.parametrize(
    ("event", "reason", "outcome"),
    [
        (m.ReceiveRefused("quote.expired", "too late", at(2)), "quote.expired", Phase.FAILED),
        (m.ReceiveRefused("", "", at(2)), "peer.no_reason", Phase.FAILED),
        (m.ClockPassed(at(31)), "net.peer_unreachable", Phase.FAILED),
        (m.ActionStop(at(2)), STOPPED, Phase.CANCELLED),
    ],
)
def test_before_the_acceptance_every_end_is_free(event: m.Event, reason: str, outcome: Phase) -> None:
    lease, effects = play(new_caller(), event)
    assert (lease.phase, lease.reason) == (outcome, reason)
    assert not [effect for effect in effects if m.lane_of(effect) == "chain"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (m.ActionStop(at(2)), STOPPED),
        (m.ReceiveRefused("job.files_invalid", "bad archive", at(2)), "job.files_invalid"),
        (told_exited(2, 0, "runner.image_unavailable", 0), "runner.image_unavailable"),
    ],
)
def test_a_lease_that_fails_while_its_money_is_under_way_gets_it_back(event: m.Event, reason: str) -> None:
    lease, effects = play(funding(), event)
    assert lease.phase is Phase.FUNDING, "it must hear of the escrow to get it back"
    assert effects == []
    lease, effects = play(lease, opened(5), m.ClockPassed(at(5 + SETTLE_PATIENCE_MS / 1_000)))
    assert effects == [m.SendStop(reason), m.SendFunded(ESCROW, Tick(1_000)), REQUEST_CLOSE]
    lease, _ = play(lease, closed(99, 0))
    assert (lease.phase is Phase.CANCELLED) == (reason == STOPPED)
    assert (lease.reason, lease.refunded) == (reason, TERMS.deposit)


def test_the_first_reason_stays() -> None:
    lease, _ = play(funding(), m.ActionStop(at(2)), m.ReceiveRefused("lease.unknown", "?", at(3)))
    assert lease.reason == STOPPED


def test_an_escrow_that_cannot_be_opened_ends_the_lease_and_tells_the_provider() -> None:
    failed = m.ChainOpenFailed("wallet.balance_too_low", "the wallet is empty", at(2))
    lease, effects = play(funding(), failed)
    assert (lease.phase, lease.reason) == (Phase.FAILED, "wallet.balance_too_low")
    assert effects == [m.SendStop("wallet.balance_too_low")]


@pytest.mark.parametrize(
    ("lease", "second"), [(provisioning(), 5 + 135 + 60), (running_caller(), 10.5 + 300)]
)
def test_a_silent_provider_is_given_up_and_the_contract_asked(lease: Lease, second: float) -> None:
    assert play(lease, m.ClockPassed(at(second - 0.1)))[0] == lease
    lease, effects = play(lease, m.ClockPassed(at(second)))
    assert (lease.phase, lease.reason, lease.closing) == (Phase.STOPPING, "lease.provider_lost", True)
    assert effects == [m.SendStop("lease.provider_lost"), REQUEST_CLOSE]


def test_the_contract_is_asked_once_though_everybody_stays_silent() -> None:
    lease, _ = play(running_caller(), m.ClockPassed(at(320)))
    lease, effects = play(lease, m.ClockPassed(at(320 + EXIT_PATIENCE_MS / 1_000)))
    assert (lease.phase, effects) == (Phase.SETTLING, [])


def test_after_sleep_patience_starts_afresh() -> None:
    lease, effects = play(running_caller(), m.ClockResumed(at(9_000)), m.ClockPassed(at(9_001)))
    assert (lease.phase, effects) == (Phase.RUNNING, [])


def test_the_contract_is_asked_once_when_no_end_is_reported() -> None:
    later = at(12 + EXIT_PATIENCE_MS / 1_000)
    lease, effects = play(stopping(), m.ClockPassed(later), m.ClockPassed(later), m.ActionStop(later))
    assert (lease.phase, effects) == (Phase.SETTLING, [REQUEST_CLOSE])


def test_an_end_reported_late_is_still_paid_and_fetched() -> None:
    settling, _ = play(stopping(), m.ClockPassed(at(12 + EXIT_PATIENCE_MS / 1_000)))
    lease, effects = play(settling, told_exited(140, 4, STOPPED))
    assert effects == [m.SendVoucher(ESCROW, Qu(4_000)), FETCH]
    lease, effects = play(lease, closed(150, 0), m.RunFetched("", "", at(151)))
    assert (lease.phase, lease.reason, effects) == (Phase.CANCELLED, STOPPED, [])


@pytest.mark.parametrize("before", [provisioning(), running_caller(), stopping()])
def test_the_chain_may_be_faster_than_the_providers_word(before: Lease) -> None:
    lease, effects = play(before, closed(20, 10_000))
    assert (lease.phase, lease.settled, effects) == (Phase.STOPPING, True, [])
    running = m.ReceiveRunning(age_ms=0, now=at(21))
    lease, effects = play(lease, running, told_exited(22))
    assert effects == [FETCH], "no voucher: there is nothing left to promise"
    lease, _ = play(lease, m.RunFetched("", "", at(23)))
    assert lease.phase is (Phase.CANCELLED if before.reason else Phase.DONE)
    assert lease.reason == (before.reason or "job.completed")


def test_a_provider_that_closes_and_says_nothing_is_waited_for_and_named() -> None:
    lease, _ = play(running_caller(), closed(20, 10_000))
    lease, effects = play(lease, closed(21, 10_000), m.ClockPassed(at(20 + EXIT_PATIENCE_MS / 1_000)))
    assert (lease.phase, lease.reason, effects) == (Phase.FAILED, "lease.closed_early", [])


def test_an_end_is_heard_once() -> None:
    once, _ = play(running_caller(), told_exited(20))
    assert play(once, told_exited(2_000, 60)) == (once, [])


def test_an_end_without_a_reason_gets_one() -> None:
    lease, _ = play(running_caller(), told_exited(20, reason=""), m.RunFetched("", "", at(21)), closed(22, 0))
    assert (lease.phase, lease.reason) == (Phase.FAILED, "peer.no_reason")


def test_outputs_that_cannot_be_had_fail_a_job_that_was_done() -> None:
    fetched = m.RunFetched("job.files_invalid", "not as announced", at(21))
    lease, _ = play(running_caller(), told_exited(20), fetched, closed(22, 10_000))
    assert (lease.phase, lease.reason) == (Phase.FAILED, "job.files_invalid")


def test_outputs_are_not_waited_for_for_ever() -> None:
    lease, _ = play(running_caller(), told_exited(20))
    lease, effects = play(lease, m.ClockPassed(at(20 + FETCH_PATIENCE_MS / 1_000)))
    assert (lease.phase, effects) == (Phase.SETTLING, [REQUEST_CLOSE])


def test_inputs_do_not_hold_up_what_is_said_meanwhile() -> None:
    assert m.lane_of(m.SendInputs()) != m.lane_of(m.SendFunded(ESCROW, Tick(1)))
