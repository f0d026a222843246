"""How jobs are reached, put together: paths to peers, the links over them, the door to jobs here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from protocol.errors import LeaseUnknown, UsageError
from protocol.lease_state import FUNDED, Lease, Role
from protocol.relay_lease import is_relay
from protocol.units import PeerKey
from qubixd.jobfiles import JobFiles
from qubixd.leases import Leases
from qubixd.link import LinkView
from qubixd.link.links import Links
from qubixd.link.stream import LinkStream
from qubixd.link.tls import Identity
from qubixd.parts import Parts
from qubixd.paths.dialler import Paths
from qubixd.reservations import Reservations
from qubixd.tunnels.door import Door

LET_GO_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Connections:
    paths: Paths
    links: Links
    door: Door | None
    """To the jobs that run here; None where none do."""
    reservations: Reservations
    addresses_of: Callable[[Lease], tuple[str, ...]]
    may: Callable[[PeerKey], bool]
    """Who is let in."""

    @classmethod
    def build(
        cls,
        parts: Parts,
        leases: Leases,
        files: JobFiles,
        reservations: Reservations,
        addresses_of: Callable[[Lease], tuple[str, ...]],
    ) -> Connections:
        """Only those with whom there is a lease are let in, or make this node dial: one with its money
        in escrow, since whoever asks gets one without."""

        def may(peer: PeerKey) -> bool:
            paid = (one for one in leases.active() if one.role is Role.CALLER or one.phase in FUNDED)
            return any(peer in (one.terms.caller, one.terms.provider) for one in paid)

        def addresses(peer: PeerKey) -> tuple[str, ...]:
            shared = (one for one in leases.active() if peer in (one.terms.caller, one.terms.provider))
            return next((addresses_of(one) for one in shared), ())

        identity = Identity(parts.key.public)
        paths = Paths(parts.wire, parts.key, identity, may, addresses)
        links = Links(parts.key.public, paths)
        door = Door(leases, parts.runner, files.folder) if parts.runner else None
        links.serve(door.serve if door else _nobody_home)
        paths.on_moved.append(reservations.recheck)
        return cls(paths, links, door, reservations, addresses_of, may)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer peers until cancelled, which breaks every stream."""
        self.paths.open(self.links)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.links.run)
            await nursery.start(self.paths.run)
            await nursery.start(self.reservations.run)
            nursery.start_soon(self._let_go)
            task_status.started()

    async def _let_go(self) -> None:
        """Whose last lease has been over for a while: the last words are through, and who goes on asking
        is no guest any more."""
        gone: set[PeerKey] = set()
        while True:
            await trio.sleep(LET_GO_SECONDS)
            before, gone = gone, {peer for peer in self.links.peers() if not self.may(peer)}
            for peer in before & gone:
                await self.links.close(peer)

    async def open(self, lease: Lease, opening: object) -> LinkStream:
        """A stream to the job of a lease in which this node is the caller, accepted by its provider."""
        return await self.links.open(_provider_of(lease), opening, self.addresses_of(lease))

    async def reach(self, lease: Lease) -> None:
        """Make sure of a way to the job. PeerUnreachable."""
        await self.links.reach(_provider_of(lease), self.addresses_of(lease))

    def view(self, lease: Lease) -> LinkView | None:
        """How the streams with a lease's other side travel now; None while there is no way."""
        other = lease.terms.provider if lease.role is Role.CALLER else lease.terms.caller
        return self.links.view(other)


async def _nobody_home(stream: LinkStream) -> None:
    await stream.refuse(LeaseUnknown("there is no such lease with you"))


def _provider_of(lease: Lease) -> PeerKey:
    if is_relay(lease.terms):
        raise UsageError("this lease is for a relay; there is no job to connect to")
    if lease.role is not Role.CALLER:
        raise UsageError("this job runs here for somebody else; only its caller can connect to it")
    return lease.terms.provider
