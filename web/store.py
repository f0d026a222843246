"""The questions that pages and the API ask of the mirror."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from protocol.catalogue import CPU_CLASS, UseCase
from protocol.query import Filter, SortKey, gpu_key
from web import cursors
from web.database import Cell, Mirror, Row, check_version
from web.filters import where_of
from web.recommend import Recommendation, recommend
from web.remember import Remembered
from web.search import OFFER_SQL, search
from web.views import (
    Candle,
    ChangePage,
    Kind,
    Live,
    ModelView,
    OfferPage,
    OfferView,
    ProviderView,
    RegionView,
    ScoreView,
    SettlementPage,
    SettlementView,
    Status,
    StatView,
)

MAX_PAGE: Final = 500
MAX_GROUPS: Final = 500
"""GPU classes or regions: providers may call theirs what they like."""
OVERVIEW_S: Final = 5.0
"""So old may be what is counted over all offers: it takes as long as several searches."""
PLACES_S: Final = 60.0
"""So old may be how a region is written."""
DAYS_SHOWN: Final = 60
MAX_CANDLES: Final = 2_000
MAX_HOURS: Final = 24 * 366

_CANDLE_SQL: Final = ", ".join(Candle.__slots__)
_STAT_SQL: Final = ", ".join(StatView.__slots__)
_SCORE_SQL: Final = ", ".join(ScoreView.__slots__)
_SETTLEMENT_SQL: Final = (
    "lease_id, provider, gpu, paid_qu, seconds, outcome, proof, open_tick, close_tick, transaction_digest,"
    " ended_ms"
)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Store:
    """Asks one mirror. Each call may raise MirrorUnavailable."""

    def __init__(self, mirror: Mirror, clock: Callable[[], int] = now_ms) -> None:
        self._mirror = mirror
        self._clock = clock
        self._models = Remembered[tuple[ModelView, ...]](OVERVIEW_S)
        self._regions = Remembered[tuple[RegionView, ...]](OVERVIEW_S)
        self._places = Remembered[str](PLACES_S)
        self._live = Remembered[Live](OVERVIEW_S)
        self._newest = Remembered[tuple[OfferView, ...]](OVERVIEW_S)

    # --- the mirror ---------------------------------------------------------------------------

    async def status(self) -> Status:
        meta: dict[str, str] = dict(await self._mirror.fetch("SELECT key, value FROM meta"))
        check_version(meta.get("schema", "none"))  # it may have been renewed in its place

        def number(key: str) -> int:
            return int(meta.get(key) or 0)

        return Status(
            network=str(meta.get("network", "")),
            contract_index=number("contract_index"),
            node=str(meta.get("node", "")),
            book=str(meta.get("book", "")),
            change=number("change"),
            updated_ms=number("updated_ms"),
            peers=number("peers"),
            directories=number("directories"),
            tick=number("tick"),
            forgotten=number("forgotten"),
        )

    # --- offers -------------------------------------------------------------------------------

    async def offers(
        self,
        where: Filter = Filter(),  # noqa: B008 - immutable
        sort: Sequence[SortKey] = (),
        after: str = "",
        limit: int = 50,
        count: bool = False,
    ) -> OfferPage:
        """Live offers that match, in order, from behind the cursor `after`. QueryInvalid for a bad cursor.

        `count` asks for the total as well, which is exact up to search.COUNT_UP_TO. Whoever goes on from
        cursor to cursor sees every offer once that stays as it is meanwhile.
        """
        return await search(self._mirror, where, sort, after, limit, count, self._clock())

    async def recommend(self, use: UseCase, where: Filter, limit: int, disk_mib: int) -> Recommendation:
        """The best `limit` of the live offers that match and have room for a use, with their reasons; prices
        are for a machine with so much disk."""
        return await recommend(self._mirror, use, where, limit, disk_mib, self._clock())

    async def offer(self, peer: bytes) -> OfferView | None:
        """Live or ended within the last hour."""
        rows = await self._mirror.fetch(f"SELECT {OFFER_SQL} FROM offers WHERE peer = ?", (peer,))
        return OfferView(*rows[0]) if rows else None

    async def newest(self, limit: int) -> tuple[OfferView, ...]:
        """The live offers that were seen for the first time last; up to OVERVIEW_S old."""
        return await self._newest.get(str(limit), lambda: self._ask_newest(limit))

    async def _ask_newest(self, limit: int) -> tuple[OfferView, ...]:
        order = "ORDER BY first_seen_ms DESC, peer"
        rows = await self._mirror.fetch(
            f"SELECT {OFFER_SQL} FROM offers WHERE peer IN"
            f" (SELECT peer FROM offers WHERE live = 1 {order} LIMIT ?) {order}",
            (limit,),
        )
        return tuple(OfferView(*row) for row in rows)

    async def changes(self, after: int, limit: int = 100) -> ChangePage:
        """What changed after the change `after` of the mirror's book."""
        rows = await self._mirror.fetch(
            f"SELECT {OFFER_SQL} FROM offers WHERE change > ? ORDER BY change LIMIT ?", (after, limit + 1)
        )
        offers = tuple(OfferView(*row) for row in rows[:limit])
        return ChangePage(offers, offers[-1].change if offers else after, len(rows) <= limit)

    # --- providers ----------------------------------------------------------------------------

    async def provider(self, peer: bytes) -> ProviderView | None:
        offer = await self.offer(peer)
        if offer is None:
            return None
        scores = await self._mirror.fetch(
            f"SELECT {_SCORE_SQL} FROM scores WHERE peer = ?",
            (peer,),
        )
        return ProviderView(offer, _score(scores[0]) if scores else None, await self.days(peer))

    async def days(self, peer: bytes) -> tuple[tuple[int, int], ...]:
        """As ProviderView.days; kept for longer than the offer."""
        days = await self._mirror.fetch(
            "SELECT day, hours FROM days WHERE peer = ? ORDER BY day DESC LIMIT ?", (peer, DAYS_SHOWN)
        )
        return tuple((day, hours) for day, hours in reversed(days))

    # --- prices, models, regions --------------------------------------------------------------

    async def candles(
        self, kind: Kind, subject: bytes, span_ms: int, since_ms: int, limit: int = MAX_CANDLES
    ) -> tuple[Candle, ...]:
        """The newest `limit` from `since_ms` on, oldest first. `subject`: a GPU class as filters compare it,
        in UTF-8, or a provider's key."""
        rows = await self._mirror.fetch(
            f"SELECT {_CANDLE_SQL} FROM candles WHERE kind = ? AND subject = ? AND span_ms = ?"
            " AND start_ms >= ? ORDER BY start_ms DESC LIMIT ?",
            (kind, subject, span_ms, since_ms, limit),
        )
        return tuple(Candle(*row) for row in reversed(rows))

    async def models(self, where: Filter = Filter()) -> tuple[ModelView, ...]:  # noqa: B008 - immutable
        """GPU classes on offer, MAX_GROUPS with the most offers first; up to OVERVIEW_S old."""
        return await self._models.get(str(where), lambda: self._ask_models(where))

    async def _ask_models(self, where: Filter) -> tuple[ModelView, ...]:
        condition, params = where_of(where, self._clock())
        rows = await self._mirror.fetch(
            "SELECT gpu, min(gpu_label), count(*), sum(gpus), sum(most_gpus), min(price), max(vram)"
            f" FROM offers WHERE live = 1 AND {condition} GROUP BY gpu ORDER BY count(*) DESC, gpu LIMIT ?",
            (*params, MAX_GROUPS),
        )
        return tuple(ModelView(gpu, label, *map(int, numbers)) for gpu, label, *numbers in rows)

    async def regions(self, where: Filter = Filter()) -> tuple[RegionView, ...]:  # noqa: B008 - immutable
        """Where offers are that match, MAX_GROUPS with the most first; up to OVERVIEW_S old."""
        return await self._regions.get(str(where), lambda: self._ask_regions(where))

    async def _ask_regions(self, where: Filter) -> tuple[RegionView, ...]:
        condition, params = where_of(where, self._clock())
        rows = await self._mirror.fetch(
            "SELECT region, count(*), sum(gpus), min(price) FROM offers"
            f" WHERE live = 1 AND {condition} GROUP BY region ORDER BY count(*) DESC, region LIMIT ?",
            (*params, MAX_GROUPS),
        )
        return tuple(RegionView(region, *map(int, numbers)) for region, *numbers in rows)

    async def places(self, regions: Sequence[str]) -> dict[str, str]:
        """Regions as filters compare them -> as one of their providers writes them."""
        labels = await asyncio.gather(*(self._place(region) for region in regions if region))
        return {region: label for region, label in zip(filter(None, regions), labels, strict=True) if label}

    async def _place(self, region: str) -> str:
        return await self._places.get(region, lambda: self._ask_place(region))

    async def _ask_place(self, region: str) -> str:
        rows = await self._mirror.fetch(
            "SELECT region_label FROM offers WHERE live = 1 AND region = ? LIMIT 1", (region,)
        )
        return str(rows[0][0]) if rows else ""

    # --- the network --------------------------------------------------------------------------

    async def live(self) -> Live:
        """Up to OVERVIEW_S old."""
        return await self._live.get("", self._ask_live)

    async def _ask_live(self) -> Live:
        rows = await self._mirror.fetch(
            "SELECT count(*), coalesce(sum(most_gpus), 0), coalesce(sum(gpus), 0),"
            " count(DISTINCT CASE WHEN gpu NOT IN ('', ?) THEN gpu END), coalesce(min(price), 0)"
            " FROM offers WHERE live = 1",
            (gpu_key(CPU_CLASS),),
        )
        return Live(*map(int, rows[0]))

    async def stats(self, since_hour: int, limit: int = MAX_HOURS) -> tuple[StatView, ...]:
        """The newest `limit` hours from `since_hour` on, oldest first."""
        rows = await self._mirror.fetch(
            f"SELECT {_STAT_SQL} FROM stats WHERE hour >= ? ORDER BY hour DESC LIMIT ?", (since_hour, limit)
        )
        return tuple(StatView(*row) for row in reversed(rows))

    async def settlements(
        self, after: str = "", limit: int = 50, provider: bytes | None = None
    ) -> SettlementPage:
        """The newest first, of everybody or of one provider. QueryInvalid for a bad cursor."""
        parts, params = ["1 = 1"], list[Cell]()
        if provider is not None:
            parts, params = ["provider = ?"], [provider]
        if after:
            (ended,), lease_id = cursors.decode(after, "settlements", 1, 32)
            parts.append("ended_ms <= ? AND (ended_ms < ? OR lease_id < ?)")
            params += [ended, ended, lease_id]
        rows = await self._mirror.fetch(
            f"SELECT {_SETTLEMENT_SQL} FROM settlements WHERE {' AND '.join(parts)}"
            " ORDER BY ended_ms DESC, lease_id DESC LIMIT ?",
            (*params, limit + 1),
        )
        found = tuple(SettlementView(*row) for row in rows[:limit])
        last = len(rows) <= limit
        return SettlementPage(
            found, "" if last else cursors.encode("settlements", [found[-1].ended_ms], found[-1].lease_id)
        )


def _score(row: Row) -> ScoreView:
    view = ScoreView(*row)
    return replace(view, newcomer=bool(view.newcomer), reasons=tuple(json.loads(row[6])))
