"""The tables of a node's ledger and how older files become newer ones.

`PRAGMA user_version` counts the migrations a file has had. A migration, once released, is never
edited: the next change is a new entry at the end. Times are Unix milliseconds.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
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
    (
        # Callers' signed words on leases that are over. proof, paid, opened_ms: what the chain said of it.
        """CREATE TABLE receipts (
            lease_id BLOB PRIMARY KEY, provider BLOB NOT NULL, record BLOB NOT NULL,
            failed INTEGER NOT NULL, cumulative INTEGER NOT NULL, ended_ms INTEGER NOT NULL,
            source BLOB NOT NULL, at_ms INTEGER NOT NULL, proof TEXT NOT NULL, paid INTEGER NOT NULL,
            opened_ms INTEGER NOT NULL, checked_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        "CREATE INDEX receipts_by_provider ON receipts (provider, failed, ended_ms)",
        "CREATE INDEX receipts_by_source ON receipts (source)",
        "CREATE INDEX receipts_by_age ON receipts (proof, at_ms)",
        # Providers' signed words on where a lease was settled. Whoever signs owns the row, so that nobody's
        # word on another's lease takes the place of its own.
        """CREATE TABLE settlements (
            lease_id BLOB NOT NULL, provider BLOB NOT NULL, record BLOB NOT NULL, source BLOB NOT NULL,
            at_ms INTEGER NOT NULL, PRIMARY KEY (lease_id, provider)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX settlements_by_source ON settlements (source)",
        "CREATE INDEX settlements_by_age ON settlements (at_ms)",
        # What this node had to say about each of its own ended leases; empty: nothing.
        """CREATE TABLE words (
            lease_id BLOB PRIMARY KEY REFERENCES leases, record BLOB NOT NULL, at_ms INTEGER NOT NULL,
            delivered INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        "CREATE INDEX words_to_deliver ON words (at_ms) WHERE delivered = 0",
        # Providers that failed us lately, and those that a person has denied.
        """CREATE TABLE standing (
            provider BLOB PRIMARY KEY, failures INTEGER NOT NULL, code TEXT NOT NULL,
            failed_ms INTEGER NOT NULL, denied INTEGER NOT NULL, why TEXT NOT NULL) STRICT, WITHOUT ROWID""",
        # Payments may be calls of the contract.
        "ALTER TABLE payments ADD COLUMN procedure INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE payments ADD COLUMN payload BLOB NOT NULL DEFAULT x''",
    ),
    (
        # What a job used, a minute a row, later an hour a row. Sums are over `samples`, so that rows can be
        # put together; first_ms and last_ms are the instants of the samples contained. gpus: msgpack.
        """CREATE TABLE meters (
            lease_id BLOB NOT NULL REFERENCES leases, span_ms INTEGER NOT NULL, start_ms INTEGER NOT NULL,
            samples INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
            cpu_sum INTEGER NOT NULL, cpu_most INTEGER NOT NULL,
            memory_sum INTEGER NOT NULL, memory_most INTEGER NOT NULL,
            disk_sum INTEGER NOT NULL, disk_most INTEGER NOT NULL,
            received INTEGER NOT NULL, sent INTEGER NOT NULL, gpus BLOB NOT NULL,
            PRIMARY KEY (lease_id, span_ms, start_ms)) STRICT, WITHOUT ROWID""",
    ),
    (
        # What was asked an hour, one row for each hour in which there was news, later for each day. kind: gpu
        # (subject: a class as filters compare it) or provider (subject: its key). Money in QU.
        """CREATE TABLE prices (
            kind TEXT NOT NULL, subject BLOB NOT NULL, span_ms INTEGER NOT NULL, start_ms INTEGER NOT NULL,
            open INTEGER NOT NULL, high INTEGER NOT NULL, low INTEGER NOT NULL, close INTEGER NOT NULL,
            cheapest INTEGER NOT NULL, offers INTEGER NOT NULL, gpus INTEGER NOT NULL,
            PRIMARY KEY (kind, subject, span_ms, start_ms)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX prices_by_age ON prices (span_ms, start_ms)",
    ),
    (
        # Money that came to the wallet without this node's doing. source: empty if nobody knows.
        """CREATE TABLE arrivals (
            arrival_id BLOB PRIMARY KEY, kind TEXT NOT NULL, amount INTEGER NOT NULL, source BLOB NOT NULL,
            first_tick INTEGER NOT NULL, tick INTEGER NOT NULL, at_ms INTEGER NOT NULL)
            STRICT, WITHOUT ROWID""",
    ),
    (
        # The last things that a person wanted to hear of. Numbers are never used twice.
        """CREATE TABLE notices (
            number INTEGER PRIMARY KEY AUTOINCREMENT, code TEXT NOT NULL, severity TEXT NOT NULL,
            sentence TEXT NOT NULL, lease_id TEXT NOT NULL, at_ms INTEGER NOT NULL) STRICT""",
    ),
)


@dataclass(frozen=True)
class Schema:
    """What stands in a file."""

    application_id: int
    migrations: tuple[tuple[str, ...], ...]
    public: bool = False
    """Everybody on this machine may read the file, and no commit waits for the disk: after a power cut the
    last ones may be gone, and what is there is whole."""


def of_ledger() -> Schema:
    return Schema(APPLICATION_ID, MIGRATIONS)


def migrate(db: sqlite3.Connection, where: str, schema: Schema) -> None:
    """Bring the open database to the newest version, in one transaction or not at all.

    `where` names the file in errors. LedgerBroken if it is another program's or from a newer qubix.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        version = _version(db, where, schema)
        for statements in schema.migrations[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(schema.migrations)}")
        db.execute("COMMIT")
    except BaseException:
        roll_back(db)
        raise


def roll_back(db: sqlite3.Connection) -> None:
    """Undo the open transaction, if SQLite has not done so by itself (it does when the disk is full)."""
    if db.in_transaction:
        db.execute("ROLLBACK")


def _version(db: sqlite3.Connection, where: str, schema: Schema) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if owner != schema.application_id and (owner or version or tables):
        raise LedgerBroken(f"{where} is another program's database; point qubix at its own data directory")
    if version > len(schema.migrations):
        raise LedgerBroken(
            f"{where} was written by a newer qubix (ledger version {version}, this one knows "
            f"{len(schema.migrations)}); install that version or newer"
        )
    return int(version)
