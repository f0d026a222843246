"""The arithmetic of money: rounded once, down, and never in pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.lease import max_loss
from protocol.lease_state import Role
from protocol.units import MAX_QU, Qu, Seconds, amount_due, fee_of, net_of
from tests.support.lease_plan import make_terms

amounts = st.integers(0, MAX_QU).map(Qu)
prices = st.integers(0, 10**12).map(Qu)
seconds = st.integers(0, 366 * 86_400).map(Seconds)


@pytest.mark.parametrize(
    ("paid", "fee"), [(0, 0), (19, 0), (20, 1), (39, 1), (10_000, 500), (MAX_QU, MAX_QU // 20)]
)
def test_the_fee_is_five_percent_rounded_down(paid: int, fee: int) -> None:
    assert fee_of(Qu(paid)) == fee
    assert net_of(Qu(paid)) == paid - fee


@given(amounts)
def test_nothing_is_lost_between_fee_and_net(paid: Qu) -> None:
    assert fee_of(paid) + net_of(paid) == paid
    assert 0 <= fee_of(paid) * 20 <= paid


@given(st.lists(amounts, min_size=2, max_size=8).map(sorted))
def test_redeeming_often_costs_no_more_than_redeeming_once(cumulative: list[Qu]) -> None:
    fees = [fee_of(amount) for amount in cumulative]
    first, *rises = [fees[0], *(b - a for a, b in pairwise(fees))]
    assert min(rises) >= 0
    assert first + sum(rises) == fee_of(cumulative[-1])


@pytest.mark.parametrize(
    ("price", "time", "due"), [(3_600, 1, 1), (3_599, 1, 0), (3_599, 3_600, 3_599), (1, 3_599, 0), (0, 9, 0)]
)
def test_what_is_due(price: int, time: int, due: int) -> None:
    assert amount_due(Qu(price), Seconds(time)) == due


@given(prices, seconds, seconds)
def test_what_is_due_rises_with_time_and_is_off_by_less_than_one_qu(
    price: Qu, some: Seconds, more: Seconds
) -> None:
    total = Seconds(some + more)
    assert amount_due(price, some) <= amount_due(price, total)
    assert 0 <= price * total - amount_due(price, total) * 3_600 < 3_600


def test_the_most_each_side_can_lose() -> None:
    terms = make_terms()  # 1,000 QU a second, 5 s an interval, 2 of them unpaid, 60,000 QU deposited
    assert max_loss(Role.CALLER, terms) == 22_000
    assert max_loss(Role.PROVIDER, terms) == 16_000
    assert max_loss(Role.PROVIDER, make_terms(deposit=Qu(9_000))) == 9_000
    patient = make_terms(unpaid_intervals=100)  # of the provider's own choice: no reason to risk more
    assert max_loss(Role.CALLER, patient) == 27_000
