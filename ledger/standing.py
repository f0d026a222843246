"""Which providers failed this node lately, and which a person has denied. Times are Unix milliseconds."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass
from typing import Final

from ledger.store import Store

_COLUMNS: Final = "provider, failures, code, failed_ms, denied, why"
MAX_FAILED: Final = 10_000
"""Providers whose failures are remembered; the oldest are forgotten first. Denied ones are all kept."""


@dataclass(frozen=True)
class StandingRow:
    provider: bytes
    failures: int
    """In a row."""
    code: str
    """Of the last one."""
    failed_ms: int
    denied: bool
    why: str
    """A person's reason for the denial."""


async def all_rows(store: Store) -> tuple[StandingRow, ...]:
    rows = await store.read(lambda db: db.execute(f"SELECT {_COLUMNS} FROM standing").fetchall())
    return tuple(
        StandingRow(provider, failures, code, failed_ms, bool(denied), why)
        for provider, failures, code, failed_ms, denied, why in rows
    )


async def put(store: Store, row: StandingRow) -> None:
    """Keep what is known of a provider now; a row that says nothing is dropped. DiskFull."""
    await store.write(lambda db: put_in(db, row), "standing.put")


def put_in(db: sqlite3.Connection, row: StandingRow) -> None:
    """The same inside a transaction."""
    if not row.failures and not row.denied:
        db.execute("DELETE FROM standing WHERE provider = ?", (row.provider,))
        return
    db.execute("INSERT OR REPLACE INTO standing VALUES (?, ?, ?, ?, ?, ?)", astuple(row))
    db.execute(
        "DELETE FROM standing WHERE provider IN (SELECT provider FROM standing WHERE denied = 0"
        " ORDER BY failed_ms DESC LIMIT -1 OFFSET ?)",
        (MAX_FAILED,),
    )
