"""The names of mirror.db's tables and columns are what the tables really have, in both dialects."""

from __future__ import annotations

import sqlite3
from itertools import chain

import pytest

from ledger import mirror_schema
from qubixd import book_facts

COLUMNS = {
    "offers": mirror_schema.OFFER_COLUMNS,
    "candles": mirror_schema.CANDLE_COLUMNS,
    "days": mirror_schema.DAY_COLUMNS,
    "scores": mirror_schema.SCORE_COLUMNS,
    "settlements": mirror_schema.SETTLEMENT_COLUMNS,
    "stats": mirror_schema.STAT_COLUMNS,
    "meta": ("key", "value"),
}


def test_tables_have_the_columns_that_are_named() -> None:
    db = sqlite3.connect(":memory:")
    for statement in chain(*mirror_schema.MIGRATIONS):
        db.execute(statement)
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables == COLUMNS.keys()
    for table, columns in COLUMNS.items():
        assert tuple(row[1] for row in db.execute(f"PRAGMA table_info({table})")) == columns


def test_offers_have_a_column_for_every_fact_that_is_searched_for() -> None:
    """But the round trip, which is another one for everybody."""
    assert set(mirror_schema.NUMBERS) == set(book_facts.NUMBERS) - {"rtt"}
    assert mirror_schema.NAMES == book_facts.NAMES


@pytest.mark.parametrize("word", ["STRICT", "WITHOUT", "BLOB", "INTEGER", "PRAGMA", "REAL"])
def test_nothing_of_sqlite_is_left_for_postgresql(word: str) -> None:
    statements = mirror_schema.for_postgresql()
    assert statements
    assert not [statement for statement in statements if word in statement]


def test_every_search_is_answered_from_one_index() -> None:
    """Reading 100,000 rows of the table would take five times as long."""
    db = sqlite3.connect(":memory:")
    for statement in chain(*mirror_schema.MIGRATIONS):
        db.execute(statement)
    facts = ", ".join((*mirror_schema.NUMBERS, *mirror_schema.NAMES))
    plan = db.execute(f"EXPLAIN QUERY PLAN SELECT peer, {facts} FROM offers WHERE live = 1 AND vram > 5")
    assert [row[3] for row in plan] == ["SEARCH offers USING COVERING INDEX offers_by_price (live=?)"]
