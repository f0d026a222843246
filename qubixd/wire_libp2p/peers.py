"""Who this node stays connected to: known addresses, redialling, bans.

Bootstrap peers are dialled for ever, with back-off and jitter; another peer that this node had dialled
is tried a few times after its connection is lost. A peer whose messages are rejected too often is cut
and kept out for a while.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from protocol.errors import ConfigInvalid, PeerUnreachable
from protocol.units import PeerKey
from qubixd.wire import WireCounters
from qubixd.wire_libp2p.identity import key_of
from qubixd.wire_libp2p.limits import Limits
from qubixd.wire_libp2p.swarm import GuardedSwarm

log = logging.getLogger(__name__)

_KNOWN_PEERS: Final = 1_000
_ADDRESSES_PER_PEER: Final = 8
_MAX_BANS: Final = 10_000
_ADDRESS_TTL_SECONDS: Final = 120


def split_address(text: str) -> tuple[ID, Multiaddr]:
    """The peer id and the plain TCP address of "/ip4/.../tcp/.../p2p/<id>"; ConfigInvalid if it is none."""
    try:
        address = Multiaddr(text)
        peer = ID.from_base58(address.value_for_protocol("p2p") or "")
        plain = address.decapsulate(Multiaddr(f"/p2p/{peer}"))
        plain.value_for_protocol("tcp")
    except (MultiaddrError, ValueError, LookupError) as error:
        raise ConfigInvalid(
            f"{text!r} is not a peer address; one looks like /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo..."
        ) from error
    if key_of(peer) is None:
        raise ConfigInvalid(f"{text!r} names a peer whose key is not Ed25519")
    return peer, plain


def peers_of(addresses: Sequence[str]) -> dict[PeerKey, tuple[str, ...]]:
    """Addresses by the peer they name; ConfigInvalid if one names none."""
    found: dict[PeerKey, tuple[str, ...]] = {}
    for text in addresses:
        key = key_of(split_address(text)[0])
        assert key is not None, "split_address lets Ed25519 peers pass only"
        found[key] = (*found.get(key, ()), text)
    return found


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

    async def dial(self, peer: ID, rumoured: Sequence[Multiaddr] = ()) -> None:
        """Connect over any known address; PeerUnreachable if none answers. What is only `rumoured` is tried
        instead, and known if the peer was there: a liar must not push out what is true."""
        addresses = list(rumoured) or self.addresses_of(peer)
        if not addresses:
            raise PeerUnreachable(f"no address of peer {peer} is known")
        if not self.allowed(peer):
            raise PeerUnreachable(f"peer {peer} sent too many invalid messages and is shut out for now")
        store = self._swarm.peerstore
        store.clear_addrs(peer)
        store.add_addrs(peer, addresses, _ADDRESS_TTL_SECONDS)
        try:
            await self._swarm.dial_peer(peer)
        except Exception as error:
            self._counters.dials_failed += 1
            tried = ", ".join(str(address) for address in addresses)
            raise PeerUnreachable(f"peer {peer} does not answer at {tried}") from error
        if rumoured:
            self.learn(peer, rumoured)
        self._dialled.add(peer)

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
