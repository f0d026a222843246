"""A mirror in PostgreSQL, as web/publish.py keeps one: read-only, through a few connections."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from protocol.errors import MirrorUnavailable
from web.database import CONNECTIONS, ENDING, STATEMENT_S, VERSION_SQL, Cell, Row, check_rows
from web.settings import shown_url

SCHEMA: Final = "qubix_mirror"
"""Of the tables in PostgreSQL, where other programs may have others."""
CONNECT_S: Final = 5.0


class Postgres:
    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Row]] | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def fetch(self, sql: str, params: Sequence[Cell] = ()) -> list[Row]:
        try:
            pool = self._pool or await self._open()
            async with pool.connection() as db:
                cursor = await db.execute(sql.replace("?", "%s").encode(), params)
                return await cursor.fetchall()
        except (psycopg.errors.SyntaxError, psycopg.errors.UndefinedColumn):
            raise  # a mistake of ours
        except (psycopg.Error, PoolTimeout) as error:
            reason = reason_of(error)
            raise MirrorUnavailable(
                f"the mirror at {shown_url(self._url)} does not answer ({reason});"
                " is the server there, and does a web process publish to it?"
            ) from error

    async def close(self) -> None:
        self._closed = True
        async with self._opening:
            if self._pool is not None:
                await self._pool.close()

    async def _open(self) -> AsyncConnectionPool[psycopg.AsyncConnection[Row]]:
        """Tried with one connection first: of what fails in a pool one hears only that it took too long."""
        async with self._opening:
            if self._closed:
                raise MirrorUnavailable(ENDING)
            if self._pool is None:
                async with await psycopg.AsyncConnection.connect(self._url, **_HOW) as db:
                    check_rows(await (await db.execute(VERSION_SQL)).fetchall())
                pool = AsyncConnectionPool[psycopg.AsyncConnection[Row]](
                    self._url, kwargs=_HOW, min_size=1, max_size=CONNECTIONS, timeout=CONNECT_S, open=False
                )
                await pool.open()
                self._pool = pool
            return self._pool


def reason_of(error: Exception) -> str:
    """One line. What is wrong with an address is not said in the driver's words, which quote its password."""
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        return "its address cannot be read"
    return (str(error).splitlines() or [type(error).__name__])[0]


_HOW: Final[dict[str, Any]] = {
    "autocommit": True,
    "connect_timeout": round(CONNECT_S),
    # To compile a question takes longer than to answer it.
    "options": f"-c search_path={SCHEMA} -c jit=off -c default_transaction_read_only=on"
    f" -c statement_timeout={round(STATEMENT_S * 1_000)}",
}
