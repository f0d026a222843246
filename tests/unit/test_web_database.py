"""The mirror's file as the web reads it: absent, foreign, replaced, slow, written to all the while."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from protocol.errors import MirrorUnavailable
from tests.support.web_client import serving
from tests.support.web_mirror import filled
from web import database
from web.app import create_app
from web.database import CONNECTIONS, Mirror, open_mirror
from web.settings import Settings

ENDLESS = "WITH RECURSIVE every(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM every) SELECT max(n) FROM every"
BOOK = "SELECT value FROM meta WHERE key = 'book'"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "mirror.db", 20)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All that were started have ended, none of them in trouble."""
    before, troubles = set(threading.enumerate()), list[object]()
    monkeypatch.setattr(threading, "excepthook", troubles.append)
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()
    assert not troubles


def run(play: Coroutine[Any, Any, None]) -> None:
    asyncio.run(play)


async def refused(mirror: Mirror, sentence: str, sql: str = BOOK) -> None:
    with pytest.raises(MirrorUnavailable, match=sentence):
        await mirror.fetch(sql)


def test_it_waits_for_a_mirror_and_follows_another_in_its_place(path: Path, tmp_path: Path) -> None:
    async def play() -> None:
        there = tmp_path / "there.db"
        async with open_mirror(str(there)) as mirror:
            await refused(mirror, "there is no mirror at .*--mirror")
            path.rename(there)
            first = await mirror.fetch(BOOK)
            filled(tmp_path / "other.db", 5, seed=2).replace(there)
            assert await mirror.fetch(BOOK) != first

    run(play())


def test_files_that_are_no_mirror(tmp_path: Path, path: Path) -> None:
    async def play() -> None:
        (tmp_path / "text").write_text("hello " * 1_000)
        (tmp_path / "empty").touch()
        for name, sentence in (("text", "not a database"), ("empty", "no such table")):
            async with open_mirror(str(tmp_path / name)) as mirror:
                await refused(mirror, sentence)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE meta SET value = '2' WHERE key = 'schema'")
        async with open_mirror(str(path)) as mirror:
            await refused(mirror, "another version of qubix")

    run(play())


def test_what_cannot_be_opened_leaves_no_thread_behind(tmp_path: Path, threads: None) -> None:
    async def play() -> None:
        async with open_mirror(str(tmp_path)) as mirror:
            await refused(mirror, "cannot be read")

    for _ in range(20):  # it was a race
        run(play())


def test_a_file_that_breaks_under_its_readers(path: Path) -> None:
    """A disk, or somebody who writes into it: an answer says so, and the next reader begins anew."""
    good = path.read_bytes()

    async def play() -> None:
        async with open_mirror(str(path)) as mirror:
            first = await mirror.fetch(BOOK)
            path.write_bytes(good[:4_096] + b"\xff" * (len(good) - 4_096))
            await refused(mirror, "cannot be read .*malformed", "SELECT max(record) FROM offers")
            path.write_bytes(good)
            assert await mirror.fetch(BOOK) == first

    run(play())


async def found(client: httpx.AsyncClient) -> int:
    """Offers, or the status that says why there are none."""
    answer = await client.get("/v1/offers", params={"limit": 500})
    return len(answer.json()["offers"]) if answer.is_success else -answer.status_code


def test_several_webs_begin_before_their_mirror_and_follow_another_in_its_place(
    path: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there.db"
    apps = [create_app(Settings(mirror=str(there))) for _ in range(2)]

    async def play() -> None:
        async with serving(apps[0]) as one, serving(apps[1]) as other:
            for happens, offers in (
                (lambda: None, -503),
                (lambda: path.rename(there), 20),
                (lambda: filled(tmp_path / "next.db", 5, seed=2).replace(there), 5),
                (there.unlink, -503),
            ):
                happens()
                for app in apps:
                    await app.state.hub.try_look()  # as each does every second
                assert [await found(one), await found(other)] == [offers, offers]
                ready = [(await client.get("/readyz")).status_code for client in (one, other)]
                assert ready == ([503, 503] if offers < 0 else [200, 200])

    run(play())


def test_what_takes_too_long_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        monkeypatch.setattr(database, "STATEMENT_S", 0.05)
        async with open_mirror(str(path)) as mirror:
            async with asyncio.TaskGroup() as group:
                for _ in range(2 * CONNECTIONS):
                    group.create_task(refused(mirror, "took longer", ENDLESS))
            monkeypatch.setattr(database, "STATEMENT_S", 5.0)
            assert await mirror.fetch(BOOK)

    run(play())


def test_who_goes_away_leaves_no_work_behind(path: Path) -> None:
    async def play() -> None:
        async with open_mirror(str(path)) as mirror:
            asked = [asyncio.ensure_future(mirror.fetch(ENDLESS)) for _ in range(CONNECTIONS)]
            await asyncio.wait(asked, timeout=0.05)
            for task in asked:
                task.cancel()
            assert await mirror.fetch(BOOK)

    run(play())


def test_closing_ends_what_is_under_way(path: Path, threads: None) -> None:
    async def play() -> None:
        async with open_mirror(str(path)) as mirror:
            await mirror.fetch(BOOK)
            asked = [asyncio.ensure_future(mirror.fetch(ENDLESS)) for _ in range(2 * CONNECTIONS)]
            await asyncio.wait(asked, timeout=0.05)
        for one in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(one, MirrorUnavailable) and "being closed" in str(one)
        await refused(mirror, "being closed")

    run(play())


def test_closing_waits_for_what_nobody_waits_for(
    path: Path, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread reports to the event loop, which is closed soon after."""
    connect, begun, go = sqlite3.connect, threading.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> object:
        begun.set()
        assert go.wait(30)
        return connect(*args, **kwargs)

    async def play() -> None:
        monkeypatch.setattr(sqlite3, "connect", slow)
        async with open_mirror(str(path)) as mirror:
            asked = asyncio.ensure_future(mirror.fetch(BOOK))
            await asyncio.to_thread(begun.wait, 30)
            asked.cancel()
            await asyncio.wait([asked])
            asyncio.get_running_loop().call_later(0.05, go.set)
        assert go.is_set()

    try:
        run(play())
    finally:
        go.set()


def test_readers_see_commits_while_a_node_writes(path: Path) -> None:
    async def play() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            async with open_mirror(str(path)) as mirror:
                for number in range(5):
                    db.execute("BEGIN IMMEDIATE")
                    db.execute("UPDATE meta SET value = ? WHERE key = 'book'", (str(number),))
                    assert await mirror.fetch(BOOK) != [(str(number),)]
                    db.execute("COMMIT")
                    assert await mirror.fetch(BOOK) == [(str(number),)]
                with pytest.raises(MirrorUnavailable, match="readonly"):
                    await mirror.fetch("DELETE FROM offers")

    run(play())


def test_a_mistake_in_our_own_sql_is_no_missing_mirror(path: Path) -> None:
    async def play() -> None:
        async with open_mirror(str(path)) as mirror:
            with pytest.raises(sqlite3.OperationalError, match="no such column"):
                await mirror.fetch("SELECT absent FROM offers")

    run(play())
