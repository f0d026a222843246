"""When workspaces are measured, and who has to go when a disk gets full; on a disk made of numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol.units import LeaseId
from qubixd.runner import disk
from qubixd.runner.disk import FLOOR_BYTES, DiskWatch, Space, space_of

MIB = 1 << 20
ONE, TWO = LeaseId(b"1" * 32), LeaseId(b"2" * 32)
LIMIT = 100 * MIB


class Town:
    """A disk and the jobs on it."""

    def __init__(self) -> None:
        self.space = Space(1, 50 * FLOOR_BYTES, 100 * FLOOR_BYTES)
        self.used = {ONE: 10 * MIB, TWO: 10 * MIB}
        self.measured: list[LeaseId] = []
        self.measure_seconds = 0.0
        self.watch = DiskWatch(check_seconds=5)

    def write(self, lease_id: LeaseId, size: int) -> None:
        self.used[lease_id] += size
        self.space = replace(self.space, free=self.space.free - size)

    def measure(self, lease_id: LeaseId) -> Callable[[], object]:
        async def measured() -> int:
            await trio.sleep(self.measure_seconds)
            self.measured.append(lease_id)
            return self.used[lease_id]

        return measured

    async def is_over(self, lease_id: LeaseId) -> bool:
        measure = self.measure(lease_id)
        return await self.watch.is_over(lease_id, Path("/"), LIMIT, measure)  # type: ignore[arg-type]  # it is one


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    made = Town()
    monkeypatch.setattr(disk, "space_of", lambda workspace: made.space)
    return made


async def test_a_quiet_job_is_measured_each_five_seconds(
    town: Town, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(11):
        assert not await town.is_over(ONE)
        await trio.sleep(1)
    assert len(town.measured) == 3


async def test_a_job_that_may_have_passed_its_limit_is_measured_at_once(
    town: Town, autojump_clock: trio.testing.MockClock
) -> None:
    assert not await town.is_over(ONE)
    await trio.sleep(1)
    town.write(ONE, 90 * MIB)
    assert not await town.is_over(ONE) and town.measured == [ONE]  # it is at its limit, not above
    town.write(ONE, 1)
    await trio.sleep(1)
    assert await town.is_over(ONE)


async def test_what_others_write_makes_it_measured_and_is_not_its_fault(
    town: Town, autojump_clock: trio.testing.MockClock
) -> None:
    assert not await town.is_over(ONE)
    town.write(TWO, 1000 * MIB)
    await trio.sleep(1)
    assert not await town.is_over(ONE)
    assert town.measured == [ONE, ONE]


async def test_a_measure_that_takes_long_is_followed_by_a_rest(
    town: Town, autojump_clock: trio.testing.MockClock
) -> None:
    town.measure_seconds = 10
    for _ in range(60):
        await town.is_over(ONE)
        town.write(TWO, 100 * MIB)
        await trio.sleep(1)
    assert len(town.measured) == 2


async def test_on_a_disk_that_gets_full_the_job_that_grew_most_has_to_go(
    town: Town, autojump_clock: trio.testing.MockClock
) -> None:
    assert not await town.is_over(ONE) and not await town.is_over(TWO)
    town.write(ONE, 20 * MIB)
    town.write(TWO, 40 * MIB)
    town.space = replace(town.space, free=FLOOR_BYTES - 1)
    verdicts = []
    for _ in range(10):
        await trio.sleep(1)
        verdicts.append((await town.is_over(ONE), await town.is_over(TWO)))
    assert verdicts == [(False, True)] + 9 * [(False, False)]
    town.write(ONE, 2 * MIB)
    assert await town.is_over(ONE)  # it goes on while the disk is still short


async def test_a_job_that_nobody_measures_saves_no_other(
    town: Town, autojump_clock: trio.testing.MockClock
) -> None:
    assert not await town.is_over(ONE) and not await town.is_over(TWO)
    town.write(ONE, 20 * MIB)
    town.space = replace(town.space, free=0)
    verdicts = []
    for _ in range(6):
        await trio.sleep(1)
        verdicts.append(await town.is_over(ONE))
    assert verdicts.count(True) == 1 and not verdicts[0]


async def test_a_job_that_does_not_grow_stays_on_a_full_disk(
    town: Town, autojump_clock: trio.testing.MockClock
) -> None:
    town.space = replace(town.space, free=0)
    for _ in range(5):
        assert not await town.is_over(ONE)
        await trio.sleep(1)
    town.write(ONE, 2 * MIB)
    assert await town.is_over(ONE)


async def test_a_job_that_has_ended_is_not_the_one_to_go(
    town: Town, autojump_clock: trio.testing.MockClock
) -> None:
    assert not await town.is_over(ONE) and not await town.is_over(TWO)
    town.space = replace(town.space, free=0)
    town.write(TWO, 40 * MIB)
    await trio.sleep(1)
    assert not await town.is_over(ONE) and await town.is_over(TWO)
    town.write(TWO, 40 * MIB)
    town.write(ONE, 2 * MIB)
    town.watch.forget(TWO)
    await trio.sleep(1)
    assert await town.is_over(ONE)


def test_the_space_of_a_real_place(tmp_path: Path) -> None:
    found = space_of(tmp_path)
    assert found is not None and 0 <= found.free <= found.total
    assert space_of(tmp_path / "none") is None
