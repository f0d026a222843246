"""What a score costs: a deterministic market of one provider, honest or trading with itself.

An honest provider is paid by callers who come by chance. A faker pays itself through wallets of its own: all
that it loses is the contract's fee (5 %), and time, because counterparties count little in their first days.
Both are registered, so that the contract's tickets bear out every lease: the best case for a faker.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from protocol.score import (
    DAY_MS,
    LONGEST_START_MS,
    SEASON_MS,
    Counters,
    Deed,
    Evidence,
    Proof,
    Score,
    score,
)
from protocol.units import MAX_QU, LeaseId, Qu, QubicId, fee_of, net_of

SEASON_DAYS: Final = SEASON_MS // DAY_MS
WORTH: Final = Qu(200_000)
"""QU per hour: about what a good GPU costs where a credit of 0.20 USD is some 20,000 QU."""
STAKE: Final = Qu(1_000_000)
"""Locked to be in the registry; comes back."""

WALLETS: Final = (1, 3, 6, 10, 15, 20, 25, 30, 40, 60, 100)


@dataclass(frozen=True)
class Trade:
    """One lease that one wallet paid for on one day."""

    day: int
    wallet: int
    paid: Qu
    failed: bool = False


@dataclass(frozen=True)
class Books:
    """What a provider's record cost and brought."""

    result: Score
    volume: Qu
    fees: Qu
    net: int
    """QU that the provider's own pocket gained: for a faker what it paid comes back less the fee."""
    days: int


def judge(trades: Iterable[Trade], today: int, proof: Proof = Proof.TICKET, registered: bool = True) -> Score:
    """The score that a stranger gives on a day."""
    done = [trade for trade in trades if trade.day <= today]
    deeds = tuple(deed_of(number, trade, today, proof) for number, trade in enumerate(done))
    counters = Counters(Qu(sum(t.paid for t in done)), len(done), 0) if registered else None
    return score(Evidence(deeds, counters, worth=WORTH, price=WORTH))


def deed_of(number: int, trade: Trade, today: int, proof: Proof) -> Deed:
    """A trade as evidence."""
    return Deed(
        lease_id=LeaseId(hashlib.sha256(b"lease %d" % number).digest()),
        counterparty=QubicId(hashlib.sha256(b"wallet %d" % trade.wallet).digest()),
        own=False,
        failed=trade.failed,
        paid=trade.paid,
        age_ms=(today - trade.day) * DAY_MS,
        ready_ms=10_000,
        allowed_ms=LONGEST_START_MS,
        proof=proof,
        agreed=True,
    )


def honest(days: int, seed: int, *, callers_a_day: float = 1.0, hours: float = 2.0) -> Books:
    """Somebody new on most days; a third of them come back once or twice; one lease in fifty fails."""
    chance = random.Random(seed)
    trades: list[Trade] = []
    wallets = 0
    for day in range(days):
        for _ in range(2):
            if chance.random() < callers_a_day / 2:
                wallets += 1
                visits = 1 + (chance.random() < 1 / 3) + (chance.random() < 1 / 6)
                for visit in range(visits):
                    paid = Qu(round(WORTH * chance.uniform(0.25, 2 * hours - 0.25)))
                    trades.append(Trade(day + visit, wallets, paid, chance.random() < 0.02))
    trades = [trade for trade in trades if trade.day < days]
    volume = Qu(sum(trade.paid for trade in trades))
    return Books(judge(trades, days), volume, fee_of(volume), net_of(volume), days)


def faker(volume: Qu, wallets: int, days: int) -> Books:
    """The same volume through so many wallets of its own, all of it so many days ago."""
    each = Qu(max(1, volume // wallets))
    trades = [Trade(0, wallet, each) for wallet in range(wallets)]
    total = Qu(each * wallets)
    return Books(judge(trades, days), total, fee_of(total), -fee_of(total), days)


def fake_cost(target: float, wallets: int, days: int) -> Books | None:
    """The cheapest way to `target`, to a hundredth, with so many wallets and days; None if no money
    reaches it."""
    if faker(MAX_QU, wallets, days).result.g < target:
        return None
    low, high = 1.0, float(MAX_QU)
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        reached = faker(Qu(round(middle)), wallets, days).result.g >= target
        low, high = (low, middle) if reached else (middle, high)
    return faker(Qu(round(high)), wallets, days)


def cheapest_fake(target: float, days: int, tried: Iterable[int] = WALLETS) -> tuple[int, Books] | None:
    """(wallets, books) of the cheapest attack within that time."""
    found = [(k, books) for k in tried if (books := fake_cost(target, k, days))]
    return min(found, key=lambda pair: pair[1].fees, default=None)


def days_until(target: float, seed: int, most: int = 120) -> Books | None:
    """An honest provider on the first day on which it has reached a score."""
    return next((books for day in range(1, most) if (books := honest(day, seed)).result.g >= target), None)
