"""Discovery as a whole: the parts that find offers and make this node's own be found, put together.

Each new peer is asked for the directories it knows (`/qubix/directories/1`) and, while too few are, for
its offers; so a node with one bootstrap address soon has both, and a few nodes in a room need neither.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

import ledger.settings
from ledger.store import Store
from protocol.errors import QubixError
from protocol.messages import MAX_OFFER_BYTES, Directory, Offer
from protocol.signing import NodeKey
from protocol.units import PeerKey, UnixMs
from qubixd.audit import Audit
from qubixd.book import OfferBook
from qubixd.directories import ENOUGH, Directories
from qubixd.directory import PLACES, RECORDS_TOPIC, DirectoryService
from qubixd.library import READERS, READERS_OF_A_DIRECTORY, Library
from qubixd.liveness import Hearing
from qubixd.offers import OfferService
from qubixd.places import Buckets
from qubixd.register import Register
from qubixd.talk import patience
from qubixd.wire import Stream, Verdict, Wire, receive_frame, send_frame

log = logging.getLogger("qubix.discovery")

RECORDS_PROTOCOL: Final = "/qubix/directories/1"
RECORDS_TOLD: Final = 32
ASK_SECONDS: Final = 10.0
ASK_AGAIN_SECONDS: Final = (20.0, 60.0)
"""How often a random peer is asked for directories: while too few are in use, and always."""
ELSEWHERE_SECONDS: Final = (20.0, 180.0)
"""How soon, and in the long run how often, a reader looks into books of some it did not choose."""
ELSEWHERE_BOOKS: Final = 3
ELSEWHERE_OFFERS: Final = 2_000
"""How far, each time; it goes on there the next time."""
GOODBYE_SECONDS: Final = 1.5
FILL_UP_SECONDS: Final = 600.0
FIRST_LOOK_SECONDS: Final = 10.0
"""How often a directory reads others' books, and how soon again while it knows too few of them."""
REMEMBERED: Final = "proven directories"
"""Name of the setting."""
REMEMBERED_AT_MOST: Final = 16
REMEMBER_SECONDS: Final = 120.0
MANY: Final = 8
"""Strangers looked at for one question."""
MEETINGS: Final = 4
"""New peers asked at a time."""
QUESTIONS: Final = (1 / 5, 6)
"""A second, and at once, from one peer."""


@dataclass(frozen=True)
class Settings:
    """What a person decides about discovery."""

    network: str
    contract_index: int
    directory: bool = False
    region: str = ""
    markets: tuple[str, ...] = ()
    """Which this node reads; none means all."""
    use: Mapping[PeerKey, Sequence[str]] = field(default_factory=dict)
    """Directories to turn to before all others, and where they are."""
    places: int = PLACES
    """Providers that it takes, if it is a directory."""


class Discovery:
    """All services of discovery. `book`, `offers`, `directories` and `register` are for others to use."""

    def __init__(
        self,
        wire: Wire,
        key: NodeKey,
        book: OfferBook,
        now_ms: Callable[[], UnixMs],
        make_offer: Callable[[int, UnixMs, UnixMs], Offer | None],
        store: Store,
        settings: Settings,
        chance: random.Random | None = None,
    ) -> None:
        self.book, self.settings = book, settings
        self._wire, self._key, self._now_ms = wire, key, now_ms
        self.register = Register(settings.network, settings.contract_index, key.public, settings.use, chance)
        self.hearing = Hearing(book, self.register, now_ms)
        self.offers = OfferService(
            wire,
            key,
            book,
            now_ms,
            make_offer,
            store,
            markets=settings.markets,
            hear=self.hearing,
            everything=settings.directory,
        )
        self.directories = Directories(
            wire, book, self.register, self.offers, now_ms, self.offers.wanted_markets()
        )
        readers = READERS_OF_A_DIRECTORY if settings.directory else READERS
        self.library = Library(wire, book, now_ms, readers, lambda: self.offers.informed)
        self.audit = Audit(
            wire,
            lambda: self._strangers(self.directories.heartbeats),
            lambda: self.offers.settled,
            self.directories.unseen,
        )
        self.directory = (
            DirectoryService(wire, key, book, self.register, now_ms, self._record, store, settings.places)
            if settings.directory
            else None
        )
        self._store = store
        self._met: tuple[trio.MemorySendChannel[PeerKey], trio.MemoryReceiveChannel[PeerKey]]
        self._met = trio.open_memory_channel(256)
        self._asked = Buckets(*QUESTIONS)
        wire.serve(RECORDS_PROTOCOL, self._serve_records)
        wire.subscribe(RECORDS_TOPIC, self._hear_record)
        wire.on_peer(self._note)

    @property
    def counters(self) -> Counter[str]:
        """Everything that was refused or dropped, by reason."""
        total = Counter(self.book.dropped)
        for counters in (
            self.register.counters,
            self.hearing.counters,
            self.library.counters,
            self.audit.counters,
            self.offers.counters,
            self.directories.counters,
            self.directory.counters if self.directory is not None else (),
        ):
            total.update(counters)
        return total

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.library.run)
            await nursery.start(self.offers.run)
            await nursery.start(self.directories.run)
            if self.directory is not None:
                await nursery.start(self.directory.run)
                nursery.start_soon(self._fill_up)
            for _ in range(MEETINGS):
                nursery.start_soon(self._meet_all)
            nursery.start_soon(self._remember)
            nursery.start_soon(self._ask_again)
            nursery.start_soon(self._look_elsewhere)
            nursery.start_soon(self.audit.run)
            task_status.started()

    async def goodbye(self) -> None:
        """Say that this node leaves, in no more than two seconds."""
        with trio.move_on_after(GOODBYE_SECONDS):
            await self.offers.goodbye()
            await self.directories.goodbye()
            if self.directory is not None:
                await self.directory.goodbye()

    def _record(self, sequence: int, issued_at: UnixMs, expires_at: UnixMs, places: int) -> Directory:
        return Directory(
            sequence=sequence,
            issued_at=issued_at,
            expires_at=expires_at,
            withdrawn=False,
            network=self.settings.network,
            contract_index=self.settings.contract_index,
            region=self.settings.region,
            places=places,
            addresses=self._wire.addresses[:8],
        )

    def _hear_record(self, data: bytes, forwarder: PeerKey) -> Verdict:
        return self.register.consider(data, self._now_ms())

    # Meeting peers

    def _note(self, peer: PeerKey) -> None:
        try:
            self._met[0].send_nowait(peer)
        except trio.WouldBlock:
            log.debug("too many new peers at once; nothing asked from %s", peer.hex()[:16])

    async def _meet_all(self) -> None:
        async for peer in self._met[1]:
            await self._ask_records(peer)
            if self._needs_offers():
                await self.offers.visit(peer, ())

    def _needs_offers(self) -> bool:
        """Whether directories will not tell us anyway."""
        return self.settings.directory or (not self.offers.served and len(self.register) < ENOUGH)

    async def _remember(self) -> None:
        """Directories that were good are turned to again after a restart, whoever is met first then."""
        kept = await ledger.settings.get(self._store, REMEMBERED)
        if kept is not None:
            self.register.recall(msgspec.msgpack.decode(kept, type=list[tuple[PeerKey, tuple[str, ...]]]))
        while True:
            await trio.sleep(REMEMBER_SECONDS)
            proven = msgspec.msgpack.encode(self.register.proven(REMEMBERED_AT_MOST))
            if self.register.proven(1) and proven != kept:
                kept = proven
                await ledger.settings.put(self._store, REMEMBERED, proven)

    async def _ask_again(self) -> None:
        while True:
            few = len(self.directories.in_use()) < ENOUGH
            await trio.sleep(random.uniform(0.8, 1.2) * ASK_AGAIN_SECONDS[0 if few else 1])
            if peers := self._wire.peers():
                await self._ask_records(random.choice(peers))

    async def _look_elsewhere(self) -> None:
        """Whoever shows this node a world of its own would have to have all its neighbours, too."""
        pause, longest = ELSEWHERE_SECONDS
        while True:
            await trio.sleep(random.uniform(0.8, 1.2) * pause)
            if not self.offers.reads or self.settings.directory:
                continue
            pause = min(1.5 * pause, longest)
            for peer, addresses in self._strangers(self.directories.reading)[:ELSEWHERE_BOOKS]:
                await self.offers.visit(peer, addresses, ELSEWHERE_OFFERS)

    def _strangers(self, chosen: Collection[PeerKey]) -> list[tuple[PeerKey, Sequence[str]]]:
        """Connected peers and known directories that were not chosen, half and half, in random order."""
        known = [(one.peer, one.addresses) for one in self.register.choose(MANY, chosen, self._now_ms())]
        peers: list[tuple[PeerKey, Sequence[str]]] = [(p, ()) for p in self._wire.peers() if p not in chosen]
        strangers = [*random.sample(peers, min(MANY, len(peers))), *known]
        random.shuffle(strangers)
        return strangers

    async def _fill_up(self) -> None:
        """As a directory: what gossip did not bring, others' books do."""
        while True:
            for known in self.register.choose(ENOUGH, (), self._now_ms()):
                await self.offers.visit(known.peer, known.addresses)
            usual = FILL_UP_SECONDS if len(self.register) >= ENOUGH else FIRST_LOOK_SECONDS
            await trio.sleep(random.uniform(0.8, 1.2) * usual)

    async def _ask_records(self, peer: PeerKey) -> None:
        try:
            with patience(ASK_SECONDS):
                stream = await self._wire.open(peer, RECORDS_PROTOCOL)
                async with stream:
                    await stream.send_eof()
                    for _ in range(RECORDS_TOLD):
                        raw = await receive_frame(stream, MAX_OFFER_BYTES)
                        if raw is None or self.register.consider(raw, self._now_ms()) is Verdict.REJECT:
                            return
        except (QubixError, trio.BrokenResourceError) as error:
            log.debug("no directories from %s: %s", peer.hex()[:16], error)

    async def _serve_records(self, stream: Stream, peer: PeerKey) -> None:
        if not self._asked.take(peer):
            self.register.counters["directory.asked_too_often"] += 1
            return
        own = [self.directory.raw] if self.directory is not None and self.directory.raw else []
        with patience(ASK_SECONDS):
            for raw in [*own, *self.register.records(RECORDS_TOLD)][:RECORDS_TOLD]:
                await send_frame(stream, raw)
            await stream.send_eof()
