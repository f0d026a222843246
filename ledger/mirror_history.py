"""What mirror.db keeps beside the offers: hours of life, statistics, candles, scores and settled leases.

All of it is bounded, whoever the providers are: what is too much goes, the oldest first. Rows of one
transaction share one change number. Times are Unix milliseconds, money is QU.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from typing import Final

from ledger.mirror import HOUR_MS, next_change, placeholders
from ledger.mirror_schema import CANDLE_COLUMNS, SCORE_COLUMNS, SETTLEMENT_COLUMNS
from ledger.prices import DAY_MS, PriceRow
from ledger.store import Store

SETTLED_MS: Final = 600_000
"""So long an offer must have been here before its life is noted: who comes and goes leaves nothing."""
KEEP_DAYS: Final = 60
MAX_DAY_ROWS: Final = 2_000_000
"""Some 200 MB; 33,000 providers that lived on each of 60 days."""
KEEP_STATS_HOURS: Final = 3 * 366 * 24
MAX_SETTLEMENTS: Final = 20_000
MAX_SCORES: Final = 20_000
"""Some 8 kB each."""
_PROVEN: Final = "proof IN ('ticket', 'seen')"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    peer: bytes
    score: float
    performance: float
    reliability: float
    efficiency: float
    confidence: float
    newcomer: bool
    reasons: str
    evidence: str
    """Both JSON."""
    at_ms: int


@dataclass(frozen=True, slots=True)
class SettledRow:
    """A lease that is over, as everybody may know it."""

    lease_id: bytes
    provider: bytes
    gpu: str
    paid_qu: int
    seconds: int
    outcome: str
    proof: str
    open_tick: int
    close_tick: int
    transaction_digest: bytes
    """0 and empty until the provider has told."""
    ended_ms: int


# --- life and statistics ----------------------------------------------------------------------


async def note_life(store: Store, now_ms: int, settled_ms: int = SETTLED_MS) -> int:
    """Note that all live offers, but the newest, live in this hour; how many rows are new to that."""
    day, bit = now_ms // DAY_MS, 1 << now_ms // HOUR_MS % 24
    sql = (
        "INSERT INTO days SELECT peer, :day, :bit, :change FROM offers"
        " WHERE live = 1 AND first_seen_ms <= :since"
        " ON CONFLICT (peer, day) DO UPDATE SET hours = hours | excluded.hours, change = excluded.change"
        " WHERE hours & excluded.hours = 0"
    )

    def transaction(db: sqlite3.Connection) -> int:
        since = now_ms - settled_ms
        values = {"day": day, "bit": bit, "since": since, "change": next_change(db)}
        return db.execute(sql, values).rowcount

    return await store.write(transaction, "mirror.note_life")


async def forget_days(store: Store, now_ms: int, most: int = MAX_DAY_ROWS) -> int:
    """Drop days that are too old, and above `most` those of providers that were here for an hour only, then
    the oldest; how many."""

    def transaction(db: sqlite3.Connection) -> int:
        oldest = now_ms // DAY_MS - KEEP_DAYS
        old = db.execute("DELETE FROM days WHERE day <= ?", (oldest,)).rowcount
        (count,) = db.execute("SELECT count(*) FROM days").fetchone()
        if count <= most:
            return old
        chosen = "SELECT peer, day FROM days ORDER BY hours & (hours - 1) <> 0, day, peer LIMIT ?"
        sql = f"DELETE FROM days WHERE (peer, day) IN ({chosen})"
        return old + db.execute(sql, (count - most,)).rowcount

    return await store.write(transaction, "mirror.forget_days")


async def note_stats(store: Store, now_ms: int, peers: int) -> None:
    """Bring this hour's row up to date; and what was settled in those before, of which is heard later."""
    hour = now_ms // HOUR_MS
    offers = "count(*), count(DISTINCT provider_id), coalesce(sum(most_gpus), 0), coalesce(sum(gpus), 0)"
    sql = (
        f"INSERT INTO stats SELECT ?, {offers}, ?, 0, 0, ? FROM offers WHERE live = 1"
        " ON CONFLICT (hour) DO UPDATE SET offers = excluded.offers, providers = excluded.providers,"
        " gpus = excluded.gpus, free_gpus = excluded.free_gpus, peers = excluded.peers,"
        " change = excluded.change"
    )
    settled = (
        "WITH told AS (SELECT ended_ms / ? AS hour, sum(paid_qu) AS paid, count(*) AS leases"
        f" FROM settlements WHERE {_PROVEN} GROUP BY 1)"
        " UPDATE stats SET settled_qu = told.paid, leases = told.leases, change = ?"
        " FROM told WHERE stats.hour = told.hour AND told.leases > stats.leases"
    )

    def transaction(db: sqlite3.Connection) -> None:
        change = next_change(db)
        db.execute(sql, (hour, peers, change))
        db.execute(settled, (HOUR_MS, change))
        db.execute("DELETE FROM stats WHERE hour < ?", (hour - KEEP_STATS_HOURS,))

    await store.write(transaction, "mirror.note_stats")


# --- candles ----------------------------------------------------------------------------------


async def newest_candle(store: Store, span_ms: int) -> int:
    """When the newest span of that length begins; 0 without one."""
    sql = "SELECT coalesce(max(start_ms), 0) FROM candles WHERE span_ms = ?"
    (start,) = await store.read(lambda db: db.execute(sql, (span_ms,)).fetchone())
    return int(start)


async def put_candles(store: Store, rows: Sequence[PriceRow]) -> None:
    """Rows as the ledger has them now; those that are the same stay as they are."""
    sql = _renewed("candles", CANDLE_COLUMNS, keys=4)

    def transaction(db: sqlite3.Connection) -> None:
        change = next_change(db)
        db.executemany(sql, [(*astuple(row), change) for row in rows])

    await store.write(transaction, "mirror.put_candles")


async def forget_candles(store: Store, kind: str, span_ms: int, before_ms: int) -> None:
    """Drop what begins before then: the ledger has it no more."""
    sql = "DELETE FROM candles WHERE span_ms = ? AND start_ms < ? AND kind = ?"
    await store.write(lambda db: db.execute(sql, (span_ms, before_ms, kind)), "mirror.forget_candles")


# --- scores -----------------------------------------------------------------------------------


async def put_scores(store: Store, rows: Sequence[ScoreRow], most: int = MAX_SCORES) -> None:
    """Newer scores; those of providers that are not here any more go, and the oldest above `most`."""
    sql = f"INSERT OR REPLACE INTO scores VALUES ({placeholders(SCORE_COLUMNS)})"

    def transaction(db: sqlite3.Connection) -> None:
        change = next_change(db)
        db.executemany(sql, [(*astuple(row), change) for row in rows])
        db.execute("DELETE FROM scores WHERE peer NOT IN (SELECT peer FROM offers)")
        (count,) = db.execute("SELECT count(*) FROM scores").fetchone()
        oldest = "SELECT peer FROM scores ORDER BY at_ms LIMIT ?"
        db.execute(f"DELETE FROM scores WHERE peer IN ({oldest})", (max(0, count - most),))

    await store.write(transaction, "mirror.put_scores")


# --- settled leases ---------------------------------------------------------------------------


async def put_settled(
    store: Store, rows: Sequence[SettledRow], refuted: Collection[bytes], most: int = MAX_SETTLEMENTS
) -> None:
    """What is known of some leases now. `refuted` ones go; above `most` the oldest, unproven ones first."""
    sql = _renewed("settlements", SETTLEMENT_COLUMNS, keys=1)

    def transaction(db: sqlite3.Connection) -> None:
        change = next_change(db)
        db.executemany(sql, [(*astuple(row), change) for row in rows])
        db.executemany("DELETE FROM settlements WHERE lease_id = ?", [(one,) for one in refuted])
        (count,) = db.execute("SELECT count(*) FROM settlements").fetchone()
        oldest = f"SELECT lease_id FROM settlements ORDER BY {_PROVEN}, ended_ms LIMIT ?"
        db.execute(f"DELETE FROM settlements WHERE lease_id IN ({oldest})", (max(0, count - most),))

    await store.write(transaction, "mirror.put_settled")


async def unsettled(store: Store, after: bytes, limit: int) -> tuple[bytes, ...]:
    """Leases of which more may become known, by id from `after` on."""
    sql = (
        f"SELECT lease_id FROM settlements WHERE lease_id > ? AND (NOT {_PROVEN} OR close_tick = 0)"
        " ORDER BY lease_id LIMIT ?"
    )
    rows = await store.read(lambda db: db.execute(sql, (after, limit)).fetchall())
    return tuple(lease_id for (lease_id,) in rows)


def _renewed(table: str, columns: Sequence[str], keys: int) -> str:
    """A row is put in the place of the one with its key, the first columns, unless it says the same. The last
    column is its change."""
    facts = columns[keys:-1]
    return (
        f"INSERT INTO {table} VALUES ({placeholders(columns)}) ON CONFLICT DO UPDATE SET"
        f" {', '.join(f'{name} = excluded.{name}' for name in (*facts, 'change'))} WHERE"
        f" ({', '.join(facts)}) IS NOT ({', '.join(f'excluded.{name}' for name in facts)})"
    )
