"""Paths: finds carriers to peers, hands over those that come in, and answers what peers ask of it.

What may cost time is tried beside the ways that are sure (plan, race). Nobody makes this node dial or listen
who has no lease with it: `may` says who has.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from protocol.errors import PeerUnreachable, QubixError, StreamBroken
from protocol.messages import DialBack
from protocol.paths import PathKind
from protocol.signing import NodeKey
from protocol.units import PeerKey
from qubixd.link import Carrier
from qubixd.link.links import Links
from qubixd.link.tls import Identity, TlsDoor, tls_client
from qubixd.paths.answers import Answers
from qubixd.paths.changes import Changes
from qubixd.paths.endpoints import Endpoint
from qubixd.paths.improve import Improver
from qubixd.paths.moving import Herald
from qubixd.paths.offers import PATHS_PROTOCOL, Known, Offers
from qubixd.paths.over_wire import WireCarrier
from qubixd.paths.plan import Side, Step, Way, plan
from qubixd.paths.punch import connect
from qubixd.paths.punching import NONCE_BYTES, Puncher
from qubixd.paths.race import race
from qubixd.paths.reach import Reach, reach_of
from qubixd.paths.surroundings import Surroundings
from qubixd.talk import ask
from qubixd.wire import Stream, Wire

log = logging.getLogger("qubix.paths")

LINK_PROTOCOL: Final = "/qubix/link/1"
TLS_FIRST_BYTE: Final = 0x16
DIAL_SECONDS: Final = 5.0
DIAL_BACK_SECONDS: Final = 8.0
STALE_SECONDS: Final = 2.0
"""For dialling where a peer was long ago, before it is asked again."""


class Paths:
    """The Dialler of the daemon: `open` it for the links that are built on it, then `run` it. `may` says who
    has a lease with this node, `addresses_of` where such a peer said that it is."""

    def __init__(
        self,
        wire: Wire,
        key: NodeKey,
        identity: Identity,
        may: Callable[[PeerKey], bool],
        addresses_of: Callable[[PeerKey], Sequence[str]],
    ) -> None:
        self._wire, self._key, self._identity, self._may = wire, key, identity, may
        self._addresses_of = addresses_of
        self._door = TlsDoor(identity)
        self._around = Surroundings(wire)
        self._offers = Offers(wire, key, identity, self._door, self._around, may)
        self._puncher = Puncher(wire, key, identity, self._door, self._around, self._offers)
        self._changes = Changes()
        self._herald = Herald(self._tell)
        self.on_moved: list[Callable[[], None]] = []
        """Called when this machine's network is another, or it slept, after the wire was told."""
        self._awaited: dict[PeerKey, list[trio.MemorySendChannel[Carrier]]] = {}
        self._links: Links

    def open(self, links: Links) -> None:
        """Begin to answer peers, and to hand the carriers that they open to the links."""
        self._links = links
        self._offers.on_move.append(self._doubt)
        answers = Answers(self._key, self._may, self._offers, self._puncher, self.dial, self._give)
        self._wire.serve(PATHS_PROTOCOL, answers.serve)
        self._wire.serve(LINK_PROTOCOL, self._linked)
        self._wire.take_sockets(TLS_FIRST_BYTE, self._arrived)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Know how this node stands in the world and find better ways for its links, until cancelled."""
        improver = Improver(self._links)
        self._changes.on_change += [self._moved, improver.again]
        async with trio.open_nursery() as nursery:
            await nursery.start(self._changes.run)
            await nursery.start(self._around.run)
            await nursery.start(improver.run)
            await nursery.start(self._herald.run)
            task_status.started()

    def _doubt(self, peer: PeerKey) -> None:
        """That peer says it is elsewhere."""
        self._links.suspect(peer)

    def _moved(self) -> None:
        """The network of this machine is another, or it slept: what was told of it is wrong, and what goes
        over its old address is dead."""
        self._around.forget()
        self._offers.doubt_all()
        self._wire.recheck()
        self._herald.moved(self._links.peers())
        self._links.suspect()
        for callback in self.on_moved:
            callback()

    async def _tell(self, peer: PeerKey) -> None:
        await self._around.look(anew=False)
        await self._exchange(peer, ())

    @property
    def reach(self) -> Reach:
        """How this node stands in the world, as far as it is known now."""
        return reach_of(self._around.seen, self._wire)

    async def look(self) -> Reach:
        """The same after a look around; some seconds at most."""
        await self._around.look()
        return self.reach

    # Outwards

    async def carrier(
        self, peer: PeerKey, addresses: Sequence[str], *, better_than: PathKind | None = None
    ) -> Carrier:
        """The best way to a peer that there is now. PeerUnreachable if there is none (that is better)."""
        known = self._offers.of(peer)
        if known is not None:
            try:
                with trio.move_on_after(math.inf if known.is_fresh else STALE_SECONDS):
                    return await self._race(peer, known, better_than)
            except PeerUnreachable:
                self._offers.doubt(peer)
        return await self._race(peer, await self._exchange(peer, addresses), better_than)

    async def _exchange(self, peer: PeerKey, addresses: Sequence[str]) -> Known:
        try:
            return await self._offers.exchange(peer, addresses or self._addresses_of(peer))
        except StreamBroken as error:
            raise PeerUnreachable(f"the connection to the peer was lost ({error})") from error

    async def _race(self, peer: PeerKey, known: Known, better_than: PathKind | None) -> Carrier:
        me = self._offers.own_side(known)
        wire = self._wire.path_of(peer) if known.is_fresh else None
        steps = plan(me, known.side, wire, better_than, hurry=better_than is None)
        carrier = await race(steps, lambda step: self._attempt(step, peer, known))
        log.info("reached %s: %s", peer.hex()[:16], carrier.kind)
        return carrier

    async def _attempt(self, step: Step, peer: PeerKey, known: Known) -> Carrier:
        match step.way:
            case Way.DIAL:
                assert step.end is not None
                carrier = await self._dial(step.end, known)
                self._offers.worked(peer, step.end)
                return carrier
            case Way.DIAL_BACK:
                return await self._dial_back(peer)
            case Way.PUNCH:
                return await self._puncher.ask(peer, known, step.attempt)
            case Way.WIRE:
                return self._over_wire(await self._wire.open(peer, LINK_PROTOCOL), peer)

    async def _dial(self, end: Endpoint, known: Known) -> Carrier:
        try:
            with trio.fail_after(DIAL_SECONDS):
                stream = trio.SocketStream(await connect(end))
                self._around.got_out(end)
                return await tls_client(stream, self._identity, known.offer.certificate, PathKind.DIRECT)
        except (OSError, trio.TooSlowError) as error:
            raise PeerUnreachable(f"{end} did not answer") from error

    async def dial(self, known: Known) -> Carrier:
        """Directly, at one of the addresses that a peer named. PeerUnreachable."""
        steps = plan(Side(), Side(known.side.ends), None)
        return await race(steps, lambda step: self._dial(step.end or _none(), known))

    async def _dial_back(self, peer: PeerKey) -> Carrier:
        """What the peer opens instead."""
        with trio.fail_after(DIAL_BACK_SECONDS):
            async with self._awaiting(peer) as arriving:
                await ask(self._wire, self._key, peer, DialBack(os.urandom(NONCE_BYTES)), (), PATHS_PROTOCOL)
                return await arriving.receive()

    @asynccontextmanager
    async def _awaiting(self, peer: PeerKey) -> AsyncIterator[trio.MemoryReceiveChannel[Carrier]]:
        """The next carrier that this peer opens is for the block. One that comes too late for it is good all
        the same."""
        send, receive = trio.open_memory_channel[Carrier](1)
        waiting = self._awaited.setdefault(peer, [])
        waiting.append(send)
        try:
            yield receive
        finally:
            if send in waiting:
                waiting.remove(send)
            if not waiting:
                self._awaited.pop(peer, None)
            with suppress(trio.WouldBlock, StreamBroken):  # nothing came, or this daemon ends
                await self._give(peer, receive.receive_nowait())

    # Inwards

    async def _linked(self, stream: Stream, peer: PeerKey) -> None:
        """A link over the wire; the wire ends the stream when this returns."""
        if not self._may(peer):
            raise StreamBroken("a peer without a lease opened a link")
        carrier = self._over_wire(stream, peer)
        await self._give(peer, carrier)
        await carrier.closed.wait()

    def _over_wire(self, stream: Stream, peer: PeerKey) -> WireCarrier:
        kind, relay = self._wire.path_of(peer) or PathKind.WIRE, self._wire.relay_of(peer)
        return WireCarrier(stream, kind, relay.hex() if relay else self._wire.remote_address(peer) or "")

    async def _arrived(self, stream: trio.SocketStream) -> None:
        """A TLS connection came in at the wire's port."""
        try:
            peer, carrier = await self._door.accept(stream, PathKind.DIRECT)
        except QubixError as error:
            log.debug("an inbound connection was nobody's: %s", error)
            return
        if not self._may(peer):
            await carrier.aclose()
        elif waiting := self._awaited.get(peer):
            waiting.pop(0).send_nowait(carrier)
        else:
            await self._give(peer, carrier)

    async def _give(self, peer: PeerKey, carrier: Carrier) -> None:
        """To the links. While this daemon ends they take no more: nobody may wait at the other end for the
        first word of a connection that is nobody's here."""
        try:
            self._links.take(peer, carrier)
        except (StreamBroken, RuntimeError) as error:  # trio's: the nursery has just closed
            with trio.CancelScope(shield=True):
                await carrier.aclose()
            raise StreamBroken("the daemon ends") from error


def _none() -> Endpoint:
    raise PeerUnreachable("there is no address to dial")
