"""Searches at their edges: what is not known, and what ends while it is searched for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from protocol.query import Filter, parse_filter, parse_sort
from tests.support.web_mirror import filled
from web.database import Cell, Mirror, Row, open_mirror
from web.filters import order_of
from web.search import search

NOW = 1_800_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "mirror.db", 20, now_ms=NOW)


@pytest.mark.parametrize(
    ("sort", "sorted_"), [("score", (0, 7, None)), ("-score", (7, 0, None)), ("-reliability", (7, 0, None))]
)
def test_what_is_not_known_comes_last_whichever_way(sort: str, sorted_: tuple[int | None, ...]) -> None:
    order = order_of(parse_sort(sort))
    stands = [((number,), b"peer") for number in (None, 7, 0)]
    assert tuple(place[0] for place, _ in sorted(stands, key=order.key)) == sorted_


@pytest.mark.parametrize("where", ["score!=0.5", "score!=0.0000005"])  # the second is no score at all
def test_what_is_not_known_differs_from_nothing(path: Path, where: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        known = db.execute("SELECT count(*) FROM offers WHERE live = 1 AND score IS NOT NULL").fetchone()[0]

    async def play() -> None:
        async with open_mirror(str(path)) as mirror:
            page = await search(mirror, parse_filter(where), (), "", 50, True, NOW)
            assert 0 < len(page.offers) == known

    asyncio.run(play())


class Restless:
    """A mirror in which something happens after the first answer."""

    def __init__(self, mirror: Mirror, path: Path, happens: Sequence[str]) -> None:
        self._mirror, self._path, self._happens = mirror, path, happens

    async def fetch(self, sql: str, params: Sequence[Cell] = ()) -> list[Row]:
        rows = await self._mirror.fetch(sql, params)
        with closing(sqlite3.connect(self._path)) as db, db:
            for statement in self._happens:
                db.execute(statement)
        self._happens = ()
        return rows


def test_what_ends_while_it_is_searched_for_is_left_out(path: Path) -> None:
    ends = ("UPDATE offers SET live = 0 WHERE change = 3", "DELETE FROM offers WHERE change = 5")

    async def play() -> None:
        async with open_mirror(str(path)) as mirror:
            page = await search(Restless(mirror, path, ends), Filter(), (), "", 50, True, NOW)
        assert {offer.change for offer in page.offers} == {*range(1, 21)} - {3, 5}

    asyncio.run(play())
