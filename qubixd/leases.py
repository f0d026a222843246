"""The lease loop: event -> step -> journal -> effects.

The journal commits event, new state and effects in one transaction before anything is done; each
(lease, lane) then performs its effects one after the other, again and again until they are done.
Killed at any instant, the next start finds every effect pending or done, and performing one twice
does no harm. Only active leases are kept in memory.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import trio

from ledger import journal
from ledger.journal import OutboxItem, PendingEffect
from ledger.store import Store
from protocol import lease_model as m
from protocol.errors import ChainUnreachable, DiskFull, LeaseUnknown, LedgerBroken, QubixError
from protocol.lease import step
from protocol.lease_model import EFFECTS, EVENTS, REPLACEABLE, Effect, Event
from protocol.lease_state import BEFORE_RUNNING, STATES, TERMINAL, Lease, Role
from protocol.units import LeaseId, PeerKey, UnixMs

log = logging.getLogger("qubix.leases")

MAX_STATE_BYTES: Final = 1 << 20
CLOCK_SECONDS: Final = 0.5
SLEPT_MS: Final = 30_000
"""A clock that jumped this far between two beats means that the machine was asleep."""
FIRST_RETRY_S: Final = 0.5
LONGEST_RETRY_S: Final = 15.0
LONGEST_RETRY_AFTER_END_S: Final = 300.0
GIVE_UP_MS: Final = 24 * 3_600_000
"""How long after a lease's end its last messages and files are still carried to a peer that is away."""
GIVE_UP_UNFUNDED_MS: Final = 600_000
"""The same where no money was at stake: strangers can make many such leases."""
KEPT_FOR_LISTENERS: Final = 1_000
BROKEN_OFF: Final = frozenset({m.RunPull.__name__})
"""Given up as soon as there will be no job, for what ends the lease would wait behind it: an image comes as
slowly as its registry likes, and anybody may have one."""

_Lane = dict[int, PendingEffect]
"""Seq -> what is still to be done, one after the other."""
Clock = Callable[[], UnixMs]
Save = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True)
class Task:
    """One effect to perform. `scratch` is what an earlier, interrupted try had saved."""

    lease: Lease
    effect: Effect
    scratch: bytes
    save: Save


class Perform(Protocol):
    """Does one effect and returns what came of it. A QubixError means: try again later."""

    async def __call__(self, task: Task, /) -> Event | None: ...


@dataclass
class _Entry:
    lease: Lease
    steps: int
    lock: trio.Lock = field(default_factory=trio.Lock)


class Leases:
    """All active leases of this node, both roles."""

    def __init__(self, store: Store, now_ms: Clock) -> None:
        self._store = store
        self._now_ms = now_ms
        self._entries: dict[LeaseId, _Entry] = {}
        self._lanes: dict[tuple[LeaseId, str], _Lane] = {}
        self._listeners: dict[LeaseId | None, set[trio.MemorySendChannel[Lease]]] = defaultdict(set)
        self.on_change: list[Callable[[Lease], None]] = []
        """Called at once after every change of a lease; must not block."""
        self._preparing: dict[LeaseId, trio.CancelScope] = {}
        self._broken: QubixError | None = None
        self._stop = trio.Event()
        self._perform: Perform
        self._nursery: trio.Nursery

    async def run(
        self, perform: Perform, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take up what the journal holds, then keep the clock running until cancelled.

        DiskFull or LedgerBroken as soon as anything about a lease can no longer be written down.
        """
        self._perform = perform
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self._load()
            nursery.start_soon(self._beat)
            task_status.started()
            await self._stop.wait()
            raise self._broken or AssertionError("stopped without a reason")

    def active(self) -> tuple[Lease, ...]:
        return tuple(entry.lease for entry in self._entries.values())

    async def get(self, lease_id: LeaseId) -> Lease:
        """A lease, active or ended. LeaseUnknown if this node never had it."""
        entry = self._entries.get(lease_id)
        if entry:
            return entry.lease
        row = await journal.lease(self._store, lease_id)
        if row is None:
            raise LeaseUnknown(f"this node has no lease {lease_id.hex()[:16]}")
        return decode_state(row.state)

    async def shared(self, lease_id: LeaseId, peer: PeerKey, role: Role) -> Lease:
        """A lease between this node, in that role, and a peer. LeaseUnknown in the same words for one that
        others have: whoever asks learns nothing of it."""
        with suppress(LeaseUnknown):
            lease = await self.get(lease_id)
            other = lease.terms.caller if role is Role.PROVIDER else lease.terms.provider
            if lease.role is role and other == peer:
                return lease
        raise LeaseUnknown("there is no such lease with you")

    async def add(self, lease: Lease, effects: tuple[Effect, ...], event: Event) -> Lease:
        """Write a new lease down and begin with its first effects; `event` is what made it."""
        entry = self._entries.setdefault(lease.lease_id, _Entry(lease, 0))
        async with entry.lock:
            if entry.steps == 0:
                await self._commit(entry, lease, effects, event)
        return entry.lease

    async def feed(self, lease_id: LeaseId, event: Event) -> Lease:
        """Let an event happen to a lease. Returns the lease after it."""
        entry = self._entries.get(lease_id)
        if entry is None:
            return await self.get(lease_id)  # ended: nothing happens to it any more
        async with entry.lock:
            lease, effects = step(entry.lease, event)
            if effects or lease != entry.lease:
                await self._commit(entry, lease, effects, event)
            return lease

    @contextmanager
    def listen(self, lease_id: LeaseId | None) -> Iterator[trio.MemoryReceiveChannel[Lease]]:
        """Every later state of a lease (None: of any lease), in order. A reader that falls far behind
        finds the end of the channel, and has to look at the present and listen anew."""
        send, receive = trio.open_memory_channel[Lease](KEPT_FOR_LISTENERS)
        self._listeners[lease_id].add(send)
        try:
            yield receive
        finally:
            self._listeners[lease_id].discard(send)
            send.close()

    # --- committing ---------------------------------------------------------------------------

    async def _commit(self, entry: _Entry, lease: Lease, effects: tuple[Effect, ...], event: Event) -> None:
        try:
            pending = await self._write(entry, lease, effects, event)
        except (DiskFull, LedgerBroken) as error:
            # Whoever brought the event is told to come again; this node stops before it knows less than
            # it has promised.
            self._broken = self._broken or error
            self._stop.set()
            raise
        if lease.phase is not entry.lease.phase or entry.steps == 0:
            log.info("lease %s: %s %s", lease.lease_id.hex()[:12], lease.phase, lease.reason)
        entry.lease, entry.steps = lease, entry.steps + 1
        for effect, item in zip(effects, pending, strict=True):
            self._enqueue(item, replaces=type(effect) in REPLACEABLE)
        if lease.phase not in BEFORE_RUNNING and (scope := self._preparing.get(lease.lease_id)):
            scope.cancel()
        self._announce(lease)
        if lease.phase in TERMINAL:
            self._entries.pop(lease.lease_id, None)

    async def _write(
        self, entry: _Entry, lease: Lease, effects: tuple[Effect, ...], event: Event
    ) -> tuple[PendingEffect, ...]:
        with trio.CancelScope(shield=True):
            pending = await journal.commit(
                self._store,
                lease_id=lease.lease_id,
                role=lease.role,
                phase=lease.phase,
                event=EVENTS.encode(event),
                state=STATES.encode(lease),
                outbox=[_outbox_item(effect) for effect in effects],
                now_ms=self._now_ms(),
                expected_steps=entry.steps,
            )
        return pending

    def announce_again(self) -> None:
        """Tell whoever listens to a lease its present state once more: something beside it has changed."""
        for entry in self._entries.values():
            if entry.lease.lease_id in self._listeners:
                self._announce(entry.lease)

    def announce(self, lease_id: LeaseId) -> None:
        """The same of one lease."""
        if entry := self._entries.get(lease_id):
            self._announce(entry.lease)

    def _announce(self, lease: Lease) -> None:
        for notice in self.on_change:
            notice(lease)
        for key in (lease.lease_id, None):
            for channel in tuple(self._listeners[key]):
                try:
                    channel.send_nowait(lease)
                except trio.WouldBlock:
                    log.info("a reader is too slow to follow lease %s", lease.lease_id.hex()[:12])
                    self._listeners[key].discard(channel)
                    channel.close()
        if not self._listeners[lease.lease_id]:
            del self._listeners[lease.lease_id]

    async def _load(self) -> None:
        for row in await journal.leases(self._store):
            lease = decode_state(row.state)
            if lease.phase not in TERMINAL:
                self._entries[lease.lease_id] = _Entry(lease, row.steps)
        for item in await journal.pending(self._store):
            self._enqueue(item, replaces=False)
        for lease_id in list(self._entries):
            await self.feed(lease_id, m.ClockResumed(self._now_ms()))

    # --- performing ---------------------------------------------------------------------------

    def _enqueue(self, item: PendingEffect, *, replaces: bool) -> None:
        """Give an effect to its lane, which holds what is pending there and no more, whatever comes."""
        lease_id = LeaseId(item.lease_id)
        idle = (lease_id, item.lane) not in self._lanes
        lane = self._lanes.setdefault((lease_id, item.lane), {})
        if replaces:
            for seq in [seq for seq, other in lane.items() if other.kind == item.kind]:
                del lane[seq]
        lane[item.seq] = item
        if idle:
            self._nursery.start_soon(self._run_lane, lease_id, item.lane)

    async def _run_lane(self, lease_id: LeaseId, name: str) -> None:
        """Perform a lane's effects in order; the lane goes when it has nothing left to do."""
        lane = self._lanes[lease_id, name]
        while lane:
            await self._carry_out(lease_id, lane, min(lane))
        del self._lanes[lease_id, name]

    async def _carry_out(self, lease_id: LeaseId, lane: _Lane, seq: int) -> None:
        """Try one effect until it is done, outdated, or pointless."""
        tries = 0
        while item := lane.get(seq):
            lease = await self.get(lease_id)
            if tries and self._is_pointless(lease, item):
                log.info("lease %s: gave up %s", lease.lease_id.hex()[:12], item.kind)
                break
            if await self._try(lease, item, lane):
                break
            tries += 1
            longest_s = LONGEST_RETRY_AFTER_END_S if lease.phase in TERMINAL else LONGEST_RETRY_S
            await trio.sleep(min(longest_s, FIRST_RETRY_S * 2**tries) * random.uniform(0.5, 1))
        if lane.pop(seq, None):
            await journal.done(self._store, lease_id, seq)

    def _is_pointless(self, lease: Lease, item: PendingEffect) -> bool:
        """After a lease's end: what only served it is dropped at once, its last words much later."""
        if lease.phase not in TERMINAL:
            return False
        if item.lane in ("upload", "go", "prove") or item.kind == m.RunFetch.__name__:
            return True
        patience_ms = GIVE_UP_MS if lease.escrow_id else GIVE_UP_UNFUNDED_MS
        return item.lane == "send" and self._now_ms() - lease.ended_at > patience_ms

    async def _try(self, lease: Lease, item: PendingEffect, lane: _Lane) -> bool:
        async def save(scratch: bytes) -> None:
            if await journal.save_scratch(self._store, item.lease_id, item.seq, scratch):
                lane[item.seq] = replace(item, scratch=scratch)

        effect = EFFECTS.decode(item.payload, MAX_STATE_BYTES)
        task, event = Task(lease, effect, item.scratch, save), None
        try:
            if item.kind in BROKEN_OFF:
                event = await self._until_over(task)
            else:
                event = await self._perform(task)
        except (QubixError, trio.BrokenResourceError, trio.TooSlowError) as error:
            # What the chain makes wait is told by the bridge, less often.
            level = logging.DEBUG if isinstance(error, ChainUnreachable) else logging.INFO
            short = lease.lease_id.hex()[:12]
            log.log(level, "lease %s: %s will be tried again: %s", short, item.kind, error)
            return False
        except OSError as error:  # a file that is gone or closed to us must not take all leases down
            log.warning("lease %s: %s failed here: %s", lease.lease_id.hex()[:12], item.kind, error)
            return False
        if event is not None:
            await self.feed(lease.lease_id, event)
        return True

    async def _until_over(self, task: Task) -> Event | None:
        """Perform what only serves a lease's beginning; nothing comes of it once that is over."""
        lease_id, event = task.lease.lease_id, None
        if task.lease.phase in BEFORE_RUNNING:
            try:
                with trio.CancelScope() as self._preparing[lease_id]:
                    event = await self._perform(task)
            finally:
                del self._preparing[lease_id]
        return event

    # --- time ---------------------------------------------------------------------------------

    async def _beat(self) -> None:
        before = self._now_ms()
        while True:
            await trio.sleep(CLOCK_SECONDS)
            now = self._now_ms()
            slept = now - before > SLEPT_MS
            for lease_id in list(self._entries):
                await self.feed(lease_id, m.ClockResumed(now) if slept else m.ClockPassed(now))
            before = now


def decode_state(data: bytes) -> Lease:
    """A lease from the ledger's own bytes."""
    lease: Lease = STATES.decode(data, MAX_STATE_BYTES)
    return lease


def _outbox_item(effect: Effect) -> OutboxItem:
    return OutboxItem(
        lane=m.lane_of(effect),
        kind=type(effect).__name__,
        payload=EFFECTS.encode(effect),
        replaces=type(effect) in REPLACEABLE,
    )
