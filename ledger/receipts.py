"""Receipts and settlements of leases that are over, this node's own words among them.

Records are signed bytes that were checked before they came here. What is kept is bounded for each who
sent it, for each provider and in all; own words are never dropped. Times are Unix milliseconds.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final

from ledger.rows import LEASE_COLUMNS, LeaseRow
from ledger.standing import StandingRow, put_in
from ledger.store import Store

MAX_PER_SOURCE: Final = 2_000
"""That one peer can have us keep."""
MAX_PER_PROVIDER: Final = 500
MAX_IN_ALL: Final = 200_000
"""Some 2.5 kB each on the disk."""
LOOK_EVERY: Final = 32
"""Once in so many records it is looked whether there are too many in all."""
FETCHED: Final = b""
"""The source of what this node has asked for itself; not limited by source."""
UNCHECKED: Final = "claimed"
_COLUMNS: Final = (
    "lease_id, provider, record, failed, cumulative, ended_ms, source, at_ms, proof, paid, opened_ms,"
    " checked_ms"
)
_AT_MS: Final = _COLUMNS.split(", ").index("at_ms")
_DROP_SETTLEMENTS: Final = (
    "DELETE FROM settlements WHERE (lease_id, provider) IN (SELECT s.lease_id, s.provider FROM settlements s"
    " LEFT JOIN receipts r ON r.lease_id = s.lease_id AND r.provider = s.provider WHERE s.source <> ?"
    " ORDER BY coalesce(r.proof IN ('ticket', 'seen') OR r.source = ?, 0), s.at_ms LIMIT ?)"
)
"""Without its settlement a receipt speaks for nobody: those of what the chain bears out go last."""
_UNPROVEN: Final = "proof IN ('claimed', 'refuted') AND source <> ?"


@dataclass(frozen=True)
class ReceiptRow:
    lease_id: bytes
    provider: bytes
    record: bytes
    failed: bool
    """By the provider, in the caller's word."""
    cumulative: int
    ended_ms: int
    source: bytes
    at_ms: int
    proof: str = UNCHECKED
    paid: int = 0
    """QU that the chain confirms; meaningful with a proof."""
    opened_ms: int = 0
    """When it opened, from its tick; 0: not known."""
    checked_ms: int = 0


@dataclass(frozen=True)
class SettlementRow:
    lease_id: bytes
    provider: bytes
    record: bytes
    source: bytes
    at_ms: int


@dataclass(frozen=True)
class Word:
    """What this node has to say about one of its leases."""

    lease_id: bytes
    record: bytes


async def keep(
    store: Store, own: bytes, receipts: Sequence[ReceiptRow], settlements: Sequence[SettlementRow] = ()
) -> int:
    """Keep what there is place for; how many could not be kept. Of two receipts for one lease the one that
    claims less stays; a second settlement changes nothing.

    `own`: the source of this node's words, for which there is always place. DiskFull.
    """

    def transaction(db: sqlite3.Connection) -> int:
        kept = [_keep_receipt(db, row, own) for row in receipts]
        kept += [_keep_settlement(db, row, own) for row in settlements]
        if random.randrange(LOOK_EVERY) < len(kept):
            _make_room(db, own)
        return kept.count(False)

    return await store.write(transaction, "receipts.keep")


def _keep_receipt(db: sqlite3.Connection, row: ReceiptRow, own: bytes) -> bool:
    sql = "SELECT cumulative, record FROM receipts WHERE lease_id = ?"
    known = db.execute(sql, (row.lease_id,)).fetchone()
    if known is not None:
        if (row.cumulative, row.record) < tuple(known):
            db.execute("DELETE FROM receipts WHERE lease_id = ?", (row.lease_id,))
            _insert(db, row)
        return True
    if row.source != own and not (_has_place(db, "receipts", row.source) and _place_beside(db, row, own)):
        return False
    _insert(db, row)
    return True


def _insert(db: sqlite3.Connection, row: ReceiptRow) -> None:
    db.execute(f"INSERT INTO receipts VALUES ({', '.join('?' * 12)})", astuple(row))


def _has_place(db: sqlite3.Connection, table: str, source: bytes) -> bool:
    if source == FETCHED:
        return True
    (count,) = db.execute(f"SELECT count(*) FROM {table} WHERE source = ?", (source,)).fetchone()
    return int(count) < MAX_PER_SOURCE


def _place_beside(db: sqlite3.Connection, row: ReceiptRow, own: bytes) -> bool:
    """Make room among the provider's by what the chain has not confirmed. Praise never takes the place of
    complaints, nor they its."""
    theirs = (row.provider, row.failed)
    counted = "SELECT count(*) FROM receipts WHERE provider = ? AND failed = ?"
    (count,) = db.execute(counted, theirs).fetchone()
    where = f"provider = ? AND failed = ? AND {_UNPROVEN} ORDER BY proof DESC, ended_ms"
    return count < MAX_PER_PROVIDER // 2 or _drop(db, where, (*theirs, own), 1) == 1


def _make_room(db: sqlite3.Connection, own: bytes) -> None:
    """Counting all is no small thing, so it is done now and then; until then there may be a few too many, and
    after it there is place for a while."""
    spare = MAX_IN_ALL // 20
    (total,) = db.execute("SELECT count(*) FROM receipts").fetchone()
    if total > MAX_IN_ALL:
        _drop(db, f"{_UNPROVEN} ORDER BY proof DESC, at_ms", (own,), total - MAX_IN_ALL + spare)
    (total,) = db.execute("SELECT count(*) FROM settlements").fetchone()
    if total > MAX_IN_ALL:
        db.execute(_DROP_SETTLEMENTS, (own, own, total - MAX_IN_ALL + spare))


def _drop(db: sqlite3.Connection, where: str, values: tuple[object, ...], count: int) -> int:
    chosen = f"SELECT lease_id FROM receipts WHERE {where} LIMIT ?"
    return db.execute(f"DELETE FROM receipts WHERE lease_id IN ({chosen})", (*values, count)).rowcount


def _keep_settlement(db: sqlite3.Connection, row: SettlementRow, own: bytes) -> bool:
    key = (row.lease_id, row.provider)
    if db.execute("SELECT 1 FROM settlements WHERE lease_id = ? AND provider = ?", key).fetchone():
        return True
    if row.source != own and not _has_place(db, "settlements", row.source):
        return False
    db.execute("INSERT INTO settlements VALUES (?, ?, ?, ?, ?)", astuple(row))
    return True


async def of_provider(
    store: Store, provider: bytes, limit: int, own: bytes
) -> tuple[tuple[ReceiptRow, bytes], ...]:
    """Receipts about a provider, each with its settlement's record, b"" without one. Half of the limit is
    for complaints: own ones first, then what the chain bears out, then the newest."""
    sql = _both(
        "r.provider = ? AND r.failed = ? ORDER BY r.source <> ?, CASE r.proof"
        " WHEN 'ticket' THEN 0 WHEN 'seen' THEN 1 WHEN 'claimed' THEN 2 ELSE 3 END,"
        " r.ended_ms DESC, r.lease_id LIMIT ?"
    )

    def look(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
        complaints = db.execute(sql, (provider, True, own, limit // 2)).fetchall()
        return complaints + db.execute(sql, (provider, False, own, limit - len(complaints))).fetchall()

    return tuple((ReceiptRow(*row[:-1]), row[-1]) for row in await store.read(look))


async def unchecked(
    store: Store, before_ms: int, limit: int, own: bytes
) -> tuple[tuple[ReceiptRow, bytes], ...]:
    """Receipts that came before then and were never looked up, the newest first: their ticks can still be
    read. With their settlements' records, b"" without one."""
    sql = _both(
        "r.proof = ? AND r.at_ms < ? AND r.checked_ms = 0 AND r.source <> ? ORDER BY r.at_ms DESC LIMIT ?"
    )
    values = (UNCHECKED, before_ms, own, limit)
    rows = await store.read(lambda db: db.execute(sql, values).fetchall())
    return tuple((ReceiptRow(*row[:-1]), row[-1]) for row in rows)


async def arrived(store: Store, after: tuple[int, bytes], limit: int) -> tuple[tuple[ReceiptRow, bytes], ...]:
    """Receipts that came behind (at_ms, lease id), in this order, but refuted ones, and their settlements'
    records, b"" without one."""
    of = "r.proof = ? AND (r.at_ms, r.lease_id) > (?, ?) ORDER BY r.at_ms, r.lease_id LIMIT ?"

    def look(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
        proofs = ("ticket", "seen", UNCHECKED)
        found = [row for proof in proofs for row in db.execute(_both(of), (proof, *after, limit)).fetchall()]
        return sorted(found, key=lambda row: (row[_AT_MS], row[0]))[:limit]

    return tuple((ReceiptRow(*row[:-1]), row[-1]) for row in await store.read(look))


async def of_leases(store: Store, lease_ids: Sequence[bytes]) -> tuple[tuple[ReceiptRow, bytes], ...]:
    """The same of these leases."""
    sql = _both(f"r.lease_id IN ({', '.join('?' * len(lease_ids))})")
    rows = await store.read(lambda db: db.execute(sql, tuple(lease_ids)).fetchall())
    return tuple((ReceiptRow(*row[:-1]), row[-1]) for row in rows)


async def rated(store: Store, limit: int) -> tuple[bytes, ...]:
    """Providers of whom there are receipts."""
    sql = "SELECT DISTINCT provider FROM receipts ORDER BY provider LIMIT ?"
    rows = await store.read(lambda db: db.execute(sql, (limit,)).fetchall())
    return tuple(provider for (provider,) in rows)


def _both(of: str) -> str:
    columns = ", ".join(f"r.{name}" for name in _COLUMNS.split(", "))
    return (
        f"SELECT {columns}, coalesce(s.record, x'') FROM receipts r LEFT JOIN settlements s"
        f" ON s.lease_id = r.lease_id AND s.provider = r.provider WHERE {of}"
    )


async def confirm(store: Store, rows: Sequence[ReceiptRow]) -> None:
    """Keep what the chain said of some receipts, unless others have taken their places meanwhile."""
    sql = (
        "UPDATE receipts SET proof = ?, paid = ?, opened_ms = ?, checked_ms = ?"
        " WHERE lease_id = ? AND record = ?"
    )
    values = [(r.proof, r.paid, r.opened_ms, r.checked_ms, r.lease_id, r.record) for r in rows]
    await store.write(lambda db: db.executemany(sql, values), "receipts.confirm")


# --- own words --------------------------------------------------------------------------------


async def unspoken(store: Store, phases: Collection[str]) -> tuple[LeaseRow, ...]:
    """Leases in one of these (last) phases about which this node has not made up its mind, oldest first."""
    columns = ", ".join(f"l.{name}" for name in LEASE_COLUMNS.split(", "))
    sql = (
        f"SELECT {columns} FROM leases l LEFT JOIN words w ON w.lease_id = l.lease_id"
        f" WHERE w.lease_id IS NULL AND l.phase IN ({', '.join('?' * len(phases))}) ORDER BY l.created_ms"
    )
    rows = await store.read(lambda db: db.execute(sql, tuple(phases)).fetchall())
    return tuple(LeaseRow(*row) for row in rows)


async def speak(
    store: Store,
    word: Word,
    now_ms: int,
    *,
    receipt: ReceiptRow | None = None,
    settlement: SettlementRow | None = None,
    standing: StandingRow | None = None,
) -> bool:
    """Write down, once for each lease, what this node says of it and what it makes of the provider.

    False, and nothing changes, if it had spoken before. A word without bytes is not delivered to anybody.
    """

    def transaction(db: sqlite3.Connection) -> bool:
        written = db.execute(
            "INSERT OR IGNORE INTO words VALUES (?, ?, ?, ?)",
            (word.lease_id, word.record, now_ms, int(not word.record)),
        )
        if not written.rowcount:
            return False
        if receipt is not None:
            _keep_receipt(db, receipt, receipt.source)
        if settlement is not None:
            _keep_settlement(db, settlement, settlement.source)
        if standing is not None:
            put_in(db, standing)
        return True

    return await store.write(transaction, "receipts.speak")


async def undelivered(store: Store, since_ms: int) -> tuple[Word, ...]:
    """Own words since then that have not arrived everywhere, oldest first."""
    sql = "SELECT lease_id, record FROM words WHERE delivered = 0 AND at_ms >= ? ORDER BY at_ms, lease_id"
    rows = await store.read(lambda db: db.execute(sql, (since_ms,)).fetchall())
    return tuple(Word(*row) for row in rows)


async def delivered(store: Store, lease_id: bytes) -> None:
    sql = "UPDATE words SET delivered = 1 WHERE lease_id = ?"
    await store.write(lambda db: db.execute(sql, (lease_id,)), "receipts.delivered")
