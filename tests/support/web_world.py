"""A small mirror that a test writes to and a store reads, on SQLite or on PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psycopg

from ledger.mirror_schema import OFFER_COLUMNS, for_postgresql
from protocol.units import UnixMs
from tests.support.web_mirror import Row, filled
from web.database import Mirror, open_mirror
from web.postgres import SCHEMA
from web.store import Store

T = TypeVar("T")


class Writer(Protocol):
    """One of both databases, without transactions."""

    def run(self, statement: str, rows: Sequence[Row] = ((),)) -> None:
        """Once for each row of values."""
        ...


class World:
    def __init__(self, writer: Writer, runner: asyncio.Runner, mirror: Mirror, now: UnixMs) -> None:
        self._writer = writer
        self._runner = runner
        self.store = Store(mirror, lambda: now)

    def begin(self, rows: Sequence[Row]) -> None:
        """These are all offers."""
        self._writer.run("DELETE FROM offers")
        self.put(rows)

    def put(self, rows: Sequence[Row]) -> None:
        """In place of what the same providers offered."""
        self._writer.run("DELETE FROM offers WHERE peer = ?", [row[:1] for row in rows])
        marks = ", ".join("?" * len(OFFER_COLUMNS))
        self._writer.run(f"INSERT INTO offers ({', '.join(OFFER_COLUMNS)}) VALUES ({marks})", rows)

    def end(self, peer: bytes) -> None:
        self._writer.run("UPDATE offers SET live = 0 WHERE peer = ?", [(peer,)])

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(question)


class _Sqlite:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")

    def run(self, statement: str, rows: Sequence[Row] = ((),)) -> None:
        self._db.execute("BEGIN")
        for row in rows:
            self._db.execute(statement, row)
        self._db.execute("COMMIT")


class _Postgres:
    def __init__(self, url: str) -> None:
        self._db = psycopg.connect(url, autocommit=True)
        for statement in (f"CREATE SCHEMA {SCHEMA}", f"SET search_path = {SCHEMA}", *for_postgresql()):
            self._db.execute(statement.encode())

    def run(self, statement: str, rows: Sequence[Row] = ((),)) -> None:
        with self._db.cursor() as cursor:
            cursor.executemany(statement.replace("?", "%s").encode(), rows)


@contextmanager
def sqlite_world(path: Path, now: UnixMs) -> Iterator[World]:
    filled(path, 0, now_ms=now)
    with _world(_Sqlite(path), str(path), now) as world:
        yield world


@contextmanager
def postgres_world(url: str, now: UnixMs) -> Iterator[World]:
    writer = _Postgres(url)
    writer.run("INSERT INTO meta VALUES ('schema', '1')")
    with _world(writer, url, now) as world:
        yield world


@contextmanager
def _world(writer: Writer, url: str, now: UnixMs) -> Iterator[World]:
    with asyncio.Runner() as runner:
        opened = open_mirror(url)
        mirror = runner.run(opened.__aenter__())
        try:
            yield World(writer, runner, mirror, now)
        finally:
            runner.run(opened.__aexit__(None, None, None))
