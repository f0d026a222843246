"""What docs/score.md says in figures is what the code does."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ledger import receipts as shelf
from protocol import score as s
from protocol.messages import MAX_RECEIPT_BYTES
from protocol.score import Counters, Deed, Evidence, Proof, Score, score
from protocol.units import Qu
from qubixd import receipt_shelf, receipts, standing
from tests.support.score_sim import (
    SEASON_DAYS,
    STAKE,
    WORTH,
    Trade,
    cheapest_fake,
    days_until,
    deed_of,
    fake_cost,
)
from tests.unit.test_docs import page, rows

PAGE = " ".join(page("score.md").split())
HALF = Qu(s.HALF_HOURS * WORTH)


def deeds(*trades: Trade) -> tuple[Deed, ...]:
    return tuple(deed_of(number, trade, SEASON_DAYS, Proof.TICKET) for number, trade in enumerate(trades))


def judged(known: tuple[Deed, ...]) -> Score:
    counters = Counters(Qu(sum(deed.paid for deed in known)), len(known), 0)
    return score(Evidence(known, counters, worth=WORTH, price=WORTH))


CROWD = deeds(*(Trade(0, wallet, HALF) for wallet in range(25)))
COMPLAINTS = tuple(
    replace(deed_of(100 + n, Trade(0, 100 + n, Qu(0), failed=True), SEASON_DAYS, Proof.SEEN))
    for n in range(20)
)
OWN = tuple(
    replace(deed_of(n, Trade(SEASON_DAYS, 5, Qu(1_000)), SEASON_DAYS, Proof.CLAIMED), own=True)
    for n in range(4)
)
EXAMPLES = {
    "nothing known": (),
    "1 caller who paid `h`": deeds(Trade(0, 0, HALF)),
    "6 callers who paid `h` each": deeds(*(Trade(0, wallet, HALF) for wallet in range(6))),
    "1 caller who paid 1,000 `h`": deeds(Trade(0, 0, Qu(1_000 * HALF))),
    "25 callers who paid `h` each": CROWD,
    "those 25, and 20 complaints that cost nothing": CROWD + COMPLAINTS,
    "nobody but you, 4 leases": OWN,
}


def test_the_examples() -> None:
    said = {row[0]: row[1:] for row in rows(page("score.md"), 4) if row[0] in EXAMPLES}
    assert said.keys() == EXAMPLES.keys()
    for name, known in EXAMPLES.items():
        result = judged(known)
        numbers = (result.performance, result.reliability, result.g)
        assert [f"{number:.2f}" for number in numbers] == said[name], name


def test_what_faking_costs() -> None:
    table = [row for row in rows(page("score.md"), 5) if row[0] in ("0.5", "0.8")]
    assert len(table) == 6
    for target, waits, wallets, fees, hours in table:
        found = cheapest_fake(float(target), int(waits.split()[0]))
        if found is None:
            assert (wallets, fees) == ("any", "not for any money")
            continue
        assert (wallets, fees) == (str(found[0]), f"{found[1].fees:,}")
        assert hours == f"{found[1].fees / WORTH:.1f}"
    dear = fake_cost(0.8, 100, SEASON_DAYS)
    assert dear is not None and f"costs {dear.fees:,} QU" in PAGE


@pytest.mark.parametrize("target", [0.5, 0.8])
def test_how_long_an_honest_one_takes(target: float) -> None:
    days = [books.days for seed in range(5) if (books := days_until(target, seed))]
    assert f"{min(days)} to {max(days)} days to make it {target}" in PAGE


@pytest.mark.parametrize(
    "words",
    [
        f"`{s.FADE_MS // s.DAY_MS} / ({s.FADE_MS // s.DAY_MS} + age in days)`",
        f"{s.HALF_HOURS} hours of what the GPU on offer is worth, at least {s.HALF_PAID:,} QU",
        f"rises from {s.FRESH} on the first day to 1 after {SEASON_DAYS} days",
        f"`{s.OWN_WEIGHT:g} n / (n + 1)` for `n` leases",
        f"`(W + {s.PRIOR_RELIABILITY} x {s.PRIOR_WEIGHT:g}) / (W + F + {s.PRIOR_WEIGHT:g})`",
        f"pace + {s.PRIOR_PERFORMANCE} x {s.PACE_WEIGHT:g}) / (W + {s.PACE_WEIGHT:g})`",
        f"at most {s.LONGEST_START_MS // 60_000} minutes",
        f"{s.UNPAID_FAILURE} for each other caller that complains, {s.CLAIMED_FAILURE} if",
        f"together at most {s.UNPAID_FAILURES_CAP:g}**",
        f"together weigh at most {s.SEEN_CAP:g} |",
        f"together at most {s.CLAIMED_CAP} |",
        f"leases of {s.LEAST_PAID:,} QU and more",
        f"{s.UNKNOWN_EFFICIENCY} if the GPU is not in the catalogue",
        f"stake of {STAKE:,} QU",
        f"{WORTH:,} QU an hour here",
        f"at most {receipts.PROOFS_IN_ALL} receipts, {receipts.PROOFS_EACH} of a provider",
        f"{receipts.FETCH_S:g} s for directories and {receipts.PROVE_S:g} s for the chain",
        f"{MAX_RECEIPT_BYTES:,} bytes |",
        f"{receipt_shelf.MAX_PER_MINUTE}, {receipt_shelf.MAX_PER_MINUTE_IN_ALL:,}; once half of it is said, "
        f"{receipt_shelf.MAX_PER_MINUTE_OF_A_NETWORK} of one network (/16) |",
        f"of one sender | {shelf.MAX_PER_SOURCE:,} |",
        f"half of it for complaints | {shelf.MAX_PER_PROVIDER} |",
        f"kept in all | {shelf.MAX_IN_ALL:,} |",
        f"in a score | {receipts.FETCH_LIMIT}, complaints at most half |",
        f"alone for {standing.FIRST_WAIT_MS // 60_000} minute",
        f"up to {standing.LONGEST_WAIT_MS // 3_600_000} hours",
    ],
)
def test_the_constants(words: str) -> None:
    assert words in PAGE


def test_newcomers() -> None:
    said = {row[0]: row[2] for row in rows(page("score.md"), 3)}
    assert said["performance"] == f"{s.NEWCOMER.performance:g}"
    assert said["reliability"] == f"{s.NEWCOMER.reliability:.1f}"
    assert re.search("strangers alone never bring it to a half", PAGE)
