"""Offers: the book of what is known, and the service that gossips, validates and expires them.

The book is plain data under rules; the service moves signed bytes between it and the wire. Every
record stays the provider's own envelope, so whoever relays it can leave it out but not change it.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import trio

import ledger.offers
import ledger.settings
from ledger.offers import OfferRow
from ledger.store import Store
from protocol import messages, signing
from protocol.errors import QubixError, WireError
from protocol.messages import GetOffers, Offer
from protocol.signing import NodeKey
from protocol.units import PeerKey, UnixMs
from qubixd.talk import REQUEST_TIMEOUT_S, patience
from qubixd.wire import Stream, Verdict, Wire, receive_frame, send_frame

log = logging.getLogger("qubix.offers")

TOPIC: Final = "/qubix/offers/1"
PROTOCOL: Final = "/qubix/offers/1"
LIFE_MS: Final = 600_000
"""Ten minutes: 10,000 providers then cost 17 messages a second."""
MAX_LIFE_MS: Final = 900_000
MAX_SKEW_MS: Final = 60_000
"""How far ahead of ours a provider's clock may be."""
REFRESH_SHARE: Final = (0.6, 0.8)
"""An offer is renewed after a random part of its life, so that refreshes spread out."""
MAX_OFFERS: Final = 100_000
SNAPSHOT_LIMIT: Final = 10_000
SNAPSHOT_TIMEOUT_S: Final = 20.0
SWEEP_SECONDS: Final = 1.0
LOOK_AGAIN_SECONDS: Final = 5.0
"""How often a node that knows no offers asks a peer again: what was gossiped while two nodes were only
just meeting is in neither's snapshot, and would else be missing until it is refreshed."""


@dataclass(frozen=True)
class Entry:
    """One provider's current offer and the envelope it came in."""

    provider: PeerKey
    offer: Offer
    raw: bytes


class OfferBook:
    """The newest valid offer of every provider. Pure: time comes in as an argument."""

    def __init__(self, network: str, contract_index: int) -> None:
        self._network = network
        self._contract_index = contract_index
        self._entries: dict[PeerKey, Entry] = {}
        self._last_sequence: dict[PeerKey, tuple[int, UnixMs]] = {}
        self._fresh: dict[PeerKey, Entry] = {}
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def consider(self, raw: bytes, now: UnixMs) -> Verdict:
        """Take an offer in, or drop it and count why."""
        reason = self._objection(raw, now)
        if reason is None:
            return Verdict.ACCEPT
        self.dropped[reason] += 1
        return Verdict.IGNORE if reason in HARMLESS else Verdict.REJECT

    def entries(self, now: UnixMs) -> Iterator[Entry]:
        """Live offers, in no particular order."""
        return (e for e in self._entries.values() if e.offer.expires_at > now and not e.offer.withdrawn)

    def get(self, provider: PeerKey, now: UnixMs) -> Entry | None:
        entry = self._entries.get(provider)
        return entry if entry and entry.offer.expires_at > now and not entry.offer.withdrawn else None

    def sweep(self, now: UnixMs) -> None:
        """Forget what has expired. A sequence is remembered until no older offer could still be alive."""
        for provider in [p for p, e in self._entries.items() if e.offer.expires_at <= now]:
            del self._entries[provider]
        for provider in [p for p, (_, until) in self._last_sequence.items() if until <= now]:
            del self._last_sequence[provider]

    def take_fresh(self) -> tuple[Entry, ...]:
        """Entries taken in since the last call, for keeping."""
        fresh, self._fresh = self._fresh, {}
        return tuple(fresh.values())

    def _objection(self, raw: bytes, now: UnixMs) -> str | None:
        if len(raw) > messages.MAX_OFFER_BYTES:
            return "offer.oversized"
        try:
            signed = signing.verify(raw, messages.MAX_OFFER_BYTES)
        except WireError as error:
            return "offer.forged" if error.code == "wire.signature_invalid" else "offer.malformed"
        if not isinstance(signed.message, Offer):
            return "offer.malformed"
        return self._stale(signed.signer, signed.message, now) or self._store(
            signed.signer, signed.message, raw
        )

    def _stale(self, provider: PeerKey, offer: Offer, now: UnixMs) -> str | None:
        if (offer.network, offer.contract_index) != (self._network, self._contract_index):
            return "offer.other_network"
        if offer.expires_at <= now:
            return "offer.stale"
        if offer.issued_at > now + MAX_SKEW_MS or offer.expires_at > offer.issued_at + MAX_LIFE_MS:
            return "offer.from_the_future"
        last = self._last_sequence.get(provider)
        if last is None:
            return None
        if offer.sequence == last[0]:
            return "offer.known"
        return "offer.replayed" if offer.sequence < last[0] else None

    def _store(self, provider: PeerKey, offer: Offer, raw: bytes) -> str | None:
        # Sequences outlive their entries, so they are what fills up first.
        if provider not in self._last_sequence and len(self._last_sequence) >= MAX_OFFERS:
            return "offer.book_full"
        self._entries[provider] = self._fresh[provider] = Entry(provider, offer, raw)
        self._last_sequence[provider] = (offer.sequence, UnixMs(offer.issued_at + MAX_LIFE_MS))
        return None


HARMLESS: Final = frozenset({"offer.known", "offer.replayed", "offer.stale", "offer.book_full"})
"""Reasons an honest forwarder may meet: late or repeated delivery, or our own lack of room."""


class OfferService:
    """Keeps the book fed from the wire and this machine's own offer in everybody else's."""

    def __init__(
        self,
        wire: Wire,
        key: NodeKey,
        book: OfferBook,
        now_ms: Callable[[], UnixMs],
        make_offer: Callable[[int, UnixMs, UnixMs], Offer | None],
        store: Store,
    ) -> None:
        self.book = book
        self.own: Entry | None = None
        self._wire = wire
        self._key = key
        self._now_ms = now_ms
        self._make_offer = make_offer
        self._store = store
        self._changed = trio.Event()
        self._publishing = trio.Lock()
        self._met: tuple[trio.MemorySendChannel[PeerKey], trio.MemoryReceiveChannel[PeerKey]]
        self._met = trio.open_memory_channel(256)
        wire.serve(PROTOCOL, self._serve_snapshot)
        wire.subscribe(TOPIC, self._ingest)
        wire.on_peer(self._meet)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        for kept in await ledger.offers.known(self._store):
            self.book.consider(kept.record, self._now_ms())
        self.book.take_fresh()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._advertise)
            nursery.start_soon(self._sweep)
            nursery.start_soon(self._fetch_snapshots)
            nursery.start_soon(self._look_again)
            task_status.started()

    def changed(self) -> None:
        """This machine's price, capacity or willingness has changed: tell the others now."""
        self._changed.set()

    def _ingest(self, data: bytes, forwarder: PeerKey) -> Verdict:
        return self.book.consider(data, self._now_ms())

    def _meet(self, peer: PeerKey) -> None:
        try:
            self._met[0].send_nowait(peer)
        except trio.WouldBlock:
            log.debug("too many new peers at once; no snapshot asked from %s", peer.hex()[:16])

    async def _advertise(self) -> None:
        while True:
            self._changed = trio.Event()
            await self.publish()
            with trio.move_on_after(random.uniform(*REFRESH_SHARE) * LIFE_MS / 1_000):
                await self._changed.wait()

    async def publish(self) -> None:
        """Sign and spread this machine's offer as it is now."""
        async with self._publishing:  # sequences go out in the order in which they were drawn
            await self._publish_own()

    async def _publish_own(self) -> None:
        now = self._now_ms()
        if self._make_offer(0, now, now) is None:
            return
        sequence = await ledger.settings.next_number(self._store, "offer", at_least=now)
        offer = self._make_offer(sequence, now, UnixMs(now + LIFE_MS))
        assert offer is not None
        raw = self._key.sign(offer)
        self.own = Entry(self._key.public, offer, raw)
        self.book.consider(raw, now)
        await self._wire.publish(TOPIC, raw)

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now = self._now_ms()
            self.book.sweep(now)
            if fresh := self.book.take_fresh():
                await ledger.offers.remember(self._store, [_row(entry) for entry in fresh])
                await ledger.offers.forget_expired(self._store, now)

    async def _fetch_snapshots(self) -> None:
        async for peer in self._met[1]:
            await self.visit(peer, ())

    async def _look_again(self) -> None:
        while True:
            await trio.sleep(LOOK_AGAIN_SECONDS)
            peers, entries = self._wire.peers(), self.book.entries(self._now_ms())
            if peers and all(entry.provider == self._key.public for entry in entries):
                await self.visit(random.choice(peers), ())

    async def visit(self, peer: PeerKey, addresses: Sequence[str]) -> None:
        """Connect with a peer if need be and learn the offers it knows; no error if it cannot be had."""
        with trio.move_on_after(SNAPSHOT_TIMEOUT_S):
            try:
                await self._fetch_snapshot(peer, addresses)
            except (QubixError, trio.BrokenResourceError) as error:
                log.debug("no offers from %s: %s", peer.hex()[:16], error)

    async def _fetch_snapshot(self, peer: PeerKey, addresses: Sequence[str]) -> None:
        stream = await self._wire.open(peer, PROTOCOL, addresses)
        async with stream:
            await send_frame(stream, self._key.sign(GetOffers((), b"", 0, SNAPSHOT_LIMIT, follow=False)))
            await stream.send_eof()
            for _ in range(SNAPSHOT_LIMIT):
                raw = await receive_frame(stream, messages.MAX_OFFER_BYTES)
                if raw is None:
                    return
                self.book.consider(raw, self._now_ms())

    async def _serve_snapshot(self, stream: Stream, peer: PeerKey) -> None:
        with patience(REQUEST_TIMEOUT_S):
            request = await receive_frame(stream, messages.MAX_OFFER_BYTES)
        if request is None:
            return
        signed = signing.verify(request, messages.MAX_OFFER_BYTES)
        limit = signed.message.limit if isinstance(signed.message, GetOffers) else 0
        with patience(SNAPSHOT_TIMEOUT_S):  # so long does whoever asks wait, too
            for entry in _first(self.book.entries(self._now_ms()), min(limit, SNAPSHOT_LIMIT)):
                await send_frame(stream, entry.raw)
            await stream.send_eof()


def _row(entry: Entry) -> OfferRow:
    return OfferRow(entry.provider, entry.offer.sequence, entry.offer.expires_at, entry.raw)


def _first(entries: Iterable[Entry], count: int) -> list[Entry]:
    return [entry for entry, _ in zip(entries, range(count), strict=False)]
