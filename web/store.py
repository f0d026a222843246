"""The questions that pages and the API ask of the mirror."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from protocol.query import Filter, SortKey
from web import cursors
from web.database import Cell, Mirror, Row
from web.filters import order_of, where_of
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
    Total,
)

MAX_PAGE: Final = 500
COUNT_UP_TO: Final = 10_000
"""Whether there are more matters to nobody, and counting them costs everybody."""
DAYS_SHOWN: Final = 60
MAX_CANDLES: Final = 2_000
MAX_HOURS: Final = 24 * 366

OFFER_SQL: Final = ", ".join(OfferView.__slots__)
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
    """Asks one mirror. Keeps nothing but the clock. Each call may raise MirrorUnavailable."""

    def __init__(self, mirror: Mirror, clock: Callable[[], int] = now_ms) -> None:
        self._mirror = mirror
        self._clock = clock

    # --- the mirror ---------------------------------------------------------------------------

    async def status(self) -> Status:
        meta: dict[str, str] = dict(await self._mirror.fetch("SELECT key, value FROM meta"))

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
        )

    async def change(self) -> tuple[str, int]:
        """(book, its newest change)."""
        rows = await self._mirror.fetch("SELECT key, value FROM meta WHERE key IN ('book', 'change')")
        meta: dict[str, str] = dict(rows)
        return str(meta.get("book", "")), int(meta.get("change") or 0)

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

        Whoever goes on from cursor to cursor sees every offer once that stays as it is meanwhile.
        """
        order, named = order_of(sort), _named(sort)
        condition, params = where_of(where, self._clock())
        wanted, asked = condition, params
        if after:
            place, peer = cursors.decode(after, named, len(order.columns), 32)
            behind, of_it = order.after(place, peer)
            wanted, asked = f"{condition} AND {behind}", params + of_it
        # The inner question is answered by the index alone; only what is shown is read from the table.
        rows = await self._mirror.fetch(
            f"SELECT {OFFER_SQL} FROM offers WHERE peer IN"
            f" (SELECT peer FROM offers WHERE live = 1 AND {wanted} ORDER BY {order.sql} LIMIT ?)"
            f" ORDER BY {order.sql}",
            (*asked, limit + 1),
        )
        found = tuple(OfferView(*row) for row in rows[:limit])
        last = len(rows) <= limit
        next_ = "" if last else _cursor(named, found[-1], [column.name for column in order.columns])
        if not count:
            return OfferPage(found, next_, None)
        known = Total(len(found), True) if last and not after else await self._count(condition, params)
        return OfferPage(found, next_, known)

    async def _count(self, condition: str, params: Sequence[Cell]) -> Total:
        rows = await self._mirror.fetch(
            f"SELECT count(*) FROM (SELECT 1 FROM offers WHERE live = 1 AND {condition} LIMIT ?) AS found",
            (*params, COUNT_UP_TO + 1),
        )
        number = int(rows[0][0])
        return Total(min(number, COUNT_UP_TO), number <= COUNT_UP_TO)

    async def offer(self, peer: bytes) -> OfferView | None:
        """Live or ended within the last hour."""
        rows = await self._mirror.fetch(f"SELECT {OFFER_SQL} FROM offers WHERE peer = ?", (peer,))
        return OfferView(*rows[0]) if rows else None

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
        days = await self._mirror.fetch(
            "SELECT day, hours FROM days WHERE peer = ? ORDER BY day DESC LIMIT ?", (peer, DAYS_SHOWN)
        )
        return ProviderView(
            offer, _score(scores[0]) if scores else None, tuple((day, hours) for day, hours in reversed(days))
        )

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
        """GPU classes on offer, those with most offers first."""
        condition, params = where_of(where, self._clock())
        rows = await self._mirror.fetch(
            "SELECT gpu, min(gpu_label), count(*), sum(gpus), sum(most_gpus), min(price), max(vram)"
            f" FROM offers WHERE live = 1 AND {condition} GROUP BY gpu ORDER BY count(*) DESC, gpu",
            params,
        )
        return tuple(ModelView(gpu, label, *map(int, numbers)) for gpu, label, *numbers in rows)

    async def regions(self, where: Filter = Filter()) -> tuple[RegionView, ...]:  # noqa: B008 - immutable
        """Where offers are that match, the most offers first."""
        condition, params = where_of(where, self._clock())
        rows = await self._mirror.fetch(
            "SELECT region, count(*), sum(gpus), min(price) FROM offers"
            f" WHERE live = 1 AND {condition} GROUP BY region ORDER BY count(*) DESC, region",
            params,
        )
        return tuple(RegionView(region, *map(int, numbers)) for region, *numbers in rows)

    # --- the network --------------------------------------------------------------------------

    async def live(self) -> Live:
        rows = await self._mirror.fetch(
            "SELECT count(*), coalesce(sum(most_gpus), 0), coalesce(sum(gpus), 0), count(DISTINCT gpu),"
            " coalesce(min(price), 0) FROM offers WHERE live = 1"
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


def _named(sort: Sequence[SortKey]) -> str:
    return ",".join(f"{'-' * key.descending}{key.field}" for key in sort)


def _cursor(named: str, last: OfferView, columns: Sequence[str]) -> str:
    return cursors.encode(named, [getattr(last, column) for column in columns], last.peer)


def _score(row: Row) -> ScoreView:
    view = ScoreView(*row)
    return replace(view, newcomer=bool(view.newcomer), reasons=tuple(json.loads(row[6])))
