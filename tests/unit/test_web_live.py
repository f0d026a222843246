"""Who listens hears every change, once, from where it was, and nobody waits for the slow."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from protocol.query import parse_filter
from protocol.signing import NodeKey
from protocol.units import UnixMs
from tests.support.web_mirror import Row, offer_of, row_of
from tests.support.web_world import World, sqlite_world
from web import live
from web.api.views import offer_of as offer_of_view
from web.live import Hub, Subscriber, TooMany
from web.views import OfferView

NOW = UnixMs(1_800_000_000_000)
KEYS = [NodeKey(bytes([number]) * 32) for number in range(1, 9)]
BOOK = "b00c"


def row(number: int, change: int, *, live: int = 1, price: int | None = None) -> Row:
    made = list(
        row_of(offer_of(number, random.Random(number), NOW), KEYS[number], change, now_ms=NOW, live=live)
    )
    if price is not None:
        made[16] = price
    return tuple(made)


class Market(World):
    """A world with a hub that looks when it is told to."""

    hub: Hub

    def change(self, *rows: Row) -> None:
        """One transaction of the node, and the look after it."""
        self.put(rows)
        newest = max(one[2] for one in rows)
        self._writer.run(
            "INSERT OR REPLACE INTO meta VALUES ('change', ?), ('book', ?)", [(str(newest), BOOK)]
        )
        self.ask(self.hub.look())


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    with sqlite_world(tmp_path / "mirror.db", NOW) as world:
        world.__class__ = Market
        assert isinstance(world, Market)
        world.hub = Hub(world.store, 4, 3, lambda: NOW)
        world.begin([])
        world.change(row(0, 1))
        yield world


class Listener:
    """One stream, read as far as there is something."""

    def __init__(self, market: Market, where: str = "", since: str = "", address: str = "a") -> None:
        self.cuts = 0
        self._market = market
        filter = parse_filter(where)
        self._joined = market.hub.joined(filter, address, self._cut)
        self.one, at = self._joined.__enter__()
        self._pieces: AsyncIterator[bytes] = market.hub.stream(filter, self.one, since, at)
        self._group = market.hub._groups[str(filter)]
        self._begun = False

    def _cut(self) -> None:
        self.cuts += 1

    def leave(self) -> None:
        self._joined.__exit__(None, None, None)

    def heard(self) -> list[tuple[str, str, dict[str, object]]]:
        """(event, id, data) of all that has come."""
        return self._market.ask(self._read())

    async def _read(self) -> list[tuple[str, str, dict[str, object]]]:
        found = b""
        with suppress(StopAsyncIteration):
            while not self._begun or self.one.lost or self.one.read < self._group.end:
                piece = await anext(self._pieces)
                self._begun |= piece.startswith(b"event: ready")
                found += piece
        return list(events(found))


def events(raw: bytes) -> Iterator[tuple[str, str, dict[str, object]]]:
    for part in raw.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.splitlines() if not line.startswith(":"))
        if "event" in fields:
            yield fields["event"], fields["id"], json.loads(fields["data"])


def names(heard: list[tuple[str, str, dict[str, object]]]) -> list[tuple[str, str]]:
    return [(event, at.removeprefix(f"{BOOK}-")) for event, at, _ in heard]


def test_each_hears_what_changes_after_it_came(market: Market) -> None:
    first = Listener(market)
    assert names(first.heard()) == [("ready", "1")]
    market.change(row(1, 2), row(0, 3, live=0))
    second = Listener(market)
    told = first.heard()
    assert names(told) == [("offer", "2"), ("gone", "3")]
    assert told[0][2]["price_qu_per_hour"] == row(1, 2)[16] and told[0][2]["signed"]
    assert told[1][2] == {"peer_id": row(0, 3)[1], "live": False}
    assert names(second.heard()) == [("ready", "3")]
    market.change(row(2, 4))
    assert names(first.heard()) == names(second.heard()) == [("offer", "4")]


def test_a_filter_hears_of_what_leaves_it_once(market: Market) -> None:
    cheap = Listener(market, "price<=100")
    market.change(row(1, 2, price=50), row(2, 3, price=500))
    assert names(cheap.heard()) == [("ready", "1"), ("offer", "2"), ("gone", "3")]
    market.change(row(1, 4, price=200), row(2, 5, price=600))
    told = cheap.heard()
    assert names(told) == [("gone", "4")] and told[0][2]["live"] is True
    market.change(row(1, 6, price=60))
    assert names(cheap.heard()) == [("offer", "6")]
    market.change(row(1, 7, live=0))
    assert names(cheap.heard()) == [("gone", "7")]


def test_who_comes_back_gets_what_it_missed(market: Market) -> None:
    market.change(row(1, 2), row(2, 3))
    market.change(row(3, 4), row(1, 5, live=0))
    assert names(Listener(market, since=f"{BOOK}-2").heard()) == [
        ("offer", "3"), ("offer", "4"), ("gone", "5"), ("ready", "5"),
    ]  # fmt: skip
    assert names(Listener(market, "price<=0", since=f"{BOOK}-4").heard()) == [("gone", "5"), ("ready", "5")]


@pytest.mark.parametrize("since", ["other-2", "nonsense", "b00c-", "-", f"b00c-{10**20}", "b00c-²"])
def test_who_comes_from_somewhere_else_begins_anew(market: Market, since: str) -> None:
    assert names(Listener(market, since=since).heard()) == [("reset", "1"), ("ready", "1")]


def test_ends_that_are_forgotten_cannot_be_told(market: Market) -> None:
    market.change(row(1, 5))
    market._writer.run("INSERT OR REPLACE INTO meta VALUES ('forgotten', '3')")
    assert names(Listener(market, since=f"{BOOK}-2").heard())[0] == ("reset", "5")
    assert names(Listener(market, since=f"{BOOK}-3").heard())[0] == ("offer", "5")


def test_too_much_to_tell_is_a_reset(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "AT_ONCE", 1)
    monkeypatch.setattr(live, "MAX_REPLAY", 2)
    listener = Listener(market)
    listener.heard()
    market.change(*(row(number, number + 1) for number in range(1, 6)))
    assert names(listener.heard())[-1] == ("reset", "6")
    market.change(row(1, 7))
    assert names(listener.heard()) == [("offer", "7")]


def test_another_book_is_a_reset(market: Market) -> None:
    listener = Listener(market)
    listener.heard()
    market._writer.run("INSERT OR REPLACE INTO meta VALUES ('book', 'c0de')")
    market.ask(market.hub.look())
    assert [(event, at) for event, at, _ in listener.heard()] == [("reset", "c0de-1")]


def test_a_slow_reader_is_cut_off_and_nobody_else(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "KEPT", 3)
    slow, quick = Listener(market), Listener(market)
    slow.heard()
    quick.heard()
    for change in range(2, 8):
        market.change(row(1, change))
        assert names(quick.heard()) == [("offer", str(change))]
    assert (slow.cuts, quick.cuts, market.hub.lost) == (1, 0, 1)
    assert not slow.heard()


def test_what_all_have_read_is_not_kept(market: Market) -> None:
    quick, slow = Listener(market), Listener(market)
    for change in range(2, 12):
        market.change(row(1, change))
        quick.heard()
    assert len(quick._group._pieces) == 10
    assert len(slow.heard()) == 1 + 10
    market.change(row(1, 12))
    assert len(quick._group._pieces) == 1
    assert names(quick.heard()) == names(slow.heard()) == [("offer", "12")]


def test_there_is_room_for_so_many_and_it_is_given_back(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [Listener(market) for _ in range(3)]
    with pytest.raises(TooMany, match="of this address"):
        Listener(market)
    some.append(Listener(market, address="b"))
    with pytest.raises(TooMany, match="try again later"):
        Listener(market, address="c")
    for one in some:
        one.leave()
    assert len(market.hub) == 0 and not market.hub._groups
    monkeypatch.setattr(live, "MAX_FILTERS", 1)
    Listener(market, "price<=1")
    with pytest.raises(TooMany, match="filters"):
        Listener(market, "price<=2")
    assert len(market.hub) == 1


def test_an_event_is_made_once_for_all(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    def counted(view: OfferView) -> object:
        nonlocal made
        made += 1
        return offer_of_view(view)

    monkeypatch.setattr(live, "offer_of", counted)
    listeners = [
        Listener(market),
        Listener(market),
        Listener(market, "price>=0"),
        Listener(market, address="b"),
    ]
    market.change(row(1, 2))
    assert all(names(one.heard())[-1] == ("offer", "2") for one in listeners)
    assert made == 1


def test_a_subscriber_that_is_lost_before_it_reads_ends() -> None:
    cut: list[int] = []
    one = Subscriber(lambda: cut.append(1))
    one.lose()
    assert one.lost and one.stirred.is_set() and cut == [1]
