"""Rolled-up meters in the ledger: sums of minutes and hours, nothing counted twice, never too many rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import meters
from ledger.meters import HOUR_MS, MINUTE_MS, MeterRow, rolled_up
from ledger.reader import open_reader
from protocol.messages import Sample
from tests.support.meter_values import CARD, LEASE, OTHER, START, at, ledger, sample

ALL = 1_000_000


def rows(*samples: Sample) -> list[MeterRow]:
    return rolled_up(LEASE, samples)


def busy(first: int, last: int) -> list[Sample]:
    """A sample a second; each says its own number."""
    return [
        sample(n, cpu_millis=n, memory_mib=2 * n, disk_mib=3 * n, received_bytes=10 * n, sent_bytes=20 * n)
        for n in range(first, last)
    ]


def test_a_row_a_minute_with_mean_and_highest() -> None:
    first, second = rows(*busy(0, 90))
    assert (first.start_ms, first.samples, first.first_ms, first.last_ms) == (START, 60, START, at(59))
    assert (first.cpu_millis.mean, first.cpu_millis.most) == (29.5, 59)
    assert (first.memory_mib.mean, first.disk_mib.most) == (59, 177)
    assert (second.start_ms, second.samples, second.received_bytes, second.sent_bytes) == (
        at(60), 30, 890, 1_780,
    )  # fmt: skip


def test_what_a_card_does_not_tell_is_not_counted_as_nothing() -> None:
    mute = sample(1, gpus=(type(CARD)(CARD.digest, None, 3_000, None, 100_000),))
    (row,) = rows(sample(0, gpus=(CARD,)), mute)
    (card,) = row.gpus
    assert (card.use_permille.count, card.use_permille.mean, card.temperature_c.most) == (1, 500, 60)
    assert (card.memory_mib.mean, card.memory_mib.most, card.power_mw.mean) == (2_000, 3_000, 150_000)


async def test_what_is_written_is_read_again() -> None:
    made = rows(*(sample(n, gpus=(CARD,), cpu_millis=n) for n in range(90)))
    async with ledger() as store:
        await meters.keep(store, made)
        assert list(await meters.history(store, LEASE, 0, ALL)) == made
        assert await meters.history(store, OTHER, 0, ALL) == ()
        assert await meters.newest(store, LEASE) == at(89)
        assert await meters.newest(store, OTHER) == 0


async def test_history_since_an_instant_and_of_too_much_the_newest() -> None:
    made = rows(*busy(0, 300))
    async with ledger() as store:
        await meters.keep(store, made)
        assert list(await meters.history(store, LEASE, at(130), ALL)) == made[2:]
        assert list(await meters.history(store, LEASE, 0, 2)) == made[-2:]


async def test_written_again_it_is_counted_once() -> None:
    made = rows(*busy(0, 130))
    async with ledger() as store:
        for again in (made, made, made[1:], rows(*busy(30, 90))):
            await meters.keep(store, again)
        assert list(await meters.history(store, LEASE, 0, ALL)) == made


async def test_parts_of_a_minute_make_one_row() -> None:
    """As a daemon leaves them that was ended in the middle of a minute and started again."""
    async with ledger() as store:
        await meters.keep(store, rows(*busy(0, 25)))
        await meters.keep(store, rows(*busy(25, 90)))
        assert list(await meters.history(store, LEASE, 0, ALL)) == rows(*busy(0, 90))


@given(cuts=st.lists(st.integers(1, 200), max_size=6), folds=st.lists(st.integers(0, 5_000), max_size=3))
async def test_however_it_is_cut_written_twice_and_folded_the_sums_are_the_same(
    cuts: Sequence[int], folds: Sequence[int]
) -> None:
    samples = busy(0, 4_000)[::20]
    edges = [0, *sorted(cuts), 200]
    async with ledger() as store:
        for number, (low, high) in enumerate(pairwise(edges)):
            for _ in range(2):
                await meters.keep(store, rows(*samples[low:high]))
            if number < len(folds):
                await meters.fold(store, LEASE, at(folds[number]))
        kept = await meters.history(store, LEASE, 0, ALL)
    assert sum(row.samples for row in kept) == 200
    assert sum(row.cpu_millis.total for row in kept) == sum(one.cpu_millis for one in samples)
    assert max(row.memory_mib.most for row in kept) == 2 * 3_980
    assert (kept[0].first_ms, kept[-1].last_ms) == (START, at(3_980))


async def test_minutes_become_hours() -> None:
    async with ledger() as store:
        await meters.keep(store, rows(*(sample(60 * n, cpu_millis=n, gpus=(CARD,)) for n in range(150))))
        assert await meters.leases_to_fold(store, at(1)) == (LEASE,)
        assert await meters.fold(store, LEASE, at(2 * 3_600 + 599)) == 120
        kept = await meters.history(store, LEASE, 0, ALL)
        assert [row.span_ms for row in kept] == [HOUR_MS] * 2 + [MINUTE_MS] * 30
        assert (kept[0].samples, kept[0].cpu_millis.mean, kept[0].cpu_millis.most) == (60, 29.5, 59)
        assert kept[1].start_ms == at(3_600) and kept[0].gpus[0].power_mw.count == 60
        assert await meters.leases_to_fold(store, at(2 * 3_600)) == ()
        assert await meters.fold(store, LEASE, at(2 * 3_600 + 599)) == 0
        await meters.keep(store, rows(*busy(0, 100)))  # what is in an hour is not written again
        assert await meters.history(store, LEASE, 0, ALL) == kept


async def test_one_lease_never_takes_more_than_so_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever instants its provider makes up."""
    monkeypatch.setattr(meters, "KEEP_MINUTES", 60)
    monkeypatch.setattr(meters, "KEEP_HOURS", 5)
    async with ledger() as store:
        for day in range(10):
            await meters.keep(store, rows(*(sample(60 * n) for n in range(60 * day, 60 * (day + 1)))))
            await meters.fold(store, LEASE, at(3_600 * (day + 1)))
        await meters.keep(store, rows(*(sample(60 * n) for n in range(600, 900))))
        kept = await meters.history(store, LEASE, 0, ALL)
        assert [row.span_ms for row in kept] == [HOUR_MS] * 5 + [MINUTE_MS] * 120
        assert (kept[0].start_ms, kept[-1].last_ms) == (at(5 * 3_600), at(899 * 60))


async def test_other_programs_read_it_too(tmp_path: Path) -> None:
    async with ledger(tmp_path / "ledger.sqlite") as store:
        await meters.keep(store, rows(*busy(0, 90)))
    assert _read(tmp_path / "ledger.sqlite") == rows(*busy(0, 90))


def _read(path: Path) -> list[MeterRow]:
    """On asyncio, in a thread of its own: trio and asyncio do not meet in one."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def look() -> list[MeterRow]:
        async with open_reader(path) as reader:
            return list(await reader.meters(LEASE, 0))

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(look())).result()
