"""Who this node stays connected to: known addresses, redialling, bans.

Bootstrap peers are dialled for ever, with back-off and jitter; another peer that this node had dialled
is tried a few times after its connection is lost. A peer whose messages are rejected too often is cut
and kept out for a while.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import trio
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from multiaddr import Multiaddr

from protocol.errors import PeerUnreachable
from qubixd.wire import WireCounters
from qubixd.wire_libp2p.addresses import circuit_parts, is_circuit
from qubixd.wire_libp2p.limits import Limits
from qubixd.wire_libp2p.swarm import GuardedSwarm

log = logging.getLogger(__name__)

_KNOWN_PEERS: Final = 1_000
_ADDRESSES_PER_PEER: Final = 8
_MAX_BANS: Final = 10_000


class Peers:
    """The address book, the bans and the dialling of one node."""

    def __init__(self, swarm: GuardedSwarm, limits: Limits, counters: WireCounters) -> None:
        self._swarm, self._limits, self._counters = swarm, limits, counters
        self._known: OrderedDict[ID, list[Multiaddr]] = OrderedDict()
        self._dialled: set[ID] = set()
        self._rejects: dict[ID, int] = {}
        self._banned: OrderedDict[ID, float] = OrderedDict()
        self._lost: dict[ID, trio.Event] = {}
        self._redialling: set[ID] = set()
        self._improving: set[ID] = set()
        self._reaching: dict[ID, tuple[trio.Event, frozenset[Multiaddr]]] = {}
        """What is being dialled, and at which addresses."""
        self.through_relay: Callable[[ID, ID, list[Multiaddr]], Awaitable[None]]
        """Makes one connection with a peer through a relay at these addresses; PeerUnreachable."""

    # Addresses

    def learn(self, peer: ID, addresses: Sequence[Multiaddr]) -> None:
        """Remember addresses, the newest first; the least recently used peers are forgotten."""
        old = self._known.pop(peer, [])
        self._known[peer] = list(dict.fromkeys([*addresses, *old]))[:_ADDRESSES_PER_PEER]
        while len(self._known) > _KNOWN_PEERS:
            self._dialled.discard(self._known.popitem(last=False)[0])

    def addresses_of(self, peer: ID) -> list[Multiaddr]:
        return self._known.get(peer, [])

    def connected(self, peer: ID) -> bool:
        return any(not conn.is_closed for conn in self._swarm.get_connections(peer))

    def direct(self, peer: ID) -> bool:
        """Whether there is a connection without a relay."""
        return bool(self._swarm.direct(peer))

    async def dial(self, peer: ID, rumoured: Sequence[Multiaddr] = ()) -> None:
        """Connect over any known address, through a relay if nothing else answers in a moment;
        PeerUnreachable if nothing does. What is only `rumoured` is tried instead, and known if the peer was
        there: a liar must not push out what is true."""
        addresses = list(rumoured) or self.addresses_of(peer)
        if not addresses:
            raise PeerUnreachable(f"no address of peer {peer} is known")
        if not self.allowed(peer):
            raise PeerUnreachable(f"peer {peer} sent too many invalid messages and is shut out for now")
        said = await self._reach(peer, addresses)
        if not self.connected(peer):
            self._counters.dials_failed += 1
            tried = ", ".join(str(address) for address in addresses)
            raise PeerUnreachable("; ".join([f"peer {peer} does not answer at {tried}", *said]))
        if rumoured:
            self.learn(peer, rumoured)
        if self.direct(peer):
            self._dialled.add(peer)

    async def _reach(self, peer: ID, addresses: list[Multiaddr]) -> list[str]:
        """Try all; what relays said where they did not help."""
        while (other := self._reaching.get(peer)) is not None:
            over, tried = other
            await over.wait()
            if self.connected(peer) or tried.issuperset(addresses):
                return []
            addresses = [address for address in addresses if address not in tried]
        self._reaching[peer] = trio.Event(), frozenset(addresses)
        try:
            ways = [address for address in addresses if is_circuit(address)]
            plain = [address for address in addresses if not is_circuit(address)]
            if ways:
                return await self._with_relays(peer, plain, ways)
            await self._plainly(peer, plain)
            return []
        finally:
            self._reaching.pop(peer)[0].set()

    async def _plainly(self, peer: ID, addresses: list[Multiaddr], over: trio.Event | None = None) -> None:
        try:
            await self._swarm.dial_direct(peer, addresses)
        except Exception as error:
            log.debug("%r", error)
        finally:
            if over is not None:
                over.set()

    async def _with_relays(self, peer: ID, plain: list[Multiaddr], ways: list[Multiaddr]) -> list[str]:
        """The plain dial has a head start, and goes on when a relay was faster."""
        over, said = trio.Event(), list[str]()
        self._swarm.manager.run_task(self._plainly, peer, plain, over)
        with trio.move_on_after(self._limits.relay_after_seconds):
            await over.wait()
        if not self.connected(peer):
            await self._race_relays(peer, ways, said)
        if not self.connected(peer):
            await over.wait()
        return said

    async def _race_relays(self, peer: ID, ways: list[Multiaddr], said: list[str]) -> None:
        """Ask one relay after the other, the next when one refuses or is slow; the first success ends it."""
        relays: dict[ID, list[Multiaddr]] = {}
        for way in ways:
            relay, address = circuit_parts(way)
            relays.setdefault(relay, []).append(address)
        async with trio.open_nursery() as nursery:
            for relay, addresses in relays.items():
                refused = trio.Event()
                asking = partial(self._ask_relay, peer, relay, addresses, said)
                nursery.start_soon(asking, refused, nursery.cancel_scope)
                with trio.move_on_after(self._limits.relay_stagger_seconds):
                    await refused.wait()

    async def _ask_relay(
        self,
        peer: ID,
        relay: ID,
        addresses: list[Multiaddr],
        said: list[str],
        refused: trio.Event,
        won: trio.CancelScope,
    ) -> None:
        try:
            await self.through_relay(peer, relay, addresses)
        except PeerUnreachable as error:
            said.append(str(error))
            refused.set()
        else:
            won.cancel()

    def try_plain(self, peer: ID, rumoured: list[Multiaddr]) -> None:
        """Once, behind the caller's back."""
        self._swarm.manager.run_task(self._plainly, peer, rumoured)

    def improve(self, peer: ID) -> None:
        """While a peer is connected through a relay only, try its other addresses now and then."""
        if peer not in self._improving:
            self._improving.add(peer)
            self._swarm.manager.run_task(self._improve, peer)

    async def _improve(self, peer: ID) -> None:
        try:
            for delay in self._limits.improve_seconds:
                await trio.sleep(delay)
                if self.direct(peer) or not self.connected(peer):
                    return
                plain = [address for address in self.addresses_of(peer) if not is_circuit(address)]
                await self._plainly(peer, plain)
        finally:
            self._improving.discard(peer)

    # Bans

    def allowed(self, peer: ID) -> bool:
        until = self._banned.get(peer)
        return until is None or trio.current_time() > until

    def punish(self, peer: ID, reason: str) -> None:
        """Count one offence; the last one that is forgiven is `rejects_before_drop - 1`."""
        self._counters.by_reason[reason] = self._counters.by_reason.get(reason, 0) + 1
        count = self._rejects.get(peer, 0) + 1
        self._rejects[peer] = count
        if count >= self._limits.rejects_before_drop and self.allowed(peer):
            log.info("peer %s is shut out for %.0f s: %s", peer, self._limits.ban_seconds, reason)
            self._ban(peer)

    def _ban(self, peer: ID) -> None:
        self._counters.peers_dropped += 1
        self._rejects.pop(peer, None)
        self._banned.pop(peer, None)
        self._banned[peer] = trio.current_time() + self._limits.ban_seconds
        if len(self._banned) > _MAX_BANS:
            self._banned.popitem(last=False)
        self._swarm.manager.run_task(self._swarm.close_peer, peer)

    # Redialling

    def on_lost(self, peer: ID) -> None:
        """The last connection to a peer is gone."""
        self._rejects.pop(peer, None)
        with suppress(PeerStoreError):  # nothing was known of it, or it is forgotten already
            self._swarm.peerstore.clear_peerdata(peer)
        if (event := self._lost.pop(peer, None)) is not None:
            event.set()
        elif peer in self._dialled and self.allowed(peer) and peer not in self._redialling:
            self._redialling.add(peer)
            self._swarm.manager.run_task(self._redial, peer)

    async def keep(self, peer: ID) -> None:
        """Stay connected to a bootstrap peer, for ever."""
        while True:
            if self.connected(peer):
                await self._lost.setdefault(peer, trio.Event()).wait()
            await self._dial_until_connected(peer, attempts=None)

    async def _redial(self, peer: ID) -> None:
        try:
            await self._dial_until_connected(peer, self._limits.redial_attempts)
        finally:
            self._redialling.discard(peer)

    async def _dial_until_connected(self, peer: ID, attempts: int | None) -> None:
        delay, tried = self._limits.redial_first_seconds, 0
        while not self.connected(peer) and (attempts is None or tried < attempts):
            try:
                await self.dial(peer)
                return
            except PeerUnreachable as error:
                log.debug("%s; next try in about %.0f s", error, delay)
            tried += 1
            await trio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, self._limits.redial_last_seconds)
