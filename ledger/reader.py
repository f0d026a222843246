"""Read-only queries on a node's ledger for asyncio processes, while its daemon writes or not."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite

from ledger.meters import MeterRow, history_query, row_of
from ledger.rows import OFFER_COLUMNS, LeaseRow, OfferRow, leases_query
from protocol.errors import LedgerBroken


class Reader:
    """Obtained from `open_reader`. Each call sees one consistent snapshot of what is committed."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    async def leases(self, phases: Collection[str] | None = None) -> tuple[LeaseRow, ...]:
        """As `journal.leases`."""
        rows = await self._db.execute_fetchall(*leases_query(phases))
        return tuple(LeaseRow(*row) for row in rows)

    async def offers(self, now_ms: int) -> tuple[OfferRow, ...]:
        """Offers that are alive at `now_ms`, by provider key."""
        rows = await self._db.execute_fetchall(
            f"SELECT {OFFER_COLUMNS} FROM offers WHERE expires_ms > ? ORDER BY peer", (now_ms,)
        )
        return tuple(OfferRow(*row) for row in rows)

    async def meters(self, lease_id: bytes, since_ms: int, limit: int = 10_000) -> tuple[MeterRow, ...]:
        """As `meters.history`."""
        rows = await self._db.execute_fetchall(*history_query(lease_id, since_ms, limit))
        return tuple(row_of(row) for row in rows)


@asynccontextmanager
async def open_reader(path: Path) -> AsyncIterator[Reader]:
    """LedgerBroken if there is no ledger at `path` or it cannot be read. It cannot be changed here."""
    try:
        async with aiosqlite.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as db:
            await db.execute_fetchall("SELECT count(*) FROM leases")
            yield Reader(db)
    except sqlite3.DatabaseError as error:
        raise LedgerBroken(f"no ledger can be read at {path} ({error}); has qubixd run here?") from error
