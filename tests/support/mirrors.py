"""A mirror of a book, and a reader of its file who knows nothing but change numbers.

async with mirroring(path, book, clock) as mirror: ...
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from ledger.mirror_schema import OFFER_COLUMNS
from ledger.store import RunSync, Store, inline, open_store
from protocol.units import UnixMs
from qubixd.book import OfferBook
from qubixd.mirror import Mirror
from tests.support.deals import CONTRACT, NETWORK

WHOSE = {"network": NETWORK, "contract_index": str(CONTRACT), "node": "12D3KooWNode"}


async def nothing(file: Store) -> None:
    await trio.sleep_forever()


def mirror_at(
    path: Path,
    book: OfferBook,
    clock: Callable[[], UnixMs],
    ledger: Store,
    *,
    beside: Callable[[Store], Awaitable[None]] = nothing,
    run_sync: RunSync = inline,
    always: bool = True,
) -> Mirror:
    facts = {"peers": "3", "directories": "2", "tick": "77"}
    return Mirror(
        path,
        book,
        ledger,
        clock,
        WHOSE,
        lambda: facts,
        lambda: None,
        beside,
        run_sync,
        always=always,
    )


@asynccontextmanager
async def mirroring(
    path: Path, book: OfferBook, clock: Callable[[], UnixMs], **more: Any
) -> AsyncIterator[Mirror]:
    """Leaving the block is its sudden end."""
    async with open_store(":memory:", inline) as ledger, trio.open_nursery() as nursery:
        mirror = mirror_at(path, book, clock, ledger, **more)
        await nursery.start(mirror.run)
        yield mirror
        nursery.cancel_scope.cancel()


def reader(path: Path) -> sqlite3.Connection:
    """As the web opens it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def rows(path: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(reader(path)) as db:
        return db.execute(sql, values).fetchall()


def meta(path: Path) -> dict[str, str]:
    return dict((key, value) for key, value in rows(path, "SELECT key, value FROM meta"))


def live(path: Path) -> dict[bytes, bytes]:
    """Provider -> record."""
    return {peer: record for peer, record in rows(path, "SELECT peer, record FROM offers WHERE live = 1")}


@dataclass
class Follower:
    """Copies what changed behind its cursor; never looks at anything else."""

    path: Path
    book: str = ""
    cursor: int = 0
    held: dict[bytes, dict[str, Any]] = field(default_factory=dict)

    def follow(self) -> None:
        with closing(reader(self.path)) as db:
            db.execute("BEGIN")
            told = dict(db.execute("SELECT key, value FROM meta").fetchall())
            if told.get("book", "") != self.book or self.cursor < int(told.get("forgotten", 0)):
                self.book, self.cursor, self.held = told.get("book", ""), 0, {}
            sql = f"SELECT {', '.join(OFFER_COLUMNS)} FROM offers WHERE change > ? ORDER BY change"
            for values in db.execute(sql, (self.cursor,)):
                row = dict(zip(OFFER_COLUMNS, values, strict=True))
                self.cursor = row["change"]
                self.held.pop(row["peer"], None)
                if row["live"]:
                    self.held[row["peer"]] = row

    @property
    def live(self) -> dict[bytes, bytes]:
        self.follow()
        return {peer: row["record"] for peer, row in self.held.items()}
