"""What the store answers about a mirror whose rows are known, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from protocol import signing
from protocol.errors import QueryInvalid
from protocol.query import parse_filter, parse_sort
from tests.support.postgres import new_database, server
from tests.support.web_mirror import SIGNED, filled
from web.database import open_mirror
from web.publish import open_publisher
from web.store import Store

NOW = 1_800_000_000_000
OFFERS = SIGNED + 50
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("store") / "mirror.db", OFFERS, now_ms=NOW)


@pytest.fixture(scope="module")
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as db:
        yield db


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(path)
        return
    with server() as sockets:
        url = new_database(sockets)
        asyncio.run(copied(path, url))
        yield url


async def copied(path: Path, url: str) -> None:
    async with open_publisher(str(path), url) as publisher:
        await publisher.round()


def play(url: str, turn: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_mirror(url) as mirror:
            await turn(Store(mirror, lambda: NOW))

    asyncio.run(run())


def test_the_mirror_itself(url: str) -> None:
    async def turn(store: Store) -> None:
        status = await store.status()
        assert (status.network, status.contract_index, status.change) == ("mainnet", 28, OFFERS)
        assert status.updated_ms == NOW

    play(url, turn)


def test_offers_carry_what_their_providers_signed(url: str) -> None:
    async def turn(store: Store) -> None:
        page = await store.changes(0, SIGNED)
        for view in (offer for offer in page.offers if offer.live):
            signed = signing.verify(view.record)
            assert signed.signer == view.peer
            assert signed.message.price_qu_per_hour == view.price
            assert (signed.message.name, signed.message.region) == (view.label, view.region_label)

    play(url, turn)


def test_changes_are_read_one_after_the_other(url: str) -> None:
    async def turn(store: Store) -> None:
        seen: list[int] = []
        newest, complete = 0, False
        while not complete:
            page = await store.changes(newest, 100)
            seen += [offer.change for offer in page.offers]
            newest, complete = page.newest, page.complete
        assert seen == list(range(1, OFFERS + 1))
        ended = [offer for offer in (await store.changes(0, 100)).offers if not offer.live]
        assert ended and not any(offer.record for offer in ended)

    play(url, turn)


def test_ended_offers_are_not_found_but_known(url: str, db: sqlite3.Connection) -> None:
    (peer,) = db.execute("SELECT peer FROM offers WHERE live = 0").fetchone()

    async def turn(store: Store) -> None:
        assert not (await store.offers(parse_filter(f"provider={peer.hex()}"))).offers
        offer = await store.offer(peer)
        assert offer is not None and not offer.live
        assert await store.offer(bytes(32)) is None

    play(url, turn)


def test_a_provider_with_score_and_days(url: str, db: sqlite3.Connection) -> None:
    (peer,) = db.execute("SELECT peer FROM scores").fetchone()

    async def turn(store: Store) -> None:
        found = await store.provider(peer)
        assert found is not None and found.score is not None
        assert found.score.reasons and isinstance(found.score.newcomer, bool)
        days = [day for day, _ in found.days]
        assert days == sorted(days) and days[-1] == NOW // (24 * HOUR_MS)
        assert await store.provider(bytes(32)) is None

    play(url, turn)


def test_overviews_add_up(url: str, db: sqlite3.Connection) -> None:
    row = db.execute("SELECT count(*), sum(most_gpus), sum(gpus) FROM offers WHERE live = 1").fetchone()

    async def turn(store: Store) -> None:
        live, models, regions = await store.live(), await store.models(), await store.regions()
        assert (live.offers, live.gpus, live.free_gpus) == row
        assert sum(model.offers for model in models) == sum(region.offers for region in regions) == row[0]
        assert live.models == len([model for model in models if model.gpu not in ("", "cpu")]) < len(models)
        some = await store.regions(parse_filter("gpu=RTX_4090"))
        total = (await store.offers(parse_filter("gpu=RTX_4090"), count=True)).total
        assert total is not None and sum(region.offers for region in some) == total.number > 0

    play(url, turn)


def test_candles_and_hours_come_oldest_first_and_the_newest_of_them(url: str) -> None:
    async def turn(store: Store) -> None:
        candles = await store.candles("gpu", b"4090", HOUR_MS, 0, 24)
        assert [candle.start_ms for candle in candles] == [
            (NOW // HOUR_MS - back) * HOUR_MS for back in reversed(range(24))
        ]
        hours = [stat.hour for stat in await store.stats(0, 10)]
        assert hours == list(range(NOW // HOUR_MS - 9, NOW // HOUR_MS + 1))
        assert not await store.candles("gpu", b"nothing", HOUR_MS, 0)

    play(url, turn)


def test_settlements_page_by_page(url: str, db: sqlite3.Connection) -> None:
    (provider, leases) = db.execute(
        "SELECT provider, count(*) FROM settlements GROUP BY provider ORDER BY 2 DESC"
    ).fetchone()

    async def turn(store: Store) -> None:
        page = await store.settlements("", 60)
        seen = [*page.settlements]
        while page.next:
            page = await store.settlements(page.next, 60)
            seen += page.settlements
        assert len({one.lease_id for one in seen}) == len(seen) == 500
        assert [one.ended_ms for one in seen] == sorted((one.ended_ms for one in seen), reverse=True)
        mine = await store.settlements(provider=provider)
        assert len(mine.settlements) == leases
        with pytest.raises(QueryInvalid):
            await store.settlements("x")

    play(url, turn)


def test_cursors_are_of_one_order(url: str) -> None:
    async def turn(store: Store) -> None:
        first = await store.offers(sort=parse_sort("price"), limit=3)
        with pytest.raises(QueryInvalid, match="begin again"):
            await store.offers(sort=parse_sort("-price"), after=first.next)

    play(url, turn)


def test_values_are_in_the_units_of_filters(url: str) -> None:
    async def turn(store: Store) -> None:
        view = (await store.offers(parse_filter("ram>=64 cuda>=12"), limit=1)).offers[0]
        for field in ("ram", "cuda", "cpus", "vram"):
            asked = parse_filter(f"{field}={view.value(field)} provider={view.peer.hex()}")
            assert len((await store.offers(asked)).offers) == 1, field
        assert view.value("rtt") is None

    play(url, turn)


def test_the_filler_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    def digest(name: str, seed: int) -> list[object]:
        with closing(sqlite3.connect(filled(tmp_path / name, 40, seed, NOW))) as db:
            return db.execute("SELECT peer, price, record FROM offers ORDER BY change").fetchall()

    assert digest("a", 3) == digest("b", 3) != digest("c", 4)
