"""The Wire over libp2p: TCP, noise, yamux, gossipsub 1.1. `opening` starts and stops one node."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import psutil
import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.rcmgr import Direction
from libp2p.stream_muxer.exceptions import MuxedStreamError
from multiaddr import Multiaddr

from protocol.errors import PeerUnreachable, QubixError
from protocol.paths import PathKind
from protocol.units import PeerKey
from qubixd.observing import Observer
from qubixd.wire import (
    GossipValidator,
    Outside,
    SocketHandler,
    Stream,
    StreamHandler,
    WireCounters,
    address_text,
)
from qubixd.wire_libp2p.addresses import split_address, tcp_address
from qubixd.wire_libp2p.gossip import Gossip
from qubixd.wire_libp2p.identity import key_of, libp2p_id, peer_id_of
from qubixd.wire_libp2p.limits import Limits
from qubixd.wire_libp2p.patches import QuietHost
from qubixd.wire_libp2p.peers import Peers
from qubixd.wire_libp2p.relayed import RelayedConnections
from qubixd.wire_libp2p.stream import WireStream
from qubixd.wire_libp2p.swarm import GuardedSwarm
from qubixd.wire_libp2p.yamux import Budget, Yamux
from qubixd.wire_libp2p.yamux_stream import YamuxStream

log = logging.getLogger(__name__)

MAX_ADDRESSES: Final = 8
"""As many as an offer or an acceptance has room for."""


class Libp2pWire:
    """The Wire of one node; see qubixd.wire.Wire for what each method promises."""

    def __init__(
        self,
        host: QuietHost,
        swarm: GuardedSwarm,
        budget: Budget,
        announce: tuple[str, ...],
        limits: Limits,
    ) -> None:
        key = key_of(host.get_id())
        assert key is not None
        self._key, self._host, self.swarm, self._limits = key, host, swarm, limits
        self._announce = announce
        self._relayed: tuple[str, ...] = ()
        self._counters = WireCounters()
        self._served: set[str] = set()
        self._callbacks: list[Callable[[PeerKey], None]] = []
        self.peer_book = Peers(swarm, limits, self._counters)
        self.gossip = Gossip(host, limits, self._counters, self.peer_book.punish)
        swarm.allowed = self.peer_book.allowed
        swarm.on_handler_error = self._on_handler_error
        swarm.on_stream = self._on_stream
        budget.on_refused = lambda: self._on_stream(taken=False)
        swarm.register_notifee(_Notifee(self._on_connected, self._on_disconnected))
        self.observer = Observer(self, self._ports)
        self._relayed_conns = RelayedConnections(self, swarm, self.peer_book)
        self.peer_book.through_relay = self._relayed_conns.dial
        self.gossip.pubsub.is_direct = self.peer_book.direct

    @property
    def peer_key(self) -> PeerKey:
        return self._key

    @property
    def addresses(self) -> tuple[str, ...]:
        suffix = f"/p2p/{peer_id_of(self._key)}"
        direct = self._announce or tuple(dict.fromkeys([*self._reached(), *self._listening()]))
        room = MAX_ADDRESSES - len(self._relayed)
        return tuple(f"{address}{suffix}" for address in (*direct[:room], *self._relayed))

    @property
    def counters(self) -> WireCounters:
        return self._counters

    def peers(self) -> tuple[PeerKey, ...]:
        keys = (key_of(peer) for peer in self.swarm.connections if self.peer_book.connected(peer))
        return tuple(key for key in keys if key is not None)

    def on_peer(self, callback: Callable[[PeerKey], None]) -> None:
        self._callbacks.append(callback)

    def subscribe(self, topic: str, validator: GossipValidator) -> None:
        self.gossip.subscribe(topic, validator)

    def unsubscribe(self, topic: str) -> None:
        self.gossip.unsubscribe(topic)

    async def publish(self, topic: str, data: bytes) -> None:
        await self.gossip.publish(topic, data)

    async def round_trip(self, peer: PeerKey, addresses: Sequence[str] = ()) -> float:
        target = await self._connect(peer, addresses)
        conns, found = self._muxed(target), list[float]()
        best = [conn for conn in conns if (conn.relay is None) == (conns[0].relay is None)]
        with trio.move_on_after(self._limits.open_seconds):
            async with trio.open_nursery() as nursery:
                for conn in best:
                    nursery.start_soon(_ping, conn, found, nursery.cancel_scope)
        if not found:
            raise PeerUnreachable(f"peer {target} did not answer a ping")
        return found[0]

    # Ways

    def path_of(self, peer: PeerKey) -> PathKind | None:
        conns = self._muxed(libp2p_id(peer))
        if not conns:
            return None
        return PathKind.WIRE if conns[0].relay is None else PathKind.RELAYED

    def relay_of(self, peer: PeerKey) -> PeerKey | None:
        conns = self._muxed(libp2p_id(peer))
        return key_of(conns[0].relay) if conns and conns[0].relay is not None else None

    def observed(self) -> Outside:
        return self.observer.outside

    def dialled(self) -> tuple[tuple[str, int], ...]:
        conns = [conn for conn in reversed(self.swarm.get_connections()) if _is_ours(conn)]
        remotes = [
            conn.muxed_conn.get_remote_address() for conn in conns if isinstance(conn.muxed_conn, Yamux)
        ]
        return tuple(remote for remote in remotes if remote)

    def recheck(self) -> None:
        for peer in self.swarm.connections:
            for conn in self._muxed(peer):
                self.swarm.manager.run_task(conn.prove_alive)
        self.observer.forget()

    def take_sockets(self, first: int, handler: SocketHandler) -> None:
        self.swarm.door.take(first, handler)

    async def reaches(self, peer: PeerKey, port: int) -> bool:
        ip = self.remote_ip(peer)
        return ip is not None and await self.swarm.answers(ip, port, libp2p_id(peer))

    def be_reached_through(self, relays: Mapping[PeerKey, Sequence[str]]) -> None:
        self._relayed = tuple(f"{way}/p2p-circuit" for ways in relays.values() for way in ways)
        self._relayed_conns.relays = frozenset(relays)

    def remote_ip(self, peer: PeerKey) -> str | None:
        remote = self._remote(peer)
        return remote[0] if remote else None

    def remote_address(self, peer: PeerKey) -> str | None:
        remote = self._remote(peer)
        return None if remote is None else address_text(*remote)

    def _remote(self, peer: PeerKey) -> tuple[str, int] | None:
        remotes = [conn.get_remote_address() for conn in self._muxed(libp2p_id(peer))]
        return next((remote for remote in remotes if remote), None)

    def _muxed(self, target: ID) -> list[Yamux]:
        """Live connections to a peer, the direct ones first, of those the ones we dialled, and newer ones."""
        live = [conn for conn in self.swarm.get_connections(target) if not conn.is_closed]
        conns = [conn.muxed_conn for conn in reversed(live)]
        muxed = [conn for conn in conns if isinstance(conn, Yamux)]
        return sorted(muxed, key=lambda conn: (conn.relay is not None, not conn.is_initiator))

    # Streams

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        async def handle(raw: INetStream) -> None:
            stream, peer = _wire_stream(raw), key_of(raw.muxed_conn.peer_id)
            assert peer is not None, "only Ed25519 peers have connections"
            try:
                await handler(stream, peer)
            except BaseException:
                stream.abort("the handler ended early")
                raise
            stream.finish()

        self._served.add(protocol)
        self._host.set_stream_handler(TProtocol(protocol), handle)

    async def open(self, peer: PeerKey, protocol: str, addresses: Sequence[str] = ()) -> Stream:
        fresh = not self.peer_book.connected(libp2p_id(peer))
        target = await self._connect(peer, addresses)
        try:
            return await self._negotiate(target, protocol)
        except PeerUnreachable:
            if fresh or self.peer_book.connected(target):
                raise
        await self.peer_book.dial(target)
        return await self._negotiate(target, protocol)

    async def _connect(self, peer: PeerKey, addresses: Sequence[str]) -> ID:
        target = libp2p_id(peer)
        for address in addresses:
            named, plain = split_address(address)
            if named == target:
                self.peer_book.learn(target, [plain])
        if target == self._host.get_id():
            raise PeerUnreachable("a node opens no stream to itself")
        if not self.peer_book.connected(target):
            await self.peer_book.dial(target)
        elif not self.peer_book.direct(target):
            self.peer_book.improve(target)
        return target

    async def _negotiate(self, target: ID, protocol: str) -> Stream:
        try:
            with trio.fail_after(self._limits.open_seconds):
                raw = await self._host.new_stream(target, [TProtocol(protocol)])
        except trio.TooSlowError as error:
            raise PeerUnreachable(f"peer {target} took too long to answer to {protocol}") from error
        except StreamFailure as error:
            raise PeerUnreachable(f"peer {target} does not speak {protocol}") from error
        except Exception as error:
            raise PeerUnreachable(f"the connection to peer {target} was lost") from error
        return _wire_stream(raw)

    def _reached(self) -> list[str]:
        """Where others have reached this node, be it through a router that passes the port on."""
        ends = (text.rpartition(":") for text in self.observed().reached_at)
        return [tcp_address(ip.strip("[]"), int(port)) for ip, _, port in ends]

    def _ports(self, ip: str) -> list[int]:
        """Where this node listens for who is at that IP."""
        places = [str(address).split("/") for address in self._host.get_transport_addrs()]
        near = is_loopback(ip)
        return list(dict.fromkeys(int(place[4]) for place in places if near or not is_loopback(place[2])))

    def _listening(self) -> list[str]:
        found: list[str] = []
        for address in self._host.get_transport_addrs():
            text = str(address)
            if text.startswith(("/ip4/0.0.0.0/", "/ip6/::/")):
                port = address.value_for_protocol("tcp")
                found += [f"/ip4/{ip}/tcp/{port}" for ip in _local_ips()]
            else:
                found.append(text)
        return found

    def _on_stream(self, taken: bool) -> None:
        if taken:
            self._counters.streams_in += 1
        else:
            self._counters.streams_refused += 1

    def _on_handler_error(self, peer: ID, stream: INetStream, errors: ExceptionGroup[Exception]) -> None:
        """Trouble with a peer is expected; a bug of ours is a warning; garbage counts against the peer."""
        protocol = stream.get_protocol()
        unexpected = errors.split(_expected if protocol in self._served else _broken_stream)[1]
        if unexpected is None:
            log.debug("stream %s of peer %s: %r", protocol, peer, errors.exceptions)
            return
        self._counters.handler_errors += 1
        if protocol in self._served:
            log.warning("the handler of %s failed for peer %s", protocol, peer, exc_info=unexpected)
        else:
            log.info("peer %s broke the rules of %s: %r", peer, protocol or "a new stream", errors.exceptions)
            self.peer_book.punish(peer, "a broken protocol")

    def _on_connected(self, peer: ID) -> None:
        key = key_of(peer)
        if not self.peer_book.direct(peer):
            self.peer_book.improve(peer)
        if key is None or len(self.swarm.get_connections(peer)) > 1:
            return
        for callback in self._callbacks:
            try:
                callback(key)
            except Exception:
                log.warning("a callback for new peers failed", exc_info=True)

    def _on_disconnected(self, peer: ID) -> None:
        if not self.peer_book.connected(peer):
            self.gossip.forget(peer)
            self.peer_book.on_lost(peer)


class _Notifee(INotifee):
    """libp2p's events that matter here."""

    def __init__(self, connected: Callable[[ID], None], disconnected: Callable[[ID], None]) -> None:
        self._connected, self._disconnected = connected, disconnected

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        self._connected(conn.muxed_conn.peer_id)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._disconnected(conn.muxed_conn.peer_id)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...


def _expected(error: BaseException) -> bool:
    """Whether an error is trouble with a peer, not a bug."""
    return isinstance(error, QubixError) or _broken_stream(error)


def _broken_stream(error: BaseException) -> bool:
    return isinstance(error, trio.BrokenResourceError | MuxedStreamError | StreamError)


def is_loopback(ip: str) -> bool:
    return ip == "::1" or ip.startswith("127.")


async def _ping(conn: Yamux, found: list[float], done: trio.CancelScope) -> None:
    if (seconds := await conn.round_trip()) is not None:
        found.append(seconds)
        done.cancel()


def _is_ours(conn: INetConn) -> bool:
    return isinstance(conn, SwarmConn) and conn.direction is Direction.OUTBOUND and not conn.is_closed


def _wire_stream(raw: INetStream) -> WireStream:
    assert isinstance(raw, NetStream) and isinstance(raw.muxed_stream, YamuxStream)
    conn = raw.swarm_conn
    return WireStream(raw.muxed_stream, lambda: conn.remove_stream(raw) if conn else None)


def _local_ips() -> list[str]:
    """IPv4 addresses of this machine, loopback last."""
    ips = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    ]
    return sorted(ips, key=lambda ip: ip.startswith("127."))
