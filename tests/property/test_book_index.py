"""The index answers as the oracle does, whatever offers it has been through and whatever is asked."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.messages import Capacity
from protocol.query import FIELDS, Condition, Filter, SortKey, matches, order, parse_filter
from protocol.signing import NodeKey, Signed
from protocol.units import PeerKey, Qu, UnixMs
from qubixd import book_bits
from qubixd.book import ALIVE_MS, OfferBook
from tests.support.deals import CONTRACT, NETWORK, NOW, gpu, offer

KEYS = [NodeKey(hashlib.sha256(b"%d" % number).digest()) for number in range(12)]
CLASSES = ["RTX_4090", "A100_40GB", "A100_80GB", "RTX 4090", "CPU", "__", ""]
REGIONS = ["eu", "EU", "us", "", "asia-1"]
EDGES = [0, 1, 2, 3, 24, 40, 80, 1_000, 24_564, 65_536, 2**32 - 1]
MONEY = st.sampled_from([0, 1, 49, 50, 51, 2**20, 10**15])

sizes = st.sampled_from(EDGES) | st.integers(0, 2**32 - 1)
cards = st.lists(st.builds(gpu, st.integers(0, 5), vram_mib=sizes), max_size=3).map(tuple)
offers = st.builds(
    lambda capacity, gpu_class, region, name, price, storage, age, more: replace(
        offer(1, NOW - age),
        capacity=capacity,
        gpu_class=gpu_class,
        region=region,
        name=name,
        price_qu_per_hour=Qu(price),
        storage_qu_per_tib_hour=Qu(storage),
        **more,
    ),
    st.builds(Capacity, cards, sizes, sizes, sizes),
    st.sampled_from(CLASSES),
    st.sampled_from(REGIONS),
    st.sampled_from(["alice", "Alice", "bob", ""]),
    MONEY,
    MONEY,
    st.integers(0, 70_000),
    st.fixed_dictionaries(
        {},
        optional={
            "runner": st.sampled_from(["docker+runsc", "docker+kata", "process", "+", ""]),
            "arch": st.sampled_from(["amd64", "x86_64", "arm64", ""]),
            "cuda": st.sampled_from([0, 11080, 12000, 12040, 12090, 13000, 2**32 - 1]),
            "internet": st.booleans(),
        },
    ),
)
measures = st.fixed_dictionaries(
    {},
    optional={
        "rtt_ms": st.floats(0, 1e4) | st.sampled_from([0.0, 50.0]),
        "score": st.floats(0, 1) | st.sampled_from([0.5, 1.0]),
        "reliability": st.sampled_from([0.0, 0.98, 1.0]),
    },
)


def texts(field: str) -> st.SearchStrategy[str]:
    if FIELDS[field].units is not None:
        numbers = st.sampled_from([0, 1, 2, 3, 24, 40, 50, 51, 60, 1_000, 10**14]) | st.integers(0, 10**6)
        decimals = st.decimals(-1, 10_000, places=3, allow_nan=False, allow_infinity=False).map(str)
        units = st.just("") | st.sampled_from(list(FIELDS[field].units or ()))
        return st.builds("{}{}".format, numbers.map(str).filter(lambda t: len(t) < 13) | decimals, units)
    return {
        "gpu": st.sampled_from(["RTX_4090", "A100", "A100_80GB", "4090", "H100"]),
        "region": st.sampled_from(["eu", "us", "ASIA-1", "mars"]),
        "internet": st.sampled_from(["yes", "no", "TRUE", "off"]),
        "arch": st.sampled_from(["amd64", "x86_64", "aarch64", "riscv"]),
        "runtime": st.sampled_from(["runc", "runsc", "kata"]),
        "provider": st.sampled_from([key.public.hex() for key in KEYS]),
    }.get(field, st.sampled_from(["alice", "bob", "docker", "process", "CPU", "OTHER", "A100"]))


@st.composite
def conditions(draw: st.DrawFn) -> str:
    field = draw(st.sampled_from(list(FIELDS)) | st.sampled_from(OFTEN))
    operators = ["=", "!=", "in"] + ([">=", "<=", ">", "<"] * 2 if FIELDS[field].units is not None else [])
    operator = draw(st.sampled_from(operators))
    if operator == "in":
        return f"{field} in ({', '.join(draw(st.lists(texts(field), min_size=1, max_size=3)))})"
    return f"{field}{operator}{draw(texts(field))}"


OFTEN = ["gpu", "region", "name", "age", "age", "rtt", "score", "reliability"]
numeric = [name for name, field in FIELDS.items() if field.units is not None]
sorts = st.lists(st.builds(SortKey, st.sampled_from(numeric), st.booleans()), max_size=3)
steps = st.lists(
    st.tuples(st.just("offer"), st.sampled_from(KEYS), offers)
    | st.tuples(st.just("withdraw"), st.sampled_from(KEYS), offers)
    | st.tuples(st.just("measure"), st.sampled_from(KEYS), measures)
    | st.tuples(st.just("wait"), st.just(KEYS[0]), st.integers(0, ALIVE_MS)),
    max_size=25,
)


def expected(book: OfferBook, asked: Filter, sort: list[SortKey], now: UnixMs) -> list[PeerKey]:
    found = []
    for entry in book.entries(now):
        values = book.values(entry, now)
        if matches(asked, values):
            found.append((order(sort, values), int.from_bytes(entry.provider[:8], "big", signed=True), entry))
    return [entry.provider for *_, entry in sorted(found, key=lambda one: one[:2])]


def act(book: OfferBook, step: tuple[str, NodeKey, Any], number: int, now: UnixMs) -> UnixMs:
    what, key, detail = step
    if what == "wait":
        return UnixMs(now + detail)
    if what == "measure":
        book.measure(key.public, **detail)
        return now
    issued = UnixMs(now - (NOW - detail.issued_at))
    made = replace(
        detail,
        sequence=number,
        issued_at=issued,
        expires_at=UnixMs(issued + 600_000),
        withdrawn=what == "withdraw",
    )
    book.take(Signed(key.public, made, key.sign(made)), now)
    return now


@pytest.mark.parametrize("batch", [1, 3, 1_024])
@settings(max_examples=200, deadline=None)
@given(steps, st.lists(conditions(), max_size=3), sorts, st.integers(1, 15), st.integers(0, 8))
def test_the_index_agrees_with_the_oracle(
    batch: int,
    steps: list[tuple[str, NodeKey, Any]],
    texts: list[str],
    sort: list[SortKey],
    limit: int,
    start: int,
) -> None:
    asked = parse_filter(" ".join(texts))
    book, now = OfferBook(NETWORK, CONTRACT), NOW
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book_bits, "BATCH", batch)
        for number, step in enumerate(steps, 1):
            now = act(book, step, number, now)
            if number % 5 == 0:
                book.query(asked, sort, 3, now)
        right = expected(book, asked, sort, now)
        page = book.query(asked, sort, limit, now, start)
    assert [entry.provider for entry in page.entries] == right[start : start + limit]
    assert page.total == len(right)
    assert page.next == (start + limit if start + limit < len(right) else None)
    assert all(matches(asked, values) for values in page.values)


def test_conditions_are_written_as_they_are_read() -> None:
    asked = Filter((Condition("vram", ">=", (24,)), Condition("gpu", "in", ("4090", "a100"))))
    assert parse_filter(str(asked)) == asked
