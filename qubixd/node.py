"""The composition root: puts a node together from its parts and runs its services in one nursery.

`run_node` is the same for the program and for tests; they differ in the Parts they bring.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from escrow_bridge.bridge import Bridge
from escrow_bridge.waiting import Waiting
from ledger import journal, transactions
from protocol.image_needs import Need
from protocol.images import LocalImage
from protocol.lease_state import Lease, Role
from protocol.units import Qu, Seconds, Tick, UnixMs
from qubixd import prices
from qubixd.arrivals import Arrivals
from qubixd.book import OfferBook
from qubixd.choosing import Chooser
from qubixd.config import Config
from qubixd.connections import Connections
from qubixd.desk import Desk
from qubixd.discovery import Discovery, Settings
from qubixd.effects import Performer
from qubixd.hiring import Hiring
from qubixd.jobfiles import JobFiles
from qubixd.leases import Leases, decode_state
from qubixd.metering import Metering
from qubixd.mirror import Mirror, mirror_of
from qubixd.offers import OfferService
from qubixd.parts import Parts
from qubixd.payments import Payments
from qubixd.progress import ProgressTeller
from qubixd.provider import Provider
from qubixd.proving import Proving
from qubixd.receipts import Receipts
from qubixd.reconcile import Reconciler
from qubixd.relay import Relay
from qubixd.relay_hire import rented_relays
from qubixd.relay_lease import RelayOffice
from qubixd.reservations import Reservations
from qubixd.shop import Shop, reopen
from qubixd.standing import Standings
from qubixd.stock import StockWatch, image_of
from qubixd.tidying import Leftovers
from qubixd.trust import Trust
from qubixd.tunnels.local import LocalTunnels
from qubixd.views import holds_capacity
from qubixd.watch import Watchers
from qubixd.wire_libp2p import peers_of

log = logging.getLogger("qubix.node")


@dataclass(frozen=True)
class Node:
    """A running node, as the control API uses it."""

    config: Config
    parts: Parts
    provider: Provider
    leases: Leases
    discovery: Discovery
    hiring: Hiring
    desk: Desk
    files: JobFiles
    watchers: Watchers
    reconciler: Reconciler
    payments: Payments
    trust: Trust
    waiting: Waiting
    metering: Metering
    proving: Proving
    office: RelayOffice
    connections: Connections
    mirror: Mirror
    tunnels: LocalTunnels
    """Those of this machine's front ends."""
    arrivals: Arrivals
    stop_soon: Callable[[], None] = field(compare=False)
    consents: dict[str, trio.MemorySendChannel[bool]] = field(compare=False, default_factory=dict)
    """Quotes that wait for a person's answer, by token."""
    wishes: dict[str, trio.Lock] = field(compare=False, default_factory=dict)
    """Output folders that something is being rented for, see once.py."""
    stopped: trio.Event = field(compare=False, default_factory=trio.Event)

    @property
    def shop(self) -> Shop:
        return self.provider.shop

    @property
    def standing(self) -> Standings:
        return self.trust.standing

    @property
    def receipts(self) -> Receipts:
        return self.trust.receipts

    @property
    def offers(self) -> OfferService:
        return self.discovery.offers

    async def all_leases(self) -> list[Lease]:
        """Active and ended, oldest first."""
        return [decode_state(row.state) for row in await journal.leases(self.parts.store)]


async def run_node(
    config: Config, parts: Parts, task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run until cancelled or stopped. Hands out the Node once every service is ready."""
    leases = Leases(parts.store, parts.now_ms)
    bridge = Bridge(
        parts.chain,
        parts.wallet,
        config.contract_index,
        one_pending=config.one_pending_per_source,
        poll_seconds=parts.poll_seconds,
        signed_until=Tick(await transactions.last_tick(parts.store)),
    )
    watchers = Watchers(leases, bridge, parts.runner, parts.now_ms)
    files = JobFiles(config.root, parts.in_thread)
    shop = await reopen(parts.store, config, parts.machine.suggested_price)
    book = OfferBook(config.network, config.contract_index, own=parts.key.public)

    def addresses_of(lease: Lease) -> tuple[str, ...]:
        return _addresses_of(lease, book, parts.now_ms())

    proving = Proving.build(parts, leases, files, addresses_of)
    stock = StockWatch(parts.runner) if parts.runner else None
    provider = Provider(config, parts, shop, leases, watchers, stock)
    settings = _discovery_settings(config)
    discovery = Discovery(parts.wire, parts.key, book, parts.now_ms, provider.offer, parts.store, settings)
    relay = Relay(parts.wire, parts.now_ms) if config.relay else None
    price = Qu(config.relay_price)
    office = RelayOffice(relay, price, leases, parts.store, provider.relay_house)
    if relay is not None:
        relay.rented, relay.price_qu_per_hour = office.is_paid, price
    reservations = Reservations(parts.wire, peers_of(config.use_relay), automatic=not config.on_loopback)
    reservations.on_change.append(discovery.offers.changed)
    reservations.rented = partial(rented_relays, leases)
    desk = Desk(
        parts.key, leases, files, parts.runner, parts.now_ms, provider.house, office.house, trio.Lock()
    )
    performer = Performer(
        wire=parts.wire,
        key=parts.key,
        wallet=parts.wallet,
        store=parts.store,
        bridge=bridge,
        runner=parts.runner,
        files=files,
        now_ms=parts.now_ms,
        gpu_uuid_of=parts.machine.gpu_uuids.__getitem__,
        machine=Need(parts.machine.arch, parts.machine.cuda),
        addresses_of=addresses_of,
        progress=ProgressTeller(),
        prove=proving.prove,
    )
    trust = Trust.build(
        config,
        wire=parts.wire,
        key=parts.key,
        wallet=parts.wallet,
        store=parts.store,
        chain=parts.chain,
        now_ms=parts.now_ms,
        leases=leases,
        book=book,
        directories=discovery.directories.in_use,
        addresses_of=addresses_of,
    )
    hiring = Hiring(
        wire=parts.wire,
        key=parts.key,
        wallet=parts.wallet,
        chain=parts.chain,
        chooser=_chooser_of(parts, book, trust),
        leases=leases,
        files=files,
        store=parts.store,
        in_thread=parts.in_thread,
        now_ms=parts.now_ms,
        network=config.network,
        contract_index=config.contract_index,
        interval_seconds=Seconds(config.interval),
        tick_ms=lambda: watchers.tick_ms,
        can_prove=proving.prove is not None,
    )
    health = provider.cards.health if provider.cards else None
    metering = Metering.build(parts, leases, addresses_of, health, proving.door, office)
    asked_to_stop = trio.Event()
    async with trio.open_nursery() as nursery:
        node = Node(
            config,
            parts,
            provider,
            leases,
            discovery,
            hiring,
            desk,
            files,
            watchers,
            Reconciler(leases, parts.store, bridge, parts.now_ms),
            Payments(parts.store, bridge, parts.now_ms),
            trust,
            bridge.waiting,
            metering,
            proving,
            office,
            Connections.build(parts, leases, files, reservations, addresses_of),
            mirror_of(config, parts, discovery, trust.receipts, watchers),
            LocalTunnels(),
            Arrivals(parts.store, parts.chain, parts.wallet.public_key, parts.now_ms),
            stop_soon=asked_to_stop.set,
        )
        nursery.start_soon(_leave_when_asked, node, asked_to_stop, nursery.cancel_scope)
        provider.on_change.append(discovery.offers.changed)
        await _start(node, performer, nursery)
        task_status.started(node)
    node.stopped.set()


def _chooser_of(parts: Parts, book: OfferBook, trust: Trust) -> Chooser:
    async def image_here(image: str) -> LocalImage | None:
        engine = parts.runner or parts.engine
        return await image_of(engine, image) if engine else None

    return Chooser(
        book=book,
        wire=parts.wire,
        own=parts.key.public,
        standing=trust.standing,
        scores=trust.receipts.scores,
        image_here=image_here,
        now_ms=parts.now_ms,
    )


async def _leave_when_asked(node: Node, asked: trio.Event, scope: trio.CancelScope) -> None:
    """In good order, so that nobody tries an offer that is no more. Whoever just cancels the node gets
    the end that a power cut brings."""
    await asked.wait()
    await node.discovery.goodbye()
    scope.cancel()


def _discovery_settings(config: Config) -> Settings:
    return Settings(
        network=config.network,
        contract_index=config.contract_index,
        directory=config.directory,
        region=config.region,
        markets=config.markets,
        use=peers_of(config.use_directory),
    )


async def _start(node: Node, performer: Performer, nursery: trio.Nursery) -> None:
    """Order matters: the chain is compared with what the ledger said
    before anybody changed it, watchers need leases in memory, peers are answered once both are there."""
    await node.files.forget_unfinished()
    node.waiting.on_change.append(node.leases.announce_again)
    ready = trio.Event()
    node.leases.on_change.append(_after_change(node, ready))
    await nursery.start(node.trust.run)
    await nursery.start(node.leases.run, performer)
    node.office.watch()
    nursery.start_soon(performer.progress.run, performer.tell)
    await nursery.start(node.reconciler.run)
    await nursery.start(node.watchers.run)
    await nursery.start(node.payments.run)
    await nursery.start(node.metering.run)
    await nursery.start(node.proving.run)
    ready.set()
    node.desk.open(node.parts.wire)
    node.metering.open(node.parts.wire)
    node.proving.open(node.parts.wire)
    await nursery.start(node.connections.run)
    await nursery.start(node.discovery.run)
    for lease in node.leases.active():
        # After a restart: the other side may know an address that is no longer ours.
        peer = lease.terms.caller if lease.role is Role.PROVIDER else lease.terms.provider
        nursery.start_soon(node.offers.visit, peer, lease.peer_addresses)
    if node.config.provider:
        nursery.start_soon(node.provider.run)
    elif node.office.relay is not None:
        nursery.start_soon(node.provider.watch_balance)
    await nursery.start(node.mirror.run)
    nursery.start_soon(node.arrivals.run)
    nursery.start_soon(prices.run, node.offers, node.parts.store, node.parts.now_ms)
    nursery.start_soon(Leftovers(node.files, node.parts.store, node.parts.runner, node.parts.now_ms).run)


def _after_change(node: Node, ready: trio.Event) -> Callable[[Lease], None]:
    taken: set[bytes] = set()

    def changed(lease: Lease) -> None:
        if ready.is_set():
            node.watchers.look(lease)
        if holds_capacity(lease) != (lease.lease_id in taken):
            taken.symmetric_difference_update({lease.lease_id})
            node.offers.changed()

    return changed


def _addresses_of(lease: Lease, book: OfferBook, now: UnixMs) -> tuple[str, ...]:
    """What the other side said when the lease was made, and what its offer says now."""
    entry = book.get(lease.terms.provider, now) if lease.role is Role.CALLER else None
    return (*lease.peer_addresses, *(entry.offer.addresses if entry else ()))
