"""Starting and stopping a node of the libp2p wire."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from protocol.errors import ConfigInvalid, PortBusy
from qubixd.wire import Wire
from qubixd.wire_libp2p.addresses import split_address
from qubixd.wire_libp2p.exchange import PeerExchange
from qubixd.wire_libp2p.limits import Limits
from qubixd.wire_libp2p.mdns import Neighbours
from qubixd.wire_libp2p.node import Libp2pWire
from qubixd.wire_libp2p.patches import QuietHost, YamuxOnly, running
from qubixd.wire_libp2p.swarm import GuardedSwarm
from qubixd.wire_libp2p.tcp import BufferedTcpTransport

log = logging.getLogger(__name__)

_SEED_BYTES: Final = 32


@dataclass(frozen=True)
class WireConfig:
    """Where to listen (port 0: the system chooses), whom to call first, which addresses to tell others
    ("/ip4/.../tcp/...", for a node behind a forwarded port), whether to look for nodes on the same link,
    where else to listen (host and port; what cannot be had there is left out with a warning)."""

    listen_host: str
    listen_port: int
    bootstrap: tuple[str, ...]
    announce: tuple[str, ...] = ()
    mdns: bool = False
    also: tuple[tuple[str, int], ...] = ()


def check_free(host: str, port: int) -> None:
    """PortBusy unless it can be listened there. libp2p binds with SO_REUSEPORT, so it would share a busy port
    and get half the callers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise PortBusy(
                f"port {port} on {host} cannot be used ({error.strerror}); {_help(error)}"
            ) from error


def _help(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return (
            "ports below 1024 take a right: let all programs have them with "
            "`sysctl net.ipv4.ip_unprivileged_port_start=443`, or choose another port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return "stop the other program or choose another port"


def _listens(config: WireConfig) -> list[Multiaddr]:
    """All places to listen at. PortBusy if the first cannot be had; others that cannot are left out."""
    places = [(config.listen_host, config.listen_port)]
    check_free(*places[0])
    for place in config.also:
        try:
            check_free(*place)
            places.append(place)
        except PortBusy as error:
            log.warning("going on without a place to listen at: %s", error)
    return [Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}") for host, port in places]


def _announced(config: WireConfig) -> tuple[str, ...]:
    """Addresses as they are told; a peer id at their end is taken off. ConfigInvalid."""
    try:
        plain = tuple(str(Multiaddr(text)).partition("/p2p/")[0] for text in config.announce)
        for text in plain:
            Multiaddr(text).value_for_protocol("tcp")
    except (MultiaddrError, ValueError, LookupError) as error:
        raise ConfigInvalid(
            f"an address to announce looks like /ip4/192.0.2.1/tcp/4001 or /dns4/example.org/tcp/443: {error}"
        ) from error
    return plain


def build(config: WireConfig, node_seed: bytes, limits: Limits) -> Libp2pWire:
    """A node that does not run yet."""
    keys = ed25519_key_pair(node_seed)
    me = ID.from_pubkey(keys.public_key)
    announce = _announced(config)
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
        announce_addrs=[Multiaddr(text) for text in announce] or None,
    )
    host.remove_stream_handler(ID_PUSH)
    return Libp2pWire(host, swarm, muxers.budget, announce, limits)


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
    listens = _listens(config)
    limits = limits or Limits()
    wire = build(config, node_seed, limits)
    failure: Exception | None = None
    async with _running_wire(wire, config, listens, bootstrap):
        try:
            yield wire
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure


@asynccontextmanager
async def _running_wire(
    wire: Libp2pWire, config: WireConfig, listens: list[Multiaddr], bootstrap: list[tuple[ID, Multiaddr]]
) -> AsyncIterator[None]:
    swarm, gossip, book = wire.swarm, wire.gossip, wire.peer_book
    async with running(swarm), running(gossip.router), running(gossip.pubsub):
        await gossip.pubsub.wait_until_ready()
        for place in listens:  # in this order, so that the first address is the first place's
            await swarm.listen(place)
        exchange = PeerExchange(wire, book)
        async with trio.open_nursery() as nursery:
            await nursery.start(swarm.door.serve)
            for peer, address in bootstrap:
                book.learn(peer, [address])
                if peer != swarm.self_id:
                    nursery.start_soon(book.keep, peer)
            nursery.start_soon(exchange.run)
            nursery.start_soon(wire.observer.run)
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
