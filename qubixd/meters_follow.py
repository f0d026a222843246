"""The caller's side of the meters: asks the provider of each running lease what the job uses.

A lease that nobody looks at is asked about once a minute, for this node's own history: the provider keeps ten
minutes, so some questions may fail. While somebody looks, samples come as they are taken.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from protocol import messages
from protocol.errors import MessageInvalid, QubixError
from protocol.lease_state import LIVE, Lease, Role
from protocol.messages import GetMeters, Sample
from protocol.signing import NodeKey
from protocol.units import LeaseId
from qubixd.leases import Leases
from qubixd.meters import RING_SAMPLES, Meters
from qubixd.meters_door import METERS_PROTOCOL
from qubixd.talk import ANSWER_TIMEOUT_S, IDLE_TIMEOUT_S, patience, receive_signed, send_signed
from qubixd.wire import Stream, Wire, receive_frame

log = logging.getLogger("qubix.meters")

POLL_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 5.0
"""While somebody looks."""
MAX_SAMPLE_BYTES: Final = 4_096
MOST_A_SECOND: Final = 3
"""Samples beside the ten minutes that a provider may have kept; one that sends more is not listened to."""


@dataclass
class _Followed:
    lookers: int = 0
    stir: trio.Event = field(default_factory=trio.Event)
    """Set when there is a reason to ask now, or to ask in another way."""
    asking: trio.CancelScope = field(default_factory=trio.CancelScope)

    def wake(self) -> None:
        self.stir.set()
        self.stir = trio.Event()


class Follower:
    """Follows the leases that this node has rented."""

    def __init__(
        self,
        wire: Wire,
        key: NodeKey,
        leases: Leases,
        meters: Meters,
        addresses_of: Callable[[Lease], tuple[str, ...]],
    ) -> None:
        self._wire, self._key = wire, key
        self._leases, self._meters = leases, meters
        self._addresses_of = addresses_of
        self._followed: defaultdict[LeaseId, _Followed] = defaultdict(_Followed)
        self._running: set[LeaseId] = set()
        self._nursery: trio.Nursery

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._leases.on_change.append(self._changed)
            for lease in self._leases.active():
                self._changed(lease)
            task_status.started()
            await trio.sleep_forever()

    @contextmanager
    def looking(self, lease_id: LeaseId) -> Iterator[None]:
        """For as long as somebody looks, samples of a rented job come as they are taken."""
        followed = self._followed[lease_id]
        followed.lookers += 1
        followed.wake()
        try:
            yield
        finally:
            followed.lookers -= 1
            if not followed.lookers:
                followed.asking.cancel()
                self._drop(lease_id)

    async def fetch(self, lease: Lease) -> None:
        """Ask once, now. PeerUnreachable, PeerRefused, StreamBroken, MessageInvalid."""
        await self._ask(lease, follow=False)

    def _changed(self, lease: Lease) -> None:
        if lease.role is not Role.CALLER:
            return
        if lease.phase in LIVE and lease.lease_id not in self._running:
            self._running.add(lease.lease_id)
            self._nursery.start_soon(self._follow, lease)
        elif lease.phase not in LIVE and lease.lease_id in self._running:
            self._followed[lease.lease_id].wake()

    def _drop(self, lease_id: LeaseId) -> None:
        if not self._followed[lease_id].lookers and lease_id not in self._running:
            del self._followed[lease_id]

    async def _follow(self, lease: Lease) -> None:
        """Until the job has ended, and once more for its last samples."""
        followed = self._followed[lease.lease_id]
        while (now := await self._leases.get(lease.lease_id)).phase in LIVE:
            stir = followed.stir
            await self._try(now, follow=followed.lookers > 0)
            if stir.is_set():
                continue
            with trio.move_on_after(RETRY_SECONDS if followed.lookers else POLL_SECONDS):
                await stir.wait()
        await self._try(now, follow=False)
        self._running.discard(lease.lease_id)
        self._drop(lease.lease_id)

    async def _try(self, lease: Lease, *, follow: bool) -> None:
        followed = self._followed[lease.lease_id]
        with trio.CancelScope() as followed.asking:
            try:
                await self._ask(lease, follow=follow)
            except (QubixError, trio.BrokenResourceError) as error:
                log.debug("lease %s: its meters cannot be read: %s", lease.lease_id.hex()[:12], error)

    async def _ask(self, lease: Lease, *, follow: bool) -> None:
        since = await self._meters.newest(lease.lease_id)
        wanted = GetMeters(lease.lease_id, since, follow)
        with patience(ANSWER_TIMEOUT_S):
            provider = lease.terms.provider
            stream = await self._wire.open(provider, METERS_PROTOCOL, self._addresses_of(lease))
        async with stream:
            await send_signed(stream, self._key.sign(wanted))
            if not follow:  # else our going away shall be a reset, which it notices at once
                await stream.send_eof()
            await receive_signed(stream, provider)
            await self._take(stream, lease.lease_id)

    async def _take(self, stream: Stream, lease_id: LeaseId) -> None:
        """Samples to the end of the stream, as many as can honestly be."""
        began, taken = trio.current_time(), 0
        while (sample := await _receive(stream)) is not None:
            taken += 1
            if taken > RING_SAMPLES + MOST_A_SECOND * (1 + trio.current_time() - began):
                raise MessageInvalid("the provider sends more samples than there are seconds")
            self._meters.add(lease_id, sample)


async def _receive(stream: Stream) -> Sample | None:
    with patience(IDLE_TIMEOUT_S):
        raw = await receive_frame(stream, MAX_SAMPLE_BYTES)
    if raw is None:
        return None
    message = messages.decode(raw, MAX_SAMPLE_BYTES)
    if not isinstance(message, Sample):
        raise MessageInvalid("this is not a sample")
    return message
