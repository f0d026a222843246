"""The ring, its listeners and its way into the ledger: bounded, in order, nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from ledger import meters as ledger_meters
from ledger.meters import HOUR_MS, MINUTE_MS, rolled_up
from ledger.store import Store
from protocol.lease_state import Lease, Phase, Role
from protocol.units import UnixMs
from qubixd.leases import Leases
from qubixd.meters import FORGET_SECONDS, KEPT_FOR_LISTENERS, RING_SAMPLES, WRITE_SECONDS, Meters
from tests.support.lease_plan import make_terms
from tests.support.meter_values import LEASE, OTHER, START, at, ledger, sample

Clock = trio.testing.MockClock
ALL = 1_000_000


def lease(phase: Phase) -> Lease:
    return Lease(LEASE, Role.PROVIDER, make_terms(), phase, START, UnixMs(0))


@asynccontextmanager
async def meters(path: Any = ":memory:") -> AsyncIterator[tuple[Meters, Leases, Store]]:
    async with ledger(path) as store:
        leases = Leases(store, lambda: at(0))
        yield Meters(store, leases, lambda: UnixMs(at(trio.current_time()))), leases, store


@asynccontextmanager
async def running(path: Any = ":memory:") -> AsyncIterator[tuple[Meters, Leases, Store]]:
    async with meters(path) as (made, leases, store), trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield made, leases, store
        nursery.cancel_scope.cancel()


def tell(leases: Leases, phase: Phase) -> None:
    for notice in leases.on_change:
        notice(lease(phase))


async def test_ten_minutes_are_kept_and_only_what_is_newer_is_taken() -> None:
    async with meters() as (kept, _, _):
        for n in range(RING_SAMPLES + 10):
            assert kept.add(LEASE, sample(n))
        assert not kept.add(LEASE, sample(RING_SAMPLES + 9, cpu_millis=5))
        assert not kept.add(LEASE, sample(3))
        found = kept.since(LEASE, UnixMs(0))
        assert [found[0], found[-1], len(found)] == [sample(10), sample(RING_SAMPLES + 9), RING_SAMPLES]
        assert kept.since(LEASE, found[-3].at) == found[-2:]
        assert kept.since(OTHER, UnixMs(0)) == ()
        assert await kept.newest(LEASE) == found[-1].at and await kept.newest(OTHER) == 0


async def test_the_latest_is_only_told_while_it_is_fresh(autojump_clock: Clock) -> None:
    async with meters() as (kept, _, _):
        kept.add(LEASE, sample(1))
        await trio.sleep(9)
        assert kept.latest(LEASE, 10) == sample(1)
        await trio.sleep(2)
        assert kept.latest(LEASE, 10) is None and kept.latest(OTHER, 10) is None


async def test_a_slow_reader_loses_samples_and_nobody_else_does() -> None:
    async with meters() as (kept, _, _):
        with kept.listen(LEASE) as slow, kept.listen(LEASE) as quick:
            seen = []
            for n in range(2 * KEPT_FOR_LISTENERS):
                kept.add(LEASE, sample(n))
                seen.append(quick.receive_nowait())
            assert seen == [sample(n) for n in range(2 * KEPT_FOR_LISTENERS)]
            assert [slow.receive_nowait() for _ in range(KEPT_FOR_LISTENERS)] == seen[:KEPT_FOR_LISTENERS]
            with pytest.raises(trio.WouldBlock):
                slow.receive_nowait()


async def test_readers_are_let_go_when_the_job_has_ended() -> None:
    async with running() as (kept, leases, _):
        with kept.listen(LEASE) as later:
            kept.add(LEASE, sample(1))
            tell(leases, Phase.PAUSED)
            tell(leases, Phase.STOPPING)
            kept.add(LEASE, sample(2))  # a look that was under way
            with kept.listen(LEASE):
                tell(leases, Phase.SETTLING)
                kept.add(LEASE, sample(3))
            assert [one async for one in later] == [sample(1)]


async def test_whole_minutes_are_written_while_it_runs_and_the_rest_at_the_end(
    autojump_clock: Clock, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    async with running(path) as (kept, _, store):
        for n in range(150):
            kept.add(LEASE, sample(n, cpu_millis=n))
        assert await kept.history(LEASE, UnixMs(0), ALL) == tuple(
            rolled_up(LEASE, kept.since(LEASE, UnixMs(0)))
        )
        await trio.sleep(WRITE_SECONDS + 1)
        written = await ledger_meters.history(store, LEASE, 0, ALL)
        assert [row.samples for row in written] == [60, 60]
        everything = await kept.history(LEASE, UnixMs(0), ALL)
        assert [row.samples for row in everything] == [60, 60, 30]
        assert await kept.history(LEASE, at(130), ALL) == everything[2:]
    async with running(path) as (kept, _, store):
        assert await ledger_meters.history(store, LEASE, 0, ALL) == everything
        assert await kept.newest(LEASE) == at(149)
        for n in range(140, 170):  # some of them are told again
            kept.add(LEASE, sample(n, cpu_millis=n))
        assert [row.samples for row in await kept.history(LEASE, UnixMs(0), ALL)] == [60, 60, 50]
    async with ledger(path) as store:
        written = await ledger_meters.history(store, LEASE, 0, ALL)
        assert [row.samples for row in written] == [60, 60, 50]
        assert sum(row.cpu_millis.total for row in written) == sum(range(170))


@pytest.mark.parametrize("late", [False, True])
async def test_what_a_job_used_last_is_written_and_forgotten(late: bool, autojump_clock: Clock) -> None:
    async with running() as (kept, leases, store):
        if not late:
            kept.add(LEASE, sample(1))
        tell(leases, Phase.SETTLING)
        if late:  # a look that was under way
            kept.add(LEASE, sample(1))
        await trio.sleep(WRITE_SECONDS + 1)
        assert [row.samples for row in await ledger_meters.history(store, LEASE, 0, ALL)] == [1]
        assert kept.since(LEASE, UnixMs(0)) == (sample(1),)
        await trio.sleep(FORGET_SECONDS + WRITE_SECONDS)
        assert kept.since(LEASE, UnixMs(0)) == ()
        assert await kept.newest(LEASE) == at(1)


async def test_a_day_later_minutes_are_hours(autojump_clock: Clock) -> None:
    async with running() as (kept, _, store):
        for n in range(0, 7_200, 60):
            await ledger_meters.keep(store, rolled_up(LEASE, [sample(n)]))
        await trio.sleep(27 * 3_600)
        spans = [row.span_ms for row in await kept.history(LEASE, UnixMs(0), ALL)]
        assert spans == [HOUR_MS, HOUR_MS]


async def test_a_full_disk_costs_no_sample_that_is_in_memory(
    autojump_clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path / "ledger.sqlite") as (kept, _, store):
        for n in range(150):
            kept.add(LEASE, sample(n))
        pages = await store.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await store.write(lambda db: db.execute("CREATE TABLE filler (x BLOB)"))
        await store.write(lambda db: db.execute("DROP TABLE filler"))
        await store.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages}"))
        for n in range(150, 3_000):
            kept.add(OTHER, sample(n * 60))
        await kept.write(whole_minutes=True)
        assert "could not be written down" in caplog.text
        await store.read(lambda db: db.execute("PRAGMA max_page_count = 100000"))
        await kept.write(whole_minutes=True)
        written = await ledger_meters.history(store, LEASE, 0, ALL)
        assert [row.span_ms for row in written] == [MINUTE_MS, MINUTE_MS]
