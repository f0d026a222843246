"""What providers and GPU classes have asked an hour: candles of an hour, after a month of a day.

A row is one subject in one span of time: a provider with its own price, or a class of GPU with the middle
of all its offers' prices. Of a provider there is a row only where its price has changed: between two rows
it asked what the earlier one closed with. Times are Unix milliseconds, money is QU.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Final, Literal

from ledger.store import Store

Kind = Literal["gpu", "provider"]
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
KEEP_HOURS_MS: Final = 31 * DAY_MS
KEEP_DAYS_MS: Final = 3 * 366 * DAY_MS
MAX_ROWS: Final = 500_000
"""Of providers, some 50 MB: a flood of new identities takes no more; the oldest go first."""
ROWS_AT_ONCE: Final = 1_000
"""In one transaction: others want to write, too."""
_COLUMNS: Final = "kind, subject, span_ms, start_ms, open, high, low, close, cheapest, offers, gpus"
_MEET: Final = (
    " ON CONFLICT DO UPDATE SET high = max(high, excluded.high), low = min(low, excluded.low),"
    " close = excluded.close, cheapest = min(cheapest, excluded.cheapest),"
    " offers = excluded.offers, gpus = excluded.gpus"
)
"""What comes later to a span that has a row."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """`open`, `high`, `low`, `close`: of the price (a class: the middle one of its offers')."""

    kind: Kind
    subject: bytes
    span_ms: int
    start_ms: int
    open: int
    high: int
    low: int
    close: int
    cheapest: int
    """The lowest that anybody asked."""
    offers: int
    gpus: int
    """Free ones in these offers. Both as last seen."""


# --- writing ----------------------------------------------------------------------------------


async def note(store: Store, rows: Sequence[PriceRow]) -> None:
    """Add what was seen; noted twice it changes nothing. DiskFull."""
    sql = f"INSERT INTO prices ({_COLUMNS}) VALUES ({', '.join('?' * 11)}){_MEET}"
    for start in range(0, len(rows), ROWS_AT_ONCE):
        values = [astuple(row) for row in rows[start : start + ROWS_AT_ONCE]]

        def transaction(db: sqlite3.Connection, values: list[tuple[object, ...]] = values) -> None:
            db.executemany(sql, values)

        await store.write(transaction, "prices.note")


async def fold(store: Store, before_ms: int) -> bool:
    """Make rows of a day of the rows of hours of the earliest day before then; whether there was one."""
    sql = (
        f"INSERT INTO prices ({_COLUMNS}) SELECT DISTINCT kind, subject, {DAY_MS}, :day,"
        " first_value(open) OVER w, max(high) OVER w, min(low) OVER w, last_value(close) OVER w,"
        " min(cheapest) OVER w, last_value(offers) OVER w, last_value(gpus) OVER w"
        f" FROM prices WHERE span_ms = {HOUR_MS} AND start_ms >= :day AND start_ms < :end"
        " WINDOW w AS (PARTITION BY kind, subject ORDER BY start_ms"
        f" ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING){_MEET}"
    )

    def transaction(db: sqlite3.Connection) -> bool:
        oldest = f"SELECT min(start_ms) FROM prices WHERE span_ms = {HOUR_MS}"
        (first,) = db.execute(oldest).fetchone()
        if first is None or (day := first - first % DAY_MS) + DAY_MS > before_ms:
            return False
        span = {"day": day, "end": day + DAY_MS}
        db.execute(sql, span)
        done = f"DELETE FROM prices WHERE span_ms = {HOUR_MS} AND start_ms < :end"
        db.execute(done, {"end": day + DAY_MS})
        return True

    return await store.write(transaction, "prices.fold")


async def forget(store: Store, before_ms: int, most: int = MAX_ROWS) -> int:
    """Drop days from before then, and the oldest rows of providers above `most`; how many."""

    def transaction(db: sqlite3.Connection) -> int:
        sql = "DELETE FROM prices WHERE span_ms = ? AND start_ms < ?"
        old = db.execute(sql, (DAY_MS, before_ms)).rowcount
        of = "FROM prices WHERE kind = 'provider'"
        (count,) = db.execute(f"SELECT count(*) {of}").fetchone()
        if count <= most:
            return old
        place = (count - most - 1,)
        (last,) = db.execute(f"SELECT start_ms {of} ORDER BY start_ms LIMIT 1 OFFSET ?", place).fetchone()
        return old + db.execute(f"DELETE {of} AND start_ms <= ?", (last,)).rowcount

    return await store.write(transaction, "prices.forget")


# --- reading ----------------------------------------------------------------------------------


async def newest(store: Store) -> dict[bytes, int]:
    """Provider -> the price it was last seen to ask."""
    sql = "SELECT subject, close, max(start_ms) FROM prices WHERE kind = 'provider' GROUP BY subject"
    rows = await store.read(lambda db: db.execute(sql).fetchall())
    return {subject: close for subject, close, _ in rows}


async def history(
    store: Store, kind: Kind, subject: bytes, since_ms: int, limit: int
) -> tuple[PriceRow, ...]:
    """A subject's rows, oldest first, beginning with the one that held at `since_ms`; of more than `limit`
    the newest."""
    of = "kind = ? AND subject = ?"
    sql = (
        f"SELECT {_COLUMNS} FROM prices WHERE {of} AND start_ms >= coalesce("
        f"(SELECT max(start_ms) FROM prices WHERE {of} AND start_ms <= ?), 0) ORDER BY start_ms DESC LIMIT ?"
    )
    values = (kind, subject, kind, subject, since_ms, limit)
    rows = await store.read(lambda db: db.execute(sql, values).fetchall())
    return tuple(PriceRow(*row) for row in reversed(rows))


async def gpus(store: Store, since_ms: int) -> tuple[str, ...]:
    """The classes of GPU with news since then."""
    sql = "SELECT DISTINCT subject FROM prices WHERE kind = 'gpu' AND start_ms + span_ms > ? ORDER BY subject"
    rows = await store.read(lambda db: db.execute(sql, (since_ms,)).fetchall())
    return tuple(subject.decode() for (subject,) in rows)


async def page(store: Store, span_ms: int, after: tuple[int, str, bytes], limit: int) -> tuple[PriceRow, ...]:
    """Rows of spans of that length behind (start_ms, kind, subject), in this order."""
    sql = (
        f"SELECT {_COLUMNS} FROM prices WHERE span_ms = ? AND (start_ms, kind, subject) > (?, ?, ?)"
        " ORDER BY start_ms, kind, subject LIMIT ?"
    )
    rows = await store.read(lambda db: db.execute(sql, (span_ms, *after, limit)).fetchall())
    return tuple(PriceRow(*row) for row in rows)


async def oldest(store: Store, kind: Kind, span_ms: int) -> int | None:
    """When the oldest span of that length begins; None without one."""
    sql = "SELECT min(start_ms) FROM prices WHERE kind = ? AND span_ms = ?"
    (start,) = await store.read(lambda db: db.execute(sql, (kind, span_ms)).fetchone())
    return None if start is None else int(start)
