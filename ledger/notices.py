"""The last things that a person wanted to hear of, for one who did not watch. Times are Unix milliseconds."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from ledger.store import Store

KEPT: Final = 100
"""Of more the oldest go."""
_COLUMNS: Final = "code, severity, sentence, lease_id, at_ms"


@dataclass(frozen=True)
class NoticeRow:
    number: int
    """Rises; never used twice."""
    code: str
    severity: str
    sentence: str
    lease_id: str
    at_ms: int


async def note(store: Store, code: str, severity: str, sentence: str, lease_id: str, at_ms: int) -> None:
    """Keep one more. DiskFull."""

    def transaction(db: sqlite3.Connection) -> None:
        values = (code, severity, sentence, lease_id, at_ms)
        number = db.execute(f"INSERT INTO notices ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", values).lastrowid
        db.execute("DELETE FROM notices WHERE number <= ?", ((number or 0) - KEPT,))

    await store.write(transaction, "notices.note")


async def newest(store: Store, limit: int, after: int = 0) -> tuple[NoticeRow, ...]:
    """Those with a number above `after`, the last `limit` of them, newest first."""
    sql = f"SELECT number, {_COLUMNS} FROM notices WHERE number > ? ORDER BY number DESC LIMIT ?"
    rows = await store.read(lambda db: db.execute(sql, (after, limit)).fetchall())
    return tuple(NoticeRow(*row) for row in rows)
