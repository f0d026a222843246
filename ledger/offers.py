"""The newest offer of each provider, so that a replay is refused and the book refilled after a
restart. Records are opaque signed bytes; times are Unix milliseconds.

Gossip is judged synchronously against the caller's own table in memory; this keeps that table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from ledger.rows import OfferRow as OfferRow
from ledger.store import Store


async def remember(store: Store, offers: Sequence[OfferRow]) -> None:
    """Keep those that are newer than what is there; older ones change nothing."""

    def transaction(db: sqlite3.Connection) -> None:
        db.executemany(
            "INSERT INTO offers VALUES (?, ?, ?, ?) ON CONFLICT (peer) DO UPDATE SET"
            " sequence = excluded.sequence, expires_ms = excluded.expires_ms, record = excluded.record"
            " WHERE excluded.sequence > sequence",
            [(offer.peer, offer.sequence, offer.expires_ms, offer.record) for offer in offers],
        )

    await store.write(transaction, "offers.remember")


async def forget_expired(store: Store, now_ms: int) -> int:
    """Drop what has expired (a replay of it is refused for its age alone); how many."""
    return await store.write(
        lambda db: db.execute("DELETE FROM offers WHERE expires_ms <= ?", (now_ms,)).rowcount,
        "offers.forget_expired",
    )


async def keep_only(store: Store, peers: Collection[bytes]) -> int:
    """Drop the offers of everybody else; how many. A flood of new identities passes through the table in
    memory, which is bounded; what it has left behind here would fill the disk until it expires."""

    def transaction(db: sqlite3.Connection) -> int:
        others = [row for row in db.execute("SELECT peer FROM offers").fetchall() if row[0] not in peers]
        db.executemany("DELETE FROM offers WHERE peer = ?", others)
        return len(others)

    return await store.write(transaction, "offers.keep_only")


async def known(store: Store) -> tuple[OfferRow, ...]:
    """All kept offers, expired or not."""
    rows = await store.read(
        lambda db: db.execute(
            "SELECT peer, sequence, expires_ms, record FROM offers ORDER BY peer"
        ).fetchall()
    )
    return tuple(OfferRow(*row) for row in rows)
