"""Whatever interrupts a commit, the ledger is exactly as before it or exactly as after it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import trio
from hypothesis import given
from hypothesis import strategies as st

from ledger import journal
from ledger.journal import OutboxItem
from ledger.store import Store, inline, open_store

LEASES = (b"a" * 32, b"b" * 32)
Row = tuple[object, ...]
Dump = tuple[frozenset[Row], frozenset[Row], frozenset[Row]]
"""The rows of leases, events and outbox."""

items = st.builds(
    OutboxItem,
    lane=st.sampled_from(["wire", "chain"]),
    kind=st.sampled_from(["voucher", "fund"]),
    payload=st.binary(max_size=20),
    replaces=st.booleans(),
)
plans = st.lists(
    st.tuples(st.sampled_from(LEASES), st.lists(items, max_size=4), st.integers(1, 400)), max_size=8
)
"""What to commit, and after how many of its own instructions SQLite gives up; some commits need fewer."""


def dump(db: sqlite3.Connection) -> Dump:
    leases, events, outbox = (
        frozenset(db.execute(f"SELECT * FROM {table}").fetchall()) for table in ("leases", "events", "outbox")
    )
    return leases, events, outbox


def expected(before: Dump, lease_id: bytes, outbox: Sequence[OutboxItem], now_ms: int) -> Dump:
    """What a commit has to make of the tables, said in the plainest way."""
    leases, events, effects = before
    old = [row for row in leases if row[0] == lease_id]
    steps, next_seq, created = (old[0][4], old[0][5], old[0][6]) if old else (0, 0, now_ms)
    assert isinstance(steps, int) and isinstance(next_seq, int)
    for seq, item in enumerate(outbox, next_seq):
        if item.replaces:
            effects = frozenset(
                row for row in effects if (row[0], row[2], row[3]) != (lease_id, item.lane, item.kind)
            )
        effects |= {(lease_id, seq, item.lane, item.kind, item.payload, b"")}
    lease = (lease_id, "caller", "running", b"state", steps + 1, next_seq + len(outbox), created, now_ms)
    return leases - set(old) | {lease}, events | {(lease_id, steps, b"event", now_ms)}, effects


async def commit(
    store: Store, lease_id: bytes, outbox: Sequence[OutboxItem], now_ms: int, instructions: int
) -> bool:
    """Commit on top of what is there; False if SQLite was interrupted."""
    row = await journal.lease(store, lease_id)
    interrupt_after(store, instructions)
    try:
        await journal.commit(
            store,
            lease_id=lease_id,
            role="caller",
            phase="running",
            event=b"event",
            state=b"state",
            outbox=outbox,
            now_ms=now_ms,
            expected_steps=0 if row is None else row.steps,
        )
    except sqlite3.OperationalError as error:
        assert error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT
        return False
    finally:
        store._db.set_progress_handler(None, 0)
    return True


def interrupt_after(store: Store, instructions: int) -> None:
    """Make SQLite give up once, in the middle of whatever it does after so many of its instructions."""
    left = instructions

    def tick() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    store._db.set_progress_handler(tick, 1)


async def play(plan: list[tuple[bytes, list[OutboxItem], int]]) -> None:
    async with open_store(":memory:", inline) as store:
        for now_ms, (lease_id, outbox, instructions) in enumerate(plan):
            before = await store.read(dump)
            after = expected(before, lease_id, outbox, now_ms)
            said_yes = await commit(store, lease_id, outbox, now_ms, instructions)
            # An interrupt between SQLite's last instructions can hit a commit that has happened.
            assert await store.read(dump) in ((after,) if said_yes else (before, after))


@given(plans)
def test_an_interrupted_commit_changes_all_or_nothing(
    plan: list[tuple[bytes, list[OutboxItem], int]],
) -> None:
    trio.run(play, plan)
