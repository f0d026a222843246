"""The tables of mirror.db: what a node lets everybody see of the market, in a file of its own.

Read by the web (SQLite read-only, or a PostgreSQL that it copies the rows to: `for_postgresql`). Nothing here
is secret, and all but `days`, `stats` and old `candles` can be made anew from the network. Times are Unix
milliseconds, money is QU. Numbers of offers stand in whole steps of their field and names as filters compare
them (protocol.query), so that SQL finds what `protocol.query.matches` finds. Texts are the providers' own, of
checked size and type, with U+2400 for NUL: whoever shows them makes them harmless.
"""

from __future__ import annotations

from typing import Final

FILE: Final = "mirror.db"
APPLICATION_ID: Final = 0x7175626D
""""qubm" in SQLite's file header."""
VERSION: Final = 1
"""As `meta.schema` says it."""

NUMBERS: Final = (
    "gpus", "vram", "price", "storage", "ram", "cpus", "disk", "cuda", "score", "reliability", "issued",
)  # fmt: skip
"""Columns of offers that hold a number; `issued`, a Unix second, stands for the field `age`. score and
reliability are NULL until they are known."""
NAMES: Final = ("gpu", "gpu_model", "region", "market", "name", "runner", "runtime", "internet", "arch")
"""Columns that hold a name as filters compare it, "" where there is none. The field `gpu` is either of the
first two; the field `provider` is `peer`."""
OFFER_COLUMNS: Final = (
    "peer", "peer_id", "change", "live", "first_seen_ms", "seen_ms", "expires_ms", "closes_ms", "sequence",
    "label", "region_label", "gpu_label", "provider_id", "most_gpus", *NUMBERS, *NAMES, "record",
)  # fmt: skip
CANDLE_COLUMNS: Final = (
    "kind", "subject", "span_ms", "start_ms", "open", "high", "low", "close", "cheapest", "offers", "gpus",
    "change",
)  # fmt: skip
"""As ledger/prices.py has them."""
DAY_COLUMNS: Final = ("peer", "day", "hours", "change")
SCORE_COLUMNS: Final = (
    "peer", "score", "performance", "reliability", "efficiency", "confidence", "newcomer", "reasons",
    "evidence", "at_ms", "change",
)  # fmt: skip
SETTLEMENT_COLUMNS: Final = (
    "lease_id", "provider", "gpu", "paid_qu", "seconds", "outcome", "proof", "open_tick", "close_tick",
    "transaction_digest", "ended_ms", "change",
)  # fmt: skip
STAT_COLUMNS: Final = (
    "hour", "offers", "providers", "gpus", "free_gpus", "peers", "settled_qu", "leases", "change",
)  # fmt: skip

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        # schema: VERSION. network, contract_index: where these offers settle. node: peer id of who mirrors.
        # book: of another one change numbers mean something else. change: the newest. forgotten: who has
        # read no further than this may have missed that an offer ended, and begins anew. updated_ms: when
        # the mirror was last complete. peers, directories: it has now. tick: the newest of the chain.
        # arrived: for itself, how far it has read the ledger's receipts.
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
        # change: rises with every change of a row, so that a reader goes on from where it was; an offer has
        # one of its own, other rows that were written together share one. live = 0: it has ended
        # (expires_ms says when) and has no record; the row goes an hour later. seen_ms: a sign of life, as
        # of this row's writing. most_gpus: it has ever offered; gpus are those that are free. provider_id:
        # its wallet. closes_ms: when its schedule closes, 0 if it does not. record: its signed envelope,
        # as gossiped; the last column, so that a search for others reads past no long one.
        """CREATE TABLE offers (
            peer BLOB PRIMARY KEY, peer_id TEXT NOT NULL, change INTEGER NOT NULL UNIQUE,
            live INTEGER NOT NULL, first_seen_ms INTEGER NOT NULL, seen_ms INTEGER NOT NULL,
            expires_ms INTEGER NOT NULL, closes_ms INTEGER NOT NULL, sequence INTEGER NOT NULL,
            label TEXT NOT NULL, region_label TEXT NOT NULL, gpu_label TEXT NOT NULL,
            provider_id BLOB NOT NULL, most_gpus INTEGER NOT NULL,
            gpus INTEGER NOT NULL, vram INTEGER NOT NULL, price INTEGER NOT NULL, storage INTEGER NOT NULL,
            ram INTEGER NOT NULL, cpus INTEGER NOT NULL, disk INTEGER NOT NULL, cuda INTEGER NOT NULL,
            score INTEGER, reliability INTEGER, issued INTEGER NOT NULL,
            gpu TEXT NOT NULL, gpu_model TEXT NOT NULL, region TEXT NOT NULL, market TEXT NOT NULL,
            name TEXT NOT NULL, runner TEXT NOT NULL, runtime TEXT NOT NULL, internet TEXT NOT NULL,
            arch TEXT NOT NULL, record BLOB NOT NULL) STRICT""",
        # Every search is answered from this index alone. Who asks for a column reads past all before it, so
        # names stand in front: they are dearer to compare than numbers.
        """CREATE INDEX offers_by_price ON offers (live, price, peer,
            gpus, vram, gpu, gpu_model, region, runner, runtime, internet, arch,
            score, reliability, ram, cpus, disk, cuda, issued, storage, market, name,
            most_gpus, gpu_label, first_seen_ms)""",
        "CREATE INDEX offers_ended ON offers (expires_ms) WHERE live = 0",
        """CREATE TABLE candles (
            kind TEXT NOT NULL, subject BLOB NOT NULL, span_ms INTEGER NOT NULL, start_ms INTEGER NOT NULL,
            open INTEGER NOT NULL, high INTEGER NOT NULL, low INTEGER NOT NULL, close INTEGER NOT NULL,
            cheapest INTEGER NOT NULL, offers INTEGER NOT NULL, gpus INTEGER NOT NULL,
            change INTEGER NOT NULL, PRIMARY KEY (kind, subject, span_ms, start_ms)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX candles_by_age ON candles (span_ms, start_ms)",
        # day: since 1970-01-01 UTC. hours: bit h is set if it was alive in that hour of the day, UTC.
        """CREATE TABLE days (
            peer BLOB NOT NULL, day INTEGER NOT NULL, hours INTEGER NOT NULL,
            change INTEGER NOT NULL, PRIMARY KEY (peer, day)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX days_by_day ON days (day)",
        # Shares are 0 to 1. reasons: a JSON list of sentences. evidence: a JSON object (docs/web.md).
        """CREATE TABLE scores (
            peer BLOB PRIMARY KEY, score REAL NOT NULL, performance REAL NOT NULL, reliability REAL NOT NULL,
            efficiency REAL NOT NULL, confidence REAL NOT NULL, newcomer INTEGER NOT NULL,
            reasons TEXT NOT NULL, evidence TEXT NOT NULL, at_ms INTEGER NOT NULL,
            change INTEGER NOT NULL) STRICT""",
        # Leases that are over, as their receipts say. provider: its peer key. outcome: completed, stopped or
        # failed. proof: ticket, seen or claimed. close_tick and transaction_digest are 0 and empty until the
        # provider has told where it was settled.
        """CREATE TABLE settlements (
            lease_id BLOB PRIMARY KEY, provider BLOB NOT NULL, gpu TEXT NOT NULL, paid_qu INTEGER NOT NULL,
            seconds INTEGER NOT NULL, outcome TEXT NOT NULL, proof TEXT NOT NULL, open_tick INTEGER NOT NULL,
            close_tick INTEGER NOT NULL, transaction_digest BLOB NOT NULL, ended_ms INTEGER NOT NULL,
            change INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        "CREATE INDEX settlements_by_end ON settlements (ended_ms, lease_id)",
        "CREATE INDEX settlements_by_provider ON settlements (provider, ended_ms)",
        # hour: since 1970-01-01 UTC. settled_qu, leases: of those that ended in it.
        """CREATE TABLE stats (
            hour INTEGER PRIMARY KEY, offers INTEGER NOT NULL, providers INTEGER NOT NULL,
            gpus INTEGER NOT NULL, free_gpus INTEGER NOT NULL, peers INTEGER NOT NULL,
            settled_qu INTEGER NOT NULL, leases INTEGER NOT NULL,
            change INTEGER NOT NULL) STRICT""",
        *(
            f"CREATE INDEX {table}_by_change ON {table} (change)"
            for table in ("candles", "days", "scores", "settlements", "stats")
        ),
    ),
)

_TYPES: Final = (
    (" STRICT, WITHOUT ROWID", ""),
    (" STRICT", ""),
    (" BLOB", " bytea"),
    (" INTEGER", " bigint"),
    (" REAL", " double precision"),
    (" TEXT", ' TEXT COLLATE "C"'),  # compared byte by byte, as SQLite does
)
_SWEPT: Final = "ALTER TABLE offers SET (autovacuum_vacuum_scale_factor = 0.02)"
"""Only of pages that were swept since they changed does an index alone know what is in them there. (Its rows
have at most 2,704 bytes, more than the longest names that a message can carry.)"""


def for_postgresql() -> tuple[str, ...]:
    """The statements that make the same tables there."""
    statements = (statement for migration in MIGRATIONS for statement in migration)
    ours = (statement for statement in statements if not statement.startswith("PRAGMA"))
    return (*map(_translated, ours), _SWEPT)


def _translated(statement: str) -> str:
    for ours, theirs in _TYPES:
        statement = statement.replace(ours, theirs)
    return " ".join(statement.split())
