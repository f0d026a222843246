"""The mirror's SQL finds what `protocol.query.matches` and `order` say, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from protocol.messages import Offer
from protocol.query import FIELDS, Condition, Filter, Known, SortKey, matches, order, parse_filter
from protocol.signing import NodeKey
from qubixd import book_facts
from tests.property.test_book_index import KEYS, conditions, offers, sorts
from tests.support.deals import NOW
from tests.support.postgres import new_database, server
from tests.support.web_mirror import Row, row_of
from tests.support.web_world import World, postgres_world, sqlite_world
from web import search
from web.filters import Order, order_of
from web.views import OfferPage, OfferView, Total

shares = st.none() | st.sampled_from([0, 500_000, 980_000, 1_000_000]) | st.integers(0, 1_000_000)
measures = st.tuples(shares, shares)
bounds = st.sampled_from([0, 2, 1_000])
"""How many are counted: with few, the database sorts."""
calm = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Shop:
    """A provider and what the mirror knows of it."""

    key: NodeKey
    offer: Offer
    measured: tuple[int | None, int | None]

    @property
    def values(self) -> dict[str, Known]:
        numbers = book_facts.steps_of(self.offer, (*self.measured, None))
        return book_facts.values_of(self.key.public, numbers, book_facts.names_of(self.offer), NOW)

    def row(self, change: int) -> Row:
        return row_of(self.offer, self.key, change, self.measured, NOW)


shops = st.dictionaries(st.sampled_from(range(len(KEYS))), st.tuples(offers, measures), max_size=9).map(
    lambda found: [Shop(KEYS[number], *detail) for number, detail in found.items()]
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            path = tmp_path_factory.mktemp("mirror") / "mirror.db"
            yield stack.enter_context(sqlite_world(path, NOW))
        else:
            url = new_database(stack.enter_context(server()))
            yield stack.enter_context(postgres_world(url, NOW))


def expected(shops: list[Shop], asked: Filter, sort: list[SortKey]) -> list[bytes]:
    found = [(order(sort, shop.values), shop.key.public) for shop in shops if matches(asked, shop.values)]
    return [peer for _, peer in sorted(found)]


def pages(world: World, asked: Filter, sort: list[SortKey], limit: int, count: bool) -> list[OfferPage]:
    found = [world.ask(world.store.offers(asked, sort, "", limit, count))]
    while found[-1].next:
        found.append(world.ask(world.store.offers(asked, sort, found[-1].next, limit, count)))
    return found


def near(field: str, known: Known, draw: st.DataObject) -> str | int | float:
    """What an offer has in a field, or something beside it."""
    if field == "provider":
        return draw.draw(st.sampled_from([str(known), KEYS[0].public.hex()]), field)
    if FIELDS[field].units is None:
        names = known if isinstance(known, tuple) else (str(known),)
        return draw.draw(st.sampled_from([*names, "4090", "a100", "eu", "docker", "x"]), field)
    assert isinstance(known, int | float)
    step = 1 / FIELDS[field].step
    value = known + draw.draw(st.sampled_from([0, 0, 0, step, -step, step / 2, -step / 2, 1, -1]), field)
    return int(value) if value == int(value) else value


def condition(shops: list[Shop], draw: st.DataObject) -> Condition:
    """One at the edge of what one of the offers has."""
    values = draw.draw(st.sampled_from(shops)).values
    field = draw.draw(st.sampled_from([field for field in FIELDS if values.get(field) not in (None, ())]))
    numeric = FIELDS[field].units is not None
    operator = draw.draw(st.sampled_from([">=", "<=", ">", "<", "=", "!=", "in"][0 if numeric else 4 :]))
    count = draw.draw(st.integers(1, 3)) if operator == "in" else 1
    return Condition(field, operator, tuple(near(field, values[field], draw) for _ in range(count)))


@calm
@given(st.data(), shops, st.lists(conditions(), max_size=3), sorts, st.integers(1, 5), bounds)
def test_sql_agrees_with_the_oracle(
    world: World,
    data: st.DataObject,
    shops: list[Shop],
    texts: list[str],
    sort: list[SortKey],
    limit: int,
    bound: int,
) -> None:
    world.begin([shop.row(change) for change, shop in enumerate(shops, 1)])
    asked = [parse_filter(" ".join(texts))]
    asked += [Filter((condition(shops, data),)) for _ in range(8 if shops else 0)]
    for one in asked:
        check(world, shops, one, sort, limit, bound)


def check(
    world: World, shops: list[Shop], asked: Filter, sort: list[SortKey], limit: int, bound: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "COUNT_UP_TO", bound)
        read = pages(world, asked, sort, limit, count=True)
    right = expected(shops, asked, sort)
    assert [offer.peer for page in read for offer in page.offers] == right
    assert {page.total for page in read} == {Total(min(bound, len(right)), len(right) <= bound)}
    assert all(len(page.offers) == limit for page in read[:-1])
    assert read[-1].offers or len(read) == 1
    by_peer = {bytes(shop.key.public): shop.values for shop in shops}
    for view in (offer for page in read for offer in page.offers):
        assert {field: view.value(field, NOW) for field in FIELDS} == by_peer[view.peer]


turns = st.lists(
    st.tuples(st.sampled_from(["put", "put", "end"]), st.integers(0, 5), offers, measures), max_size=8
)


@calm
@given(shops, turns, sorts, st.integers(1, 3), bounds, st.booleans())
def test_whoever_stays_is_seen_once(
    world: World,
    shops: list[Shop],
    turns: list[Any],
    sort: list[SortKey],
    limit: int,
    bound: int,
    count: bool,
) -> None:
    movers, stayers = KEYS[:6], {key.public for key in KEYS[6:]}
    stayers &= {shop.key.public for shop in shops}
    assume(stayers)
    world.begin([shop.row(change) for change, shop in enumerate(shops, 1)])
    seen: list[bytes] = []
    after, change = "", len(shops)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "COUNT_UP_TO", bound)
        while not seen or after:
            page = world.ask(world.store.offers(Filter(), sort, after, limit, count))
            seen += [offer.peer for offer in page.offers]
            after = page.next
            if turns:
                what, number, offer, measured = turns.pop()
                change += 1
                if what == "end":
                    world.end(movers[number].public)
                else:
                    world.put([Shop(movers[number], offer, measured).row(change)])
            elif not page.offers:
                break
    assert sorted(peer for peer in seen if peer in stayers) == sorted(stayers)


@given(shops, sorts)
def test_orders_sort_alike_in_python(shops: list[Shop], sort: list[SortKey]) -> None:
    wanted = expected(shops, Filter(), sort)
    found: Order = order_of(sort)
    views = [OfferView(*shop.row(1)) for shop in shops]
    stands = [(tuple(getattr(view, column.name) for column in found.columns), view.peer) for view in views]
    assert [peer for _, peer in sorted(stands, key=found.key)] == wanted
