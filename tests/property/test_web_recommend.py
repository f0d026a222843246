"""The web recommends what the daemon's `market --for` does, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.catalogue import USE_CASES, UseCase, use_case
from protocol.fitness import Ranked
from protocol.messages import Wish
from protocol.query import parse_filter
from protocol.signing import NodeKey, opened
from protocol.units import UnixMs
from qubixd import fitting
from qubixd.book import Entry, OfferBook
from tests.support.market_values import card, entry, machines
from tests.support.postgres import postgres_server as postgres_server
from tests.support.postgres import postgres_url as postgres_url
from tests.support.web_mirror import row_of
from tests.support.web_world import World, postgres_world, sqlite_world
from web import recommend

NOW = UnixMs(1_000)
DISK_MIB = 10_240
KEYS = [NodeKey(bytes([number]) * 32) for number in range(1, 25)]
EVERY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with sqlite_world(tmp_path_factory.mktemp("recommend") / "mirror.db", NOW) as world:
        yield world


STORAGE = st.sampled_from((0, 0, 7, 10**15))
"""QU for a TiB and hour."""
MANY = st.lists(machines(STORAGE), max_size=len(KEYS))
USES = st.sampled_from(list(USE_CASES.values()))


def fill(world: World, made: Sequence[Entry]) -> None:
    by_key = {key.public: key for key in KEYS}
    rows = [row_of(one.offer, by_key[one.provider], change, now_ms=NOW) for change, one in enumerate(made, 1)]
    world.begin(rows)


def daemons(made: Sequence[Entry], use: UseCase, limit: int, where: str) -> fitting.Fitting:
    book = OfferBook("devnet", 28)
    for one in made:
        book.take(opened(one.raw), NOW)
    wish = Wish("", 0, 0, 0, 0, DISK_MIB)

    async def look() -> fitting.Fitting:
        return await fitting.fittest(book, parse_filter(where), use, wish, limit, lambda: NOW)

    return trio.run(look)


def worth(ranked: Ranked) -> float:
    return ranked.speed / max(1, ranked.candidate.qu_per_hour)


def hold(world: World, many: list[dict[str, Any]], use: UseCase, limit: int, where: str) -> None:
    made = [entry(key, **machine) for key, machine in zip(KEYS, many, strict=False)]
    fill(world, made)
    ours = world.ask(world.store.recommend(use, parse_filter(where), limit, DISK_MIB))
    theirs = daemons(made, use, limit, where)
    assert ours.total == theirs.total
    assert [worth(one.ranked) for one in ours.found] == [worth(ranked) for _, ranked in theirs.found]
    assert [one.offer.peer for one in ours.found] == [found.provider for found, _ in theirs.found]
    assert [one.ranked.reasons for one in ours.found] == [ranked.reasons for _, ranked in theirs.found]
    assert [one.ranked.above_next for one in ours.found] == [r.above_next for _, r in theirs.found]


@settings(EVERY, max_examples=60)
@given(MANY, USES, st.integers(1, 4), st.sampled_from(("", "price<=20", "vram>=24 ram>=32GB")))
def test_as_the_daemon_ranks(
    sqlite: World, many: list[dict[str, Any]], use: UseCase, limit: int, where: str
) -> None:
    hold(sqlite, many, use, limit, where)


@settings(EVERY, max_examples=10)
@given(MANY, USES, st.integers(1, 4))
def test_looked_at_page_by_page(sqlite: World, many: list[dict[str, Any]], use: UseCase, limit: int) -> None:
    """Few are looked at together, and the best may come late: cards of one machine differ."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recommend, "AT_ONCE", 1)
        hold(sqlite, many, use, limit, "")


def test_the_same_from_postgresql(postgres_url: str) -> None:
    many = [
        {"gpus": (card(vram_mib=gib * 1_024),) * cards, "price": price, "storage": storage, "gpu_class": name}
        for gib, cards, price, storage, name in (
            (24, 1, 40, 0, "RTX_4090"), (24, 2, 30, 7, "RTX_3090"), (80, 8, 90, 10**15, "H100_80GB"),
            (8, 0, 3, 0, "CPU"), (16, 4, 10, 1, "RTX_9999"), (48, 1, 41, 0, "L40S"),
        )
    ]  # fmt: skip
    with postgres_world(postgres_url, NOW) as world:
        for use in USE_CASES.values():
            hold(world, many, use, 4, "price<=100")


def test_a_crowd_that_is_all_different_is_bounded(sqlite: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the cheapest of it are ranked; all are counted."""
    monkeypatch.setattr(recommend, "MAX_KINDS", 5)
    made = [entry(key, price=10 + n, sizes=(1_000 + n, 1_024, 100_000)) for n, key in enumerate(KEYS)]
    fill(sqlite, made)
    use = use_case("docker")
    found = sqlite.ask(sqlite.store.recommend(use, parse_filter(""), 10, DISK_MIB))
    assert [one.offer.price for one in found.found] == [10, 11, 12, 13, 14]
    assert found.total == len(KEYS)
