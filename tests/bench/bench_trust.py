"""What faking a score costs, and how long a page of scores takes.

`trust.fake_cost_qu`: the fees of the cheapest way to 0.8 by trading with oneself within the season, in the
simulation of tests/support/score_sim.py; its reference is an honest provider who reaches the same score. It
pays fees too, on what others have paid it.
`trust.page_of_scores_ms`: 50 providers with 100 receipts each, scored anew from this node's ledger, against
the same page from the cache.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any, Final

import trio

from ledger import receipts
from protocol.score import Proof
from protocol.units import UnixMs
from qubixd.receipt_door import check_receipt, verify
from qubixd.receipt_shelf import receipt_row
from tests.support.offices import Offices
from tests.support.receipt_deals import MARKET, Party, Town
from tests.support.score_sim import SEASON_DAYS, STAKE, WORTH, Books, cheapest_fake, days_until, fake_cost

TARGETS: Final = (0.5, 0.8)
SEEDS: Final = range(5)
CALLERS: Final = (3, 10, 30, 100)
PROVIDERS: Final = 50
RECEIPTS: Final = 100


def fake_cost_qu() -> dict[str, object]:
    """Fees for 0.8; every other cell of the table in `detail`."""
    best = cheapest_fake(0.8, SEASON_DAYS)
    assert best is not None
    honest = statistics.median(_days(0.8))
    return {
        "value": best[1].fees,
        "unit": "QU",
        "reference": f"honest provider: {honest:g} days, fees paid out of what others paid it",
        "detail": {
            "worth_qu_per_hour": WORTH,
            "fees_in_hours_of_the_gpu": round(best[1].fees / WORTH, 1),
            "season_days": SEASON_DAYS,
            "stake_locked_qu": STAKE,
            "fake": {str(target): _fake(target) for target in TARGETS},
            "honest": {str(target): _honest(target) for target in TARGETS},
        },
    }


def _days(target: float) -> list[int]:
    return [books.days for seed in SEEDS if (books := days_until(target, seed))]


def _fake(target: float) -> dict[str, Any]:
    by_days = {days: cheapest_fake(target, days) for days in (0, 3, 7, SEASON_DAYS)}
    by_callers = {wallets: fake_cost(target, wallets, SEASON_DAYS) for wallets in CALLERS}
    return {
        "fees_by_days_waited": {
            days: {"callers": found[0], "fees": found[1].fees} if found else "not for any money"
            for days, found in by_days.items()
        },
        "fees_by_callers": {
            wallets: books.fees if books else "not for any money" for wallets, books in by_callers.items()
        },
    }


def _honest(target: float) -> list[dict[str, int]]:
    found = [books for seed in SEEDS if (books := days_until(target, seed))]
    return [_readable(books) for books in found]


def _readable(books: Books) -> dict[str, int]:
    return {"days": books.days, "volume": books.volume, "fees": books.fees, "earned": books.net}


def page_of_scores_ms() -> dict[str, object]:
    return trio.run(_page)


async def _page() -> dict[str, object]:
    town = Town()
    callers = [Party(f"caller {n}") for n in range(RECEIPTS)]
    providers = [Party(f"provider {n}") for n in range(PROVIDERS)]
    async with Offices(town) as offices:
        judge = await offices.open("judge")
        for provider in providers:
            offices.advertise(provider)
            deals = [town.deal(provider, one, paid=50_000, opens=False, closes=False) for one in callers]
            checked = [check_receipt(verify(deal.receipt), MARKET, town.now) for deal in deals]
            rows = [receipt_row(one, b"", town.now) for one in checked]
            await receipts.keep(judge.store, b"", rows)
            known = await receipts.of_provider(judge.store, provider.key.public, RECEIPTS, b"")
            await receipts.confirm(judge.store, [_proven(row, town.now) for row, _ in known])
        keys = [provider.key.public for provider in providers]
        await judge.receipts.scores(keys)
        for key in keys:
            judge.receipts.forget(key)
        begun = time.perf_counter()
        await judge.receipts.scores(keys)
        anew = time.perf_counter() - begun
        begun = time.perf_counter()
        await judge.receipts.scores(keys)
        cached = time.perf_counter() - begun
    return {
        "value": round(anew * 1_000, 1),
        "unit": "ms",
        "reference": "the same page from the cache",
        "detail": {"cached_ms": round(cached * 1_000, 3), "providers": PROVIDERS, "receipts_each": RECEIPTS},
    }


def _proven(row: receipts.ReceiptRow, now: UnixMs) -> receipts.ReceiptRow:
    return replace(row, proof=Proof.TICKET, paid=row.cumulative, opened_ms=now - 10**9, checked_ms=now)


BENCHES: Final = {"trust.fake_cost_qu": fake_cost_qu, "trust.page_of_scores_ms": page_of_scores_ms}
