"""Writes down what the market asks, so that a price can be held against those of the weeks before.

Every few minutes all live offers are looked at, as far as this node hears the market at all. What comes of
it is in ledger/prices.py. Asks cost nobody anything, so a history of them is what was wished for, not what
was paid: the middle one of a class moves only with half of its offers.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, MutableMapping
from statistics import median_low
from typing import Final

import trio

import ledger.prices
from ledger.prices import HOUR_MS, KEEP_DAYS_MS, KEEP_HOURS_MS, MAX_ROWS, PriceRow
from ledger.store import Store
from protocol.errors import DiskFull, LedgerBroken
from protocol.units import UnixMs
from qubixd.book import Ask
from qubixd.offers import OfferService

log = logging.getLogger("qubix.prices")

LOOK_SECONDS: Final = 300.0
FIRST_LOOK_SECONDS: Final = 20.0
"""After the start, so that a fresh node has offers to look at."""
MAX_GPUS: Final = 256
"""Classes that are noted, those with the most offers: anybody can make names up."""


async def run(offers: OfferService, store: Store, now_ms: Callable[[], UnixMs]) -> None:
    """Look and tidy up until cancelled."""
    asked, tidied = await ledger.prices.newest(store), 0
    await trio.sleep(FIRST_LOOK_SECONDS)
    while True:
        now = now_ms()
        try:
            if offers.reads:
                await ledger.prices.note(store, news(offers.book.asks(now), asked, now))
            if now // HOUR_MS != tidied:
                await tidy(store, now)
                tidied = now // HOUR_MS
        except (DiskFull, LedgerBroken) as error:
            log.warning("prices could not be written down: %s", error)
        await trio.sleep(LOOK_SECONDS)


async def tidy(store: Store, now: int) -> None:
    """Hours of more than a month ago become days, and what is too old or too much goes."""
    while await ledger.prices.fold(store, now - KEEP_HOURS_MS):
        pass
    await ledger.prices.forget(store, now - KEEP_DAYS_MS)


def news(asks: Iterable[Ask], asked: MutableMapping[bytes, int], now: int) -> list[PriceRow]:
    """Rows for the hour of `now`: of every class, and of providers that ask something else than they `asked`,
    which is brought up to date."""
    asks = list(asks)
    if len(asked) > MAX_ROWS:  # of a flood that has passed; who is still there is noted once more
        asked.clear()
    changed = [one for one in asks if asked.get(one.provider) != one.price]
    rows = [provider_row(one, asked.get(one.provider, one.price), now) for one in changed]
    asked.update((one.provider, one.price) for one in changed)
    return [*gpu_rows(asks, now), *rows]


def provider_row(one: Ask, before: int, now: int) -> PriceRow:
    """The hour in which a provider changed its price; it opened with the one before."""
    high, low, start = max(before, one.price), min(before, one.price), now - now % HOUR_MS
    return PriceRow("provider", one.provider, HOUR_MS, start, before, high, low, one.price, low, 1, one.gpus)


def gpu_rows(asks: Iterable[Ask], now: int) -> list[PriceRow]:
    """What each class of GPU asks now, its middle offer and its cheapest."""
    prices: dict[str, list[int]] = defaultdict(list)
    free: Counter[str] = Counter()
    for one in asks:
        if one.gpu:
            prices[one.gpu].append(one.price)
            free[one.gpu] += one.gpus
    most = sorted(prices, key=lambda gpu: (-len(prices[gpu]), gpu))[:MAX_GPUS]
    start = now - now % HOUR_MS
    return [_gpu_row(gpu, prices[gpu], free[gpu], start) for gpu in most]


def _gpu_row(gpu: str, prices: list[int], free: int, start: int) -> PriceRow:
    middle = median_low(prices)
    return PriceRow(
        "gpu", gpu.encode(), HOUR_MS, start, middle, middle, middle, middle, min(prices), len(prices), free
    )
