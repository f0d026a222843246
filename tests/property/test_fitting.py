"""A search for the fittest finds what a look at every single offer finds, and stops when a crowd of like
offers would keep it busy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import fitness
from protocol.all_in import candidate
from protocol.catalogue import USE_CASES, UseCase, use_case
from protocol.messages import Wish
from protocol.query import parse_filter
from protocol.signing import NodeKey, opened
from protocol.units import UnixMs
from qubixd import fitting
from qubixd.book import Entry, OfferBook, Page
from tests.support.market_values import card, entry, machines

NOW = UnixMs(1_000)
NO_DISK = Wish("", 0, 0, 0, 0, 0)
KEYS = [NodeKey(bytes([number]) * 32) for number in range(1, 41)]


MANY = st.lists(machines(), max_size=len(KEYS))


@settings(max_examples=40, deadline=None)
@given(MANY, st.sampled_from(list(USE_CASES.values())), st.integers(1, 4), st.sampled_from(("", "price<=20")))
def test_as_good_as_looking_at_everything(
    many: list[dict[str, Any]], use: UseCase, limit: int, where: str
) -> None:
    made = [entry(key, **machine) for key, machine in zip(KEYS, many, strict=False)]
    found = best(book_of(made), use, limit, where)
    cheap = (one for one in made if not where or one.offer.price_qu_per_hour <= 20)
    expected = fitness.rank((candidate(one.provider, one.offer, NO_DISK, use) for one in cheap), use, limit)
    assert values(ranked for _, ranked in found.found) == values(expected)
    assert all(ranked.candidate.key == one.provider for one, ranked in found.found)


def test_the_total_counts_what_has_room() -> None:
    small, large = (card(vram_mib=gib * 1_024) for gib in (8, 24))
    offers = [((), 1), ((small,), 2), ((large,), 3), ((large, large), 4), ((small,) * 4, 5)]
    made = [entry(key, gpus=gpus, price=price) for key, (gpus, price) in zip(KEYS, offers, strict=False)]
    book = book_of(made)
    assert [best(book, use_case(use), 9).total for use in ("flux", "llama 8b fp16", "docker")] == [2, 3, 5]


def test_ranks_beyond_the_first_page_are_found() -> None:
    """The best of many like cards stands far behind: dearer, and the only one that is not slow."""
    slow = [entry(key, price=10 + place) for place, key in enumerate(KEYS[:-1])]
    fast = entry(KEYS[-1], price=60, sizes=(16_000, 65_536, 100_000))
    weak = [entry(key, price=10 + n, sizes=(1_000, 1_024, 100_000)) for n, key in enumerate(KEYS[:-1])]
    use = use_case("docker")
    assert best(book_of([*slow, fast]), use, 1).found[0][0].offer.price_qu_per_hour == 10
    assert best(book_of([*weak, fast]), use, 1).found[0][0].provider == fast.provider


def test_a_crowd_of_like_offers_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MAX_PAGES", 2)
    monkeypatch.setattr(fitting, "PAGE", 4)
    made = [entry(key, price=1, sizes=(1_000, 1_024, 100_000)) for key in KEYS]
    book, asked = book_of(made), 0
    query = book.query

    def counted(*args: Any) -> Page:
        nonlocal asked
        asked += 1
        return query(*args)

    monkeypatch.setattr(book, "query", counted)
    found = best(book, use_case("docker"), 30)
    groups = 3
    assert asked == groups + 2
    assert (len(found.found), found.total) == (fitting.FIRST_PAGE + 2 * 4, len(KEYS))


def book_of(made: Iterable[Entry]) -> OfferBook:
    book = OfferBook("devnet", 28)
    for one in made:
        book.take(opened(one.raw), NOW)
    return book


def best(book: OfferBook, use: UseCase, limit: int, where: str = "") -> fitting.Fitting:
    async def look() -> fitting.Fitting:
        return await fitting.fittest(book, parse_filter(where), use, NO_DISK, limit, lambda: NOW)

    return trio.run(look)


def values(ranked: Iterable[fitness.Ranked]) -> list[float]:
    return [one.speed / max(1, one.candidate.qu_per_hour) for one in ranked]
