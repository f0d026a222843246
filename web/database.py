"""A mirror as a place to ask SQL of: SQLite (aiosqlite) or PostgreSQL (psycopg), read-only either way.

SQL is written once, with `?`, in the words that both understand. Nothing is opened before it is asked for,
so that a web process may start before the node that mirrors, and find a mirror again that was replaced.
"""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import aiosqlite

from ledger.mirror_schema import VERSION
from protocol.errors import MirrorUnavailable
from web.settings import is_database

if TYPE_CHECKING:
    from web.postgres import Postgres

Cell = int | float | str | bytes | None
Row = tuple[Any, ...]
"""Of Cells."""

CONNECTIONS: Final = 4
"""Readers of one process. Each of SQLite's has a thread, which works beside the event loop."""
STATEMENT_S: Final = 5.0
"""What takes longer is given up: nothing that we ask does, unless the machine is overwhelmed."""
STEPS: Final = 500_000
"""Of SQLite's machine, some milliseconds of work. To ask more often would let it wait for Python's lock."""
MAPPED_BYTES: Final = 1 << 30
"""Of the file, at most: pages are then read where the system has them, without a copy for each reader."""
VERSION_SQL: Final = "SELECT value FROM meta WHERE key = 'schema'"
ENDING: Final = "the mirror is being closed; ask again later"


class Mirror(Protocol):
    """Obtained from `open_mirror`."""

    async def fetch(self, sql: str, params: Sequence[Cell] = ()) -> list[Row]:
        """All rows, of what is committed at this moment. MirrorUnavailable."""
        ...


@asynccontextmanager
async def open_mirror(url: str) -> AsyncIterator[Mirror]:
    """`url` is a path or postgresql://... Opened at the first question, not here."""
    mirror: _Sqlite | Postgres
    if is_database(url):
        from web.postgres import Postgres  # its driver takes a third of a second, and most need none

        mirror = Postgres(url)
    else:
        mirror = _Sqlite(Path(url))
    try:
        yield mirror
    finally:
        await mirror.close()


def check_rows(rows: Iterable[Row]) -> None:
    """Of VERSION_SQL's answer. MirrorUnavailable."""
    check_version(next((str(row[0]) for row in rows), "none"))


def check_version(found: str) -> None:
    """What `meta.schema` says. MirrorUnavailable if we do not know these tables."""
    if found != str(VERSION):
        raise MirrorUnavailable(
            f"the mirror was written by another version of qubix (its tables are of version {found}, this"
            f" one reads {VERSION}); run the same version of both"
        )


class _Asked:
    """A question, and until when SQLite may work at it."""

    def __init__(self) -> None:
        self.until = math.inf

    def begin(self) -> None:
        self.until = min(self.until, time.monotonic() + STATEMENT_S)

    def give_up(self) -> None:
        self.until = -math.inf


class _Reader:
    """A connection, the inode it was opened at, and what it is at. (`interrupt` would not do to stop it: it
    does nothing to a statement that is about to begin.)"""

    def __init__(self, inode: int, db: aiosqlite.Connection) -> None:
        self.inode = inode
        self.db = db
        self.asked = _Asked()

    def is_late(self) -> bool:
        """Asked by SQLite in the connection's thread, every STEPS of its work."""
        return time.monotonic() > self.asked.until


class _Sqlite:
    """A few readers. A mirror may be replaced by another: then they are opened again.

    Each question is a task of its own that nobody cancels, only hurries: a connection's thread reports to the
    event loop, so that whatever it was told to do has to be waited for, by `close` at the latest.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[_Reader] = []
        self._asked: dict[asyncio.Task[list[Row]], _Asked] = {}
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._closed = False

    async def fetch(self, sql: str, params: Sequence[Cell] = ()) -> list[Row]:
        asked = _Asked()
        task = asyncio.create_task(self._answer(asked, sql, params))
        self._asked[task] = asked
        task.add_done_callback(self._answered)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:  # nobody waits for the answer any more
            asked.give_up()
            raise
        return task.result()

    async def close(self) -> None:
        """Hurries and waits for whatever is under way."""
        self._closed = True
        for asked in self._asked.values():
            asked.give_up()
        if self._asked:
            await asyncio.wait(self._asked)
        while self._idle:
            await self._idle.pop().db.close()

    def _answered(self, task: asyncio.Task[list[Row]]) -> None:
        del self._asked[task]
        if not task.cancelled():
            task.exception()  # who asked may be gone

    async def _answer(self, asked: _Asked, sql: str, params: Sequence[Cell]) -> list[Row]:
        async with self._room:
            if self._closed or asked.until < 0:
                raise MirrorUnavailable(ENDING)
            reader = await self._take()
            asked.begin()
            reader.asked = asked
            try:
                rows = await reader.db.execute_fetchall(sql, params)
            except BaseException as error:
                await reader.db.close()
                _raise_readable(error, asked, self._path)
                raise
            self._idle.append(reader)
            return cast("list[Row]", rows)

    async def _take(self) -> _Reader:
        inode = self._inode()
        while self._idle:
            reader = self._idle.pop()
            if reader.inode == inode:
                return reader
            await reader.db.close()
        return await self._open(inode)

    def _inode(self) -> int:
        try:
            return os.stat(self._path).st_ino
        except OSError as error:
            raise MirrorUnavailable(
                f"there is no mirror at {self._path} ({error.strerror}); start the node with --mirror"
            ) from error

    async def _open(self, inode: int) -> _Reader:
        try:
            db = await _connect(f"{self._path.as_uri()}?mode=ro")
            try:
                reader = _Reader(inode, db)
                await db.set_progress_handler(reader.is_late, STEPS)
                await db.execute_fetchall(f"PRAGMA mmap_size = {MAPPED_BYTES}")
                check_rows(map(tuple, await db.execute_fetchall(VERSION_SQL)))
            except BaseException:
                await db.close()
                raise
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from error
        return reader


async def _connect(uri: str) -> aiosqlite.Connection:
    """aiosqlite waits for the thread of a connection that was made. So one is made in any case."""
    troubles: list[sqlite3.Error] = []

    def connect() -> sqlite3.Connection:
        try:
            return sqlite3.connect(uri, uri=True, isolation_level=None)
        except sqlite3.Error as error:
            troubles.append(error)
            return sqlite3.connect(":memory:")

    db = await aiosqlite.Connection(connect, iter_chunk_size=1)
    if troubles:
        await db.close()
        raise troubles[0]
    return db


def _raise_readable(error: BaseException, asked: _Asked, path: Path) -> None:
    """Mistakes in our own SQL pass through."""
    if not isinstance(error, sqlite3.DatabaseError):
        return
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_INTERRUPT:
        late = f"the mirror took longer than {STATEMENT_S:.0f} s; try again"
        raise MirrorUnavailable(late if asked.until > 0 else ENDING) from error
    if code not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE):
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: sqlite3.Error) -> MirrorUnavailable:
    return MirrorUnavailable(
        f"the mirror at {path} cannot be read ({error}); does the node that writes it run?"
    )
