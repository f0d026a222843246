"""Watchers: what happens by itself, the end of a job and the changes of an escrow, becomes events.

One watcher per running job and per open escrow, started whenever a lease has come to need it, also
for leases found in the journal at start: that is how containers are re-adopted and the chain is read
again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Final

import trio

from escrow_bridge.bridge import Bridge
from escrow_bridge.chain import TickInfo
from escrow_bridge.escrow import Settled
from escrow_bridge.layout import EscrowView
from escrow_bridge.pace import Pace
from protocol import lease_model as m
from protocol.errors import EngineUnreachable, JobMissing, QubixError
from protocol.lease_state import TERMINAL, Lease, Role, locked
from protocol.relay_lease import is_relay
from protocol.units import LeaseId, Qu, Tick, UnixMs
from qubixd.escrows import seen_by
from qubixd.leases import Clock, Leases
from qubixd.runner import JobState, Runner

log = logging.getLogger("qubix.watch")

RETRY_S: Final = 2.0

Watch = Callable[[Lease], Awaitable[None]]


class Watchers:
    def __init__(self, leases: Leases, bridge: Bridge, runner: Runner | None, now_ms: Clock) -> None:
        self._leases = leases
        self._bridge = bridge
        self._runner = runner
        self._now_ms = now_ms
        self._jobs: set[LeaseId] = set()
        self._unseen: set[LeaseId] = set()
        self._escrows: set[LeaseId] = set()
        self._nursery: trio.Nursery
        self._over = False
        self.tick: TickInfo | None = None
        self.tick_at = 0.0
        """When it was first seen, on trio's clock."""
        self.first_tick = trio.Event()
        self._pace = Pace()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for lease in self._leases.active():
                self.look(lease)
            if self._runner is not None:
                nursery.start_soon(self._watch_engine, self._runner)
            task_status.started()
            try:
                await self._follow_ticks()
            finally:
                self._over = True  # leases may still be written down, and watchers have no place any more

    @property
    def tick_ms(self) -> int:
        """How long a tick lasts, as seen."""
        return round(self._pace.tick_ms)

    def look(self, lease: Lease) -> None:
        """Start the watchers that a lease needs and does not have. Called after every change."""
        if lease.phase in TERMINAL:
            return
        if _has_job(lease) and not lease.exited:
            self._once(self._jobs, lease, self._watch_job)
            if lease.unseen:
                self._once(self._unseen, lease, self._see_job)
        if lease.escrow_id and not lease.settled:
            self._once(self._escrows, lease, self._watch_escrow)

    def _once(self, watched: set[LeaseId], lease: Lease, watch: Watch) -> None:
        if lease.lease_id in watched or self._over:
            return
        watched.add(lease.lease_id)
        self._nursery.start_soon(self._guard, watched, lease, watch)

    async def _guard(self, watched: set[LeaseId], lease: Lease, watch: Watch) -> None:
        try:
            while not await self._settled_down(lease, watch):
                await trio.sleep(RETRY_S)
        finally:
            watched.discard(lease.lease_id)

    async def _settled_down(self, lease: Lease, watch: Watch) -> bool:
        try:
            await watch(lease)
        except QubixError as error:
            log.warning("lease %s: %s", lease.lease_id.hex()[:12], error)
            return False
        return True

    async def _see_job(self, lease: Lease) -> None:
        """This node or the engine was away: is the job still there? If not, `_watch_job` tells its end."""
        assert self._runner is not None
        status = await self._runner.status(lease.lease_id)
        if status.state in (JobState.RUNNING, JobState.PAUSED):
            await self._leases.feed(lease.lease_id, m.RunSeen(True, self._now_ms()))

    async def _watch_engine(self, runner: Runner) -> None:
        """While the engine is away nobody knows whether the jobs are there. Whoever waits for their ends
        waits on, so that this has to be found out beside."""
        while True:
            try:
                await runner.check()
            except EngineUnreachable:
                for lease_id in tuple(self._jobs):
                    await self._leases.feed(lease_id, m.RunSeen(False, self._now_ms()))
            await trio.sleep(RETRY_S)

    async def _watch_job(self, lease: Lease) -> None:
        """Until the machine takes an end for the last one: it passes over those before a restart."""
        with self._leases.listen(lease.lease_id) as changes:
            while lease.phase not in TERMINAL and not lease.exited:
                lease = await self._leases.feed(lease.lease_id, await self._end_of(lease.lease_id))
                if not lease.exited:
                    with trio.move_on_after(RETRY_S), suppress(trio.EndOfChannel):
                        await changes.receive()

    async def _end_of(self, lease_id: LeaseId) -> m.RunExited:
        assert self._runner is not None
        try:
            ended = await self._runner.wait(lease_id)
        except JobMissing:
            return await self._lost(lease_id)
        except EngineUnreachable:
            await self._leases.feed(lease_id, m.RunSeen(False, self._now_ms()))
            raise
        return m.RunExited(ended.code, ended.reason, ended.started_at, ended.finished_at, self._now_ms())

    async def _lost(self, lease_id: LeaseId) -> m.RunExited:
        """The engine has forgotten the job: what was metered so far is all that is owed."""
        lease = await self._leases.get(lease_id)
        began_at = lease.started_at or lease.container_at
        ended = UnixMs(began_at + lease.paused_ms + lease.seconds * 1_000)
        return m.RunExited(-1, "gone", began_at, ended, self._now_ms())

    async def _watch_escrow(self, lease: Lease) -> None:
        seen = seen_by(lease)
        async with aclosing(self._bridge.reader.watch(lease.escrow_id, lease.open_tick)) as views:
            async for view in views:
                if view is None:
                    break
                seen = view
                await self._tell_of(lease, view)
        ended = await self._how_it_ended(lease, seen)
        event = m.ChainClosed(ended.paid, ended.refunded, self._now_ms())
        await self._leases.feed(lease.lease_id, event)

    async def _tell_of(self, lease: Lease, view: EscrowView) -> None:
        """What matters of a channel that is open; the machine passes over what it knows."""
        now = self._now_ms()
        await self._leases.feed(lease.lease_id, m.ChainToppedUp(view.deposit, view.deadline_tick, now))
        if view.close_tick:
            await self._leases.feed(lease.lease_id, m.ChainClosing(now))

    async def _how_it_ended(self, lease: Lease, seen: EscrowView) -> Settled:
        bridge = self._bridge
        ended = await bridge.waiting.patiently(lambda: bridge.reader.how_it_ended(seen), RETRY_S)
        if ended is not None:
            return ended
        lease = await self._leases.get(lease.lease_id)
        promised = max(seen.paid, lease.promised)
        log.warning(
            "lease %s: the ticks in which its escrow ended can no longer be read; assuming the last "
            "voucher of %d QU was taken",
            lease.lease_id.hex()[:12],
            promised,
        )
        return Settled(promised, Qu(locked(lease) - promised), certain=False)

    async def _follow_ticks(self) -> None:
        async with aclosing(self._bridge.reader.ticks()) as ticks:
            async for info in ticks:
                if self.tick is None or info.tick != self.tick.tick:
                    self.tick_at = trio.current_time()
                self.tick = info
                self._pace.saw(info, trio.current_time())
                self.first_tick.set()
                await self._tell_providers(info.tick)

    async def _tell_providers(self, tick: Tick) -> None:
        for lease in self._leases.active():
            if lease.role is Role.PROVIDER and lease.deadline_tick:
                await self._leases.feed(lease.lease_id, m.TickPassed(tick, self._now_ms()))


def _has_job(lease: Lease) -> bool:
    """Whether this node's engine runs one for it."""
    began = lease.container_at or lease.started_at
    return lease.role is Role.PROVIDER and bool(began) and not is_relay(lease.terms)
