"""What jobs used, rolled up: a row a minute, after a day a row an hour, after a year nothing.

A row knows the instants of the first and the last sample in it, and what comes to it later has to be newer:
so nothing is counted twice, however often it is written. Times are Unix milliseconds of the provider's clock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import msgpack

from protocol.messages import GpuUse, Sample

if TYPE_CHECKING:
    from ledger.store import Store  # it brings trio, which readers have not

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
KEEP_MINUTES: Final = 24 * 60
KEEP_HOURS: Final = 366 * 24
"""Of one lease; with it no lease takes more than these two numbers of rows, whatever its provider says."""
COLUMNS: Final = (
    "lease_id, span_ms, start_ms, samples, first_ms, last_ms, cpu_sum, cpu_most, memory_sum, memory_most,"
    " disk_sum, disk_most, received, sent, gpus"
)

AT: Final = "lease_id = ? AND span_ms = ? AND start_ms = ?"


@dataclass(frozen=True, slots=True)
class Level:
    """Something that goes up and down: the sum of `count` samples, and the highest of them."""

    count: int
    total: int
    most: int

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def __add__(self, other: Level) -> Level:
        return Level(self.count + other.count, self.total + other.total, max(self.most, other.most))


NOTHING: Final = Level(0, 0, 0)


@dataclass(frozen=True, slots=True)
class GpuLevels:
    """One card. What it does not tell has a count of 0."""

    digest: bytes
    use_permille: Level
    memory_mib: Level
    temperature_c: Level
    power_mw: Level

    def __add__(self, other: GpuLevels) -> GpuLevels:
        return GpuLevels(
            self.digest,
            self.use_permille + other.use_permille,
            self.memory_mib + other.memory_mib,
            self.temperature_c + other.temperature_c,
            self.power_mw + other.power_mw,
        )


@dataclass(frozen=True, slots=True)
class MeterRow:
    """What one lease used in one span of time. Traffic counts from the job's start to the span's end."""

    lease_id: bytes
    span_ms: int
    start_ms: int
    samples: int
    first_ms: int
    last_ms: int
    cpu_millis: Level
    memory_mib: Level
    disk_mib: Level
    received_bytes: int
    sent_bytes: int
    gpus: tuple[GpuLevels, ...]

    def __add__(self, later: MeterRow) -> MeterRow:
        """Of the span of this one."""
        return MeterRow(
            self.lease_id,
            self.span_ms,
            self.start_ms,
            self.samples + later.samples,
            self.first_ms,
            later.last_ms,
            self.cpu_millis + later.cpu_millis,
            self.memory_mib + later.memory_mib,
            self.disk_mib + later.disk_mib,
            max(self.received_bytes, later.received_bytes),
            max(self.sent_bytes, later.sent_bytes),
            _joined(self.gpus, later.gpus),
        )


def _joined(some: Iterable[GpuLevels], others: Iterable[GpuLevels]) -> tuple[GpuLevels, ...]:
    found = {one.digest: one for one in some}
    for one in others:
        found[one.digest] = found[one.digest] + one if one.digest in found else one
    return tuple(found.values())


# --- rolling up (pure) ------------------------------------------------------------------------


def rolled_up(lease_id: bytes, samples: Iterable[Sample]) -> list[MeterRow]:
    """A row for each minute of samples, which come in the order of their instants."""
    minutes = groupby(samples, lambda sample: sample.at // MINUTE_MS)
    return [_minute(lease_id, minute * MINUTE_MS, list(of)) for minute, of in minutes]


def _minute(lease_id: bytes, start_ms: int, samples: Sequence[Sample]) -> MeterRow:
    return MeterRow(
        lease_id,
        MINUTE_MS,
        start_ms,
        len(samples),
        samples[0].at,
        samples[-1].at,
        _level([one.cpu_millis for one in samples]),
        _level([one.memory_mib for one in samples]),
        _level([one.disk_mib for one in samples]),
        samples[-1].received_bytes,
        samples[-1].sent_bytes,
        reduce(_joined, ([_gpu(use) for use in one.gpus] for one in samples if one.gpus), ()),
    )


def _level(values: Sequence[int]) -> Level:
    return Level(len(values), sum(values), max(values)) if values else NOTHING


def _gpu(use: GpuUse) -> GpuLevels:
    return GpuLevels(
        use.digest, _one(use.use_permille), _one(use.memory_mib), _one(use.temperature_c), _one(use.power_mw)
    )


def _one(value: int | None) -> Level:
    return NOTHING if value is None else Level(1, value, value)


# --- writing ----------------------------------------------------------------------------------


async def keep(store: Store, rows: Sequence[MeterRow]) -> None:
    """Write rows of minutes down. What of them is not newer than what is there for its lease is passed over,
    so that this may be done again after any trouble. DiskFull."""

    def transaction(db: sqlite3.Connection) -> None:
        for row in rows:
            _put(db, row)

    if rows:
        await store.write(transaction, "meters.keep")


def _put(db: sqlite3.Connection, row: MeterRow) -> None:
    if row.first_ms <= _newest(db, row.lease_id):
        return
    before = _rows(db, AT, (row.lease_id, row.span_ms, row.start_ms))
    _write(db, before[0] + row if before else row)
    _bound(db, row.lease_id, MINUTE_MS, 2 * KEEP_MINUTES)


def _newest(db: sqlite3.Connection, lease_id: bytes) -> int:
    last = "SELECT last_ms FROM meters WHERE lease_id = ? AND span_ms = ? ORDER BY start_ms DESC LIMIT 1"
    found = (db.execute(last, (lease_id, span_ms)).fetchone() for span_ms in (MINUTE_MS, HOUR_MS))
    return max((last_ms for row in found if row for last_ms in row), default=0)


def _write(db: sqlite3.Connection, row: MeterRow) -> None:
    db.execute(f"INSERT OR REPLACE INTO meters VALUES ({', '.join('?' * 15)})", _values(row))


def _bound(db: sqlite3.Connection, lease_id: bytes, span_ms: int, most: int) -> None:
    """Drop the oldest above a number. Minutes usually become hours long before."""
    of = "lease_id = ? AND span_ms = ?"
    oldest = f"SELECT start_ms FROM meters WHERE {of} ORDER BY start_ms DESC LIMIT 1 OFFSET ?"
    if (found := db.execute(oldest, (lease_id, span_ms, most)).fetchone()) is not None:
        db.execute(f"DELETE FROM meters WHERE {of} AND start_ms <= ?", (lease_id, span_ms, found[0]))


async def leases_to_fold(store: Store, before_ms: int) -> tuple[bytes, ...]:
    """Leases that have rows of minutes from before then."""
    sql = (
        "SELECT lease_id FROM leases l WHERE EXISTS"
        " (SELECT 1 FROM meters WHERE lease_id = l.lease_id AND span_ms = ? AND start_ms < ?)"
    )
    rows = await store.read(lambda db: db.execute(sql, (MINUTE_MS, before_ms)).fetchall())
    return tuple(lease_id for (lease_id,) in rows)


async def fold(store: Store, lease_id: bytes, before_ms: int) -> int:
    """Make rows of hours from a lease's rows of minutes from before then (a whole hour), and drop the oldest
    hours. How many minutes were folded. In one transaction, so a minute is in one of both, always."""
    before_ms -= before_ms % HOUR_MS

    def transaction(db: sqlite3.Connection) -> int:
        where = "lease_id = ? AND span_ms = ? AND start_ms < ?"
        values = (lease_id, MINUTE_MS, before_ms)
        minutes = _rows(db, where, values)
        for row in _by_hours(minutes):
            before = _rows(db, AT, (lease_id, HOUR_MS, row.start_ms))
            _write(db, before[0] + row if before else row)
        db.execute(f"DELETE FROM meters WHERE {where}", values)
        _bound(db, lease_id, HOUR_MS, KEEP_HOURS)
        return len(minutes)

    return await store.write(transaction, "meters.fold")


def _by_hours(minutes: Iterable[MeterRow]) -> Iterator[MeterRow]:
    for hour, of in groupby(minutes, lambda row: row.start_ms // HOUR_MS):
        first, *others = of
        start = MeterRow(
            first.lease_id,
            HOUR_MS,
            hour * HOUR_MS,
            first.samples,
            first.first_ms,
            first.last_ms,
            first.cpu_millis,
            first.memory_mib,
            first.disk_mib,
            first.received_bytes,
            first.sent_bytes,
            first.gpus,
        )
        yield sum(others, start)


# --- reading ----------------------------------------------------------------------------------


def history_query(lease_id: bytes, since_ms: int, limit: int) -> tuple[str, tuple[object, ...]]:
    """SQL and values for a lease's rows that end after `since_ms`, oldest first; of too many the newest."""
    sql = (
        f"SELECT * FROM (SELECT {COLUMNS} FROM meters WHERE lease_id = ? AND start_ms + span_ms > ?"
        " ORDER BY start_ms DESC, first_ms DESC LIMIT ?) ORDER BY start_ms, first_ms"
    )
    return sql, (lease_id, since_ms, limit)


async def history(store: Store, lease_id: bytes, since_ms: int, limit: int) -> tuple[MeterRow, ...]:
    """A lease's rows that end after `since_ms`, oldest first; hours, then minutes."""
    query = history_query(lease_id, since_ms, limit)
    return tuple(row_of(values) for values in await store.read(lambda db: db.execute(*query).fetchall()))


async def newest(store: Store, lease_id: bytes) -> int:
    """The instant of the last sample that is written down of a lease; 0 if there is none."""
    return await store.read(lambda db: _newest(db, lease_id))


def _rows(db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> list[MeterRow]:
    sql = f"SELECT {COLUMNS} FROM meters WHERE {where} ORDER BY start_ms"
    return [row_of(found) for found in db.execute(sql, values)]


def row_of(values: Sequence[Any]) -> MeterRow:
    """A row from the columns of COLUMNS. Any because it is SQLite's; the table is strict."""
    lease_id, span_ms, start_ms, samples, first_ms, last_ms = values[:6]
    cpu, memory, disk = (Level(samples, *values[at : at + 2]) for at in (6, 8, 10))
    gpus = tuple(_unpacked(one) for one in msgpack.unpackb(values[14]))
    return MeterRow(
        lease_id,
        span_ms,
        start_ms,
        samples,
        first_ms,
        last_ms,
        cpu,
        memory,
        disk,
        values[12],
        values[13],
        gpus,
    )


def _values(row: MeterRow) -> tuple[object, ...]:
    levels = (row.cpu_millis, row.memory_mib, row.disk_mib)
    sums = [number for level in levels for number in (level.total, level.most)]
    head = (row.lease_id, row.span_ms, row.start_ms, row.samples, row.first_ms, row.last_ms)
    return (
        *head,
        *sums,
        row.received_bytes,
        row.sent_bytes,
        msgpack.packb([_packed(gpu) for gpu in row.gpus]),
    )


def _packed(gpu: GpuLevels) -> list[bytes | int]:
    levels = (gpu.use_permille, gpu.memory_mib, gpu.temperature_c, gpu.power_mw)
    return [gpu.digest, *(number for one in levels for number in (one.count, one.total, one.most))]


def _unpacked(packed: Sequence[Any]) -> GpuLevels:
    use, memory, temperature, power = (Level(*packed[at : at + 3]) for at in (1, 4, 7, 10))
    return GpuLevels(packed[0], use, memory, temperature, power)
