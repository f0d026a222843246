"""What must hold of every score, whatever is said of a provider."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.score import (
    DAY_MS,
    LEAST_PAID,
    NEWCOMER,
    OWN_WEIGHT,
    PRIOR_RELIABILITY,
    PRIOR_WEIGHT,
    Counters,
    Deed,
    Evidence,
    Proof,
    score,
)
from protocol.units import MAX_QU, LeaseId, Qu, QubicId

CALLERS = [QubicId(bytes([number]) * 32) for number in range(6)]
NEW_CALLER = QubicId(b"\xff" * 32)
ALLOWED_MS = 1_920_000
paid = st.integers(0, MAX_QU) | st.integers(0, 300_000)


def lease(number: int) -> LeaseId:
    return LeaseId(hashlib.sha256(b"%d" % number).digest())


deeds = st.lists(
    st.builds(
        Deed,
        lease_id=st.integers(0, 10**6).map(lease),
        counterparty=st.sampled_from(CALLERS),
        own=st.booleans(),
        failed=st.booleans(),
        paid=paid.map(Qu),
        age_ms=st.integers(0, 400 * DAY_MS),
        ready_ms=st.just(0) | st.integers(1, 3_600_000),
        allowed_ms=st.just(0) | st.integers(1, 10 * ALLOWED_MS),
        proof=st.sampled_from(Proof),
        agreed=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda deed: deed.lease_id,
).map(tuple)
counters = st.none() | st.builds(
    Counters, paid.map(Qu), st.integers(0, 10_000), disputes_lost=st.integers(0, 20)
)
evidence = st.builds(
    Evidence,
    deeds=deeds,
    counters=counters,
    worth=st.none() | st.integers(1, 10**9).map(Qu),
    price=st.none() | st.integers(0, MAX_QU).map(Qu),
    benchmark=st.none() | st.floats(-1, 5),
)


def made(number: int, counterparty: QubicId, paid: int, **fields: object) -> Deed:
    """A good lease, long ago, ready at once."""
    deed = Deed(
        lease(number),
        counterparty,
        own=False,
        failed=False,
        paid=Qu(paid),
        age_ms=14 * DAY_MS,
        ready_ms=1,
        allowed_ms=ALLOWED_MS,
        proof=Proof.TICKET,
        agreed=True,
    )
    return replace(deed, **fields)  # type: ignore[arg-type]  # fields of a Deed by name


def with_deeds(known: Evidence, *more: Deed) -> Evidence:
    return replace(known, deeds=known.deeds + more)


@given(evidence)
def test_every_number_is_between_0_and_1(known: Evidence) -> None:
    given_score = score(known)
    numbers = (given_score.performance, given_score.reliability, given_score.efficiency)
    assert all(0 <= number <= 1 for number in (*numbers, given_score.confidence))
    assert given_score.g == numbers[0] * numbers[1] * numbers[2]


@given(evidence, st.randoms(use_true_random=False))
def test_the_order_in_which_it_was_heard_does_not_matter(known: Evidence, chance: object) -> None:
    shuffled = list(known.deeds + known.deeds[:3])
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis's Random
    assert score(replace(known, deeds=tuple(shuffled))) == score(known)


@given(evidence, st.sampled_from([*CALLERS, NEW_CALLER]), paid, st.sampled_from(Proof), st.booleans())
def test_a_failure_never_raises_it(
    known: Evidence, counterparty: QubicId, paid: int, proof: Proof, own: bool
) -> None:
    failure = made(-1, counterparty, paid, failed=True, proof=proof, own=own)
    before, after = score(known), score(with_deeds(known, failure))
    assert after.g <= before.g
    assert after.reliability <= before.reliability


@given(evidence, paid, st.integers(1, 60))
def test_one_counterparty_weighs_no_more_however_often_it_trades(known: Evidence, paid: int, k: int) -> None:
    """Many leases of one wallet are worth what one lease of their sum is, and no more than one wallet."""
    parts = [made(-1 - number, NEW_CALLER, paid) for number in range(k)]
    whole = made(-1, NEW_CALLER, paid * k)
    base = replace(known, counters=None)
    split, one = score(with_deeds(base, *parts)), score(with_deeds(base, whole))
    assert abs(split.g - one.g) <= 1e-9
    before, after = weight_of(base), weight_of(with_deeds(base, *parts))
    assert after - before <= 1 + 1e-9


def weight_of(known: Evidence) -> float:
    """The weight that all good counterparties have, from the confidence."""
    confidence = score(known).confidence
    return PRIOR_WEIGHT * confidence / (1 - confidence)


@given(evidence, st.integers(LEAST_PAID, MAX_QU), st.integers(0, MAX_QU))
def test_more_paid_by_somebody_new_never_lowers_it(known: Evidence, less: int, more: int) -> None:
    base = replace(known, counters=None)
    without, small, large = (
        score(one)
        for one in (
            base,
            with_deeds(base, made(-1, NEW_CALLER, less)),
            with_deeds(base, made(-1, NEW_CALLER, less + more)),
        )
    )
    rounding = 1e-12
    assert without.reliability <= small.reliability + rounding
    assert small.reliability <= large.reliability + rounding
    assert without.g <= small.g + rounding
    assert small.g <= large.g + rounding


@given(deeds, st.integers(1, 40))
@settings(max_examples=50)
def test_words_of_strangers_alone_never_make_a_good_provider(known: tuple[Deed, ...], k: int) -> None:
    """Whatever is said beside the contract, by however many, it stays under a half."""
    words = tuple(replace(one, own=False) for one in known if one.proof is not Proof.TICKET)
    crowd = tuple(made(-1 - number, QubicId(lease(number)), MAX_QU, proof=Proof.SEEN) for number in range(k))
    assert score(Evidence(words + crowd, worth=Qu(1), price=Qu(1))).g < 0.5


@given(st.integers(1, 200))
def test_complaints_that_cost_nothing_are_bounded(k: int) -> None:
    honest = tuple(made(number, QubicId(lease(number)), 300_000) for number in range(15))
    slander = tuple(
        made(1_000 + number, QubicId(lease(1_000 + number)), 0, failed=True, proof=Proof.SEEN)
        for number in range(k)
    )
    before, after = score(Evidence(honest)), score(Evidence(honest + slander))
    assert after.reliability > 0.85 * before.reliability


def test_newcomers_start_low_and_own_leases_count_more() -> None:
    assert abs(NEWCOMER.reliability - PRIOR_RELIABILITY) < 1e-9
    assert NEWCOMER.confidence == 0
    mine = made(1, CALLERS[0], 50, own=True, proof=Proof.CLAIMED)
    theirs = replace(mine, own=False)
    assert score(Evidence((mine,))).confidence > 10 * score(Evidence((theirs,))).confidence
    assert weight_of(Evidence(tuple(made(n, CALLERS[0], 50, own=True) for n in range(99)))) <= OWN_WEIGHT


def test_what_the_contract_has_not_counted_does_not_count() -> None:
    """Two sides that agree on any sum: with a registered provider no more than the contract's volume."""
    said = tuple(made(n, QubicId(lease(n)), 10**9, proof=Proof.CLAIMED) for n in range(50))
    modest = score(Evidence(said, counters=Counters(Qu(0), 0, 0)))
    assert modest.g == score(Evidence(counters=Counters(Qu(0), 0, 0))).g
    real = score(Evidence(said, counters=Counters(Qu(50 * 10**9), 50, 0)))
    assert real.g > 3 * modest.g


def test_a_lost_dispute_lowers_it() -> None:
    said = tuple(made(n, QubicId(lease(n)), 10**6) for n in range(5))
    assert (
        score(Evidence(said, Counters(Qu(10**9), 9, 1))).g
        < score(Evidence(said, Counters(Qu(10**9), 9, 0))).g
    )


def test_a_price_above_what_the_catalogue_says_lowers_it() -> None:
    assert score(Evidence(worth=Qu(10), price=Qu(10))).efficiency == 1
    assert score(Evidence(worth=Qu(10), price=Qu(40))).efficiency == 0.25
    assert score(Evidence(worth=Qu(10), price=Qu(0))).efficiency == 1


@given(evidence, paid, paid)
def test_of_two_words_on_one_lease_the_lesser_counts_in_any_order(
    known: Evidence, one: int, other: int
) -> None:
    first, second = made(-1, NEW_CALLER, one), made(-1, NEW_CALLER, other)
    both = score(with_deeds(known, first, second))
    assert both == score(with_deeds(known, second, first))
    assert both == score(with_deeds(known, made(-1, NEW_CALLER, min(one, other))))
