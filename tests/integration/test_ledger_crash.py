"""A process that dies with SIGKILL loses nothing it was told is written and leaves nothing half
written; a reader in another process sees only whole commits meanwhile."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger import journal
from ledger.journal import OutboxItem
from ledger.store import Store, open_store
from protocol.errors import AlreadyRunning

LEASE = b"x" * 32
posix = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")

CHILD = """
import os, signal, sys, trio
from pathlib import Path
from tests.integration import test_ledger_crash as test

async def main(path, die_inside):
    async with test.open_store(Path(path)) as store:
        for step in range(100_000):
            if step == die_inside:
                await store.write(test.die_half_way)
            await test.step(store, step)
            print(step, flush=True)

trio.run(main, sys.argv[1], int(sys.argv[2]))
"""


async def step(store: Store, number: int) -> None:
    """Event n, state n + 1, one new effect that replaces the one before."""
    await journal.commit(
        store,
        lease_id=LEASE,
        role="caller",
        phase="running",
        event=b"%d" % number,
        state=b"%d" % (number + 1),
        outbox=[OutboxItem("wire", "voucher", b"%d" % number, replaces=True)],
        now_ms=number,
        expected_steps=number,
    )


def die_half_way(db: sqlite3.Connection) -> None:
    """Writes a part of a step, makes SQLite spill it to the disk, then dies."""
    db.execute("UPDATE leases SET state = x'00', steps = steps + 1")
    db.execute("DELETE FROM outbox")
    db.execute("PRAGMA cache_size = 1")
    db.execute("INSERT INTO meta VALUES ('big', zeroblob(2000000))")
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def child(path: Path, die_inside: int = -1) -> Iterator[subprocess.Popen[str]]:
    """A process that commits steps and prints the number of each once it is committed."""
    command = [sys.executable, "-c", CHILD, str(path), str(die_inside)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str], count: int) -> int:
    """Read `count` printed numbers; the last of them."""
    assert process.stdout is not None
    last = -1
    for _ in range(count):
        last = int(process.stdout.readline())
    return last


async def check_whole(path: Path, at_least: int) -> int:
    """The ledger holds whole steps only; how many."""
    async with open_store(path) as store:
        row = await journal.lease(store, LEASE)
        assert row is not None and row.steps >= at_least
        assert await journal.events(store, LEASE) == tuple(b"%d" % n for n in range(row.steps))
        assert row.state == b"%d" % row.steps
        effects = await journal.pending(store)
        assert [(effect.seq, effect.payload) for effect in effects] == [
            (row.steps - 1, b"%d" % (row.steps - 1))
        ]
        assert await store.read(lambda db: db.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
        await step(store, row.steps)
    return row.steps


@posix
async def test_killed_between_two_statements_leaves_the_step_before(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with child(path, die_inside=7) as process:
        assert process.wait() == -signal.SIGKILL
    assert path.with_name("ledger.db-wal").stat().st_size > 1_000_000  # the half step did reach the disk
    assert await check_whole(path, at_least=7) == 7


@posix
@pytest.mark.parametrize("after", [1, 23, 57])
async def test_killed_at_any_moment_keeps_every_acknowledged_step(tmp_path: Path, after: int) -> None:
    path = tmp_path / "ledger.db"
    with child(path) as process:
        last = told(process, after)
        process.kill()
        process.wait()
    assert await check_whole(path, at_least=last + 1) >= last + 1


@posix
async def test_the_lock_holds_against_a_live_process_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with child(path) as process:
        told(process, 1)
        with pytest.raises(AlreadyRunning):
            async with open_store(path):
                pass
        process.kill()
        process.wait()
        await check_whole(path, at_least=1)


READER = """
import asyncio, sys
from pathlib import Path
from ledger.reader import open_reader
assert "trio" not in sys.modules, "a reader's process must not need trio"

async def main(path):
    seen = 0
    async with open_reader(Path(path)) as reader:
        for _ in range(200):
            (row,) = await reader.leases({"running"})
            assert row.state == b"%d" % row.steps, (row.state, row.steps)
            assert row.steps >= seen
            seen = row.steps
        assert await reader.leases(()) == ()
        assert await reader.offers(0) == ()
    print(seen)

asyncio.run(main(sys.argv[1]))
"""


def read_in_another_process(path: Path) -> int:
    """Steps seen by an asyncio process that reads 200 times."""
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_reader_sees_whole_commits_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with child(path) as process:
        first = told(process, 1)
        assert read_in_another_process(path) > first
        assert process.poll() is None  # the writer was not disturbed


async def test_a_reader_works_when_the_daemon_is_down(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_store(path) as store:
        await step(store, 0)
    assert read_in_another_process(path) == 1


def test_a_reader_of_nothing_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path / "none.db")], capture_output=True, text=True, check=False
    )
    assert "LedgerBroken" in done.stderr and "has qubixd run here?" in done.stderr
    assert not (tmp_path / "none.db").exists()
