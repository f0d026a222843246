"""The tables of a node's ledger and how older files become newer ones.

`PRAGMA user_version` counts the migrations a file has had. A migration, once released, is never
edited: the next change is a new entry at the end. Times are Unix milliseconds.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from protocol.errors import LedgerBroken

APPLICATION_ID: Final = 0x71756278
""""qubx" in SQLite's file header, so that another program's database is never touched."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
        # steps: events so far. next_seq: number of the next outbox row, never used twice.
        """CREATE TABLE leases (
            lease_id BLOB PRIMARY KEY, role TEXT NOT NULL, phase TEXT NOT NULL, state BLOB NOT NULL,
            steps INTEGER NOT NULL, next_seq INTEGER NOT NULL,
            created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT""",
        "CREATE INDEX leases_by_phase ON leases (phase)",
        """CREATE TABLE events (
            lease_id BLOB NOT NULL REFERENCES leases, step INTEGER NOT NULL, event BLOB NOT NULL,
            at_ms INTEGER NOT NULL, PRIMARY KEY (lease_id, step)) STRICT, WITHOUT ROWID""",
        # A row is an effect that has still to happen; done rows are deleted.
        """CREATE TABLE outbox (
            lease_id BLOB NOT NULL REFERENCES leases, seq INTEGER NOT NULL, lane TEXT NOT NULL,
            kind TEXT NOT NULL, payload BLOB NOT NULL, scratch BLOB NOT NULL DEFAULT x'',
            PRIMARY KEY (lease_id, seq)) STRICT, WITHOUT ROWID""",
        # The newest offer of each provider: refuses replays across restarts, refills the offer book.
        """CREATE TABLE offers (
            peer BLOB PRIMARY KEY, sequence INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
            record BLOB NOT NULL) STRICT, WITHOUT ROWID""",
        "CREATE INDEX offers_by_expiry ON offers (expires_ms)",
    ),
    (
        # Every transaction this node has signed, written before it is sent. about: a lease or a payment.
        """CREATE TABLE transactions (
            digest BLOB PRIMARY KEY, about BLOB NOT NULL, action TEXT NOT NULL, tick INTEGER NOT NULL,
            amount INTEGER NOT NULL, destination BLOB NOT NULL, at_ms INTEGER NOT NULL)
            STRICT, WITHOUT ROWID""",
        "CREATE INDEX transactions_by_subject ON transactions (about)",
        # A person's own transfers. scratch: what the bridge needs to go on after a crash.
        """CREATE TABLE payments (
            payment_id TEXT PRIMARY KEY, destination BLOB NOT NULL, amount INTEGER NOT NULL,
            state TEXT NOT NULL, sentence TEXT NOT NULL, scratch BLOB NOT NULL,
            created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
    ),
    (
        # One transaction may be about several leases: vouchers are cashed together.
        "ALTER TABLE transactions RENAME TO transactions_before",
        """CREATE TABLE transactions (
            digest BLOB NOT NULL, about BLOB NOT NULL, action TEXT NOT NULL, tick INTEGER NOT NULL,
            amount INTEGER NOT NULL, destination BLOB NOT NULL, at_ms INTEGER NOT NULL,
            PRIMARY KEY (digest, about)) STRICT, WITHOUT ROWID""",
        "INSERT INTO transactions SELECT * FROM transactions_before",
        "DROP TABLE transactions_before",
        "CREATE INDEX transactions_by_subject ON transactions (about)",
    ),
)


def migrate(db: sqlite3.Connection, where: str) -> None:
    """Bring the open database to the newest version, in one transaction or not at all.

    `where` names the file in errors. LedgerBroken if it is another program's or from a newer qubix.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        version = _version(db, where)
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        roll_back(db)
        raise


def roll_back(db: sqlite3.Connection) -> None:
    """Undo the open transaction, if SQLite has not done so by itself (it does when the disk is full)."""
    if db.in_transaction:
        db.execute("ROLLBACK")


def _version(db: sqlite3.Connection, where: str) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if owner != APPLICATION_ID and (owner or version or tables):
        raise LedgerBroken(f"{where} is another program's database; point qubix at its own data directory")
    if version > len(MIGRATIONS):
        raise LedgerBroken(
            f"{where} was written by a newer qubix (ledger version {version}, this one knows "
            f"{len(MIGRATIONS)}); install that version or newer"
        )
    return int(version)
