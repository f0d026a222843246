"""The single writer of a node's ledger: one SQLite file, one worker thread, one transaction a call.

synchronous=FULL: a commit is on the disk when `write` returns, also after a power cut. With NORMAL
the last commits can be gone, and a node that forgets that it has paid pays twice. A public file
(schema.Schema) holds nothing of the kind.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

import trio

from ledger.schema import Schema, migrate, of_ledger, roll_back
from protocol.errors import AlreadyRunning, DiskFull, LedgerBroken, QubixError

T = TypeVar("T")
Transaction = Callable[[sqlite3.Connection], T]
BUSY_TIMEOUT_S: Final = 5.0
"""How long to wait for another program (a backup, a shell) that holds the file's write lock."""


PUBLIC_CACHE_KIB: Final = 32 * 1_024
PUBLIC_LOG_PAGES: Final = 2_000
"""Of 4 KiB, before they are put into the file itself."""


class RunSync(Protocol):
    """Runs a blocking function to its end and returns what it returned; must not overlap calls."""

    async def __call__(self, fn: Callable[[], T], /) -> T: ...


async def inline(fn: Callable[[], T]) -> T:
    """RunSync without a thread, for tests on an autojump clock (a thread call lets timeouts fire)."""
    await trio.lowlevel.checkpoint()
    return fn()


def in_one_thread() -> RunSync:
    """RunSync on trio's worker threads, one call at a time, never abandoned once begun."""
    limiter = trio.CapacityLimiter(1)

    async def run(fn: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(fn, limiter=limiter)

    return run


class Store:
    """An open ledger. Obtained from `open_store`; the functions in `journal`, `offers` and `settings`
    take it as their first argument."""

    def __init__(
        self, db: sqlite3.Connection, where: str, run_sync: RunSync, on_commit: Callable[[str], None] | None
    ) -> None:
        self._db = db
        self._where = where
        self._run_sync = run_sync
        self._on_commit = on_commit

    async def write(self, fn: Transaction[T], operation: str = "write") -> T:
        """Run `fn` in a transaction: committed when it returns, rolled back when it raises.

        A caller cancelled before the transaction began writes nothing; once begun it ends whatever
        happens to the caller. After the commit the store's `on_commit(operation)` is called in the
        caller's task. DiskFull, LedgerBroken; what `fn` raises passes through.
        """
        result = await self._run_sync(lambda: self._transact(fn))
        if self._on_commit is not None:
            self._on_commit(operation)
        return result

    async def read(self, fn: Transaction[T]) -> T:
        """Run `fn` on one consistent snapshot; it cannot write. LedgerBroken."""
        return await self._run_sync(lambda: self._look(fn))

    def _transact(self, fn: Transaction[T]) -> T:
        with readable_errors(self._where):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                result = fn(self._db)
                self._db.execute("COMMIT")
            except BaseException:
                roll_back(self._db)
                raise
            return result

    def _look(self, fn: Transaction[T]) -> T:
        with readable_errors(self._where):
            try:
                self._db.execute("PRAGMA query_only = 1")
                self._db.execute("BEGIN")
                return fn(self._db)
            finally:
                roll_back(self._db)
                self._db.execute("PRAGMA query_only = 0")


@asynccontextmanager
async def open_store(
    path: Path | Literal[":memory:"],
    run_sync: RunSync | None = None,
    on_commit: Callable[[str], None] | None = None,
    schema: Schema | None = None,
) -> AsyncIterator[Store]:
    """Open (making it at first use) the ledger at `path`, mode 0600, until the block ends; or, with another
    `schema`, another file that has one writer.

    Only one process can hold a ledger open: AlreadyRunning. LedgerBroken if the file is damaged, not
    ours or from a newer version; DiskFull.
    """
    run, kind = run_sync or in_one_thread(), schema or of_ledger()
    lock, db = await run(lambda: _open(path, kind))
    try:
        yield Store(db, str(path), run, on_commit)
    finally:
        with trio.CancelScope(shield=True):
            await run(lambda: _close(lock, db, kind))


def _open(
    path: Path | Literal[":memory:"], schema: Schema
) -> tuple[sqlite3.Connection | None, sqlite3.Connection]:
    lock = None
    with readable_errors(str(path)):
        if isinstance(path, Path):
            _make_file(path, schema)
            lock = _take_lock(path)
        try:
            db = _connect(path)
            _prepare(db, str(path), schema)
        except BaseException:
            if lock is not None:
                lock.close()
            raise
    return lock, db


def _connect(path: Path | str) -> sqlite3.Connection:
    # Transactions are written out (isolation_level=None); calls may come from different threads of
    # the pool, but never two at a time.
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def _prepare(db: sqlite3.Connection, where: str, schema: Schema) -> None:
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'NORMAL' if schema.public else 'FULL'}")
        if schema.public:  # much of it is written at once, in no order
            db.execute(f"PRAGMA cache_size = -{PUBLIC_CACHE_KIB}")
            db.execute(f"PRAGMA wal_autocheckpoint = {PUBLIC_LOG_PAGES}")
            db.execute(f"PRAGMA journal_size_limit = {PUBLIC_LOG_PAGES * 4_096}")
        db.execute("PRAGMA foreign_keys = ON")
        migrate(db, where, schema)
    except BaseException:
        db.close()
        raise


def _make_file(path: Path, schema: Schema) -> None:
    """Create the directory and the empty file, for the owner alone if it is not public (-wal and -shm take
    its mode)."""
    try:
        path.parent.mkdir(mode=0o755 if schema.public else 0o700, parents=True, exist_ok=True)
        if schema.public:
            _refuse_links(path)
        file = os.open(path, os.O_CREAT | os.O_RDWR | (os.O_NOFOLLOW if schema.public else 0), 0o600)
        try:
            os.fchmod(file, 0o644 if schema.public else 0o600)
        finally:
            os.close(file)
    except OSError as error:
        raise LedgerBroken(f"{path} cannot be opened for writing: {error.strerror}") from error


def _refuse_links(path: Path) -> None:
    """A public file may lie where others write, too: it must not be led to a file that they want opened to
    everybody, or written over. LedgerBroken."""
    for suffix in ("", "-wal", "-shm", "-journal", ".lock"):
        one = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            found = one.lstat()
            if stat.S_ISLNK(found.st_mode) or found.st_nlink > 1:
                raise LedgerBroken(
                    f"{one} is a link to another file; remove it, and choose a directory where only you write"
                )


def _take_lock(path: Path) -> sqlite3.Connection:
    """An exclusive SQLite lock on a file of its own: works on every platform, lets go by itself when
    the process dies, and leaves the ledger free for readers."""
    # Closed by whichever thread of the pool comes to it.
    lock = sqlite3.connect(
        path.with_name(path.name + ".lock"), timeout=0, isolation_level=None, check_same_thread=False
    )
    try:
        lock.execute("PRAGMA journal_mode = MEMORY")  # no journal file beside it: nothing is written
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise AlreadyRunning(
                f"another qubixd already uses {path.parent}; stop it or choose another data directory"
            ) from error
        raise
    return lock


def _close(lock: sqlite3.Connection | None, db: sqlite3.Connection, schema: Schema) -> None:
    if schema.public:
        with contextlib.suppress(sqlite3.DatabaseError):  # somebody reads: then the files stay as they are
            # Whoever may not write beside the file can only read it without a log.
            db.execute("PRAGMA busy_timeout = 0")
            db.execute("PRAGMA journal_mode = DELETE")
    db.close()
    if lock is not None:
        lock.close()


@contextmanager
def readable_errors(where: str) -> Iterator[None]:
    """Turn what the disk did to SQLite into errors a person can act on; mistakes in our own SQL
    (constraints, syntax) pass through as they are."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if (translated := _translate(error, where)) is None:
            raise
        raise translated from error


def _translate(error: sqlite3.DatabaseError, where: str) -> QubixError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF  # the upper bytes only refine it
    if primary == sqlite3.SQLITE_FULL:
        return DiskFull(f"the disk that holds {where} is full; nothing was lost, free some space and go on")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LedgerBroken(f"{where} is damaged ({error}); restore it from a backup")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerBroken(f"another program keeps {where} locked; close it and try again")
    if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return LedgerBroken(f"{where} cannot be read or written ({error}); check the disk")
    return None
