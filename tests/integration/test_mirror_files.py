"""The mirror's file in the hands of others: a process that dies writing it, a user who may only read it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio

from qubixd.book import OfferBook
from tests.support.crowd import take
from tests.support.deals import CONTRACT, NETWORK, NOW
from tests.support.mirrors import Follower, live, meta, mirroring, rows

NOBODY = 65_534
posix = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
root_only = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can become another user"
)
CHILD = """
import sys, trio
from pathlib import Path
from tests.integration import test_mirror_files as test

trio.run(test.write, Path(sys.argv[1]), int(sys.argv[2]))
"""
READER = """
import os, sqlite3, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
for line in sys.stdin:
    try:
        print(db.execute(line).fetchall(), flush=True)
    except sqlite3.Error as error:
        print(type(error).__name__, flush=True)
"""


def book_of(offers: int, price: int = 1) -> OfferBook:
    book = OfferBook(NETWORK, CONTRACT)
    for number in range(offers):
        take(book, f"rig {number}", price_qu_per_hour=price)
    return book


async def write(path: Path, offers: int) -> None:
    """Mirror so many, and then let all of them change, until somebody ends it."""
    book = book_of(offers)
    async with mirroring(path, book, lambda: NOW):
        sequence = 1
        while True:
            await trio.sleep(0.3)
            sequence += 1
            sys.stdout.write(f"{sequence}\n")
            sys.stdout.flush()
            for number in range(offers):
                take(book, f"rig {number}", sequence=sequence)


@contextmanager
def writer(path: Path, offers: int = 1_500) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", CHILD, str(path), str(offers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@posix
@pytest.mark.parametrize("rounds", [1, 3])
async def test_killed_while_it_writes_leaves_a_whole_file_that_goes_on(tmp_path: Path, rounds: int) -> None:
    path = tmp_path / "mirror.db"
    with writer(path) as process:
        assert process.stdout is not None
        for _ in range(rounds):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    (newest,) = rows(path, "SELECT coalesce(max(change), 0) FROM offers")[0]
    assert newest <= int(meta(path).get("change", 0))
    reader = Follower(path)
    reader.follow()
    book = book_of(7, price=9)
    async with mirroring(path, book, lambda: NOW) as mirror:
        with trio.fail_after(60):
            while not mirror.complete:
                await trio.sleep(0.05)
        expected = {entry.provider: entry.raw for entry in book.entries(NOW)}
        assert live(path) == reader.live == expected


class Stranger:
    """Another user of this machine, who opens the file once and asks again and again; ours until Python has
    started, which others may not read where it lies in somebody's home."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-I", "-c", READER, str(path), str(NOBODY)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, sql: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(sql, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.communicate()


@contextmanager
def stranger(path: Path) -> Iterator[Stranger]:
    one = Stranger(path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def path() -> Iterator[Path]:
    """Where everybody may enter and nobody else may write."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "mirror.db"


@root_only
async def test_another_user_reads_while_it_is_written_and_writes_nothing(path: Path) -> None:
    book = book_of(3)
    count = "SELECT count(*) FROM offers WHERE live = 1"
    async with mirroring(path, book, lambda: NOW) as mirror:
        while not mirror.complete:
            await trio.sleep(0.05)
        with stranger(path) as early:
            assert early.ask(count) == "[(3,)]"
            take(book, "late")
            with trio.fail_after(30):
                while early.ask(count) != "[(4,)]":
                    await trio.sleep(0.05)
            assert early.ask("DELETE FROM offers") == "OperationalError"
    with stranger(path) as late:
        assert late.ask(count) == "[(4,)]"  # the daemon has ended
        assert late.ask("UPDATE meta SET value = ''") == "OperationalError"


@root_only
async def test_another_user_reads_what_a_killed_daemon_left(path: Path) -> None:
    with writer(path, 50) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
    assert path.with_name("mirror.db-wal").stat().st_size > 0
    with stranger(path) as one:
        assert one.ask("SELECT count(*) FROM offers WHERE live = 1") == "[(50,)]"
