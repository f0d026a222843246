"""Quotes: every refusal of both sides; what is free is never sold twice; no field can change unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import all_in
from protocol.errors import (
    CapacityTaken,
    ConfigInvalid,
    CudaTooNew,
    GpuMissing,
    InternetUnavailable,
    PriceAboveLimit,
    QubixError,
    QuoteChanged,
    QuoteExpired,
    Refused,
    ShopCloses,
    WrongArchitecture,
)
from protocol.job_life import MAX_READY_SECONDS
from protocol.messages import MESSAGES, Capacity, Offer, QuoteRequest, Terms, Wish
from protocol.units import MAX_QU, PeerKey, Qu, Seconds, UnixMs, amount_due
from qubixd import quotes
from qubixd.quotes import House
from tests.support.deals import CALLER, CAPACITY, HOUSE, NOW, PROVIDER, REQUEST, WISH, gpu, offer

TICK_MS = HOUSE.tick_duration_ms


def make(house: House = HOUSE, request: QuoteRequest = REQUEST) -> Terms:
    return quotes.make_terms(house, request, CALLER.public, NOW)


def check(terms: Terms, *, request: QuoteRequest = REQUEST, seen: Offer | None = None) -> None:
    quotes.check_terms(terms, request, seen or offer(), PROVIDER.public, CALLER.public, TICK_MS)


def asking(**changes: Any) -> QuoteRequest:
    return replace(REQUEST, **changes)


def wishing(**changes: Any) -> QuoteRequest:
    return asking(wish=replace(WISH, **changes))


# --- the provider quotes --------------------------------------------------------------------------


def test_a_quote_says_what_was_asked_and_what_it_costs() -> None:
    terms = make()
    assert terms.deposit == amount_due(HOUSE.price_qu_per_hour, REQUEST.max_seconds) == 7_200
    assert (terms.wish, terms.image, terms.caller) == (REQUEST.wish, REQUEST.image, CALLER.public)
    assert terms.gpu_digests == (min(g.digest for g in CAPACITY.gpus),)
    assert terms.valid_until == NOW + quotes.VALID_MS
    check(terms)


REFUSALS: dict[str, tuple[House, QuoteRequest, type[QubixError]]] = {
    "another network": (HOUSE, asking(network="mainnet"), ConfigInvalid),
    "another contract": (HOUSE, asking(contract_index=1), ConfigInvalid),
    "closed": (replace(HOUSE, open_for_business=False), REQUEST, CapacityTaken),
    "closing": (replace(HOUSE, closes_at=UnixMs(NOW + 7_199_999)), REQUEST, ShopCloses),
    "too dear": (HOUSE, asking(max_price_qu_per_hour=3_599), PriceAboveLimit),
    "no time": (HOUSE, asking(max_seconds=0), ConfigInvalid),
    "hours before the first voucher": (HOUSE, asking(interval_seconds=61), ConfigInvalid),
    "no CPU": (HOUSE, wishing(cpu_millis=0), ConfigInvalid),
    "no memory": (HOUSE, wishing(memory_mib=0), ConfigInvalid),
    "no disk": (HOUSE, wishing(disk_mib=0), ConfigInvalid),
    "too many GPUs": (HOUSE, wishing(gpu_count=3), CapacityTaken),
    "another model": (HOUSE, wishing(gpu_model="H100"), CapacityTaken),
    "more memory than a GPU has": (HOUSE, wishing(gpu_vram_mib=24_577), CapacityTaken),
    "more CPU": (HOUSE, wishing(cpu_millis=16_001), CapacityTaken),
    "more memory": (HOUSE, wishing(memory_mib=65_537), CapacityTaken),
    "more disk": (HOUSE, wishing(disk_mib=500_001), CapacityTaken),
    "another processor": (replace(HOUSE, arch="amd64"), wishing(arch="arm64"), WrongArchitecture),
    "a newer CUDA": (replace(HOUSE, cuda=12_020), wishing(cuda=12_040), CudaTooNew),
    "no CUDA at all": (HOUSE, wishing(cuda=12_040), GpuMissing),
    "a deposit no transfer can carry": (
        replace(HOUSE, price_qu_per_hour=MAX_QU),
        asking(max_price_qu_per_hour=MAX_QU, max_seconds=Seconds(3_601)),
        PriceAboveLimit,
    ),
}


@pytest.mark.parametrize("house,request_,error", REFUSALS.values(), ids=REFUSALS)
def test_a_provider_refuses(house: House, request_: QuoteRequest, error: type[QubixError]) -> None:
    with pytest.raises(error) as refused:
        make(house, request_)
    assert type(refused.value) is error


@pytest.mark.parametrize(
    ("reported", "sold_gib"),
    [(24_564, 24), (23_034, 24), (15_360, 16), (81_559, 80), (46_068, 48), (11_264, 11), (10_240, 10),
     (143_771, 141), (22_528, 22), (1, 1), (0, 0), (300 * 1_024 + 1, 301)],
)  # fmt: skip
def test_a_card_has_the_memory_it_is_sold_with(reported: int, sold_gib: int) -> None:
    assert all_in.sold_mib(reported) == sold_gib * 1_024


def test_all_that_is_free_can_be_rented() -> None:
    everything = wishing(
        gpu_count=2,
        cpu_millis=CAPACITY.cpu_millis,
        memory_mib=CAPACITY.memory_mib,
        disk_mib=CAPACITY.disk_mib,
    )
    terms = make(request=everything)
    check(terms, request=everything)
    assert set(terms.gpu_digests) == {g.digest for g in CAPACITY.gpus}
    empty = quotes.free_of(CAPACITY, [terms])
    assert empty == Capacity((), 0, 0, 0)


def test_the_smallest_card_that_fits_is_taken() -> None:
    cards = (gpu(1, vram_mib=80_000), gpu(2, vram_mib=24_000), gpu(3, vram_mib=16_000))
    free = replace(CAPACITY, gpus=cards)
    assert quotes.choose_gpus(free, WISH) == (cards[1],)


@pytest.mark.parametrize("wanted", ["RTX_4090", "rtx4090", "GeForce RTX 4090", "4090", ""])
def test_models_match_without_case_and_separators(wanted: str) -> None:
    assert quotes.gpu_fits(CAPACITY.gpus[0], replace(WISH, gpu_model=wanted))


def test_a_lease_of_nothing_worth_still_has_a_deposit() -> None:
    assert make(replace(HOUSE, price_qu_per_hour=Qu(0)), asking(max_seconds=1)).deposit == 1


# --- the caller checks ----------------------------------------------------------------------------

OTHER: dict[str, object] = {
    "closes_at": 1,
    "nonce": bytes(32),
    "network": "mainnet",
    "contract_index": 1,
    "provider": CALLER.public,
    "provider_id": bytes(32),
    "caller": PROVIDER.public,
    "caller_id": bytes(32),
    "wish": replace(WISH, cpu_millis=1),
    "gpu_digests": (bytes(32),),
    "image": "evil:1",
    "runner": "process",
    "order_sha256": bytes(32),
    "meter": "tokens",
    "price_qu_per_hour": 3_599,
    "storage_qu_per_hour": 1,
    "max_seconds": 7_201,
    "interval_seconds": 6,
    "deposit": 7_201,
    "deadline_ticks": 40_000,
    "challenge_ticks": 1_000,
    "pull_seconds": quotes.PULL_SECONDS + 1,
    "start_seconds": quotes.START_SECONDS + 1,
    "budget": 7_000,
    "ready_seconds": 601,
    "idle_seconds": 60,
    "proof": True,
}
HARMLESS = {"unpaid_intervals", "quoted_at", "valid_until"}
"""The provider's own risk, and its own clock: nothing of the caller's depends on them."""


@pytest.mark.parametrize("name", OTHER)
def test_no_field_that_concerns_the_caller_changes_unseen(name: str) -> None:
    with pytest.raises(QuoteChanged):
        check(replace(make(), **{name: OTHER[name]}))  # type: ignore[arg-type]


def test_a_job_that_ends_as_the_shop_closes_is_taken() -> None:
    terms = make(replace(HOUSE, closes_at=UnixMs(NOW + 7_200_000)))
    assert terms.closes_at == NOW + 7_200_000
    check(terms)


def test_a_refusal_says_how_long_the_shop_is_open() -> None:
    with pytest.raises(ShopCloses, match=r"closes in 1 h 30 min.*`max_hours: 1\.5`"):
        make(replace(HOUSE, closes_at=UnixMs(NOW + 5_400_000)))


def test_a_card_of_the_offer_that_is_not_what_was_wished_for_is_noticed() -> None:
    """Whose price is the same, and whose proof is easier."""
    other = replace(gpu(9), model="NVIDIA T4")
    seen = replace(offer(), capacity=replace(CAPACITY, gpus=(*CAPACITY.gpus, other)))
    check(make(), seen=seen)
    with pytest.raises(QuoteChanged, match="the GPUs"):
        check(replace(make(), gpu_digests=(other.digest,)), seen=seen)


def test_a_price_is_all_in() -> None:
    """Disk of 10 GiB at 1,024 QU a TiB and hour is 10 QU, and a begun QU is a whole one."""
    terms = make(replace(HOUSE, storage_qu_per_tib_hour=Qu(1_024)))
    assert (terms.price_qu_per_hour, terms.storage_qu_per_hour) == (3_610, 10)
    assert terms.deposit == 7_220
    dearer = replace(offer(), storage_qu_per_tib_hour=Qu(1_024))
    assert all_in.all_in(dearer, WISH) == 3_610
    assert all_in.storage_of(Qu(1), WISH) == 1
    with pytest.raises(PriceAboveLimit, match="3,610 QU per hour, all in, and 3,609 is the most"):
        make(replace(HOUSE, storage_qu_per_tib_hour=Qu(1_024)), asking(max_price_qu_per_hour=3_609))


def test_a_budget_caps_the_deposit() -> None:
    """7,200 QU would be due for the whole time."""
    assert make(request=asking(budget=5_000)).deposit == 5_000
    assert make(request=asking(budget=9_000)).deposit == 7_200
    terms = make(request=asking(budget=5_000))
    check(terms, request=asking(budget=5_000))
    with pytest.raises(QuoteChanged, match="the deposit"):
        check(replace(terms, deposit=Qu(7_200)), request=asking(budget=5_000))
    with pytest.raises(PriceAboveLimit, match="a budget of 1 QU is not enough for a second"):
        make(replace(HOUSE, price_qu_per_hour=Qu(9_000)), asking(budget=1))


def test_a_job_gets_the_internet_only_where_there_is_one() -> None:
    request = asking(wish=replace(WISH, internet=True))
    with pytest.raises(InternetUnavailable, match="no network on this machine"):
        make(request=request)
    assert make(replace(HOUSE, internet=True), request).wish.internet


@pytest.mark.parametrize("seconds", [0, MAX_READY_SECONDS + 1])
def test_nobody_works_unpaid_for_long(seconds: int) -> None:
    with pytest.raises(ConfigInvalid, match="to get ready"):
        make(request=asking(ready_seconds=Seconds(seconds)))


def test_every_card_is_paid() -> None:
    """Two cards of a machine cost twice what one costs; the disk costs once; no card, one price."""
    house = replace(HOUSE, storage_qu_per_tib_hour=Qu(1_024))
    prices = [
        make(
            house, asking(wish=replace(WISH, gpu_count=count), max_price_qu_per_hour=9_000)
        ).price_qu_per_hour
        for count in (0, 1, 2)
    ]
    assert prices == [3_610, 3_610, 7_210]
    dearer = replace(offer(), storage_qu_per_tib_hour=Qu(1_024))
    assert [all_in.all_in(dearer, replace(WISH, gpu_count=count)) for count in (0, 1, 2)] == prices


def test_the_table_above_knows_every_field() -> None:
    assert {field.name for field in fields(Terms)} == OTHER.keys() | HARMLESS


CHANGES: dict[str, tuple[Callable[[Terms], Terms], type[QubixError]]] = {
    "dearer than the limit": (
        lambda t: replace(t, price_qu_per_hour=Qu(20_001), deposit=Qu(40_002)),
        PriceAboveLimit,
    ),
    "dearer than the offer": (
        lambda t: replace(t, price_qu_per_hour=Qu(3_601), deposit=Qu(7_202)),
        QuoteChanged,
    ),
    "no card": (lambda t: replace(t, gpu_digests=()), QuoteChanged),
    "one card twice for two": (lambda t: replace(t, gpu_digests=t.gpu_digests * 2), QuoteChanged),
    "a deposit one less": (lambda t: replace(t, deposit=Qu(7_199)), QuoteChanged),
    "hardly any challenge": (lambda t: replace(t, challenge_ticks=31), QuoteChanged),
    "a deadline inside the challenge": (
        lambda t: replace(t, deadline_ticks=t.challenge_ticks),
        QuoteChanged,
    ),
    "money locked for months": (lambda t: replace(t, deadline_ticks=2**31 - 1), QuoteChanged),
    "a challenge of months": (
        lambda t: replace(t, challenge_ticks=2**31 - 2, deadline_ticks=2**31 - 1),
        QuoteChanged,
    ),
    "a deadline before the job could end": (
        lambda t: replace(t, deadline_ticks=t.challenge_ticks + 7_199),
        QuoteChanged,
    ),
}


@pytest.mark.parametrize("change,error", CHANGES.values(), ids=CHANGES)
def test_a_caller_refuses(change: Callable[[Terms], Terms], error: type[QubixError]) -> None:
    with pytest.raises(error):
        check(change(make()))


def test_the_same_card_does_not_count_twice() -> None:
    two = wishing(gpu_count=2)
    terms = make(request=two)
    with pytest.raises(QuoteChanged):
        check(replace(terms, gpu_digests=(terms.gpu_digests[0],) * 2), request=two)


def test_a_discount_is_no_change() -> None:
    check(make(replace(HOUSE, price_qu_per_hour=Qu(3_000))))


@pytest.mark.parametrize("factor", [0.67, 1.5])
def test_a_provider_may_have_measured_ticks_a_little_differently(factor: float) -> None:
    check(make(replace(HOUSE, tick_duration_ms=round(TICK_MS * factor))))


# --- the provider's own quote comes back ----------------------------------------------------------

Changed = tuple[dict[str, Any], dict[str, Any], PeerKey, int, type[QubixError]]
UNACCEPTABLE: dict[str, Changed] = {
    "another caller": ({}, {}, PROVIDER.public, 0, Refused),
    "another provider's": ({"provider": CALLER.public}, {}, CALLER.public, 0, Refused),
    "too late": ({}, {}, CALLER.public, quotes.VALID_MS + 1, QuoteExpired),
    "closed meanwhile": ({}, {"open_for_business": False}, CALLER.public, 0, CapacityTaken),
    "card gone": ({}, {"free": replace(CAPACITY, gpus=CAPACITY.gpus[2:])}, CALLER.public, 0, CapacityTaken),
    "CPU gone": ({}, {"free": replace(CAPACITY, cpu_millis=3_999)}, CALLER.public, 0, CapacityTaken),
    "memory gone": ({}, {"free": replace(CAPACITY, memory_mib=8_191)}, CALLER.public, 0, CapacityTaken),
    "disk gone": ({}, {"free": replace(CAPACITY, disk_mib=10_239)}, CALLER.public, 0, CapacityTaken),
}


@pytest.mark.parametrize("terms,house,caller,after,error", UNACCEPTABLE.values(), ids=UNACCEPTABLE)
def test_an_acceptance_is_refused(
    terms: dict[str, Any], house: dict[str, Any], caller: PeerKey, after: int, error: type[QubixError]
) -> None:
    with pytest.raises(error) as refused:
        quotes.check_acceptable(
            replace(make(), **terms), replace(HOUSE, **house), caller, UnixMs(NOW + after)
        )
    assert type(refused.value) is error


def test_an_acceptance_in_the_last_moment_is_good() -> None:
    quotes.check_acceptable(make(), HOUSE, CALLER.public, UnixMs(NOW + quotes.VALID_MS))


# --- properties -----------------------------------------------------------------------------------

wishes = st.builds(
    Wish,
    gpu_model=st.sampled_from(["", "rtx4090", "H100"]),
    gpu_count=st.integers(0, 3),
    gpu_vram_mib=st.sampled_from([0, 16_000, 40_000]),
    cpu_millis=st.integers(1, 9_000),
    memory_mib=st.integers(1, 40_000),
    disk_mib=st.integers(1, 300_000),
)
cards = st.lists(
    st.tuples(st.sampled_from(["NVIDIA H100", "RTX 4090"]), st.integers(8_000, 80_000)), max_size=4
)


@given(cards, st.lists(wishes, max_size=8))
def test_what_is_free_is_never_sold_twice(machine: list[tuple[str, int]], wanted: list[Wish]) -> None:
    """Whatever is asked for, what has been quoted together never exceeds the machine."""
    total = replace(CAPACITY, gpus=tuple(gpu(n, *card) for n, card in enumerate(machine)))
    sold: list[Terms] = []
    for wish in wanted:
        house = replace(HOUSE, free=quotes.free_of(total, sold))
        try:
            terms = make(house, asking(wish=wish))
        except CapacityTaken:
            continue
        quotes.check_acceptable(terms, house, CALLER.public, NOW)
        sold.append(terms)
    cards_sold = [digest for terms in sold for digest in terms.gpu_digests]
    assert len(cards_sold) == len(set(cards_sold)) == sum(t.wish.gpu_count for t in sold)
    for field in ("cpu_millis", "memory_mib", "disk_mib"):
        assert sum(getattr(terms.wish, field) for terms in sold) <= getattr(total, field)


@given(
    wish=wishes,
    price=st.integers(0, 10**12),
    seconds=st.integers(1, 366 * 86_400),
    interval=st.integers(1, quotes.MAX_INTERVAL_SECONDS),
    tick_ms=st.integers(1, 30_000),
)
def test_an_honest_quote_passes(wish: Wish, price: int, seconds: int, interval: int, tick_ms: int) -> None:
    request = asking(wish=wish, max_seconds=seconds, interval_seconds=interval, max_price_qu_per_hour=MAX_QU)
    house = replace(HOUSE, price_qu_per_hour=Qu(price), tick_duration_ms=tick_ms)
    seen = replace(offer(), price_qu_per_hour=Qu(price))
    try:
        terms = make(house, request)
    except (CapacityTaken, PriceAboveLimit):
        return
    assert MESSAGES.decode(MESSAGES.encode(terms), 65_536) == terms, "it travels as it is"
    quotes.check_terms(terms, request, seen, PROVIDER.public, CALLER.public, tick_ms)


@given(st.integers(1, 366 * 86_400), st.integers(1, MAX_READY_SECONDS), st.integers(1, 30_000))
def test_the_escrow_outlives_the_lease(seconds: int, ready: int, tick_ms: int) -> None:
    """Even when ticks come half as fast again as now."""
    challenge, deadline = quotes.windows(Seconds(seconds), Seconds(ready), tick_ms)
    slowest_ms = max(100, tick_ms)
    assert (deadline - challenge) * slowest_ms / 1_000 >= quotes.TICK_MARGIN * (
        seconds + quotes.PULL_SECONDS + quotes.START_SECONDS + quotes.PROOF_SECONDS + ready
    )
    assert challenge * slowest_ms / 1_000 >= quotes.CHALLENGE_SECONDS
