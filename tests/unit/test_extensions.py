"""Extensions: what a provider signs for, every refusal of both sides, and what its desk believes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import lease_model as m
from protocol.errors import CapacityTaken, ConfigInvalid, PriceAboveLimit, QuoteChanged, Refused, ShopCloses
from protocol.lease_job import longest
from protocol.lease_state import Lease
from protocol.messages import Extend, Extension
from protocol.units import MAX_QU, Qu, Seconds, Tick, UnixMs, amount_due
from qubixd.extensions import check_extension, make_extension
from qubixd.notices import notices_of
from qubixd.quotes import SETTLE_SECONDS, House
from tests.support.deals import HOUSE
from tests.support.lease_plan import LEASE, make_terms
from tests.support.lease_play import at, play, running_caller, running_provider, told_exited

OPEN = replace(HOUSE, tick=Tick(1_020), tick_duration_ms=1_000, closes_at=UnixMs(0))
"""The escrow opened in tick 1,000 and ends in tick 4,000."""
WANTED = Extend(LEASE, 1, Seconds(120))
NOW = at(20)


def make(house: House = OPEN, wanted: Extend = WANTED, lease: Lease | None = None) -> Extension:
    return make_extension(house, lease or running_provider(), wanted, NOW)


def check(more: Extension, tick: int = 1_020, tick_ms: int = 1_000, lease: Lease | None = None) -> None:
    check_extension(more, WANTED, lease or running_caller(), Tick(tick), tick_ms)


def test_it_costs_what_all_the_time_costs_at_the_price_of_the_terms() -> None:
    more = make()
    assert (more.lease_id, more.number, more.max_seconds, more.deposit) == (LEASE, 1, 120, 120_000)
    assert more.deadline_ticks == 3_000, "there is room enough before the first deadline"
    check(more)


@given(
    added=st.integers(1, 4_000_000),
    price=st.integers(0, 10**9),
    tick_ms=st.sampled_from([100, 1_000, 5_000]),
    ticks=st.integers(0, 5_000),
)
def test_what_a_provider_signs_the_caller_takes_and_it_suffices(
    added: int, price: int, tick_ms: int, ticks: int
) -> None:
    terms = make_terms(price_qu_per_hour=Qu(price))
    provider, caller = running_provider(terms), running_caller(terms)
    wanted = Extend(LEASE, 1, Seconds(60 + added))
    house = replace(OPEN, tick=Tick(1_000 + ticks), tick_duration_ms=tick_ms)
    more = make(house, wanted, provider)
    check_extension(more, wanted, caller, Tick(1_000 + ticks + 3), tick_ms)
    assert more.deposit > terms.deposit and more.deposit >= amount_due(Qu(price), wanted.max_seconds)
    left_ms = (1_000 + more.deadline_ticks - terms.challenge_ticks - house.tick) * tick_ms
    assert left_ms >= (wanted.max_seconds + SETTLE_SECONDS - provider.seconds) * 1_000


@pytest.mark.parametrize(
    ("changes", "refusal", "words"),
    [
        ({"open_for_business": False}, CapacityTaken, "no time at the moment"),
        ({"closes_at": UnixMs(NOW + 119_000)}, ShopCloses, "at most 0 min can be added"),
        ({"closes_at": UnixMs(NOW + 100)}, ShopCloses, "closes in 0 h 0 min"),
    ],
)
def test_a_shop_that_is_closed_or_closes_before_adds_nothing(
    changes: dict[str, Any], refusal: type[Refused], words: str
) -> None:
    with pytest.raises(refusal, match=words):
        make(replace(OPEN, **changes))
    make(replace(OPEN, closes_at=UnixMs(NOW + 120_000)))


def test_capacity_that_is_taken_is_the_leases_own() -> None:
    nothing = replace(OPEN.free, gpus=(), cpu_millis=0, memory_mib=0, disk_mib=0)
    assert make(replace(OPEN, free=nothing)).deposit == 120_000


def test_only_a_running_job_and_only_more() -> None:
    lease = running_provider()
    over, _ = play(running_caller(), told_exited(15))
    with pytest.raises(Refused, match="only while the job runs"):
        make(lease=over)
    with pytest.raises(ConfigInvalid):
        make(wanted=replace(WANTED, max_seconds=longest(lease.terms)))
    dear = running_provider(make_terms(price_qu_per_hour=MAX_QU))
    with pytest.raises(PriceAboveLimit):
        make(wanted=replace(WANTED, max_seconds=Seconds(7_200)), lease=dear)


@pytest.mark.parametrize(
    "changes",
    [
        {"lease_id": bytes(32)},
        {"number": 2},
        {"max_seconds": 121},
        {"deposit": 120_001},
        {"deposit": 119_999},
        {"deadline_ticks": 10_000},
        {"deadline_ticks": 200},
    ],
)
def test_a_caller_takes_nothing_else_than_it_asked_for(changes: dict[str, Any]) -> None:
    with pytest.raises(QuoteChanged):
        check(replace(make(), **changes))


def test_the_new_time_is_told_of_and_warned_of_as_the_first_was() -> None:
    lease, told = running_caller(), []
    more = make()
    for event in (
        m.ReceiveMeter(Seconds(48), at(60)),
        m.ActionExtend(more, b"signed", "one", at(60)),
        m.ChainToppedUp(more.deposit, Tick(4_000), at(61)),
        m.ReceiveMeter(Seconds(60), at(72)),
        m.ReceiveMeter(Seconds(96), at(110)),
    ):
        before, (lease, _) = lease, play(lease, event)
        told += [one.code for one in notices_of(before, lease, at(120))]
    assert told == ["lease.budget", "lease.extended", "lease.budget"]


def test_a_provider_that_has_not_seen_the_last_top_up_is_asked_again() -> None:
    with pytest.raises(QuoteChanged, match="ask again in a moment"):
        check(make(), lease=replace(running_caller(), held=Qu(120_000)))
