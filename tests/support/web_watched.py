"""A mirror that looks, at every step of whoever copies it, whether the copy has what it says it has."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import psycopg

from protocol.errors import MirrorUnavailable
from web.database import Cell, Mirror, Row
from web.postgres import SCHEMA


class Watched:
    """The mirror of a publisher that ends at its `left`-th question. At each, what the copy says is there."""

    def __init__(self, mirror: Mirror, path: Path, url: str, left: int) -> None:
        self._mirror, self._path, self._left = mirror, path, left
        self._copy = psycopg.connect(url, autocommit=True, options=f"-c search_path={SCHEMA}")

    async def fetch(self, sql: str, params: Sequence[Cell] = ()) -> list[Row]:
        self.look()
        self._left -= 1
        if not self._left:
            raise MirrorUnavailable("the publisher ends here")
        return await self._mirror.fetch(sql, params)

    def look(self) -> None:
        if self._copy.execute("SELECT to_regclass('meta')").fetchone() == (None,):
            return
        newest = self._copy.execute("SELECT value::bigint FROM meta WHERE key = 'change'").fetchone() or (0,)
        rows = "SELECT peer, change FROM offers WHERE change <="
        with closing(sqlite3.connect(self._path)) as db:
            told = set(db.execute(f"{rows} ?", newest))
        assert told <= set(self._copy.execute(f"{rows} %s".encode(), newest).fetchall())

    def close(self) -> None:
        self._copy.close()
