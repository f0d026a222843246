"""Every transaction this node has signed: what may be on the chain although nothing else remembers it.

Written before the transaction is sent, so an entry does not say that it was. One that is about several leases
has an entry for each. Times are Unix milliseconds.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final

from ledger.store import Store

_COLUMNS: Final = "digest, about, action, tick, amount, destination, at_ms"


@dataclass(frozen=True)
class SignedTransaction:
    digest: bytes
    """K12 of the whole transaction: its name in the network, 32 bytes."""
    about: bytes
    """A lease id, or a payment's id as bytes."""
    action: str
    tick: int
    """The only tick in which it can run."""
    amount: int
    """QU that go with it."""
    destination: bytes
    """An account, 32 bytes."""
    at_ms: int


async def note(store: Store, one: SignedTransaction) -> None:
    """Keep it; no error if it is there already. DiskFull."""
    sql = "INSERT OR IGNORE INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?)"
    await store.write(lambda db: db.execute(sql, astuple(one)), "transactions.note")


async def last_tick(store: Store) -> int:
    """The newest tick that one was signed for; 0 if none ever was."""
    (tick,) = await store.read(lambda db: db.execute("SELECT max(tick) FROM transactions").fetchone())
    return tick or 0


async def about(store: Store, subject: bytes) -> tuple[SignedTransaction, ...]:
    """Those of one lease or payment, oldest first."""
    sql = f"SELECT {_COLUMNS} FROM transactions WHERE about = ? ORDER BY tick, at_ms"
    rows = await store.read(lambda db: db.execute(sql, (subject,)).fetchall())
    return tuple(SignedTransaction(*row) for row in rows)


async def newest(store: Store, limit: int) -> tuple[SignedTransaction, ...]:
    """The last `limit` of all, newest first."""
    sql = f"SELECT {_COLUMNS} FROM transactions ORDER BY at_ms DESC, tick DESC LIMIT ?"
    rows = await store.read(lambda db: db.execute(sql, (limit,)).fetchall())
    return tuple(SignedTransaction(*row) for row in rows)
