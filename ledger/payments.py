"""A person's own transfers and calls of the contract: each has an id given by who asked for it, so that
asking twice pays once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ledger.store import Store

PENDING: Final = "pending"
_COLUMNS: Final = (
    "payment_id, destination, amount, state, sentence, scratch, created_ms, updated_ms, procedure, payload"
)


@dataclass(frozen=True)
class PaymentRow:
    payment_id: str
    destination: bytes
    amount: int
    state: str
    """`pending` until it is final."""
    sentence: str
    scratch: bytes
    created_ms: int
    updated_ms: int
    procedure: int
    """Of the contract; 0: it only carries money."""
    payload: bytes


async def begin(
    store: Store,
    payment_id: str,
    destination: bytes,
    amount: int,
    now_ms: int,
    procedure: int = 0,
    payload: bytes = b"",
) -> PaymentRow:
    """The payment of that id: this one, or the one that had it before, which need not be the same."""
    values = (payment_id, destination, amount, PENDING, "", b"", now_ms, now_ms, procedure, payload)
    insert = f"INSERT OR IGNORE INTO payments ({_COLUMNS}) VALUES ({', '.join('?' * len(values))})"
    select = f"SELECT {_COLUMNS} FROM payments WHERE payment_id = ?"
    row = await store.write(
        lambda db: (db.execute(insert, values), db.execute(select, (payment_id,)).fetchone())[1],
        "payments.begin",
    )
    return PaymentRow(*row)


async def save_scratch(store: Store, payment_id: str, scratch: bytes) -> None:
    sql = "UPDATE payments SET scratch = ? WHERE payment_id = ?"
    await store.write(lambda db: db.execute(sql, (scratch, payment_id)), "payments.save_scratch")


async def finish(store: Store, payment_id: str, state: str, sentence: str, now_ms: int) -> None:
    sql = "UPDATE payments SET state = ?, sentence = ?, updated_ms = ? WHERE payment_id = ?"
    await store.write(lambda db: db.execute(sql, (state, sentence, now_ms, payment_id)), "payments.finish")


async def get(store: Store, payment_id: str) -> PaymentRow | None:
    sql = f"SELECT {_COLUMNS} FROM payments WHERE payment_id = ?"
    row = await store.read(lambda db: db.execute(sql, (payment_id,)).fetchone())
    return None if row is None else PaymentRow(*row)


async def pending(store: Store) -> tuple[PaymentRow, ...]:
    """Those that are not final, oldest first."""
    sql = f"SELECT {_COLUMNS} FROM payments WHERE state = ? ORDER BY created_ms"
    rows = await store.read(lambda db: db.execute(sql, (PENDING,)).fetchall())
    return tuple(PaymentRow(*row) for row in rows)


async def newest(store: Store, limit: int) -> tuple[PaymentRow, ...]:
    sql = f"SELECT {_COLUMNS} FROM payments ORDER BY created_ms DESC LIMIT ?"
    rows = await store.read(lambda db: db.execute(sql, (limit,)).fetchall())
    return tuple(PaymentRow(*row) for row in rows)
