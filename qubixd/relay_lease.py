"""A relay for rent: quotes for it, who has rented it, what went through, and an "engine" without any jobs.

A lease with a relay is made, paid, paused and settled as any other. What differs is here: nothing has to be
fetched or started, and the lease itself is the allowance (protocol/relay_lease.py), so that there is nothing
to find again after a restart. ADR 27 says why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from ledger import meters as ledger_meters
from ledger.store import Store
from protocol import lease_model as m
from protocol.errors import RelayNotForRent
from protocol.lease_model import Effect, Event
from protocol.lease_state import Lease, Role
from protocol.messages import Capacity
from protocol.relay_lease import RELAY, is_relay, lets_through
from protocol.units import LeaseId, PeerKey, Qu, UnixMs
from qubixd.leases import Leases
from qubixd.quotes import House
from qubixd.runner import ExitReason, Usage

MAX_RENTERS: Final = 64
"""Leases of one relay at a time."""


class Relay(Protocol):
    """What is rented: the service that joins others' connections (relay.py)."""

    def carried(self, peer: PeerKey) -> tuple[int, int]:
        """Bytes that came from a peer and went to it, in joined connections, since this node began."""
        ...

    @property
    def places(self) -> tuple[PeerKey, ...]:
        """Who is reached through it now."""
        ...

    @property
    def joins(self) -> int:
        """How many connections it carries now."""
        ...


@dataclass
class RelayOffice:
    """Lets a relay for money. `relay` is None, or the price 0, where there is nothing to rent."""

    relay: Relay | None
    price_qu_per_hour: Qu
    leases: Leases
    store: Store
    machine: Callable[[], House]
    """What this node's quotes are made from."""
    renters: frozenset[PeerKey] = frozenset()
    """Whose traffic is paid for now."""
    _before: dict[LeaseId, tuple[int, int]] = field(default_factory=dict)
    """What to add to the relay's count of a lease's caller to get that of the lease."""

    def watch(self) -> None:
        """Follow who has rented, from the leases that are there on."""
        self.leases.on_change.append(self._changed)
        self.renters = self._paying()

    def _changed(self, lease: Lease) -> None:
        if is_relay(lease.terms):
            self.renters = self._paying()

    def _paying(self) -> frozenset[PeerKey]:
        return frozenset(one.terms.caller for one in self.leases.active() if lets_through(one))

    def is_paid(self, peer: PeerKey) -> bool:
        """Whether this peer's traffic is paid for now; cheap enough to ask for each piece of it."""
        return peer in self.renters

    def house(self) -> House:
        """What quotes for the relay are made from. RelayNotForRent."""
        if self.relay is None or not self.price_qu_per_hour:
            raise RelayNotForRent("this node relays for nobody, or only for nothing; ask another relay")
        free = MAX_RENTERS - sum(1 for one in self.leases.active() if _is_let(one))
        return replace(
            self.machine(),
            runner=RELAY,
            price_qu_per_hour=self.price_qu_per_hour,
            storage_qu_per_tib_hour=Qu(0),
            free=Capacity(gpus=(), cpu_millis=free, memory_mib=free, disk_mib=free),
            internet=False,
        )

    async def usage(self, leases: Collection[LeaseId]) -> dict[LeaseId, Usage]:
        """What went through since each of these leases began to run; others than a relay's are left out."""
        for gone in self._before.keys() - set(leases):
            del self._before[gone]
        let = [one for one in self.leases.active() if _is_let(one) and one.lease_id in leases]
        relay = self.relay
        return {one.lease_id: await self._used(relay, one) for one in let} if relay else {}

    async def _used(self, relay: Relay, lease: Lease) -> Usage:
        received, sent = relay.carried(lease.terms.caller)
        if lease.lease_id not in self._before:
            rows = await ledger_meters.history(self.store, lease.lease_id, 0, 1)
            told = (rows[-1].received_bytes, rows[-1].sent_bytes) if rows else (-received, -sent)
            self._before[lease.lease_id] = told
        before = self._before[lease.lease_id]
        return Usage(
            cpu_ns=0, memory_bytes=0, received_bytes=before[0] + received, sent_bytes=before[1] + sent
        )


def _is_let(lease: Lease) -> bool:
    return lease.role is Role.PROVIDER and is_relay(lease.terms)


# --- what an engine would say ---------------------------------------------------------------------

Answer = Callable[[Lease, Any, UnixMs], Event | None]


def _ended(lease: Lease, effect: Any, now: UnixMs) -> Event:
    """A node that died meanwhile tells of it late: it bills no more than an interval that it has not told."""
    began = lease.started_at or lease.container_at
    told_ms = (lease.seconds + lease.terms.interval_seconds) * 1_000
    ended = UnixMs(min(now, began + lease.paused_ms + told_ms))
    return m.RunExited(0, ExitReason.STOPPED, began, ended, now)


ANSWERS: Final[dict[type[Effect], Answer]] = {
    m.RunPull: lambda lease, effect, now: m.RunPulled(now),
    m.RunStart: lambda lease, effect, now: m.RunStarted(now, now),
    m.RunGo: lambda lease, effect, now: m.RunReady(now, now),
    m.RunPause: lambda lease, effect, now: None,
    m.RunResume: lambda lease, effect, now: None,
    m.RunRestart: lambda lease, effect, now: m.RunRestarted(effect.nonce, now, now),
    m.RunStop: _ended,
    m.RunCollect: lambda lease, effect, now: m.RunCollected(bytes(32), 0, now),
    m.RunDiscard: lambda lease, effect, now: m.RunDiscarded(now),
    m.RunFetch: lambda lease, effect, now: m.RunFetched("", "", now),
}
"""What comes of an effect on a job that is an allowance: all of it at once, and nothing fails."""
