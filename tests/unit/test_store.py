"""The single writer: all or nothing, one at a time, errors a person can read."""

from __future__ import annotations

import sqlite3
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from ledger import schema, transactions
from ledger.store import inline, open_store
from ledger.transactions import SignedTransaction
from protocol.errors import AlreadyRunning, DiskFull, LedgerBroken

T = TypeVar("T")


def put(db: sqlite3.Connection, key: str) -> None:
    db.execute("INSERT INTO meta VALUES (?, ?)", (key, b"v"))


def keys(db: sqlite3.Connection) -> list[str]:
    return [key for (key,) in db.execute("SELECT key FROM meta ORDER BY key")]


async def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "data" / "ledger.db"
    async with open_store(path) as store:
        await store.write(lambda db: put(db, "a"))
    async with open_store(path) as store:
        assert await store.read(keys) == ["a"]


async def test_a_failing_transaction_leaves_nothing() -> None:
    def half(db: sqlite3.Connection) -> None:
        put(db, "a")
        raise ZeroDivisionError

    async with open_store(":memory:", inline) as store:
        with pytest.raises(ZeroDivisionError):
            await store.write(half)
        assert await store.read(keys) == []
        await store.write(lambda db: put(db, "b"))
        assert await store.read(keys) == ["b"]


async def test_a_read_cannot_write() -> None:
    async with open_store(":memory:", inline) as store:
        with pytest.raises(LedgerBroken):
            await store.read(lambda db: put(db, "a"))
        await store.write(lambda db: put(db, "b"))
        assert await store.read(keys) == ["b"]


async def test_a_caller_cancelled_in_the_middle_leaves_a_whole_transaction(tmp_path: Path) -> None:
    committed: list[str] = []
    async with open_store(tmp_path / "l.db", on_commit=committed.append) as store:
        with trio.CancelScope() as scope:

            def transaction(db: sqlite3.Connection) -> None:
                put(db, "a")
                trio.from_thread.run_sync(scope.cancel)
                put(db, "b")

            await store.write(transaction, "both")
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert await store.read(keys) == ["a", "b"]
        assert committed == ["both"]


async def test_a_caller_cancelled_while_queueing_writes_nothing(tmp_path: Path) -> None:
    started = trio.Event()

    def slow(db: sqlite3.Connection) -> None:
        trio.from_thread.run_sync(started.set)
        trio.from_thread.run(queued_is_cancelled.wait)
        put(db, "slow")

    queued_is_cancelled = trio.Event()
    async with open_store(tmp_path / "l.db") as store, trio.open_nursery() as nursery:
        nursery.start_soon(store.write, slow)
        await started.wait()
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.write(lambda db: put(db, "queued"))
        assert scope.cancelled_caught
        queued_is_cancelled.set()
        await store.write(lambda db: put(db, "later"))
        assert await store.read(keys) == ["later", "slow"]


async def test_two_writers_in_a_thread_take_turns(tmp_path: Path) -> None:
    def increment(db: sqlite3.Connection) -> None:
        (value,) = db.execute("SELECT value FROM meta WHERE key = 'n'").fetchone()
        db.execute("UPDATE meta SET value = ? WHERE key = 'n'", (str(int(value) + 1).encode(),))

    async with open_store(tmp_path / "l.db") as store:
        await store.write(lambda db: db.execute("INSERT INTO meta VALUES ('n', x'30')"))
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(store.write, increment)
        rows = await store.read(lambda db: db.execute("SELECT value FROM meta").fetchall())
        assert rows == [(b"50",)]


async def test_every_call_may_come_from_another_thread(tmp_path: Path) -> None:
    """The pool hands out threads as it likes, for opening and closing too."""

    async def in_a_new_thread(fn: Callable[[], T]) -> T:
        with ThreadPoolExecutor(max_workers=1) as fresh:
            return await trio.to_thread.run_sync(fresh.submit(fn).result)

    async with open_store(tmp_path / "ledger.sqlite", in_a_new_thread) as store:
        await store.write(lambda db: db.execute("SELECT 1"))
    async with open_store(tmp_path / "ledger.sqlite"):
        """The lock was let go."""


async def test_inline_keeps_an_autojump_clock_still(autojump_clock: MockClock) -> None:
    async with open_store(":memory:", inline) as store:
        with trio.fail_after(1):
            for number in range(200):
                await store.write(lambda db, number=number: put(db, str(number)))  # type: ignore[misc]  # loop default
    assert trio.current_time() == autojump_clock.current_time()


async def test_a_second_daemon_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_store(path):
        with pytest.raises(AlreadyRunning, match=str(tmp_path)):
            async with open_store(path):
                pass
    async with open_store(path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no POSIX modes")
async def test_the_files_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch(mode=0o644)
    async with open_store(path) as store:
        await store.write(lambda db: put(db, "a"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("ledger.db*")}
    del modes["ledger.db.lock"]  # is empty
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), 0o600)


async def test_a_full_disk_says_so_and_loses_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "l.db") as store:
        await store.write(lambda db: put(db, "before"))
        (pages,) = await store.read(lambda db: db.execute("PRAGMA page_count").fetchone())
        await store.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        big = bytes(1_000_000)
        with pytest.raises(DiskFull, match=r"l\.db"):
            await store.write(lambda db: db.execute("INSERT INTO meta VALUES ('big', ?)", (big,)))
        await store.read(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
        await store.write(lambda db: put(db, "after"))
        assert await store.read(keys) == ["after", "before"]


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.write_bytes(b"this is no database" * 300)
    with pytest.raises(LedgerBroken, match=r"l\.db is damaged"):
        async with open_store(path):
            pass


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(LedgerBroken, match="another program"):
        async with open_store(path):
            pass
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]


async def test_a_ledger_from_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with open_store(path) as store:
        await store.write(lambda db: db.execute("PRAGMA user_version = 99"))
    with pytest.raises(LedgerBroken, match="newer qubix"):
        async with open_store(path):
            pass


async def test_an_older_ledger_is_migrated_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l.db"
    async with open_store(path) as store:
        await store.write(lambda db: put(db, "kept"))
    half_wrong = ("CREATE TABLE extra (x)", "CREATE TABLE extra (x)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, half_wrong))
    with pytest.raises(sqlite3.OperationalError):
        async with open_store(path):
            pass
    right = (("CREATE TABLE extra (x)",), ("ALTER TABLE extra ADD COLUMN y",))
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS[:-1], *right))
    async with open_store(path) as store:
        assert await store.read(keys) == ["kept"]
        assert await store.read(lambda db: db.execute("SELECT y FROM extra").fetchall()) == []
        assert await store.read(lambda db: db.execute("PRAGMA user_version").fetchone()) == (
            len(schema.MIGRATIONS),
        )


async def test_a_transaction_is_kept_for_each_lease_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the first was all that was remembered."""
    path, digest = tmp_path / "l.db", b"d" * 32
    both = [SignedTransaction(digest, about, "redeem", 7, 200, b"to" * 16, 1) for about in (b"one", b"two")]
    with monkeypatch.context() as before:
        before.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
        async with open_store(path) as store:
            await transactions.note(store, both[0])
    async with open_store(path) as store:
        for one in (*both, *both):
            await transactions.note(store, one)
        assert [await transactions.about(store, one.about) for one in both] == [(both[0],), (both[1],)]
        assert await transactions.last_tick(store) == 7
