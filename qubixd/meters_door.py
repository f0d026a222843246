"""`/qubix/meters/1`: a provider tells the caller of a lease what its job uses, a bare Sample a second.

A reader that takes too long loses samples; one that takes none is let go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import trio

from protocol import messages
from protocol.errors import MessageInvalid, QubixError, StreamBroken
from protocol.lease_state import BEFORE_RUNNING, LIVE, Lease, Role
from protocol.messages import Ack, GetMeters, Sample
from protocol.signing import NodeKey, Signed
from protocol.units import LeaseId, PeerKey
from qubixd.leases import Leases
from qubixd.meters import Meters
from qubixd.seats import Seats
from qubixd.talk import (
    IDLE_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    patience,
    receive_signed,
    refusal_of,
    send_signed,
)
from qubixd.wire import Stream, Wire, send_frame

METERS_PROTOCOL: Final = "/qubix/meters/1"
MAX_READERS: Final = 4
"""Of one lease at a time: all of them are its caller."""


@dataclass(frozen=True)
class MetersDoor:
    key: NodeKey
    leases: Leases
    meters: Meters
    readers: Seats = field(default_factory=lambda: Seats(MAX_READERS, "readers follow the meters"))

    def open(self, wire: Wire) -> None:
        """Begin to answer on a wire."""
        wire.serve(METERS_PROTOCOL, self.serve)

    async def serve(self, stream: Stream, peer: PeerKey) -> None:
        with patience(REQUEST_TIMEOUT_S):
            signed = await receive_signed(stream, peer)
        try:
            await self._answer(stream, signed)
        except StreamBroken:
            raise
        except QubixError as error:
            await send_signed(stream, self.key.sign(refusal_of(error)))
        await stream.send_eof()

    async def _answer(self, stream: Stream, signed: Signed) -> None:
        wanted = signed.message
        if not isinstance(wanted, GetMeters):
            raise MessageInvalid("this is the protocol for meters")
        lease = await self.leases.shared(LeaseId(wanted.lease_id), signed.signer, Role.PROVIDER)
        with self.readers.one(lease.lease_id):
            await send_signed(stream, self.key.sign(Ack()))
            async for sample in samples_of(self.leases, self.meters, lease, wanted):
                await _send(stream, sample)


async def samples_of(
    leases: Leases, meters: Meters, lease: Lease, wanted: GetMeters
) -> AsyncIterator[Sample]:
    """What is in memory and newer than wanted, then (`follow`) the later ones until the job has ended."""
    instant = wanted.since
    with meters.listen(lease.lease_id) as later:
        for sample in meters.since(lease.lease_id, instant):
            instant = sample.at
            yield sample
        if not wanted.follow or not goes_on(await leases.get(lease.lease_id)):
            return
        async for sample in later:
            if sample.at > instant:  # not told above
                instant = sample.at
                yield sample


def goes_on(lease: Lease) -> bool:
    """There are, or will be, samples to come."""
    return lease.phase in LIVE or lease.phase in BEFORE_RUNNING


async def _send(stream: Stream, sample: Sample) -> None:
    with patience(IDLE_TIMEOUT_S):
        try:
            await send_frame(stream, messages.encode(sample))
        except trio.BrokenResourceError as error:
            raise StreamBroken("the connection broke while meters were sent") from error
