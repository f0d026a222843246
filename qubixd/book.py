"""The book: the newest offer of every provider that is known here. Pure: time comes in as an argument.

An offer counts while its provider lives (book_rules.py). What is kept is the provider's own
envelope, so whoever relays it can leave it out but not change it.
"""

from __future__ import annotations

import os
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from protocol import messages, signing
from protocol.errors import WireError
from protocol.messages import Offer
from protocol.query import Filter, SortKey, Values
from protocol.signing import Signed
from protocol.units import PeerKey, UnixMs
from qubixd import book_facts
from qubixd.book_gpus import GpuHolders
from qubixd.book_index import Ask as Ask
from qubixd.book_index import Index
from qubixd.book_log import ChangeLog, Stir
from qubixd.book_record import Entry as Entry
from qubixd.book_record import Fresh as Fresh
from qubixd.book_record import Page as Page
from qubixd.book_record import Record, Sight, number_of
from qubixd.book_room import Room
from qubixd.book_rules import ALIVE_MS as ALIVE_MS
from qubixd.book_rules import HARMLESS, lives, next_look, objection, update
from qubixd.book_rules import MAX_LIFE_MS as MAX_LIFE_MS
from qubixd.book_rules import MAX_SKEW_MS as MAX_SKEW_MS
from qubixd.book_sources import Sources
from qubixd.book_wheel import Wheel
from qubixd.wire import Verdict

PLACES: Final = 120_000
"""A provider takes one for each PLACE_BYTES, begun ones too, of its envelope and CARD_BYTES a card."""
PLACE_BYTES: Final = 1_536
CARD_BYTES: Final = 150
SPARE: Final = 1_024
_SIGHTING: Final = struct.Struct(">qB")


class OfferBook:
    """What this node knows of the market. `own` is its own key: that offer lives until it expires."""

    def __init__(
        self,
        network: str,
        contract_index: int,
        own: PeerKey | None = None,
        places: int = PLACES,
        lots: random.Random | None = None,
    ) -> None:
        self.id = os.urandom(8)
        """Cursors belong to it."""
        self.dropped: Counter[str] = Counter()
        self.on_change: list[Callable[[], None]] = []
        """Called after every change that `changes` tells of."""
        self.own = own
        self._settles_on = (network, contract_index)
        self._records: dict[int, Record] = {}
        self._room = Room(places, lots or random.Random())
        if own is not None:
            self._room.keep(own, None)
        self._log = ChangeLog(self._change_of)
        self._wheel = Wheel()
        self._index = Index()
        self._sources = Sources()
        self._gpus = GpuHolders()
        self._fresh: set[int] = set()
        self.stir = Stir(lambda: (record.provider for record in self._records.values()))
        """Whose offer counts, does not any more, or is another one than before, for a mirror of the book."""

    def __len__(self) -> int:
        """Offers held, live or silent."""
        return sum(bool(record.raw) for record in self._records.values())

    @property
    def cursor(self) -> int:
        """The newest change."""
        return self._log.newest

    # --- taking in ----------------------------------------------------------------------------

    def consider(self, raw: bytes, now: UnixMs, source: PeerKey | None = None) -> Verdict:
        """Take an offer in, or drop it and count why. `source` is who sent it."""
        if len(raw) > messages.MAX_OFFER_BYTES:
            return self._drop("offer.oversized")
        known = self._records.get(number_of(signing.signer_of(raw)))
        if known is not None and known.raw == raw:  # as every second directory says: no need to check again
            self._showed(known, source)
            return self._drop("offer.known")
        try:
            signed = signing.verify(raw, messages.MAX_OFFER_BYTES)
        except WireError as error:
            forged = error.code == "wire.signature_invalid"
            return self._drop("offer.forged" if forged else "offer.malformed")
        return self.take(signed, now, source)

    def take(self, signed: Signed, now: UnixMs, source: PeerKey | None = None) -> Verdict:
        """As `consider`, of an envelope whose signature was checked."""
        if not isinstance(signed.message, Offer):
            return self._drop("offer.malformed")
        offer: Offer = signed.message
        if (offer.network, offer.contract_index) != self._settles_on:
            return self._drop("offer.other_network")
        record = self._records.get(number_of(signed.signer))
        if reason := objection(record, signed.signer, offer, now):
            return self._drop(reason)
        if record is None:
            record = Record(number_of(signed.signer), signed.signer)
        if not self._seat(record, len(signed.raw) + CARD_BYTES * len(offer.capacity.gpus), source):
            return self._drop("offer.book_full")
        self._store(record, offer, signed.raw, now)
        self._showed(record, source)
        self._tell()
        return Verdict.ACCEPT

    def heard(self, alive: bytes, now: UnixMs, source: PeerKey | None = None) -> None:
        """Sightings as in messages.Liveness; of providers that are not known, none is remembered."""
        usable = len(alive) - len(alive) % messages.SIGHTING_BYTES
        revived = False
        for number, age in _SIGHTING.iter_unpack(alive[:usable]):
            record = self._records.get(number)
            if record is None or record.withdrawn or not record.raw:
                continue
            if now - age * 1_000 > record.seen:
                record.seen = now - age * 1_000
                if not record.live and lives(record, now):
                    self._enliven(record, self._entry(record).offer, now)
                    self._changed(record)
                    self._look_at(record, now)
                    revived = True
            self._showed(record, source)
        if revived:
            self._tell()

    def measure(
        self,
        provider: PeerKey,
        *,
        rtt_ms: float | None = None,
        score: float | None = None,
        reliability: float | None = None,
    ) -> None:
        """What this node found out about a provider; None leaves a figure as it is."""
        record = self._known(provider)
        if record is None:
            return
        measured = list(record.measured)
        for place, value in enumerate((score, reliability, rtt_ms)):
            if value is not None:
                field = book_facts.MEASURED[place]
                measured[place] = steps = book_facts.steps(field, value)
                if record.live:
                    self._index.set(record.number, field, steps)
                    self.stir.note(record.provider)
        record.measured = (measured[0], measured[1], measured[2])

    def keep(self, providers: Iterable[PeerKey]) -> None:
        """Providers that no flood may drive out: of own leases, configured, with receipts."""
        for provider in providers:
            self._room.keep(provider, self._known(provider))

    def choose(self, sources: Iterable[PeerKey]) -> None:
        """The directories this node follows now: they vouch for what they show, and `sources` tells of
        them. Others chosen before are forgotten."""
        gone = self._sources.choose(sources)
        if gone:
            for record in self._records.values():
                record.shown &= ~gone

    # --- telling ------------------------------------------------------------------------------

    def entries(self, now: UnixMs) -> Iterator[Entry]:
        """Live offers, in no particular order."""
        return (self._entry(record) for record in self._records.values() if lives(record, now))

    def providers(self) -> frozenset[PeerKey]:
        """Everybody of whom something is known, be it only how old an offer must not be."""
        return frozenset(record.provider for record in self._records.values())

    def get(self, provider: PeerKey, now: UnixMs) -> Entry | None:
        record = self._known(provider)
        return self._entry(record) if record is not None and lives(record, now) else None

    def signs(self) -> Iterator[tuple[PeerKey, str, UnixMs]]:
        """(provider, market, last sign of life) of every offer that was live at the last sweep."""
        return ((r.provider, r.markets[-1], UnixMs(r.seen)) for r in self._records.values() if r.live)

    def sights(self, providers: Iterable[PeerKey]) -> list[Sight]:
        """Those of their offers that were live at the last sweep."""
        records = filter(None, map(self._known, providers))
        return [Sight(r.provider, r.raw, UnixMs(r.seen), r.measured) for r in records if r.live]

    def sightings(self, now: UnixMs, providers: Iterable[PeerKey] | None = None) -> bytes:
        """As in messages.Liveness, of the live ones of those providers; None means all."""
        if providers is None:
            records: Iterable[Record] = self._records.values()
        else:
            records = filter(None, map(self._known, providers))
        return b"".join(
            _SIGHTING.pack(record.number, min(255, max(0, -((record.seen - now) // 1_000))))
            for record in records
            if lives(record, now)
        )

    def changes(self, cursor: int, markets: frozenset[str], limit: int) -> tuple[list[Entry], int]:
        """What changed after `cursor` in those markets (none: all), in the order of change, each provider
        once, and the cursor to go on from. Withdrawn offers are told of, silent ones are not."""
        found: list[Entry] = []
        for change, number in self._log.after(cursor, markets):
            record = self._records[number]
            if not (record.live or record.withdrawn) or not record.raw:
                continue
            if len(found) == limit:
                return found, cursor
            found.append(self._entry(record))
            cursor = change
        return found, self.cursor

    def clashes(self, provider: PeerKey) -> tuple[PeerKey, ...]:
        """Who else advertises one of this provider's GPUs."""
        record = self._known(provider)
        if record is None:
            return ()
        return tuple(self._records[other].provider for other in self._gpus.others(record.gpus, record.number))

    def missing(self, provider: PeerKey) -> tuple[PeerKey, ...]:
        """The chosen directories that have not shown this provider's live offer."""
        record = self._known(provider)
        return self._sources.missing(record) if record is not None and record.live else ()

    def sources(self) -> dict[PeerKey, tuple[int, int]]:
        """Of each chosen directory: how many live offers it has shown, and how many it has not."""
        return self._sources.told()

    def values(self, entry: Entry, now: UnixMs) -> Values:
        """What filters compare of an offer: its own facts and what was measured here."""
        record = self._known(entry.provider)
        measured = record.measured if record is not None else (None, None, None)
        numbers = book_facts.steps_of(entry.offer, measured)
        return book_facts.values_of(entry.provider, numbers, book_facts.names_of(entry.offer), now)

    def query(
        self, filter: Filter, sort: Sequence[SortKey], limit: int, now: UnixMs, after: int | None = None
    ) -> Page:
        """Live offers that match, in order (then by key), from `after` on."""
        self.sweep(now)
        start = after or 0
        numbers, total = self._index.search(filter, sort, start, limit, now)
        entries = tuple(self._entry(self._records[number]) for number in numbers)
        following = start + len(entries)
        values = tuple(self.values(entry, now) for entry in entries)
        return Page(entries, values, total, following if entries and following < total else None)

    def asks(self, now: UnixMs) -> list[Ask]:
        """What every live offer asks, without taking any apart."""
        self.sweep(now)
        return self._index.asks()

    def take_fresh(self) -> tuple[Fresh, ...]:
        """What was taken in since the last call, for keeping."""
        fresh, self._fresh = self._fresh, set()
        records = (record for number in fresh if (record := self._records[number]).raw)
        return tuple(Fresh(r.provider, r.sequence, r.expires_at, r.raw) for r in records)

    def sweep(self, now: UnixMs, most: int = sys.maxsize) -> bool:
        """Note who has fallen silent, and forget what has expired, of the first `most` that are due; whether
        there may be more. A sequence is remembered until no older offer could still be alive."""
        due = self._wheel.due(now, most)
        for deadline, number in due:
            record = self._records.get(number)
            if record is not None and record.due == deadline:
                record.due = 0
                self._look_at(record, now)
        if len(self._wheel) > 2 * len(self._records) + SPARE:  # of those a flood has washed out
            self._wheel = Wheel()
            for record in self._records.values():
                self._wheel.add(record.number, record.due)
        return len(due) == most

    # --- rules --------------------------------------------------------------------------------

    def _drop(self, reason: str) -> Verdict:
        self.dropped[reason] += 1
        return Verdict.IGNORE if reason in HARMLESS else Verdict.REJECT

    def _seat(self, record: Record, size: int, source: PeerKey | None) -> bool:
        """Find the places for an offer; whoever loses its own for it is forgotten."""
        for victim in self._room.seat(record, -(-size // PLACE_BYTES), source):
            self._forget(victim)
        if record.spot < 0:
            if record.number in self._records:  # was there and has grown
                self._forget(record)
            return False
        self._records[record.number] = record
        return True

    def _store(self, record: Record, offer: Offer, raw: bytes, now: UnixMs) -> None:
        record.own = record.provider == self.own
        update(record, offer, raw, now)
        markets = book_facts.markets(offer.gpu_class)
        earlier = [market for market in record.markets if market not in markets]
        record.markets = (*earlier, *markets) if earlier else markets
        self._fresh.add(record.number)
        if lives(record, now):
            self._enliven(record, offer, now)
        else:
            self._silence(record)
        self._changed(record)
        self._look_at(record, now)

    def _enliven(self, record: Record, offer: Offer, now: UnixMs) -> None:
        """The offer counts from now on, or is another one than before."""
        if record.gpus:
            self._gpus.remove(record.gpus, record.number)
        record.gpus = tuple({number_of(gpu.digest) for gpu in offer.capacity.gpus})
        self._gpus.add(record.gpus, record.number)
        numbers, names = book_facts.steps_of(offer, record.measured), book_facts.names_of(offer)
        self._index.put(record.number, record.provider, numbers, names)
        self.stir.note(record.provider)
        if not record.live:
            record.live, record.since = True, now
            self._sources.count(record, +1)

    def _silence(self, record: Record) -> None:
        """The offer does not count any more."""
        if record.live:
            record.live = False
            self.stir.note(record.provider)
            self._sources.count(record, -1)
            self._index.remove(record.number)
            self._gpus.remove(record.gpus, record.number)
            record.gpus = ()

    def _look_at(self, record: Record, now: UnixMs) -> None:
        """Let time have its way with a record, and note when to look again."""
        if record.raw and record.expires_at <= now:
            record.raw = b""
        if record.live and not lives(record, now):
            self._silence(record)
        if not record.raw and record.forget_at <= now:
            self._forget(record)
            return
        self._room.settle(record, now)
        deadline = next_look(record)
        if not record.due or deadline < record.due:
            record.due = deadline
            self._wheel.add(record.number, deadline)

    def _showed(self, record: Record, source: PeerKey | None) -> None:
        bit = self._sources.bit(source)
        if bit and not record.shown & bit:
            self._sources.shows(record, bit)
            self._room.vouch(record, source)

    def _forget(self, record: Record) -> None:
        self._silence(record)
        if record.spot >= 0:
            self._room.leave(record)
        self._fresh.discard(record.number)
        del self._records[record.number]

    def _changed(self, record: Record) -> None:
        record.change = self._log.next()
        self._log.add(record.change, record.number, record.markets)

    def _change_of(self, number: int) -> int:
        record = self._records.get(number)
        return record.change if record is not None else 0

    def _known(self, provider: PeerKey) -> Record | None:
        record = self._records.get(number_of(provider))
        return record if record is not None and record.provider == provider else None

    def _tell(self) -> None:
        for tell in self.on_change:
            tell()

    @staticmethod
    def _entry(record: Record) -> Entry:
        return Entry(record.provider, record.raw)
