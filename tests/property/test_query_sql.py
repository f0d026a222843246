"""A filter in SQL finds in SQLite what the oracle finds, in the same order."""

from __future__ import annotations

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from protocol.query import Known, SortKey, matches, order, parse_filter
from protocol.query_sql import dollar, order_by, where

COLUMNS = {
    "gpu": ("gpu", "model"),
    "region": ("region",),
    "price": ("price",),
    "rtt": ("rtt",),
    "ram": ("ram",),
}
Row = tuple[str | None, str | None, str | None, int, float | None, float]
NAMES = ("4090", "a100", "a10080gb", None)

rows = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
        st.sampled_from(["eu", "us", None]),
        st.integers(0, 5) | st.just(10**15),
        st.none() | st.sampled_from([0.5, 1.0, 2.0]),
        st.sampled_from([0.5, 1.5, 2]),
    ).filter(lambda row: row[0] is not None or row[1] is None),
    max_size=8,
)
numbers = st.builds(
    "{}{}{}".format,
    st.sampled_from(["price", "rtt", "ram"]),
    st.sampled_from([">=", "<=", ">", "<", "=", "!="]),
    st.sampled_from(["0", "1", "2", "0.5", "1.5", "5", "999999999999999"]),
)
words = st.builds(
    "{}{}{}".format,
    st.sampled_from(["gpu", "region"]),
    st.sampled_from(["=", "!="]),
    st.sampled_from(["A100", "4090", "eu"]),
)
lists = st.sampled_from(
    ["gpu in (RTX_4090, A100)", "region in (eu, mars)", "price in (1, 2, 3)", "rtt in (1)"]
)
sorts = st.lists(st.builds(SortKey, st.sampled_from(["price", "rtt", "ram"]), st.booleans()), max_size=3)


def values(row: Row) -> dict[str, Known]:
    gpu, model, region, price, rtt, ram = row
    names = tuple(name for name in (gpu, model) if name is not None)
    return {"gpu": names, "region": region, "price": price, "rtt": rtt, "ram": ram}


@given(rows, st.lists(numbers | words | lists, max_size=3), sorts)
def test_sqlite_finds_what_the_oracle_finds(rows: list[Row], texts: list[str], sort: list[SortKey]) -> None:
    asked = parse_filter(" ".join(texts))
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE offers (id INTEGER PRIMARY KEY, gpu, model, region, price, rtt, ram)")
    db.executemany("INSERT INTO offers VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows)
    clause, parameters = where(asked, COLUMNS)
    found = db.execute(
        f"SELECT id FROM offers WHERE {clause} ORDER BY {order_by(sort, COLUMNS, 'id')}", parameters
    )
    right = [(order(sort, values(row)), n) for n, row in enumerate(rows, 1) if matches(asked, values(row))]
    assert [number for (number,) in found] == [number for _, number in sorted(right)]
    db.close()


def test_values_are_parameters() -> None:
    clause, parameters = where(parse_filter("region='x OR 1' price<5 gpu!=A100"), COLUMNS, dollar, first=3)
    assert clause == (
        "(region IN ($3)) AND (price < $4) AND"
        " (gpu IS NOT NULL AND (gpu IS NULL OR gpu <> $5) AND (model IS NULL OR model <> $6))"
    )
    assert parameters == ("xor1", 5, "a100", "a100")
    assert where(parse_filter(""), COLUMNS) == ("TRUE", ())
