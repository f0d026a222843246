"""Writes mirror.db (mirror_schema): offers with their change numbers, who lives when, what it says of itself.

Every call is one transaction of bounded size. Change numbers rise, restarts included; whoever reads
`WHERE change > ?` again and again ends with what is live here. Times are Unix milliseconds.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ledger.mirror_schema import APPLICATION_ID, MIGRATIONS, NAMES, NUMBERS, OFFER_COLUMNS, VERSION
from ledger.schema import Schema
from ledger.store import Store

SCHEMA: Final = Schema(APPLICATION_ID, MIGRATIONS, public=True)
ROWS_AT_ONCE: Final = 2_000
"""In one transaction: readers wait for none, but other writers do."""
HOUR_MS: Final = 3_600_000
KEEP_ENDED_MS: Final = HOUR_MS
MAX_ENDED: Final = 50_000
"""Offers that have ended, some 20 MB: a flood of identities that come and go takes no more."""
LEAP: Final = 1_000_000
"""Of the change number at each start: what a power cut took back is never numbered a second time."""
_FIRST: Final = ("first_seen_ms", "most_gpus")
_UPSERT: Final = (
    f"INSERT INTO offers ({', '.join(OFFER_COLUMNS)}) VALUES ({', '.join('?' * len(OFFER_COLUMNS))})"
    " ON CONFLICT (peer) DO UPDATE SET most_gpus = max(most_gpus, excluded.most_gpus), "
    + ", ".join(f"{name} = excluded.{name}" for name in OFFER_COLUMNS[1:] if name not in _FIRST)
)
_MEASURED: Final = tuple(map(NUMBERS.index, ("score", "reliability")))


class Seen(NamedTuple):
    """A live offer, before it is taken apart."""

    peer: bytes
    record: bytes
    seen_ms: int
    score: int | None
    reliability: int | None
    """Both in steps."""


@dataclass(frozen=True, slots=True)
class OfferRow:
    """What stands in an offer's row, as far as its envelope says it."""

    peer_id: str
    expires_ms: int
    closes_ms: int
    sequence: int
    label: str
    region_label: str
    gpu_label: str
    provider_id: bytes
    numbers: tuple[int | None, ...]
    """Of mirror_schema.NUMBERS; score and reliability come from Seen."""
    names: tuple[str, ...]
    """Of mirror_schema.NAMES."""


# --- what it says of itself -------------------------------------------------------------------


async def begin(store: Store, whose: Mapping[str, str]) -> None:
    """Take the file over for a start. `whose` has meta's network, contract_index and node: a file about
    others is emptied, since offers of two networks must never meet. DiskFull."""

    def transaction(db: sqlite3.Connection) -> None:
        known: dict[str, str] = dict(db.execute("SELECT key, value FROM meta").fetchall())
        if any(known.get(key) != value for key, value in whose.items()):
            for table in ("meta", "offers", "candles", "days", "scores", "settlements", "stats"):
                db.execute(f"DELETE FROM {table}")
            put(db, {**whose, "schema": str(VERSION), "book": os.urandom(8).hex(), "forgotten": "0"})
        put(db, {"change": str(int(known.get("change", 0)) + LEAP)})

    await store.write(transaction, "mirror.begin")


async def tell(store: Store, facts: Mapping[str, str]) -> None:
    """Change what stands in `meta`."""
    await store.write(lambda db: put(db, facts), "mirror.tell")


async def told(store: Store, key: str) -> str:
    """What stands in `meta`, "" if nothing does."""
    sql = "SELECT value FROM meta WHERE key = ?"
    row = await store.read(lambda db: db.execute(sql, (key,)).fetchone())
    return str(row[0]) if row else ""


def put(db: sqlite3.Connection, facts: Mapping[str, str]) -> None:
    sql = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    db.executemany(sql, facts.items())


def number(db: sqlite3.Connection, key: str) -> int:
    """A number in `meta`; 0 if it is not there."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return int(row[0]) if row else 0


def next_change(db: sqlite3.Connection) -> int:
    """One change for all rows that a transaction writes."""
    change = number(db, "change") + 1
    put(db, {"change": str(change)})
    return change


# --- offers -----------------------------------------------------------------------------------


async def show(
    store: Store,
    seen: Sequence[Seen],
    ended: Iterable[bytes],
    read: Callable[[Seen], OfferRow],
    now_ms: int,
) -> int:
    """Bring offers up to date: `seen` live, and those of the providers `ended` do not count any more. How
    many rows changed. `read` takes an offer apart, in the writer's thread and only if it is another one."""

    def transaction(db: sqlite3.Connection) -> int:
        before = change = number(db, "change")
        for one in seen:
            if not _stands(db, one):
                change += 1
                db.execute(_UPSERT, _values(one, read(one), change, now_ms))
        for peer in ended:
            change += _end(db, peer, change + 1, now_ms)
        if change != before:
            put(db, {"change": str(change)})
        return change - before

    return await store.write(transaction, "mirror.show")


def _stands(db: sqlite3.Connection, seen: Seen) -> bool:
    sql = "SELECT record, score, reliability FROM offers WHERE peer = ? AND live = 1"
    return bool(db.execute(sql, (seen.peer,)).fetchone() == (seen.record, seen.score, seen.reliability))


def _values(seen: Seen, row: OfferRow, change: int, now_ms: int) -> tuple[object, ...]:
    numbers = list(row.numbers)
    for place, value in zip(_MEASURED, (seen.score, seen.reliability), strict=True):
        numbers[place] = value
    return (
        seen.peer,
        row.peer_id,
        change,
        1,
        now_ms,
        seen.seen_ms,
        row.expires_ms,
        row.closes_ms,
        row.sequence,
        row.label,
        row.region_label,
        row.gpu_label,
        row.provider_id,
        numbers[0],
        *numbers,
        *row.names,
        seen.record,
    )


def _end(db: sqlite3.Connection, peer: bytes, change: int, now_ms: int) -> int:
    sql = "UPDATE offers SET live = 0, record = x'', expires_ms = ?, change = ? WHERE peer = ? AND live = 1"
    return db.execute(sql, (now_ms, change, peer)).rowcount


async def shown(store: Store, after: bytes, limit: int) -> tuple[bytes, ...]:
    """Providers whose offers are live here, by key from `after` on."""
    sql = "SELECT peer FROM offers WHERE live = 1 AND peer > ? ORDER BY peer LIMIT ?"
    rows = await store.read(lambda db: db.execute(sql, (after, limit)).fetchall())
    return tuple(peer for (peer,) in rows)


async def forget_ended(store: Store, now_ms: int, most: int = MAX_ENDED) -> int:
    """Drop some of the offers that ended an hour ago, and the oldest above `most`; how many. Whoever has not
    read as far as their last change has to begin anew (`meta.forgotten`)."""

    def transaction(db: sqlite3.Connection) -> int:
        (count,) = db.execute("SELECT count(*) FROM offers WHERE live = 0").fetchone()
        sql = "SELECT peer, change, expires_ms FROM offers WHERE live = 0 ORDER BY expires_ms LIMIT ?"
        oldest = db.execute(sql, (ROWS_AT_ONCE,)).fetchall()
        surplus, late = count - most, now_ms - KEEP_ENDED_MS
        gone = [row for place, row in enumerate(oldest) if place < surplus or row[2] <= late]
        db.executemany("DELETE FROM offers WHERE peer = ?", [(peer,) for peer, *_ in gone])
        if gone:
            forgotten = max(number(db, "forgotten"), *(change for _, change, _ in gone))
            put(db, {"forgotten": str(forgotten)})
        return len(gone)

    return await store.write(transaction, "mirror.forget_ended")


async def first_pages(store: Store, each: int) -> tuple[bytes, ...]:
    """Whom a visitor sees first: the cheapest, the best and the newest, and each class's cheapest."""
    live = "SELECT peer FROM offers WHERE live = 1 ORDER BY"
    ranked = (
        "SELECT peer FROM (SELECT peer, row_number() OVER (PARTITION BY gpu ORDER BY price, peer) AS place"
        " FROM offers WHERE live = 1) WHERE place <= 5 LIMIT ?"
    )
    queries = [f"{live} {key}, peer LIMIT ?" for key in ("price", "score DESC", "first_seen_ms DESC")]

    def look(db: sqlite3.Connection) -> tuple[bytes, ...]:
        found = (row for sql in (*queries, ranked) for row in db.execute(sql, (each,)).fetchall())
        return tuple(dict.fromkeys(peer for (peer,) in found))

    return await store.read(look)


async def counted(store: Store) -> tuple[int, int]:
    """(live offers, newest change)."""

    def look(db: sqlite3.Connection) -> tuple[int, int]:
        (live,) = db.execute("SELECT count(*) FROM offers WHERE live = 1").fetchone()
        return live, number(db, "change")

    return await store.read(look)


def placeholders(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


assert OFFER_COLUMNS[-1 - len(NUMBERS) - len(NAMES) : -1] == (*NUMBERS, *NAMES) and NUMBERS[0] == "gpus"
