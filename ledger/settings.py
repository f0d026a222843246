"""Small things a node keeps by name: which network it belongs to, counters that only rise."""

from __future__ import annotations

import sqlite3

from ledger.store import Store
from protocol.errors import ConfigInvalid


async def get(store: Store, key: str) -> bytes | None:
    return await store.read(lambda db: _get(db, key))


async def put(store: Store, key: str, value: bytes) -> None:
    await store.write(lambda db: _put(db, key, value), "settings.put")


async def bind_network(store: Store, network: str) -> None:
    """Tie the ledger to a network at first use; ConfigInvalid if it belongs to another one, because
    leases and amounts of two networks must never meet."""

    def transaction(db: sqlite3.Connection) -> None:
        bound = _get(db, "network")
        if bound is None:
            _put(db, "network", network.encode())
        elif bound != network.encode():
            raise ConfigInvalid(
                f"this data directory belongs to the network {bound.decode()!r}, not {network!r}; "
                "use another data directory"
            )

    await store.write(transaction, "settings.bind_network")


async def next_number(store: Store, name: str, at_least: int = 0) -> int:
    """A number of this series, higher than every one before it, restarts included, and at least
    `at_least`. Used for the sequence of this node's own offers."""

    def transaction(db: sqlite3.Connection) -> int:
        last = _get(db, f"number:{name}")
        number = at_least if last is None else max(at_least, int(last) + 1)
        _put(db, f"number:{name}", str(number).encode())
        return number

    return await store.write(transaction, "settings.next_number")


def _get(db: sqlite3.Connection, key: str) -> bytes | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else bytes(row[0])


def _put(db: sqlite3.Connection, key: str, value: bytes) -> None:
    db.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
    )
