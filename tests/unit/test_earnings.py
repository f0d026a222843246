"""A provider's earnings by day: only what is settled counts, once, on the day on which it ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.control_provider import DAYS, LAST_ENDED
from protocol.lease_state import Lease, Phase, Role
from protocol.units import LeaseId, Qu, Seconds, UnixMs, amount_due, net_of
from qubixd.earnings import DAY_MS, Earnings, owed
from tests.support.lease_plan import make_terms

NOW = UnixMs(20_000 * DAY_MS + 3_600_000)


def lease(number: int, *, days_ago: int = 0, paid: int = 1_000, **changes: object) -> Lease:
    """A provider's lease that is settled."""
    ended = Lease(
        lease_id=LeaseId(number.to_bytes(32, "big")),
        role=Role.PROVIDER,
        terms=make_terms(),
        phase=Phase.DONE,
        opened_at=NOW,
        timer_at=UnixMs(0),
        settled=True,
        paid=Qu(paid),
        seconds=Seconds(60),
        ended_at=UnixMs(NOW - days_ago * DAY_MS),
    )
    return replace(ended, **changes)  # type: ignore[arg-type]  # fields come from tests


def of(*leases: Lease) -> Earnings:
    earnings = Earnings()
    for one in leases:
        earnings.note(one, NOW)
    return earnings


def test_each_day_has_its_own() -> None:
    view = of(lease(1), lease(2), lease(3, days_ago=6), lease(4, days_ago=7), lease(5, days_ago=30)).view(
        [], NOW
    )
    one = net_of(Qu(1_000))
    assert (view.today_qu, view.week_qu, view.month_qu, view.total_qu) == (2 * one, 3 * one, 4 * one, 5 * one)
    assert view.leases == 5
    assert len(view.days) == DAYS
    assert [(day.qu, day.leases, day.seconds) for day in view.days if day.qu] == [
        (2 * one, 2, 120),
        (one, 1, 60),
        (one, 1, 60),
    ]
    assert view.days[0].day > view.days[1].day


def test_a_lease_that_is_told_of_again_counts_once() -> None:
    settling = lease(1, phase=Phase.SETTLING, ended_at=UnixMs(0))
    view = of(settling, lease(1), lease(1)).view([], NOW)
    assert (view.total_qu, view.leases) == (net_of(Qu(1_000)), 1)


@pytest.mark.parametrize(
    "other",
    [lease(1, role=Role.CALLER), lease(1, settled=False), lease(1, paid=0, phase=Phase.FAILED)],
    ids=["as a caller", "not settled", "nothing paid"],
)
def test_nothing_else_counts(other: Lease) -> None:
    view = of(other).view([other], NOW)
    assert (view.total_qu, view.leases, view.today_qu) == (0, 0, 0)


def test_what_is_promised_and_what_is_owed() -> None:
    terms = make_terms()
    due = amount_due(terms.price_qu_per_hour, Seconds(60))
    running = lease(1, phase=Phase.RUNNING, settled=False, paid=0, promised=Qu(due - 100))
    assert owed(running) == 100
    assert owed(replace(running, promised=Qu(due + 5))) == 0
    view = of().view([running, lease(2, role=Role.CALLER, settled=False)], NOW)
    assert (view.promised_qu, view.owed_qu) == (net_of(Qu(due - 100)), 100)


def test_the_newest_of_the_ended_are_kept() -> None:
    leases = [lease(number, ended_at=UnixMs(NOW + number)) for number in range(LAST_ENDED + 5)]
    assert of(*leases).ended() == leases[::-1][:LAST_ENDED]
