"""Money that came to the wallet without this node's doing, as far as a look at the chain can tell.

The mark is where the last look was: what has been written down explains the balance there. It is moved in
the transaction that writes down what came since, so that nothing is noted twice or missed at a crash. Money
is QU, times are Unix milliseconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Final

from ledger.store import Store

KEPT: Final = 10_000
"""Rows; the oldest go first. Anybody can send dust."""
_MARK: Final = "wallet:mark"
_COLUMNS: Final = "arrival_id, kind, amount, source, first_tick, tick, at_ms"


@dataclass(frozen=True)
class Mark:
    tick: int
    """What happened in earlier ticks is contained in the balance."""
    balance: int
    at_ms: int


@dataclass(frozen=True)
class Arrival:
    arrival_id: bytes
    """A transaction's digest; of what is known by the balance alone, the ticks that it lies between."""
    kind: str
    """`received`: a transaction, and the balance agrees. `unchecked`: a transaction, and the balance cannot
    tell whether it was carried out. `unexplained`: by the balance alone. `opening`: at the first look."""
    amount: int
    """Below 0 if an unexplained sum has gone."""
    source: bytes
    """Whose transaction it was, 32 bytes; empty if not known."""
    first_tick: int
    tick: int
    """It happened in one of these; the same where it is known which."""
    at_ms: int
    """When it was found."""


async def note(store: Store, arrivals: Iterable[Arrival], mark: Mark) -> None:
    """Write down what has come, each once, and that all is explained up to the mark. DiskFull."""
    rows = [astuple(one) for one in arrivals]

    def transaction(db: sqlite3.Connection) -> None:
        db.executemany(f"INSERT OR IGNORE INTO arrivals ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        if rows:
            db.execute(
                "DELETE FROM arrivals WHERE arrival_id NOT IN"
                " (SELECT arrival_id FROM arrivals ORDER BY tick DESC LIMIT ?)",
                (KEPT,),
            )
        db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (_MARK, b"%d %d %d" % astuple(mark)),
        )

    await store.write(transaction, "arrivals.note")


async def mark(store: Store) -> Mark | None:
    """None before the first look."""
    sql = "SELECT value FROM meta WHERE key = ?"
    row = await store.read(lambda db: db.execute(sql, (_MARK,)).fetchone())
    return None if row is None else Mark(*map(int, bytes(row[0]).split()))


async def newest(store: Store, limit: int) -> tuple[Arrival, ...]:
    """The last `limit`, newest first."""
    sql = f"SELECT {_COLUMNS} FROM arrivals ORDER BY at_ms DESC, tick DESC LIMIT ?"
    rows = await store.read(lambda db: db.execute(sql, (limit,)).fetchall())
    return tuple(Arrival(*row) for row in rows)
