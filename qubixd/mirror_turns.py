"""What the public mirror shows beside the offers, brought up to date in turns of bounded work."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import trio

from ledger import mirror, mirror_history, prices, receipts
from ledger.mirror import HOUR_MS
from ledger.prices import DAY_MS
from ledger.store import Store
from protocol.errors import QubixError
from protocol.score import Proof
from protocol.units import PeerKey
from qubixd.leases import Clock
from qubixd.mirror_rows import LEASES, score_row, settled_row
from qubixd.receipts import Receipts

log = logging.getLogger("qubix.mirror")

SHORT_SECONDS: Final = 10.0
"""Between turns of scores, of settled leases, and of forgetting."""
STATS_SECONDS: Final = 60.0
PRICES_SECONDS: Final = 120.0
LIFE_SECONDS: Final = 300.0
SCORED_AT_ONCE: Final = 8
"""Of the first pages, and of those with receipts, each."""
MOST_SCORED: Final = 10_000
FIRST_PAGES: Final = 100
LEASES_AT_ONCE: Final = 200


class Round:
    """Goes round and round through what `everybody` returns."""

    def __init__(self, everybody: Callable[[], Awaitable[Iterable[bytes]]]) -> None:
        self._everybody = everybody
        self._left: list[bytes] = []

    async def take(self, most: int) -> list[bytes]:
        if not self._left:
            self._left = list(await self._everybody())[::-1]
        return [self._left.pop() for _ in range(min(most, len(self._left)))]


class Turns:
    """Obtained anew each time the mirror's file is opened. `file`: its store; `ledger`: the node's own."""

    def __init__(
        self,
        file: Store,
        ledger: Store,
        scores: Receipts,
        now_ms: Clock,
        own: PeerKey,
        peers: Callable[[], int],
    ) -> None:
        self._file, self._ledger, self._scores = file, ledger, scores
        self._now_ms, self._own, self._peers = now_ms, own, peers
        self._pages = Round(lambda: mirror.first_pages(file, FIRST_PAGES))
        self._rated = Round(lambda: receipts.rated(ledger, MOST_SCORED))
        self._after = b""

    async def run(self) -> None:
        """Until cancelled. DiskFull, LedgerBroken."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_each, SHORT_SECONDS, 0, self.forget)
            nursery.start_soon(_each, SHORT_SECONDS, 0, self.settle)
            nursery.start_soon(_each, SHORT_SECONDS, 0, self.score)
            nursery.start_soon(_each, PRICES_SECONDS, 0, self.price)
            # After a start it takes a while until the offers are all there again.
            nursery.start_soon(_each, STATS_SECONDS, STATS_SECONDS, self.count)
            nursery.start_soon(_each, LIFE_SECONDS, STATS_SECONDS, self.live)

    async def forget(self) -> None:
        while await mirror.forget_ended(self._file, self._now_ms()):
            pass

    async def live(self) -> None:
        now = self._now_ms()
        await mirror_history.note_life(self._file, now)
        await mirror_history.forget_days(self._file, now)

    async def count(self) -> None:
        await mirror_history.note_stats(self._file, self._now_ms(), self._peers())

    async def price(self) -> None:
        for span_ms in (HOUR_MS, DAY_MS):
            after = (await mirror_history.newest_candle(self._file, span_ms) - 1, "", b"")
            while rows := await prices.page(self._ledger, span_ms, after, mirror.ROWS_AT_ONCE):
                await mirror_history.put_candles(self._file, rows)
                after = (rows[-1].start_ms, rows[-1].kind, rows[-1].subject)
            await self._forget_prices("gpu", span_ms)
            await self._forget_prices("provider", span_ms)

    async def _forget_prices(self, kind: prices.Kind, span_ms: int) -> None:
        """What the ledger has folded into days, or has no place for."""
        oldest = await prices.oldest(self._ledger, kind, span_ms)
        before = sys.maxsize if oldest is None else oldest
        await mirror_history.forget_candles(self._file, kind, span_ms, before)

    async def settle(self) -> None:
        """Leases that are heard of now, and then some of those of which more may have become known."""
        while await self._arrivals() == LEASES_AT_ONCE:
            pass
        waiting = await mirror_history.unsettled(self._file, self._after, LEASES_AT_ONCE)
        self._after = waiting[-1] if waiting else b""
        if waiting:
            found = await receipts.of_leases(self._ledger, waiting)
            refuted = [row.lease_id for row, _ in found if row.proof == Proof.REFUTED]
            rows = [settled_row(told) for told in found if told[0].proof != Proof.REFUTED]
            await mirror_history.put_settled(self._file, rows, refuted)

    async def _arrivals(self) -> int:
        at_ms, _, lease_id = (await mirror.told(self._file, "arrived")).partition(":")
        after = (int(at_ms or 0), bytes.fromhex(lease_id))
        found = await receipts.arrived(self._ledger, after, LEASES_AT_ONCE)
        if found:
            await mirror_history.put_settled(self._file, [settled_row(told) for told in found], ())
            last = found[-1][0]
            await mirror.tell(self._file, {"arrived": f"{last.at_ms}:{last.lease_id.hex()}"})
        return len(found)

    async def score(self) -> None:
        chosen = [*await self._pages.take(SCORED_AT_ONCE), *await self._rated.take(SCORED_AT_ONCE)]
        providers = [PeerKey(one) for one in dict.fromkeys(chosen)]
        if not providers:
            return
        try:
            found = await self._scores.scores(providers)
        except QubixError as error:
            log.debug("no scores for the mirror: %s", error)
            return
        rows = []
        for provider, score in found.items():
            leases = await receipts.of_provider(self._ledger, provider, LEASES, self._own)
            counters = self._scores.counted(provider)
            rows.append(score_row(provider, score, leases, counters, self._now_ms()))
        await mirror_history.put_scores(self._file, rows)


async def _each(seconds: float, after: float, work: Callable[[], Awaitable[None]]) -> None:
    await trio.sleep(after)
    while True:
        await work()
        await trio.sleep(seconds)
