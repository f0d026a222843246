"""The control API's verb `network`: peers and the ways to them, gossip, directories, relays, the chain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import trio

from protocol.control_network import (
    MAX_PEERS,
    ChainView,
    DirectoryUseView,
    GossipView,
    NetworkArgs,
    NetworkView,
    PeerView,
    RelayUseView,
)
from protocol.errors import QubixError
from protocol.paths import PathKind
from protocol.units import PeerKey
from qubixd import market_desk, relay_desk
from qubixd.node import Node
from qubixd.wire_libp2p import peer_id_of

Emit = Callable[[object], Awaitable[None]]
MEASURED: Final = 48
"""Peers, at one question."""
MEASURE_SECONDS: Final = 2.0
SLOW_TICKS: Final = 20
SLOW_MS: Final = 30_000
"""The chain is slow when it has made no new tick for so long, both of them."""


async def network(node: Node, args: NetworkArgs, emit: Emit) -> NetworkView:
    wire = node.parts.wire
    keys = _in_order(node)
    measured = await _measure(node, keys[:MEASURED]) if args.measure else {}
    outside = wire.observed()
    return NetworkView(
        at_ms=node.parts.now_ms(),
        peer_id=peer_id_of(node.parts.key.public),
        addresses=list(wire.addresses),
        outside_ips=list(outside.ips),
        reachable=outside.reachable,
        total=len(keys),
        relayed=sum(wire.path_of(peer) is PathKind.RELAYED for peer in keys),
        peers=[_peer(node, peer, measured.get(peer)) for peer in keys[:MAX_PEERS]],
        gossip=_gossip(node),
        chain=_chain(node),
        directories=_directories(node),
        serving=None if node.discovery.directory is None else node.discovery.directory.heard,
        relays=[
            RelayUseView(
                peer_id_of(one.peer),
                one.free_bytes,
                one.used_bytes,
                one.bytes_per_second,
                one.price_qu_per_hour,
            )
            for one in node.connections.reservations.relays()
        ],
        own_relay=relay_desk.own_relay(node),
    )


# --- peers --------------------------------------------------------------------------------------


def _partners(node: Node) -> set[PeerKey]:
    """Both sides of every lease that is not over, this node among them."""
    return {peer for one in node.leases.active() for peer in (one.terms.caller, one.terms.provider)}


def _in_order(node: Node) -> list[PeerKey]:
    """Those with leases first, then by key, so that a table does not jump."""
    partners, links = _partners(node), set(node.connections.links.peers())
    connected = set(node.parts.wire.peers()) | links
    return sorted(connected, key=lambda peer: (peer not in partners, peer_id_of(peer)))


async def _measure(node: Node, peers: Sequence[PeerKey]) -> dict[PeerKey, float]:
    """Milliseconds there and back, of those that answer in time."""
    taken: dict[PeerKey, float] = {}

    async def ping(peer: PeerKey) -> None:
        try:
            taken[peer] = round(1_000 * await node.parts.wire.round_trip(peer), 2)
        except QubixError:
            return

    with trio.move_on_after(MEASURE_SECONDS):
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(ping, peer)
    return taken


def _peer(node: Node, peer: PeerKey, rtt_ms: float | None) -> PeerView:
    wire, link = node.parts.wire, node.connections.links.view(peer)
    entry = node.offers.book.get(peer, node.parts.now_ms())
    way, relay = wire.path_of(peer), wire.relay_of(peer)
    plain = PeerView(
        peer_id=peer_id_of(peer),
        name=entry.offer.name if entry else "",
        way=str(way or ""),
        address=wire.remote_address(peer) or "",
        relay=peer_id_of(relay) if relay else "",
        roles=_roles(node, peer, offers=entry is not None and not entry.offer.withdrawn),
        rtt_ms=rtt_ms,
    )
    if link is None:
        return plain
    return replace(
        plain,
        way=str(link.kind),
        address=plain.address if link.kind is PathKind.RELAYED else link.address,
        rtt_ms=rtt_ms if link.rtt_ms is None else round(link.rtt_ms, 2),
        sent_per_second=link.sent_per_second,
        received_per_second=link.received_per_second,
        sent_bytes=link.sent_bytes,
        received_bytes=link.received_bytes,
        streams=link.streams,
    )


def _roles(node: Node, peer: PeerKey, *, offers: bool) -> list[str]:
    known = node.discovery.register.get(peer)
    found = {
        "lease": peer in _partners(node),
        "provider": offers,
        "directory": known is not None and known.record is not None,
        "relay": any(one.peer == peer for one in node.connections.reservations.relays()),
    }
    return [role for role, has in found.items() if has]


# --- gossip, directories, chain -----------------------------------------------------------------


def _gossip(node: Node) -> GossipView:
    counters, offers = node.parts.wire.counters, node.offers
    return GossipView(
        topics=list(offers.topics),
        received=counters.gossip_in,
        ignored=counters.gossip_ignored,
        rejected=counters.gossip_rejected,
        peers_dropped=counters.peers_dropped,
        offers=market_desk.live_offers(node),
        settled=offers.settled,
        served=offers.served,
        dropped=counters.by_reason | dict(node.discovery.counters),
    )


def _directories(node: Node) -> list[DirectoryUseView]:
    found, told = node.discovery.directories, node.offers.book.sources()
    used = sorted({*found.heartbeats, *found.reading, *told})
    return [
        DirectoryUseView(
            peer_id=peer_id_of(peer),
            heartbeats=peer in found.heartbeats,
            reads=peer in found.reading,
            live=any(held.live for circle in (found.heartbeats, found.reading) if (held := circle.get(peer))),
            offers=told.get(peer, (0, 0))[0],
            missing=told.get(peer, (0, 0))[1],
        )
        for peer in used
    ]


def _chain(node: Node) -> ChainView:
    config, watchers, info = node.config, node.watchers, node.watchers.tick
    age_ms = round((trio.current_time() - watchers.tick_at) * 1_000) if info else 0
    state, sentence = _health(node, age_ms)
    return ChainView(
        name=node.parts.chain.name,
        network=config.network,
        contract_index=config.contract_index,
        state=state,
        sentence=sentence,
        tick=info.tick if info else 0,
        epoch=info.epoch if info else 0,
        ticks_of_epoch=info.tick - info.initial_tick if info else 0,
        tick_ms=watchers.tick_ms,
        age_ms=age_ms,
        differences=sum(len(found) for found in node.reconciler.standing.values()),
    )


def _health(node: Node, age_ms: int) -> tuple[str, str]:
    if node.watchers.tick is None:
        return "silent", f"no node of the chain has answered yet at {node.config.chain}; is it running?"
    if node.waiting.why:
        return "waiting", node.waiting.why
    if age_ms > max(SLOW_MS, SLOW_TICKS * node.watchers.tick_ms):
        return "slow", f"no new tick has been seen for {age_ms // 1_000} s; payments wait as long"
    return "ok", ""
