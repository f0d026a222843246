"""What faking a score costs: what docs/score.md promises, in a simulation from fixed seeds."""

from __future__ import annotations

import pytest

from protocol.score import Proof
from protocol.units import Qu
from tests.support.score_sim import (
    SEASON_DAYS,
    Trade,
    cheapest_fake,
    days_until,
    fake_cost,
    faker,
    honest,
    judge,
)

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_with_the_same_volume_the_faker_pays_and_the_honest_one_earns(seed: int) -> None:
    books = honest(60, seed)
    for wallets in (1, 3, 5, 10, 20, 50):
        fake = faker(books.volume, wallets, books.days)
        assert fake.net == -fake.fees < 0 < books.net
        assert abs(fake.fees - books.fees) <= wallets, "the fee is the same for both"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_handful_of_own_wallets_never_catches_up_with_real_callers(seed: int) -> None:
    """However much they pay: each counterparty's weight saturates."""
    books = honest(60, seed)
    for wallets in (1, 2, 3, 5):
        assert faker(Qu(100 * books.volume), wallets, books.days).result.g < books.result.g


def test_fewer_than_so_many_wallets_reach_no_target_at_any_price() -> None:
    assert fake_cost(0.5, 2, SEASON_DAYS) is None
    assert fake_cost(0.5, 3, SEASON_DAYS) is not None
    assert fake_cost(0.8, 12, SEASON_DAYS) is None
    assert fake_cost(0.8, 13, SEASON_DAYS) is not None


def test_more_and_smaller_wallets_do_not_make_it_cheaper_without_end() -> None:
    best = cheapest_fake(0.8, SEASON_DAYS)
    assert best is not None
    wallets, books = best
    for more in (3, 10, 30):
        split = fake_cost(0.8, wallets * more, SEASON_DAYS)
        assert split is not None and split.fees > 1.2 * books.fees


def test_haste_costs() -> None:
    costs = [found[1].fees for days in (3, 7, SEASON_DAYS) if (found := cheapest_fake(0.8, days))]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 3 * costs[-1]
    assert cheapest_fake(0.8, 0) is None, "not on one day"


def test_a_better_score_costs_more_than_in_proportion() -> None:
    half, good = cheapest_fake(0.5, SEASON_DAYS), cheapest_fake(0.8, SEASON_DAYS)
    assert half is not None and good is not None
    assert good[1].fees > 4 * half[1].fees


@pytest.mark.parametrize("proof", [Proof.SEEN, Proof.CLAIMED])
@pytest.mark.parametrize("wallets", [1, 10, 1_000])
def test_what_costs_nothing_stays_below_a_half(proof: Proof, wallets: int) -> None:
    """Transactions that move nothing, or none at all, with a provider that is not registered."""
    trades = [Trade(0, wallet, Qu(10**12)) for wallet in range(wallets)]
    assert judge(trades, 60, proof, registered=False).g < (0.5 if proof is Proof.SEEN else 0.25)


def test_who_failed_real_callers_pays_more_for_the_same_score() -> None:
    def with_failures(volume: int, wallets: int) -> float:
        trades = [Trade(0, wallet, Qu(volume // wallets)) for wallet in range(wallets)]
        cheated = [Trade(0, 10_000 + n, Qu(4_000_000), failed=True) for n in range(4)]
        return judge([*trades, *cheated], SEASON_DAYS).g

    best = cheapest_fake(0.8, SEASON_DAYS)
    assert best is not None
    assert with_failures(best[1].volume, best[0]) < 0.7
    assert with_failures(2 * best[1].volume, best[0]) < 0.8


@pytest.mark.parametrize("seed", SEEDS)
def test_an_honest_provider_gets_there(seed: int) -> None:
    half, good = days_until(0.5, seed), days_until(0.8, seed)
    assert half is not None and half.days <= 30
    assert good is not None and good.net > 0
