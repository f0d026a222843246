"""A mirror copied into a real PostgreSQL: the same answers, whatever changes and whoever is killed."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger.mirror_schema import OFFER_COLUMNS
from protocol.errors import AlreadyRunning, MirrorUnavailable
from protocol.messages import decode, encode
from protocol.query import parse_filter, parse_sort
from protocol.signing import NodeKey
from tests.support.postgres import postgres_server as postgres_server
from tests.support.postgres import postgres_url as postgres_url
from tests.support.web_mirror import filled, insert, offer_of, row_of
from tests.support.web_watched import Watched
from web import publish
from web.database import Mirror, open_mirror
from web.postgres import SCHEMA
from web.publish import TABLES, open_publisher
from web.store import Store

NOW = 1_800_000_000_000
OFFERS = 120
KEYS = [NodeKey(random.Random(number).randbytes(32)) for number in range(20)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "mirror.db", OFFERS, now_ms=NOW)


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    """The mirror, as the node writes it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        yield db


async def contents(url: str) -> dict[str, list[Any]]:
    async with open_mirror(url) as mirror:
        found = {
            table.name: sorted(await mirror.fetch(f"SELECT {', '.join(table.columns)} FROM {table.name}"))
            for table in TABLES
        }
        return found | {"meta": sorted(await mirror.fetch("SELECT key, value FROM meta"))}


async def answers(url: str) -> list[object]:
    """What a web process shows from there."""
    async with open_mirror(url) as mirror:
        store = Store(mirror, lambda: NOW)
        first = await store.offers(
            parse_filter("vram>=12 internet=yes"), parse_sort("-score,price"), count=True
        )
        peer = first.offers[0].peer
        return [
            first,
            await store.offers(parse_filter("region=eu-west"), parse_sort("price"), limit=7),
            await store.status(),
            await store.live(),
            await store.models(),
            await store.regions(parse_filter("gpu=RTX_4090")),
            await store.provider(peer),
            await store.candles("gpu", b"4090", 3_600_000, 0),
            await store.stats(0, 48),
            await store.settlements(limit=20),
            await store.changes(OFFERS - 10),
        ]


def change(db: sqlite3.Connection, number: int, statements: Sequence[tuple[str, Sequence[Any]]] = ()) -> None:
    """One transaction of the node: a new offer and what else is said."""
    key = KEYS[number % len(KEYS)]
    offer = offer_of(number, random.Random(number), NOW)
    newest = OFFERS + number
    db.execute("BEGIN")
    insert(db, "offers", OFFER_COLUMNS, [row_of(offer, key, newest, now_ms=NOW)])
    for statement, values in statements:
        db.execute(statement, values)
    db.execute("UPDATE meta SET value = ? WHERE key = 'change'", (str(newest),))
    db.execute("COMMIT")


def test_the_copy_answers_as_the_mirror_does(path: Path, postgres_url: str) -> None:
    async def play() -> None:
        async with open_publisher(str(path), postgres_url) as publisher:
            await publisher.round()
        assert await contents(postgres_url) == await contents(str(path))
        assert await answers(postgres_url) == await answers(str(path))

    asyncio.run(play())


def test_changes_and_deletions_follow(path: Path, db: sqlite3.Connection, postgres_url: str) -> None:
    async def play() -> None:
        async with open_publisher(str(path), postgres_url) as publisher:
            await publisher.round()
            gone = [row[0] for row in db.execute("SELECT peer FROM offers WHERE live = 0")]
            assert gone
            change(
                db, 1,
                [
                    ("DELETE FROM offers WHERE live = 0", ()),
                    ("DELETE FROM days WHERE day < (SELECT max(day) - 5 FROM days)", ()),
                    ("DELETE FROM candles WHERE kind = 'provider'", ()),
                    ("UPDATE stats SET offers = 7, change = ? WHERE hour = (SELECT max(hour) FROM stats)",
                     (OFFERS + 1,)),
                    ("UPDATE meta SET value = ? WHERE key = 'forgotten'", (str(OFFERS),)),
                ],
            )  # fmt: skip
            await publisher.round()
            assert await contents(postgres_url) != await contents(str(path))  # it had read up to `forgotten`
            change(db, 2, [("UPDATE meta SET value = ? WHERE key = 'forgotten'", (str(OFFERS + 2),))])
            await publisher.round()
        assert await contents(postgres_url) == await contents(str(path))

    asyncio.run(play())


def test_a_second_publisher_is_refused(
    path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with open_publisher(str(path), postgres_url):
            with monkeypatch.context() as patch, pytest.raises(AlreadyRunning, match="publishes to"):
                patch.setattr(publish, "PATIENCE_S", 0.05)
                async with open_publisher(str(path), postgres_url):
                    pass
        async with open_publisher(str(path), postgres_url) as publisher:
            await publisher.round()

    asyncio.run(play())


def test_another_mirror_begins_anew(path: Path, tmp_path: Path, postgres_url: str) -> None:
    async def play() -> None:
        async with open_publisher(str(path), postgres_url) as publisher:
            await publisher.round()
        other = filled(tmp_path / "other.db", 30, seed=2, now_ms=NOW)
        async with open_publisher(str(other), postgres_url) as publisher:
            await publisher.round()
        assert await contents(postgres_url) == await contents(str(other))
        with closing(sqlite3.connect(other)) as db, db:
            db.execute("UPDATE meta SET value = 'fresh' WHERE key = 'book'")
        async with open_publisher(str(path), postgres_url) as publisher:
            other.replace(path)
            with pytest.raises(MirrorUnavailable, match="anew"):
                await publisher.round()

    asyncio.run(play())


def test_what_others_keep_there_is_left_alone(path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("CREATE TABLE offers (mine text)")
        other.execute("INSERT INTO offers VALUES ('still here')")

        async def play() -> None:
            async with open_publisher(str(path), postgres_url) as publisher:
                await publisher.round()

        asyncio.run(play())
        assert other.execute("SELECT mine FROM offers").fetchall() == [("still here",)]


def test_nothing_is_lost_when_a_publisher_is_killed(
    path: Path, db: sqlite3.Connection, postgres_url: str
) -> None:
    """While it copies, again and again, and the mirror goes on changing."""
    command = [sys.executable, "-m", "web", "--mirror", str(path), "--publish", postgres_url]
    for number in range(1, 4):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert any("publishing to postgresql:///test_" in line for line in process.stderr)
            change(db, number)
            process.kill()

    async def play() -> None:
        async with open_publisher(str(path), postgres_url) as publisher:
            await publisher.round()
        assert await contents(postgres_url) == await contents(str(path))

    asyncio.run(play())


def test_a_publisher_goes_on_after_its_session_was_ended(
    path: Path, db: sqlite3.Connection, postgres_url: str
) -> None:
    command = [sys.executable, "-m", "web", "--mirror", str(path), "--publish", postgres_url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("publishing to" in line for line in process.stderr)
        change(db, 1)
        with psycopg.connect(postgres_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        assert any("trying again" in line for line in process.stderr)
        assert any("publishing to" in line for line in process.stderr)
        process.kill()


def test_a_database_that_takes_no_mirror_is_named(path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute("CREATE ROLE reader LOGIN")
        mine = postgres_url.replace("user=postgres", "user=reader")
        command = [sys.executable, "-m", "web", "--mirror", str(path), "--publish", mine]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        db.execute("DROP ROLE reader")
    assert done.returncode == 2
    assert "no mirror can be put into postgresql:///test_" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("batch", [1, 7])
def test_batches_of_any_size_bring_everything(
    path: Path, postgres_url: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "AT_ONCE", batch)
    shorten(path)

    async def play() -> None:
        async with open_publisher(str(path), postgres_url) as publisher:
            await publisher.round()
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("DELETE FROM offers WHERE change % 3 = 0")
                db.execute("UPDATE meta SET value = '1000' WHERE key = 'forgotten'")
            await publisher.round()
        assert await contents(postgres_url) == await contents(str(path))

    asyncio.run(play())


def test_a_database_without_a_mirror_says_so(postgres_url: str) -> None:
    async def play(sentence: str) -> None:
        async with open_mirror(postgres_url) as mirror:
            with pytest.raises(MirrorUnavailable, match=sentence):
                await Store(mirror).status()

    asyncio.run(play("does not answer"))
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {SCHEMA}".encode())
        db.execute(f"CREATE TABLE {SCHEMA}.meta AS SELECT 'schema' AS key, '99' AS value".encode())
    asyncio.run(play("another version"))


def test_readers_cannot_write(path: Path, postgres_url: str) -> None:
    async def play() -> None:
        async with open_publisher(str(path), postgres_url) as publisher:
            await publisher.round()
        for url in (str(path), postgres_url):
            async with open_mirror(url) as mirror:
                with pytest.raises(MirrorUnavailable, match=r"read-?only"):
                    await mirror.fetch("DELETE FROM offers")

    asyncio.run(play())


def shorten(path: Path) -> None:
    """The tables that are long."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM days WHERE day % 20 > 0")
        db.execute("DELETE FROM candles WHERE start_ms % 3 > 0 OR kind = 'provider'")
        db.execute("DELETE FROM stats WHERE hour % 20 > 0")
        db.execute("DELETE FROM settlements WHERE paid_qu % 10 > 0")


def test_a_reader_never_hears_of_what_is_not_there(
    path: Path, db: sqlite3.Connection, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a publisher ends, while the mirror goes on changing."""
    shorten(path)
    looks = 0

    @asynccontextmanager
    async def watched(source: str) -> AsyncIterator[Mirror]:
        nonlocal looks
        looks += 1
        async with open_mirror(source) as mirror:
            with closing(Watched(mirror, path, postgres_url, looks)) as one:
                yield one
                one.look()

    async def play() -> None:
        monkeypatch.setattr(publish, "AT_ONCE", 40)
        monkeypatch.setattr(publish, "open_mirror", watched)
        ended = True
        while ended:
            change(db, looks + 1)
            ended = False
            with suppress(MirrorUnavailable):
                async with open_publisher(str(path), postgres_url) as publisher:
                    ended = True
                    await publisher.round()
                    ended = False
            ended |= looks < 3  # before it had begun
        assert looks > 10
        assert await contents(postgres_url) == await contents(str(path))

    asyncio.run(play())


def test_a_copy_follows_a_mirror_that_comes_and_goes(
    path: Path, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same readers all the while."""
    monkeypatch.setattr(publish, "EVERY_S", 0.02)
    monkeypatch.setattr(publish, "LONGEST_WAIT_S", 0.05)
    there = tmp_path / "there.db"
    others = [filled(tmp_path / "other.db", 30, seed=2, now_ms=NOW), path]
    for one in others:
        shorten(one)

    async def play() -> None:
        publishing = asyncio.create_task(publish._forever(str(there), postgres_url))
        async with open_mirror(postgres_url) as copy, asyncio.timeout(60):
            for one in others:
                wanted = await state(one)
                one.rename(there)
                while await state_of(copy) != wanted:
                    await asyncio.sleep(0.02)
                page = await Store(copy, lambda: NOW).offers(limit=500)
                assert len(page.offers) == wanted[1] - wanted[1] // 50
                there.unlink()
            publishing.cancel()
            await asyncio.wait([publishing])

    asyncio.run(play())


async def state(path: Path) -> tuple[str, int]:
    async with open_mirror(str(path)) as mirror:
        return await state_of(mirror)


async def state_of(mirror: Mirror) -> tuple[str, int]:
    with suppress(MirrorUnavailable):
        status = await Store(mirror).status()
        return status.book, status.change
    return "", 0


def test_a_copy_of_another_version_begins_anew(path: Path, postgres_url: str) -> None:
    shorten(path)

    async def play() -> None:
        async with open_publisher(str(path), postgres_url) as publisher:
            await publisher.round()
        async with open_mirror(postgres_url) as copy:
            await Store(copy).status()
            with psycopg.connect(postgres_url, autocommit=True) as db:
                db.execute(f"UPDATE {SCHEMA}.meta SET value = '99' WHERE key = 'schema'".encode())
                db.execute(f"ALTER TABLE {SCHEMA}.offers DROP COLUMN gpu".encode())
            with pytest.raises(MirrorUnavailable, match="another version"):  # though it was open already
                await Store(copy).status()
            async with open_publisher(str(path), postgres_url) as publisher:
                await publisher.round()
            await Store(copy).status()
        assert await contents(postgres_url) == await contents(str(path))

    asyncio.run(play())


def test_the_longest_names_fit_into_the_index(path: Path, postgres_url: str) -> None:
    """A letter becomes up to five bytes as filters compare it, and none repeats, so that nothing shrinks."""
    letters = [chr(0x20000 + number) for number in range(1_000)]
    growing = ["\u1ff2", "\u1ff3", "\u1ff4", "\u1ff7"]
    lots = random.Random(5)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for number, alphabet in enumerate((letters, growing)):
            text = ["".join(lots.choices(alphabet, k=64)) for _ in range(4)]
            offer = replace(
                offer_of(number, lots, NOW), name=text[0], region=text[1], gpu_class=text[2], runner=text[3]
            )
            row = row_of(decode(encode(offer)), KEYS[number], OFFERS + 1 + number, now_ms=NOW)
            insert(db, "offers", OFFER_COLUMNS, [row])
        db.execute("UPDATE meta SET value = ? WHERE key = 'change'", (str(OFFERS + 2),))

    async def play() -> None:
        async with open_publisher(str(path), postgres_url) as publisher:
            await publisher.round()
        assert (await contents(postgres_url))["offers"] == (await contents(str(path)))["offers"]

    asyncio.run(play())
