"""Clears away what jobs leave on this machine: files and containers of leases that are over, images.

A lease's own effects remove its container and workspace. What is found here is left of a daemon that died
in between, of a ledger that was set back, or of a disk that was full at the wrong moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from ledger import journal
from ledger.store import Store
from protocol.errors import EngineUnreachable
from protocol.lease_state import TERMINAL, Lease
from protocol.units import LeaseId, UnixMs
from qubixd.jobfiles import JobFiles
from qubixd.leases import decode_state
from qubixd.requests import KEEP_MS, Requests
from qubixd.runner import Runner
from qubixd.runner.docker import DockerRunner
from qubixd.runner.image_tidy import Policy

log = logging.getLogger("qubix.tidying")

EVERY_SECONDS: Final = 600
KEEP_FILES_MS: Final = 24 * 3_600_000
"""Logs and outputs of ended leases, from their end on."""
LATE_MS: Final = 3_600_000
"""By then an ended lease's own effects have removed its container."""


@dataclass
class Leftovers:
    """What leases leave: a service of every node."""

    files: JobFiles
    store: Store
    runner: Runner | None
    now_ms: Callable[[], UnixMs]
    unknown: frozenset[LeaseId] = frozenset()
    """Of no lease that was known at the last look: files come a moment before their lease is written down."""

    async def run(self) -> None:
        while True:
            await self.tidy()
            await trio.sleep(EVERY_SECONDS)

    async def tidy(self) -> None:
        # What is there before what it may belong to: a lease is written down before it has a container.
        jobs, folders = await self._jobs(), await self.files.folders()
        requests = Requests(self.files.root, self.files.in_thread)
        asked = await requests.known()
        ended: dict[LeaseId, Lease] = {}
        live: set[LeaseId] = set()
        for row in await journal.leases(self.store):
            lease = decode_state(row.state)
            if lease.phase in TERMINAL:
                ended[lease.lease_id] = lease
            else:
                live.add(lease.lease_id)
        for lease in ended.values():
            await self._forget_files(lease)
        for lease_id in asked - live:
            if lease_id not in ended or self.now_ms() - ended[lease_id].ended_at > KEEP_MS:
                await requests.forget(lease_id)
        unknown = folders - live - ended.keys()
        for lease_id in unknown & self.unknown:
            log.warning("removing the files of lease %s, which nobody knows", lease_id.hex()[:12])
            await self.files.forget(lease_id, (".",))
        self.unknown = unknown
        for lease_id in jobs - live:
            if lease_id not in ended or self.now_ms() - ended[lease_id].ended_at > LATE_MS:
                await self._remove_job(lease_id)

    async def _forget_files(self, lease: Lease) -> None:
        old = self.now_ms() - lease.ended_at > KEEP_FILES_MS
        names = (".",) if old else ("workspace", "parts", "inputs.tar", "secrets", "access")
        await self.files.forget(lease.lease_id, names)

    async def _jobs(self) -> frozenset[LeaseId]:
        if self.runner is None:
            return frozenset()
        try:
            return await self.runner.leases()
        except EngineUnreachable:  # the provider's own watch tells of it
            return frozenset()

    async def _remove_job(self, lease_id: LeaseId) -> None:
        assert self.runner is not None  # it has told of the job
        log.warning("removing a container of lease %s, which is over", lease_id.hex()[:12])
        with suppress(EngineUnreachable):
            await self.runner.stop(lease_id, 0)
            await self.runner.remove(lease_id)


@dataclass(frozen=True)
class Tidying:
    """The images that jobs brought: a service of a provider with a Docker engine."""

    runner: DockerRunner
    policy: Policy
    now_ms: Callable[[], UnixMs]

    async def run(self) -> None:
        while True:
            with suppress(EngineUnreachable):
                await self.runner.tidy_images(self.policy, self.now_ms())
            await trio.sleep(EVERY_SECONDS)
