"""The control API's verbs of relays: which are used, what they do for nothing, what they ask; renting one."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from protocol.control import RunEvent
from protocol.control_relay import OwnRelayView, RelayArgs, RelaysView, RentRelayArgs, UsedRelayView
from protocol.errors import QubixError, RelayNotForRent, UsageError
from protocol.lease_state import BEFORE_RUNNING, Lease
from protocol.units import MAX_QU, PeerKey, Qu, Seconds
from qubixd import lease_desk
from qubixd.hiring import Consent
from qubixd.node import Node
from qubixd.relay_hire import is_renting, rent, rented_relays
from qubixd.reservations import ask
from qubixd.wire_libp2p import peer_id_of, peer_key_of, peers_of

Emit = Callable[[object], Awaitable[None]]
ASK_SECONDS: Final = 10.0
Places = dict[PeerKey, tuple[str, ...]]
"""Relays, and where they can be dialled."""


async def relays(node: Node, args: RelayArgs, emit: Emit) -> RelaysView:
    used, asked = used_relays(node), _named(node, args.ask) if args.ask else {}
    found: dict[PeerKey, UsedRelayView] = {}

    async def look(relay: PeerKey, addresses: tuple[str, ...]) -> None:
        found[relay] = await _look(node, relay, addresses, used=relay in used)

    async with trio.open_nursery() as nursery:
        for relay, addresses in (used | rented_relays(node.leases) | asked).items():
            nursery.start_soon(look, relay, addresses)
    return RelaysView([found[relay] for relay in sorted(found)], own_relay(node))


def used_relays(node: Node) -> Places:
    """Through which this node is reached now."""
    return {one.peer: one.addresses for one in node.connections.reservations.relays()}


def _named(node: Node, said: str) -> Places:
    """UsageError, ConfigInvalid unless it is a multiaddress or a peer id."""
    if said.startswith("/"):
        return peers_of([said])
    relay = peer_key_of(said)
    return {relay: (used_relays(node) | rented_relays(node.leases)).get(relay, ())}


async def _look(node: Node, relay: PeerKey, addresses: tuple[str, ...], *, used: bool) -> UsedRelayView:
    peer_id = peer_id_of(relay)
    try:
        with trio.fail_after(ASK_SECONDS):
            said = await ask(node.parts.wire, relay, addresses)
    except (QubixError, trio.BrokenResourceError, trio.TooSlowError) as error:
        words = str(error) or "it does not answer"
        return UsedRelayView(peer_id, list(addresses), used, rented=_lease_with(node, relay), sentence=words)
    return UsedRelayView(
        peer_id,
        list(addresses),
        used,
        free_bytes=said.free_bytes,
        gone_bytes=min(said.used_bytes, said.free_bytes),
        bytes_per_second=said.bytes_per_second,
        price_qu_per_hour=said.price_qu_per_hour,
        rented=_lease_with(node, relay),
    )


def _lease_with(node: Node, relay: PeerKey) -> str:
    mine = [one for one in node.leases.active() if is_renting(one) and one.terms.provider == relay]
    return mine[0].lease_id.hex() if mine else ""


def own_relay(node: Node) -> OwnRelayView | None:
    """This node's own work as a relay; None if it is none."""
    relay, office = node.office.relay, node.office
    if relay is None:
        return None
    return OwnRelayView(len(relay.places), relay.joins, len(office.renters), office.price_qu_per_hour)


# --- renting --------------------------------------------------------------------------------------


async def rent_relay(node: Node, args: RentRelayArgs, emit: Emit, consent: Consent) -> RunEvent:
    await emit(RunEvent("quoting", "asking the relay", None))
    relay, addresses = await _chosen(node, args.relay)
    if lease_id := _lease_with(node, relay):
        short = lease_id[:8]
        raise UsageError(f"this relay is rented already, by lease {short}; `qubix stop {short}` first")
    price = MAX_QU if args.max_price_qu_per_hour is None else args.max_price_qu_per_hour
    lease = await rent(
        node.hiring,
        relay,
        addresses,
        Seconds(args.seconds),
        max_price=Qu(min(price, MAX_QU)),
        name=f"the relay {peer_id_of(relay)}",
        consent=consent,
    )
    return await _until_it_runs(node, lease, emit)


async def _chosen(node: Node, said: str) -> tuple[PeerKey, tuple[str, ...]]:
    if said:
        return next(iter(_named(node, said).items()))
    view = await relays(node, RelayArgs(), lambda event: trio.lowlevel.checkpoint())
    priced = [one for one in view.relays if one.used and one.price_qu_per_hour]
    if not view.relays:
        raise UsageError("this node uses no relay; name one: `qubix relay rent ADDRESS`")
    if not priced:
        raise RelayNotForRent("no relay that this node uses can be rented; name another")
    best = min(priced, key=lambda one: one.price_qu_per_hour)
    return peer_key_of(best.peer_id), tuple(best.addresses)


async def _until_it_runs(node: Node, lease: Lease, emit: Emit) -> RunEvent:
    """An event for every state, until the relay is rented or will not be."""
    with node.leases.listen(lease.lease_id) as changes, contextlib.suppress(trio.EndOfChannel):
        lease = await node.leases.get(lease.lease_id)
        while lease.phase in BEFORE_RUNNING:
            await emit(lease_desk.run_event(node, lease))
            lease = await changes.receive()
    return lease_desk.run_event(node, lease)
