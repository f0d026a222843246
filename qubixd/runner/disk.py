"""How often the workspaces of running jobs are measured, and who has to go when the disk itself gets full.

Measuring is a walk, so it is done each few seconds only; in between one number tells what a job could have
written at most: how much less of the disk is free. Quotas of the file system are not used: they need root,
a mount option and one of two file systems.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from protocol.units import LeaseId

LOOK_SECONDS: Final = 1.0
"""Between two looks at the free space."""
MEASURE_REST: Final = 4
"""After a measure that took long, so many times as long without one."""
FLOOR_BYTES: Final = 1 << 30
FLOOR_BYTES_MOST: Final = 10 << 30
FLOOR_SHARE: Final = 50
"""The host keeps 1/50 of its disk for itself, within these bounds."""
PATIENCE_SECONDS: Final = 3.0
"""In which every job on a disk that got short is to be measured before one has to go."""
LEAST_GROWTH_BYTES: Final = 1 << 20
"""A job that grew less is not why a disk is full."""


@dataclass(frozen=True)
class Space:
    """A file system now."""

    device: int
    free: int
    total: int

    @property
    def floor(self) -> int:
        """What the host keeps for itself."""
        return max(FLOOR_BYTES, min(FLOOR_BYTES_MOST, self.total // FLOOR_SHARE))

    @property
    def is_short(self) -> bool:
        return self.free < self.floor


@dataclass(frozen=True)
class Measure:
    """A workspace when it was last measured."""

    space: Space
    used: int
    at: float
    seconds: float
    """How long the measure took."""
    base: int
    """What it used when the disk was last not short."""

    @property
    def growth(self) -> int:
        return self.used - self.base


class DiskWatch:
    """The disk use of all jobs of one runner."""

    def __init__(self, check_seconds: float) -> None:
        """`check_seconds`: the longest time between two measures of a workspace."""
        self._check_seconds = check_seconds
        self._measures: dict[LeaseId, Measure] = {}
        self._short_since: dict[int, float] = {}
        """By device."""

    @property
    def look_seconds(self) -> float:
        return min(LOOK_SECONDS, self._check_seconds)

    def used(self) -> dict[LeaseId, int]:
        """Bytes, as last measured."""
        return {lease_id: measure.used for lease_id, measure in self._measures.items()}

    async def is_over(
        self, lease_id: LeaseId, workspace: Path, limit: int, measure: Callable[[], Awaitable[int]]
    ) -> bool:
        """Whether the job must end: above its limit, or most to blame for a disk that gets full. Measures
        if it is time to."""
        space = space_of(workspace)
        if space is None:
            return False
        if not space.is_short:
            self._short_since.pop(space.device, None)
        if not self._is_due(lease_id, space, limit):
            return False
        began, before = trio.current_time(), self._measures.get(lease_id)
        used = await measure()
        now = trio.current_time()
        base = before.base if before and space.is_short else used
        self._measures[lease_id] = Measure(space, used, now, now - began, base)
        return used > limit or (space.is_short and self._has_to_go(lease_id))

    def forget(self, lease_id: LeaseId) -> None:
        self._measures.pop(lease_id, None)

    def _is_due(self, lease_id: LeaseId, space: Space, limit: int) -> bool:
        last = self._measures.get(lease_id)
        if last is None:
            return True
        age, fallen = trio.current_time() - last.at, last.space.free - space.free
        if age >= max(self._check_seconds, MEASURE_REST * last.seconds):
            return True
        return (space.is_short or last.used + fallen > limit) and age >= MEASURE_REST * last.seconds

    def _has_to_go(self, lease_id: LeaseId) -> bool:
        """Whether this job grew most since the disk got short, once the others were measured too, or had
        time to be. The others' growth then counts anew."""
        mine = self._measures[lease_id]
        here = {job: each for job, each in self._measures.items() if each.space.device == mine.space.device}
        since = self._short_since.setdefault(mine.space.device, mine.at)
        if mine.at - since < PATIENCE_SECONDS and not all(each.space.is_short for each in here.values()):
            return False
        if mine.growth < max(LEAST_GROWTH_BYTES, *(each.growth for each in here.values())):
            return False
        self._measures |= {job: replace(each, base=each.used) for job, each in here.items()}
        return True


def space_of(workspace: Path) -> Space | None:
    """None if the workspace is gone."""
    try:
        device, info = os.stat(workspace).st_dev, os.statvfs(workspace)
    except OSError:
        return None
    return Space(device, info.f_bavail * info.f_frsize, info.f_blocks * info.f_frsize)
