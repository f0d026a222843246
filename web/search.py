"""Finds the offers that match a filter, page by page in any order, and how many they are.

What takes time is reading 100,000 rows of the index, so it is done once: a search that finds no more than
COUNT_UP_TO knows all of them after it, and their order and number with it. One that finds more has stopped
at once, and asks the database for the order; it tells no exact number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol.query import Filter, SortKey
from web import cursors
from web.database import Cell, Mirror
from web.filters import Order, Place, order_of, where_of
from web.views import OfferPage, OfferView, Total

COUNT_UP_TO: Final = 1_000
"""Whether there are more matters to nobody, and counting them costs everybody."""
OFFER_SQL: Final = ", ".join(OfferView.__slots__)


@dataclass(frozen=True)
class _Search:
    """What is looked for: a condition with its values, and the order with its name in cursors."""

    sql: str
    params: tuple[Cell, ...]
    order: Order
    name: str

    @property
    def columns(self) -> str:
        return ", ".join([*(column.name for column in self.order.columns), "peer"])

    def cursor(self, place: Place, peer: bytes) -> str:
        return cursors.encode(self.name, place, peer)


async def search(
    mirror: Mirror, where: Filter, sort: Sequence[SortKey], after: str, limit: int, count: bool, now_ms: int
) -> OfferPage:
    """As Store.offers."""
    name = ",".join(f"{'-' * key.descending}{key.field}" for key in sort)
    asked = _Search(*where_of(where, now_ms), order_of(sort), name)
    behind = cursors.decode(after, name, len(asked.order.columns), 32) if after else None
    if not count:
        return await _sorted(mirror, asked, behind, limit, None)
    first = await mirror.fetch(
        f"SELECT {asked.columns} FROM offers WHERE live = 1 AND {asked.sql} LIMIT ?",
        (*asked.params, COUNT_UP_TO + 1),
    )
    if len(first) > COUNT_UP_TO:
        return await _sorted(mirror, asked, behind, limit, Total(COUNT_UP_TO, exact=False))
    return await _picked(mirror, asked, [(row[:-1], bytes(row[-1])) for row in first], behind, limit)


async def _picked(
    mirror: Mirror,
    asked: _Search,
    found: list[tuple[Place, bytes]],
    behind: tuple[Place, bytes] | None,
    limit: int,
) -> OfferPage:
    """A page of these, which are all: where they stand."""
    found.sort(key=asked.order.key)
    start = bisect_right(found, asked.order.key(behind), key=asked.order.key) if behind else 0
    page = found[start : start + limit]
    marks = ", ".join("?" * len(page)) or "NULL"
    rows = await mirror.fetch(
        f"SELECT {OFFER_SQL} FROM offers WHERE peer IN ({marks})", [peer for _, peer in page]
    )
    views = {view.peer: view for view in (OfferView(*row) for row in rows) if view.live}
    offers = tuple(views[peer] for _, peer in page if peer in views)  # one may have ended just now
    next_ = asked.cursor(*page[-1]) if start + limit < len(found) else ""
    return OfferPage(offers, next_, Total(len(found), exact=True))


async def _sorted(
    mirror: Mirror, asked: _Search, behind: tuple[Place, bytes] | None, limit: int, total: Total | None
) -> OfferPage:
    """A page in the order of the database. The inner question is answered by the index alone; only what is
    shown is read from the table."""
    further, params = asked.order.after(*behind) if behind else ("1 = 1", ())
    rows = await mirror.fetch(
        f"SELECT {OFFER_SQL} FROM offers WHERE peer IN"
        f" (SELECT peer FROM offers WHERE live = 1 AND {asked.sql} AND {further}"
        f" ORDER BY {asked.order.sql} LIMIT ?) ORDER BY {asked.order.sql}",
        (*asked.params, *params, limit + 1),
    )
    offers = tuple(OfferView(*row) for row in rows[:limit])
    if len(rows) <= limit:
        return OfferPage(offers, "", total)
    place = tuple(getattr(offers[-1], column.name) for column in asked.order.columns)
    return OfferPage(offers, asked.cursor(place, offers[-1].peer), total)
