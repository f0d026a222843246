"""What running jobs use, on both sides of a lease: ten minutes in memory, the rest rolled up in the ledger.

A provider adds what it samples (sampling.py), a caller what its provider tells (meters_follow.py). Whoever
listens is given every later sample; one who does not keep up loses samples, never this node's memory.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from ledger import meters as ledger_meters
from ledger.meters import KEEP_MINUTES, MINUTE_MS, MeterRow, rolled_up
from ledger.store import Store
from protocol.errors import DiskFull, LedgerBroken
from protocol.lease_state import BEFORE_RUNNING, LIVE, Lease
from protocol.messages import Sample
from protocol.units import LeaseId, UnixMs
from qubixd.leases import Clock, Leases

log = logging.getLogger("qubix.meters")

RING_SAMPLES: Final = 600
"""Ten minutes at one a second."""
KEPT_FOR_LISTENERS: Final = 30
WRITE_SECONDS: Final = 60
FOLD_SECONDS: Final = 3_600
FORGET_SECONDS: Final = 600
"""How long the samples of a job that has ended stay in memory: whoever follows it fetches the last ones."""


@dataclass
class _Ring:
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=RING_SAMPLES))
    written_to: UnixMs | None = None
    """Instant of the last sample that is in the ledger; None before that was looked up."""
    heard_at: float = 0.0
    """When the last sample came, on trio's clock."""


class Meters:
    """The samples of this node's leases, provided and rented."""

    def __init__(self, store: Store, leases: Leases, now_ms: Clock) -> None:
        self._store = store
        self._leases = leases
        self._now_ms = now_ms
        self._rings: dict[LeaseId, _Ring] = {}
        self._listeners: dict[LeaseId, set[trio.MemorySendChannel[Sample]]] = defaultdict(set)
        self._ended: set[LeaseId] = set()
        """Whose jobs have ended lately, or are still in memory."""

    # --- samples in and out -------------------------------------------------------------------

    def add(self, lease_id: LeaseId, sample: Sample) -> bool:
        """Keep the newest sample of a job and hand it out. False, and nothing happens, if it is not newer
        than the last: whatever was said before stands."""
        ring = self._rings.setdefault(lease_id, _Ring())
        if ring.samples and sample.at <= ring.samples[-1].at:
            return False
        ring.samples.append(sample)
        ring.heard_at = trio.current_time()
        for channel in self._listeners.get(lease_id, ()):
            try:
                channel.send_nowait(sample)
            except trio.WouldBlock:
                log.debug("lease %s: a reader of its meters loses a sample", lease_id.hex()[:12])
        return True

    def since(self, lease_id: LeaseId, instant: UnixMs) -> tuple[Sample, ...]:
        """Samples in memory that are newer, oldest first."""
        ring = self._rings.get(lease_id)
        return tuple(sample for sample in ring.samples if sample.at > instant) if ring else ()

    def latest(self, lease_id: LeaseId, within_seconds: float) -> Sample | None:
        """The newest sample, if it came no longer ago than that."""
        ring = self._rings.get(lease_id)
        if ring is None or not ring.samples or trio.current_time() - ring.heard_at > within_seconds:
            return None
        return ring.samples[-1]

    async def newest(self, lease_id: LeaseId) -> UnixMs:
        """The instant of the last sample that is known here, in memory or in the ledger; 0: none."""
        ring = self._rings.get(lease_id)
        if ring and ring.samples:
            return ring.samples[-1].at
        return UnixMs(await ledger_meters.newest(self._store, lease_id))

    @contextmanager
    def listen(self, lease_id: LeaseId) -> Iterator[trio.MemoryReceiveChannel[Sample]]:
        """Later samples as they come, until the job has ended."""
        send, receive = trio.open_memory_channel[Sample](KEPT_FOR_LISTENERS)
        self._listeners[lease_id].add(send)
        try:
            yield receive
        finally:
            if lease_id in self._listeners:
                self._listeners[lease_id].discard(send)
                if not self._listeners[lease_id]:
                    del self._listeners[lease_id]
            send.close()
            receive.close()

    async def history(self, lease_id: LeaseId, since: UnixMs, limit: int) -> tuple[MeterRow, ...]:
        """Rolled-up rows, the minute that is not over yet included, oldest first."""
        rest = [row for row in await self._unwritten(lease_id) if row.start_ms + row.span_ms > since]
        written = await ledger_meters.history(self._store, lease_id, since, limit)
        if written:  # some may have been written just now
            rest = [row for row in rest if row.first_ms > written[-1].last_ms]
        if written and rest and (written[-1].start_ms, written[-1].span_ms) == (rest[0].start_ms, MINUTE_MS):
            written, rest[0] = written[:-1], written[-1] + rest[0]
        return (*written, *rest)[-limit:]

    # --- the service --------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Roll up until cancelled; then write what is there."""
        self._leases.on_change.append(self._changed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fold)
            task_status.started()
            try:
                while True:
                    await trio.sleep(WRITE_SECONDS)
                    await self.write(whole_minutes=True)
                    self._forget()
            finally:
                with trio.CancelScope(shield=True):
                    await self.write(whole_minutes=False)

    def _changed(self, lease: Lease) -> None:
        """Nobody waits for the samples of a job that has ended."""
        if lease.phase in LIVE or lease.phase in BEFORE_RUNNING:
            return
        self._ended.add(lease.lease_id)
        for channel in self._listeners.pop(lease.lease_id, ()):
            channel.close()

    async def write(self, *, whole_minutes: bool) -> None:
        """Everything that is not in the ledger yet, in one transaction; of jobs that go on only minutes that
        are over, if so wanted."""
        due = {lease_id: await self._unwritten(lease_id) for lease_id in list(self._rings)}
        for lease_id, rows in due.items():
            if whole_minutes and lease_id not in self._ended and rows:
                rows.pop()
        try:
            await ledger_meters.keep(self._store, [row for rows in due.values() for row in rows])
        except (DiskFull, LedgerBroken) as error:  # the next time, as long as they are in memory
            log.warning("what jobs use could not be written down: %s", error)
            return
        for lease_id, rows in due.items():
            if rows:
                self._rings[lease_id].written_to = UnixMs(rows[-1].last_ms)

    async def _unwritten(self, lease_id: LeaseId) -> list[MeterRow]:
        ring = self._rings.get(lease_id)
        if ring is None:
            return []
        if ring.written_to is None:  # a daemon before this one may have written of it
            ring.written_to = UnixMs(await ledger_meters.newest(self._store, lease_id))
        return rolled_up(lease_id, self.since(lease_id, ring.written_to))

    def _forget(self) -> None:
        now = trio.current_time()
        for lease_id in list(self._ended):
            ring = self._rings.get(lease_id)
            if ring is None or now - ring.heard_at > FORGET_SECONDS:
                self._rings.pop(lease_id, None)
                self._ended.discard(lease_id)

    async def _fold(self) -> None:
        """Minutes of more than a day ago become hours, a lease at a time: others want to write, too."""
        while True:
            before = self._now_ms() - KEEP_MINUTES * MINUTE_MS
            try:
                for lease_id in await ledger_meters.leases_to_fold(self._store, before):
                    await ledger_meters.fold(self._store, lease_id, before)
            except (DiskFull, LedgerBroken) as error:
                log.warning("what jobs used could not be rolled up: %s", error)
            await trio.sleep(FOLD_SECONDS)
