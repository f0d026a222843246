"""Offers on the air: this machine's own offer in everybody's book, and everybody's in ours, by gossip.

Without directories a node re-issues its offer every half minute and listens to the topics of the markets
it wants. A provider whose heartbeats two directories take (`settled`) gossips its offer only when it
changes and some time before it expires, and needs to listen to nothing; nor does a reader that follows
two directories' books (`served`). See directories.py, which says which of this is so.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import trio

import ledger.offers
import ledger.settings
from ledger.offers import OfferRow
from ledger.store import Store
from protocol import signing
from protocol.catalogue import MARKETS, market_of
from protocol.errors import QubixError
from protocol.messages import Offer
from protocol.signing import NodeKey
from protocol.units import PeerKey, UnixMs
from qubixd.book import Entry, Fresh, OfferBook
from qubixd.liveness import LIVENESS_TOPIC
from qubixd.places import Buckets
from qubixd.sync import RECORDS_PER_TURN, SNAPSHOT_LIMIT, Place, Reader
from qubixd.wire import GossipValidator, Verdict, Wire

log = logging.getLogger("qubix.offers")

TOPIC: Final = "/qubix/offers/2/"
"""And the name of a market."""
LIFE_MS: Final = 600_000
"""Of an offer that is re-issued often."""
SETTLED_LIFE_MS: Final = 3_600_000
"""Of one that directories keep alive: 10,000 providers then cost 4 gossip messages a second."""
REFRESH_SHARE: Final = (0.6, 0.8)
"""A settled provider renews its offer after a random part of its life, so that refreshes spread out."""
REISSUE_SECONDS: Final = (25.0, 30.0)
"""How often an offer is its own heartbeat."""
SNAPSHOT_TIMEOUT_S: Final = 20.0
SWEEP_SECONDS: Final = 1.0
SWEPT_PER_TURN: Final = 1_000
"""Offers: after this machine has slept all are due at once, 100,000 of them for three seconds."""
LOOK_AGAIN_SECONDS: Final = 5.0
"""How often a node that knows no offers asks a peer again: what was gossiped while two nodes were only
just meeting is in neither's snapshot, and would else be missing until it is refreshed."""
VISITS_AT_ONCE: Final = 4
MAX_PLACES: Final = 256
SPARE_ROWS: Final = 20_000
"""How many offers the ledger may hold beside those in the book: 80 MB at most."""
WANT_SECONDS: Final = 600.0
"""So long a provider's node reads the market after somebody looked at it there."""
NEWCOMERS: Final = (20.0, 400)
"""Unknown providers a second, and at once, of which one neighbour may tell us by gossip."""
UPDATES: Final = (0.2, 10)
"""Changes of one provider's offer a second, and at once, that are passed on."""
GOODBYE_SECONDS: Final = 0.3
"""What gossip takes to leave this machine; there is no event for it."""


class OfferService:
    """Keeps the book fed by gossip and snapshots, and this machine's offer in everybody else's."""

    def __init__(
        self,
        wire: Wire,
        key: NodeKey,
        book: OfferBook,
        now_ms: Callable[[], UnixMs],
        make_offer: Callable[[int, UnixMs, UnixMs], Offer | None],
        store: Store,
        markets: Sequence[str] = (),
        hear: GossipValidator | None = None,
        everything: bool = False,
    ) -> None:
        """`markets`: which this node wants to know; none means all. `hear` takes gossiped Liveness.
        With `everything` it listens to all topics whatever happens, as directories do."""
        self.book = book
        self.own: Entry | None = None
        self.settled = self.served = False
        self.on_own: list[Callable[[], None]] = []
        """Called when this machine's offer has changed."""
        self.counters: Counter[str] = Counter()
        self._markets = tuple(markets) or MARKETS
        self._hear, self.everything = hear, everything
        self._wire, self._key, self._now_ms = wire, key, now_ms
        self._make_offer, self._store = make_offer, store
        self._changed, self._resettled = trio.Event(), trio.Event()
        self._publishing = trio.Lock()
        self._leaving = False
        self._joined: set[str] = set()
        self._wanted_until = 0.0
        self._written = 0
        """Offers since the ledger was last rid of those that the book has forgotten."""
        self._places: dict[PeerKey, Place] = {}
        self._newcomers, self._updates = Buckets(*NEWCOMERS), Buckets(*UPDATES)
        self._visits = trio.CapacityLimiter(VISITS_AT_ONCE)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._subscribe()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._recall)
            nursery.start_soon(self._advertise)
            nursery.start_soon(self._sweep)
            nursery.start_soon(self._look_again)
            task_status.started()

    async def _recall(self) -> None:
        """What was known before a restart, so that no older offer is believed again."""
        for number, kept in enumerate(await ledger.offers.known(self._store)):
            self.book.consider(kept.record, self._now_ms())
            if number % RECORDS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
        await ledger.offers.keep_only(self._store, self.book.providers())

    # Which topics

    @property
    def topics(self) -> tuple[str, ...]:
        """Those that are listened to now."""
        return tuple(sorted(self._joined))

    @property
    def reads(self) -> bool:
        """Whether anybody here wants to know the market: a caller always, a provider after `want`."""
        return self.everything or self.own is None or trio.current_time() < self._wanted_until

    @property
    def informed(self) -> bool:
        """Whether this node hears of every market now, so that what it does not know says something."""
        return self.everything or (set(self._markets) >= set(MARKETS) and (self.served or bool(self._joined)))

    def want(self) -> None:
        """Somebody here looks at the market: read it for a while."""
        self._wanted_until = trio.current_time() + WANT_SECONDS
        self._subscribe()

    def settle(self, *, settled: bool, served: bool) -> None:
        """How well directories do this node's work just now."""
        was, self.settled, self.served = self.settled, settled, served
        self._subscribe()
        if was != settled:
            self._resettled.set()

    def _topics(self) -> set[str]:
        if not self.everything and (self.served or (self.settled and not self.reads)):
            return set()
        own = {market_of(self.own.offer.gpu_class)} if self.own else set()
        markets = set(MARKETS if self.everything else self._markets) | own
        return {TOPIC + market for market in markets} | ({LIVENESS_TOPIC} if self._hear else set())

    def _subscribe(self) -> None:
        wanted = self._topics()
        for topic in self._joined - wanted:
            self._wire.unsubscribe(topic)
        for topic in sorted(wanted - self._joined):
            if topic == LIVENESS_TOPIC and self._hear is not None:
                self._wire.subscribe(topic, self._hear)
            else:
                self._wire.subscribe(topic, partial(self._ingest, topic.removeprefix(TOPIC)))
        self._joined = wanted

    def _ingest(self, market: str, data: bytes, forwarder: PeerKey) -> Verdict:
        signer, now = PeerKey(signing.signer_of(data)), self._now_ms()
        if self.book.get(signer, now) is None and not self._newcomers.take(forwarder):
            self.counters["offer.too_many_newcomers"] += 1
            return Verdict.IGNORE
        verdict = self.book.consider(data, now, forwarder)
        if verdict is not Verdict.ACCEPT:
            return verdict
        entry = self.book.get(signer, now)
        if entry is not None and market_of(entry.offer.gpu_class) != market:
            self.counters["offer.wrong_topic"] += 1
            return Verdict.REJECT
        if not self._updates.take(signer):
            self.counters["offer.too_often"] += 1
            return Verdict.IGNORE
        return Verdict.ACCEPT

    # This machine's own offer

    def changed(self) -> None:
        """This machine's price, capacity or willingness has changed: tell the others now."""
        self._changed.set()

    async def _advertise(self) -> None:
        while not self._leaving:
            self._changed = trio.Event()
            await self.publish()
            await self._until_due(trio.current_time())

    async def _until_due(self, began: float) -> None:
        """Until there is news, or the offer is due again, which depends on who else keeps it alive."""
        share, reissue = random.uniform(*REFRESH_SHARE), random.uniform(*REISSUE_SECONDS)
        while True:
            life_s = (self.own.offer.expires_at - self.own.offer.issued_at) / 1_000 if self.own else 0
            due = began + (share * life_s if self.settled else reissue)
            self._resettled = trio.Event()
            with trio.move_on_at(due) as timer:
                await _first_of(self._changed, self._resettled)
            if timer.cancelled_caught or self._changed.is_set():
                return

    async def publish(self) -> None:
        """Sign and spread this machine's offer as it is now."""
        async with self._publishing:  # sequences go out in the order in which they were drawn
            if not self._leaving:
                await self._publish_own(withdrawn=False)

    async def goodbye(self) -> None:
        """Tell everybody that this machine's offer is no more; nothing is published after it."""
        async with self._publishing:
            self._leaving = True
            if self.own is not None and not self.own.offer.withdrawn:
                await self._publish_own(withdrawn=True)
                await trio.sleep(GOODBYE_SECONDS)

    async def _publish_own(self, *, withdrawn: bool) -> None:
        now = self._now_ms()
        if self._make_offer(0, now, now) is None:
            return
        sequence = await ledger.settings.next_number(self._store, "offer", at_least=now)
        expires = UnixMs(now + (SETTLED_LIFE_MS if self.settled else LIFE_MS))
        offer = self._make_offer(sequence, now, expires)
        assert offer is not None
        offer = replace(offer, withdrawn=True) if withdrawn else offer
        raw = self._key.sign(offer)
        first = self.own is None
        self.own = Entry(self._key.public, raw)
        self.book.consider(raw, now)
        if first:
            self._subscribe()
        for tell in self.on_own:
            tell()
        await self._wire.publish(TOPIC + market_of(offer.gpu_class), raw)

    # The book

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now = self._now_ms()
            while self.book.sweep(now, SWEPT_PER_TURN):
                await trio.lowlevel.checkpoint()
            if fresh := self.book.take_fresh():
                await self._write_down(fresh, now)

    async def _write_down(self, fresh: Sequence[Fresh], now: UnixMs) -> None:
        await ledger.offers.remember(self._store, [OfferRow(*one) for one in fresh])
        await ledger.offers.forget_expired(self._store, now)
        self._written += len(fresh)
        if self._written > SPARE_ROWS:
            self._written = 0
            await ledger.offers.keep_only(self._store, self.book.providers())

    async def _look_again(self) -> None:
        while True:
            await trio.sleep(LOOK_AGAIN_SECONDS)
            self._subscribe()  # a provider's interest in the market ends by itself
            peers, entries = self._wire.peers(), self.book.entries(self._now_ms())
            if peers and not self.served and all(entry.provider == self._key.public for entry in entries):
                await self.visit(random.choice(peers), ())

    async def visit(self, peer: PeerKey, addresses: Sequence[str], limit: int = SNAPSHOT_LIMIT) -> None:
        """Connect with a peer if need be and learn what is new in its book since the last visit, `limit`
        offers at most; no error if it cannot be had."""
        place = self._places.pop(peer, Place())
        self._places[peer] = place
        if len(self._places) > MAX_PLACES:
            del self._places[next(iter(self._places))]
        async with self._visits:
            with trio.move_on_after(SNAPSHOT_TIMEOUT_S):
                try:
                    reader = Reader(self._wire, self.book, self._now_ms, peer, place, self.wanted_markets())
                    await reader.read(addresses, follow=False, limit=limit)
                except (QubixError, trio.BrokenResourceError) as error:
                    log.debug("no offers from %s: %s", peer.hex()[:16], error)

    def wanted_markets(self) -> tuple[str, ...]:
        """As GetOffers names them."""
        return () if self.everything or set(self._markets) >= set(MARKETS) else self._markets


async def _first_of(*events: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)
