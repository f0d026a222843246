"""What happened to each lease, what it is now and what has still to be done about it.

`commit` writes all three in one transaction *before* anything is done, so a node killed at any
instant finds every effect either still pending or done, never forgotten. Effects can therefore
happen twice and must be idempotent by (lease id, seq). All payloads are bytes with a meaning that
only the caller knows. Times are Unix milliseconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.rows import LEASE_COLUMNS, leases_query
from ledger.rows import LeaseRow as LeaseRow
from ledger.rows import PendingEffect as PendingEffect
from ledger.store import Store
from protocol.errors import LedgerBroken


@dataclass(frozen=True)
class OutboxItem:
    """An effect to perform. Lanes are performed independently, each in order of seq."""

    lane: str
    kind: str
    payload: bytes
    replaces: bool = False
    """Drop the still pending effects of the same lease, lane and kind: this one outdates them."""


_EFFECT_COLUMNS: Final = "lease_id, seq, lane, kind, payload, scratch"


async def commit(
    store: Store,
    *,
    lease_id: bytes,
    role: str,
    phase: str,
    event: bytes,
    state: bytes,
    outbox: Sequence[OutboxItem],
    now_ms: int,
    expected_steps: int,
) -> tuple[PendingEffect, ...]:
    """Append `event`, set the state, add the effects: all or nothing. The effects with their seq.

    `expected_steps` is how many events the caller built `state` on, 0 for a new lease; LedgerBroken
    if there are now more or fewer, so that no event is ever overwritten unseen. DiskFull.
    """

    def transaction(db: sqlite3.Connection) -> tuple[PendingEffect, ...]:
        first_seq = _claim(db, lease_id, expected_steps)
        # The lease first: events and outbox refer to it.
        db.execute(
            "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (lease_id) DO UPDATE SET"
            " phase = excluded.phase, state = excluded.state, steps = excluded.steps,"
            " next_seq = excluded.next_seq, updated_ms = excluded.updated_ms",
            (lease_id, role, phase, state, expected_steps + 1, first_seq + len(outbox), now_ms, now_ms),
        )
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (lease_id, expected_steps, event, now_ms))
        return tuple(_enqueue(db, lease_id, seq, item) for seq, item in enumerate(outbox, first_seq))

    return await store.write(transaction, "journal.commit")


def _claim(db: sqlite3.Connection, lease_id: bytes, expected_steps: int) -> int:
    """Check that nobody stepped in between; the next free seq."""
    row = db.execute("SELECT steps, next_seq FROM leases WHERE lease_id = ?", (lease_id,)).fetchone()
    steps, next_seq = row or (0, 0)
    if steps != expected_steps:
        raise LedgerBroken(
            f"lease {lease_id.hex()[:12]} is at step {steps}, not {expected_steps} as this change supposes; "
            "nothing was written, restart the daemon"
        )
    return int(next_seq)


def _enqueue(db: sqlite3.Connection, lease_id: bytes, seq: int, item: OutboxItem) -> PendingEffect:
    if item.replaces:
        db.execute(
            "DELETE FROM outbox WHERE lease_id = ? AND lane = ? AND kind = ?",
            (lease_id, item.lane, item.kind),
        )
    effect = PendingEffect(lease_id, seq, item.lane, item.kind, item.payload, b"")
    db.execute(
        f"INSERT INTO outbox ({_EFFECT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
        (lease_id, seq, item.lane, item.kind, item.payload, b""),
    )
    return effect


async def done(store: Store, lease_id: bytes, seq: int) -> None:
    """The effect has happened; forget it. No error if it was done or replaced before."""
    await store.write(
        lambda db: db.execute("DELETE FROM outbox WHERE lease_id = ? AND seq = ?", (lease_id, seq)),
        "journal.done",
    )


async def save_scratch(store: Store, lease_id: bytes, seq: int, scratch: bytes) -> bool:
    """Keep bytes with a pending effect, e.g. a signed transaction before it is broadcast, so that a
    restart sends the same one again. False if it is no longer pending: then do not perform it."""

    def transaction(db: sqlite3.Connection) -> bool:
        changed = db.execute(
            "UPDATE outbox SET scratch = ? WHERE lease_id = ? AND seq = ?", (scratch, lease_id, seq)
        )
        return changed.rowcount == 1

    return await store.write(transaction, "journal.save_scratch")


async def pending(store: Store, lease_id: bytes | None = None) -> tuple[PendingEffect, ...]:
    """What has still to be done, of one lease or all, in order of seq within each lease."""
    where, values = ("", ()) if lease_id is None else ("WHERE lease_id = ?", (lease_id,))
    sql = f"SELECT {_EFFECT_COLUMNS} FROM outbox {where} ORDER BY lease_id, seq"
    rows = await store.read(lambda db: db.execute(sql, values).fetchall())
    return tuple(PendingEffect(*row) for row in rows)


async def leases(store: Store, phases: Collection[str] | None = None) -> tuple[LeaseRow, ...]:
    """All leases, or those in one of `phases`, oldest first."""
    sql, values = leases_query(phases)
    rows = await store.read(lambda db: db.execute(sql, values).fetchall())
    return tuple(LeaseRow(*row) for row in rows)


async def lease(store: Store, lease_id: bytes) -> LeaseRow | None:
    sql = f"SELECT {LEASE_COLUMNS} FROM leases WHERE lease_id = ?"
    row = await store.read(lambda db: db.execute(sql, (lease_id,)).fetchone())
    return None if row is None else LeaseRow(*row)


async def events(store: Store, lease_id: bytes) -> tuple[bytes, ...]:
    """Every event of a lease, in the order in which they were committed."""
    sql = "SELECT event FROM events WHERE lease_id = ? ORDER BY step"
    rows = await store.read(lambda db: db.execute(sql, (lease_id,)).fetchall())
    return tuple(event for (event,) in rows)
