"""The Wire over libp2p: TCP, noise, yamux, gossipsub 1.1. `open_wire` starts and stops one node."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import psutil
import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from protocol.errors import ConfigInvalid, PeerUnreachable, PortBusy, QubixError
from protocol.units import PeerKey
from qubixd.wire import GossipValidator, Stream, StreamHandler, Wire, WireCounters
from qubixd.wire_libp2p.exchange import PeerExchange
from qubixd.wire_libp2p.gossip import Gossip
from qubixd.wire_libp2p.identity import key_of, libp2p_id, peer_id_of
from qubixd.wire_libp2p.limits import Limits
from qubixd.wire_libp2p.mdns import Neighbours
from qubixd.wire_libp2p.patches import GuardedSwarm, QuietHost, YamuxOnly, running
from qubixd.wire_libp2p.peers import Peers, split_address
from qubixd.wire_libp2p.stream import WireStream
from qubixd.wire_libp2p.tcp import BufferedTcpTransport
from qubixd.wire_libp2p.yamux import Budget, Yamux
from qubixd.wire_libp2p.yamux_stream import YamuxStream

log = logging.getLogger(__name__)

_SEED_BYTES: Final = 32


@dataclass(frozen=True)
class WireConfig:
    """Where to listen (port 0: the system chooses), whom to call first, which addresses to tell others
    ("/ip4/.../tcp/...", for a node behind a forwarded port), whether to look for nodes on the same link."""

    listen_host: str
    listen_port: int
    bootstrap: tuple[str, ...]
    announce: tuple[str, ...] = ()
    mdns: bool = False


class Libp2pWire:
    """The Wire of one node; see qubixd.wire.Wire for what each method promises."""

    def __init__(
        self, host: QuietHost, swarm: GuardedSwarm, budget: Budget, config: WireConfig, limits: Limits
    ) -> None:
        key = key_of(host.get_id())
        assert key is not None
        self._key, self._host, self._swarm, self._limits = key, host, swarm, limits
        self._announce = config.announce
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

    @property
    def peer_key(self) -> PeerKey:
        return self._key

    @property
    def addresses(self) -> tuple[str, ...]:
        suffix = f"/p2p/{peer_id_of(self._key)}"
        return tuple(f"{address}{suffix}" for address in self._announce or self._listening())

    @property
    def counters(self) -> WireCounters:
        return self._counters

    def peers(self) -> tuple[PeerKey, ...]:
        keys = (key_of(peer) for peer in self._swarm.connections if self.peer_book.connected(peer))
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
        with trio.move_on_after(self._limits.open_seconds):
            for conn in self._muxed(target):
                if (seconds := await conn.round_trip()) is not None:
                    return seconds
        raise PeerUnreachable(f"peer {target} did not answer a ping")

    def remote_ip(self, peer: PeerKey) -> str | None:
        remotes = [conn.get_remote_address() for conn in self._muxed(libp2p_id(peer))]
        return next((remote[0] for remote in remotes if remote), None)

    def _muxed(self, target: ID) -> list[Yamux]:
        conns = [conn.muxed_conn for conn in self._swarm.get_connections(target) if not conn.is_closed]
        return [conn for conn in conns if isinstance(conn, Yamux)]

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
        if key is None or len(self._swarm.get_connections(peer)) > 1:
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


def _check_free(config: WireConfig) -> None:
    """libp2p binds with SO_REUSEPORT, so it would share a busy port and get half the callers."""
    family = socket.AF_INET6 if ":" in config.listen_host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.listen_host, config.listen_port))
            probe.listen(1)
        except OSError as error:
            raise PortBusy(
                f"port {config.listen_port} on {config.listen_host} cannot be used ({error.strerror}); "
                "stop the other program or choose another port"
            ) from error


def _build(config: WireConfig, node_seed: bytes, limits: Limits) -> Libp2pWire:
    keys = ed25519_key_pair(node_seed)
    me = ID.from_pubkey(keys.public_key)
    store = PeerStore()
    store.add_key_pair(me, keys)
    upgrader = TransportUpgrader({NOISE: NoiseTransport(keys, x25519_key_pair().private_key)}, {})
    muxers = upgrader.muxer_multistream = YamuxOnly(limits)
    swarm = GuardedSwarm(
        me,
        store,
        upgrader,
        [BufferedTcpTransport()],
        RetryConfig(max_retries=0),
        ConnectionConfig(
            max_connections=limits.connections,
            high_watermark=limits.connections,
            min_connections=0,
            low_watermark=0,
            max_connections_per_peer=limits.connections,
            inbound_upgrade_timeout=limits.handshake_seconds,
            inbound_stream_protocol_negotiation_timeout=limits.handshake_seconds,
        ),
    )
    swarm.prepare(limits)
    host = QuietHost(
        swarm,
        negotiate_timeout=int(limits.handshake_seconds),
        disable_identify_address_discovery=True,
        announce_addrs=[Multiaddr(text) for text in config.announce] or None,
    )
    host.remove_stream_handler(ID_PUSH)
    return Libp2pWire(host, swarm, muxers.budget, config, limits)


@asynccontextmanager
async def open_wire(
    config: WireConfig, node_seed: bytes, limits: Limits | None = None
) -> AsyncIterator[Wire]:
    """Run a node whose key comes from a 32-byte Ed25519 seed.

    PortBusy if the port is taken, ConfigInvalid if an address is malformed. An error of the block comes
    out as it is, not inside a group.
    """
    if len(node_seed) != _SEED_BYTES:
        raise ConfigInvalid(f"a node seed has {_SEED_BYTES} bytes")
    bootstrap = [split_address(text) for text in config.bootstrap]
    _check_free(config)
    limits = limits or Limits()
    wire = _build(config, node_seed, limits)
    failure: Exception | None = None
    async with _running_wire(wire, config, bootstrap):
        try:
            yield wire
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure


@asynccontextmanager
async def _running_wire(
    wire: Libp2pWire, config: WireConfig, bootstrap: list[tuple[ID, Multiaddr]]
) -> AsyncIterator[None]:
    swarm, gossip, book = wire._swarm, wire.gossip, wire.peer_book
    family = "ip6" if ":" in config.listen_host else "ip4"
    async with running(swarm), running(gossip.router), running(gossip.pubsub):
        await gossip.pubsub.wait_until_ready()
        await swarm.listen(Multiaddr(f"/{family}/{config.listen_host}/tcp/{config.listen_port}"))
        exchange = PeerExchange(wire, book)
        async with trio.open_nursery() as nursery:
            for peer, address in bootstrap:
                book.learn(peer, [address])
                if peer != swarm.self_id:
                    nursery.start_soon(book.keep, peer)
            nursery.start_soon(exchange.run)
            if config.mdns:
                nursery.start_soon(Neighbours(wire, book, config.listen_host).run)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                await _close_all(swarm)


async def _close_all(swarm: GuardedSwarm) -> None:
    with trio.move_on_after(2) as scope:
        scope.shield = True
        async with trio.open_nursery() as nursery:
            for conn in list(swarm.get_connections()):
                nursery.start_soon(conn.close)
            for listener in list(swarm.listeners.values()):
                nursery.start_soon(listener.close)
