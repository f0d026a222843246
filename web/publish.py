"""Copies a mirror into PostgreSQL and keeps the copy fresh, so that web processes elsewhere can read it.

Every row of a mirror has the number of the change that wrote it, and the copy remembers how far it got with
each table, in the transaction that got it there: whatever ends this process, the next one goes on from there.
Rows that are gone from the mirror leave no number behind; they are found by comparing keys, where the numbers
of rows differ. The copy has a schema of its own, nothing else in the database is touched.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import psycopg

from ledger.mirror_schema import (
    CANDLE_COLUMNS,
    DAY_COLUMNS,
    OFFER_COLUMNS,
    SCORE_COLUMNS,
    SETTLEMENT_COLUMNS,
    STAT_COLUMNS,
    VERSION,
    for_postgresql,
)
from protocol.errors import AlreadyRunning, ConfigInvalid, MirrorUnavailable
from web.database import Mirror, Row, open_mirror
from web.postgres import SCHEMA, reason_of
from web.settings import Settings, shown_url

log = logging.getLogger("qubix.web.publish")

Target = psycopg.AsyncConnection[Row]

LOCK: Final = 0x7175626D
"""Of the session that publishes to a database; "qubm"."""
EVERY_S: Final = 1.0
COMPARE_S: Final = 60.0
"""How often numbers of rows are compared."""
PATIENCE_S: Final = 5.0
"""With another publisher that may be ending."""
AT_ONCE: Final = 5_000
"""Rows in one transaction, and keys in one comparison."""
LONGEST_WAIT_S: Final = 30.0
"""Before trying again what did not answer."""


@dataclass(frozen=True)
class Table:
    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]


TABLES: Final = (
    Table("offers", ("peer",), OFFER_COLUMNS),
    Table("candles", ("kind", "subject", "span_ms", "start_ms"), CANDLE_COLUMNS),
    Table("days", ("peer", "day"), DAY_COLUMNS),
    Table("scores", ("peer",), SCORE_COLUMNS),
    Table("settlements", ("lease_id",), SETTLEMENT_COLUMNS),
    Table("stats", ("hour",), STAT_COLUMNS),
)


def run_publisher(settings: Settings) -> None:
    """Until the process is ended. AlreadyRunning if another publishes there, ConfigInvalid if nobody can."""
    asyncio.run(_forever(settings.mirror, settings.publish))


async def _forever(source: str, target: str) -> None:
    wait, first = EVERY_S, True
    while True:
        try:
            async with open_publisher(source, target) as publisher:
                log.info("publishing to %s", shown_url(target))
                first = False
                while True:
                    await publisher.round()
                    wait = EVERY_S
                    await asyncio.sleep(EVERY_S)
        except (MirrorUnavailable, psycopg.Error, AlreadyRunning) as error:
            # After a connection broke, the server may think for minutes that we still publish.
            if first and isinstance(error, AlreadyRunning):
                raise
            if first and isinstance(error, psycopg.ProgrammingError):
                raise ConfigInvalid(
                    f"no mirror can be put into {shown_url(target)}: {reason_of(error)}"
                ) from error
            log.warning("%s; trying again in %.0f s", reason_of(error), wait)
        await asyncio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_S)


@asynccontextmanager
async def open_publisher(source: str, target: str) -> AsyncIterator[Publisher]:
    """The only one there is for this database. AlreadyRunning, MirrorUnavailable."""
    async with open_mirror(source) as mirror, await psycopg.AsyncConnection.connect(target) as db:
        await db.set_autocommit(True)
        await _take_lock(db, target)
        publisher = Publisher(mirror, db)
        await publisher.prepare()
        yield publisher


async def _take_lock(db: Target, target: str) -> None:
    """A server notices only after a moment that a process is gone: one that has ended may still hold it."""
    await db.execute(f"SET lock_timeout = {round(PATIENCE_S * 1_000)}".encode())
    try:
        await db.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
    except psycopg.errors.LockNotAvailable as error:
        raise AlreadyRunning(
            f"another process publishes to {shown_url(target)} already; one is enough"
        ) from error
    await db.execute("SET lock_timeout = 0")
    await db.execute("SET statement_timeout = 0")  # a server may have one for everybody


class Publisher:
    """Obtained from `open_publisher`. `db` is in autocommit; each step is a transaction."""

    def __init__(self, mirror: Mirror, db: Target) -> None:
        self._mirror = mirror
        self._db = db
        self._compared_at: float | None = None

    async def prepare(self) -> None:
        """Make the copy's tables, if there are none or they are of another mirror or version."""
        await self._db.execute(f"SET search_path = {SCHEMA}")
        theirs: dict[str, str] = dict(await self._mirror.fetch("SELECT key, value FROM meta"))
        ours = await self._meta()
        if (ours.get("schema"), ours.get("book")) != (str(VERSION), theirs.get("book")):
            await self._make(theirs.get("book", ""))
        for table in TABLES:
            await self._db.execute(
                f"CREATE TEMPORARY TABLE incoming_{table.name} (LIKE {table.name}) ON COMMIT DELETE ROWS"
            )

    async def round(self) -> None:
        """Bring the copy up to what the mirror is at this moment."""
        meta: dict[str, str] = dict(await self._mirror.fetch("SELECT key, value FROM meta"))
        reached, newest = await self._reached(), int(meta.get("change", 0))
        if (await self._meta()).get("book") != meta.get("book"):
            raise MirrorUnavailable("the mirror was made anew; the copy begins anew as well")
        for table in TABLES:
            await self._copy(table, reached.get(table.name, 0), newest)
        await self._compare_sometimes(min(reached.values(), default=0) < int(meta.get("forgotten", 0)))
        await self._write_meta(meta)  # last: who sees a change number finds what it stands for

    # --- the copy's own state -------------------------------------------------------------------

    async def _make(self, book: str) -> None:
        log.info("making the tables")
        async with self._db.transaction():
            await self._db.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
            await self._db.execute(f"CREATE SCHEMA {SCHEMA}")
            for statement in for_postgresql():
                await self._db.execute(statement.encode())
            await self._db.execute("CREATE TABLE published (name text PRIMARY KEY, change bigint NOT NULL)")
            await self._write_meta({"schema": str(VERSION), "book": book})

    async def _meta(self) -> dict[str, str]:
        there = await self._rows("SELECT to_regclass(%s)", (f"{SCHEMA}.meta",))
        return dict(await self._rows("SELECT key, value FROM meta")) if there[0][0] else {}

    async def _write_meta(self, meta: dict[str, str]) -> None:
        async with self._db.transaction(), self._db.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"
                " WHERE meta.value <> EXCLUDED.value",
                list(meta.items()),
            )

    async def _reached(self) -> dict[str, int]:
        return dict(await self._rows("SELECT name, change FROM published"))

    async def _rows(self, statement: str, params: Sequence[object] = ()) -> list[Row]:
        return await (await self._db.execute(statement.encode(), params)).fetchall()

    # --- rows that changed ------------------------------------------------------------------------

    async def _copy(self, table: Table, reached: int, newest: int) -> None:
        while reached < newest:
            upto = await self._end_of_batch(table, reached, newest)
            rows = await self._mirror.fetch(
                f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE change > ? AND change <= ?",
                (reached, upto),
            )
            await self._put(table, rows, upto)
            reached = upto

    async def _end_of_batch(self, table: Table, reached: int, newest: int) -> int:
        """Rows that were written together stay together."""
        rows = await self._mirror.fetch(
            f"SELECT change FROM {table.name} WHERE change > ? ORDER BY change LIMIT 1 OFFSET {AT_ONCE - 1}",
            (reached,),
        )
        return min(int(rows[0][0]), newest) if rows else newest

    async def _put(self, table: Table, rows: Sequence[Row], upto: int) -> None:
        columns = ", ".join(table.columns)
        renewed = ", ".join(f"{name} = EXCLUDED.{name}" for name in table.columns if name not in table.key)
        async with self._db.transaction(), self._db.cursor() as cursor:
            if rows:
                async with cursor.copy(f"COPY incoming_{table.name} ({columns}) FROM STDIN".encode()) as copy:
                    for row in rows:
                        await copy.write_row(row)
                await cursor.execute(
                    f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM incoming_{table.name}"
                    f" ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {renewed}".encode()
                )
            await cursor.execute(
                "INSERT INTO published VALUES (%s, %s)"
                " ON CONFLICT (name) DO UPDATE SET change = EXCLUDED.change",
                (table.name, upto),
            )

    # --- rows that are gone -----------------------------------------------------------------------

    async def _compare_sometimes(self, now: bool) -> None:
        first = self._compared_at is None
        if now or self._compared_at is None or time.monotonic() - self._compared_at >= COMPARE_S:
            for table in TABLES:
                await self._compare(table)
            if first:
                names = ", ".join(table.name for table in TABLES)
                await self._db.execute(f"VACUUM (ANALYZE) {names}".encode())
            self._compared_at = time.monotonic()

    async def _compare(self, table: Table) -> None:
        count = f"SELECT count(*) FROM {table.name}"
        if (await self._rows(count))[0][0] == (await self._mirror.fetch(count))[0][0]:
            return
        log.info("looking for rows of %s that are gone", table.name)
        behind: Row | None = None
        while ours := await self._rows(*_keys_sql(table, behind)):
            theirs = await self._mirror.fetch(*_range_sql(table, behind, ours[-1]))
            await self._drop(table, set(ours) - set(theirs))
            behind = ours[-1]

    async def _drop(self, table: Table, keys: Collection[Row]) -> None:
        equal = " AND ".join(f"{name} = %s" for name in table.key)
        async with self._db.transaction(), self._db.cursor() as cursor:
            await cursor.executemany(f"DELETE FROM {table.name} WHERE {equal}".encode(), list(keys))


def _keys_sql(table: Table, behind: Row | None) -> tuple[str, Row]:
    """The next keys of the copy."""
    keys, marks = ", ".join(table.key), ", ".join(["%s"] * len(table.key))
    where = "" if behind is None else f" WHERE ({keys}) > ({marks})"
    return f"SELECT {keys} FROM {table.name}{where} ORDER BY {keys} LIMIT {AT_ONCE}", behind or ()


def _range_sql(table: Table, behind: Row | None, last: Row) -> tuple[str, Row]:
    """The mirror's keys in the same range."""
    keys, marks = ", ".join(table.key), ", ".join("?" * len(table.key))
    after = "" if behind is None else f" AND ({keys}) > ({marks})"
    return f"SELECT {keys} FROM {table.name} WHERE ({keys}) <= ({marks}){after}", (*last, *(behind or ()))
