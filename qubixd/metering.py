"""A node's meters, put together: it samples what it runs, follows what it rents, and answers callers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import trio

from protocol.lease_state import Lease
from protocol.messages import GpuUse
from protocol.units import LeaseId
from qubixd.hardware import GpuSample
from qubixd.health import Health
from qubixd.leases import Leases
from qubixd.meters import Meters
from qubixd.meters_door import MetersDoor
from qubixd.meters_follow import Follower
from qubixd.parts import Parts
from qubixd.proof.door import ProofDoor
from qubixd.relay_lease import RelayOffice
from qubixd.runner import Runner, Usage
from qubixd.sampling import MIB, Sampler
from qubixd.wire import Wire

STALE_MS: Final = 5_000
"""Figures of cards that are older say nothing of now."""


@dataclass(frozen=True)
class Metering:
    meters: Meters
    door: MetersDoor
    follower: Follower
    sampler: Sampler | None
    """None where nothing is let."""

    @classmethod
    def build(
        cls,
        parts: Parts,
        leases: Leases,
        addresses_of: Callable[[Lease], tuple[str, ...]],
        health: Health | None,
        proofs: ProofDoor | None,
        relay: RelayOffice,
    ) -> Metering:
        """`health`: who watches this machine's GPUs, if it is rented out and has any. `proofs`: who runs
        programs in jobs that are not the jobs' own. `relay`: what goes through for those who rented it."""
        meters = Meters(parts.store, leases, parts.now_ms)
        follower = Follower(parts.wire, parts.key, leases, meters, addresses_of)
        sampler = None
        if parts.runner is not None or relay.relay is not None:
            used = JobsAndRelay(parts.runner, relay)
            sampler = Sampler(leases, meters, used, parts.now_ms, lambda: cards_of(parts, health))
            if proofs is not None:
                sampler.disturbed = proofs.ran_since
        return cls(meters, MetersDoor(parts.key, leases, meters), follower, sampler)

    def open(self, wire: Wire) -> None:
        """Begin to answer on a wire."""
        self.door.open(wire)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.meters.run)
            await nursery.start(self.follower.run)
            if self.sampler is not None:
                await nursery.start(self.sampler.run)
            task_status.started()


@dataclass(frozen=True)
class JobsAndRelay:
    """All that a node lets, as a sampler asks of it."""

    runner: Runner | None
    relay: RelayOffice

    async def usage(self, leases: Collection[LeaseId]) -> dict[LeaseId, Usage]:
        used = await self.relay.usage(leases)
        if self.runner is not None and (rest := set(leases) - used.keys()):
            used |= await self.runner.usage(rest)
        return used


def cards_of(parts: Parts, health: Health | None) -> dict[bytes, GpuUse]:
    """The newest figures of this machine's cards, by digest; none if nobody has looked lately."""
    if health is None or parts.now_ms() - health.sampled_at > STALE_MS:
        return {}
    return uses_of(health.samples, parts.machine.gpu_uuids)


def uses_of(samples: Mapping[str, GpuSample], uuids: Mapping[bytes, str]) -> dict[bytes, GpuUse]:
    """`uuids`: of each digest. Cards without figures are left out."""
    return {digest: _use(digest, samples[uuid]) for digest, uuid in uuids.items() if uuid in samples}


def _use(digest: bytes, sample: GpuSample) -> GpuUse:
    use = None if sample.use_ratio is None else min(1_000, max(0, round(sample.use_ratio * 1_000)))
    return GpuUse(digest, use, sample.memory_used // MIB, sample.temperature_c, sample.power_mw)
