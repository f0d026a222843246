"""The book's door: `/qubix/book/1`, where others read what this node knows (the other half of sync.py).

Readers get what has changed since their cursor and, if they follow, every later change within
FLUSH_SECONDS, and the newest signs of life every PULSE_SECONDS. Nothing is queued for a reader: it is
served from the book at its own pace, and one that stops reading loses its stream.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import trio

from protocol import messages
from protocol.errors import MessageInvalid, StreamBroken
from protocol.messages import MAX_SIGHTINGS, SIGHTING_BYTES, GetOffers, OfferBatch, Refusal
from protocol.units import PeerKey, UnixMs
from qubixd.book import OfferBook
from qubixd.places import Buckets, Places
from qubixd.sync import MAX_REQUEST, PROTOCOL, SNAPSHOT_LIMIT, pack_all, pack_sightings
from qubixd.talk import REQUEST_TIMEOUT_S, patience
from qubixd.wire import Stream, Wire, receive_frame, send_frame

FLUSH_SECONDS: Final = 0.2
PULSE_SECONDS: Final = 5.0
PULSE_MS: Final = 5_000
"""A sign of life is told again when it is so much newer than the last that was told."""
PULSES_KEPT: Final = 3
SLOW_SECONDS: Final = 20.0
"""For so long one batch may wait for its reader."""
SAY_SECONDS: Final = 20.0
"""A follower hears something so often, if only that nothing is new."""
READERS: Final = 8
READERS_OF_A_DIRECTORY: Final = 100
STREAMS_PER_PEER: Final = 2
QUESTIONS: Final = (1 / 10, 12)
"""A second, and at once: what one peer may ask."""
ENTRIES_PER_LOOK: Final = 150
SIGNS_MS: Final = 2_000
"""So long all who begin to read get the same signs of life, which are told as so much older."""
PACK_BYTES: Final = MAX_SIGHTINGS * SIGHTING_BYTES

Signs = list[tuple[PeerKey, str, UnixMs]]
"""(provider, its market, when it last lived)."""


@dataclass(frozen=True)
class _Signs:
    """Signs of life, packed once for all readers: there may be 100,000 of them, and anybody may ask."""

    at: UnixMs
    packed: dict[str, bytes]
    """Of each market."""
    number: int = 0
    """Of a pulse."""

    @classmethod
    def of_all(cls, signs: Signs, at: UnixMs, more_seconds: int, number: int = 0) -> Self:
        found: dict[str, list[tuple[PeerKey, UnixMs]]] = {}
        for peer, market, seen in signs:
            found.setdefault(market, []).append((peer, seen))
        packs = {one: b"".join(pack_sightings(these, at, more_seconds)) for one, these in found.items()}
        return cls(at, packs, number)

    def of(self, markets: frozenset[str]) -> list[bytes]:
        body = b"".join(self.packed.get(one, b"") for one in markets or self.packed)
        return [body[start : start + PACK_BYTES] for start in range(0, len(body), PACK_BYTES)]


class Library:
    """Serves a book. `run` does the pulses; without it only snapshots are served."""

    def __init__(
        self,
        wire: Wire,
        book: OfferBook,
        now_ms: Callable[[], UnixMs],
        readers: int = READERS,
        informed: Callable[[], bool] = lambda: True,
    ) -> None:
        """`informed`: whether this node hears of the market at present."""
        self._informed = informed
        self.counters: Counter[str] = Counter()
        self.places = Places(readers, STREAMS_PER_PEER)
        self._wire, self.book, self._now_ms = wire, book, now_ms
        self._questions = Buckets(*QUESTIONS)
        self._changed, self._flushed = trio.Event(), trio.Event()
        self._pulses: deque[_Signs] = deque(maxlen=PULSES_KEPT)
        self._told: dict[PeerKey, UnixMs] = {}
        self._newest = _Signs(UnixMs(-SIGNS_MS), {})
        self._following = 0
        book.on_change.append(self._note_change)
        wire.serve(PROTOCOL, self._serve)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush)
            nursery.start_soon(self._pulse)
            task_status.started()

    async def _flush(self) -> None:
        while True:
            await self._changed.wait()
            await trio.sleep(FLUSH_SECONDS)
            self._changed = trio.Event()
            self._wake()

    def _note_change(self) -> None:
        self._changed.set()

    def _wake(self) -> None:
        flushed, self._flushed = self._flushed, trio.Event()
        flushed.set()

    async def _pulse(self) -> None:
        number = 0
        while True:
            await trio.sleep(PULSE_SECONDS)
            if not self._following:
                self._told.clear()
                continue
            number += 1
            signs = list(self.book.signs())
            fresh = [sign for sign in signs if sign[2] - self._told.get(sign[0], 0) >= PULSE_MS]
            self._told = {provider: self._told.get(provider, at) for provider, _, at in signs}
            self._told.update((provider, at) for provider, _, at in fresh)
            self._pulses.append(_Signs.of_all(fresh, self._now_ms(), 1, number))
            if fresh:
                self._wake()

    async def _serve(self, stream: Stream, peer: PeerKey) -> None:
        with patience(REQUEST_TIMEOUT_S):
            frame = await receive_frame(stream, MAX_REQUEST)
        request = messages.decode(frame or b"", MAX_REQUEST)
        if not isinstance(request, GetOffers):
            self.counters["book.bad_request"] += 1
            raise MessageInvalid("only GetOffers is answered here")
        with self.places.hold(peer, self._wire.remote_ip(peer)) as placed:
            if placed and self._questions.take(peer):
                await (self._tell_of if request.providers else self._answer)(stream, request)
            else:
                await self._refuse(stream, "book.full" if not placed else "book.too_often")

    async def _refuse(self, stream: Stream, reason: str) -> None:
        self.counters[reason] += 1
        refusal = Refusal(reason, "this node has too many readers; ask another")
        with patience(SLOW_SECONDS):
            await send_frame(stream, messages.encode(refusal))

    async def _answer(self, stream: Stream, request: GetOffers) -> None:
        reading = _Reading(self, stream, frozenset(request.markets), self._begin(request), request.limit)
        self._following += request.follow
        try:
            await reading.catch_up(self._all_signs(reading.markets))
            if request.follow:
                await self._follow(reading)
        finally:
            self._following -= request.follow

    async def _tell_of(self, stream: Stream, request: GetOffers) -> None:
        now = self._now_ms()
        entries = [entry for one in request.providers if (entry := self.book.get(one, now))]
        offers = pack_all([entry.raw for entry in entries])
        for body in offers or [b""]:
            await self.send(stream, OfferBatch(self.book.id, 0, self._informed(), body, b""))

    def _begin(self, request: GetOffers) -> int:
        if request.book == self.book.id and request.cursor <= self.book.cursor:
            return request.cursor
        if request.cursor:
            self.counters["book.strange_cursor"] += 1
        return 0

    def _all_signs(self, markets: frozenset[str]) -> list[bytes]:
        now = self._now_ms()
        if not 0 <= now - self._newest.at < SIGNS_MS:
            more = 1 + SIGNS_MS // 1_000
            self._newest = _Signs.of_all(list(self.book.signs()), now, more)
        return self._newest.of(markets)

    async def _follow(self, reading: _Reading) -> None:
        reading.pulse = self._pulses[-1].number if self._pulses else 0
        flushed = self._flushed
        while True:
            with trio.move_on_after(SAY_SECONDS):
                await flushed.wait()
            flushed = self._flushed  # before looking: what comes while this is sent must wake us again
            now = self._now_ms()
            new = [p for p in self._pulses if p.number > reading.pulse and now - p.at < 2 * PULSE_MS]
            sightings = [body for pulse in new for body in pulse.of(reading.markets)]
            reading.pulse, reading.left = self._pulses[-1].number if self._pulses else 0, SNAPSHOT_LIMIT
            await reading.catch_up(sightings)

    async def send(self, stream: Stream, batch: OfferBatch) -> None:
        try:
            with patience(SLOW_SECONDS):
                await send_frame(stream, messages.encode(batch))
        except StreamBroken:
            self.counters["book.slow_reader"] += 1
            raise


@dataclass
class _Reading:
    """One reader: how far it is, and what it still may get."""

    library: Library
    stream: Stream
    markets: frozenset[str]
    cursor: int
    left: int
    pulse: int = 0

    async def catch_up(self, sightings: list[bytes]) -> None:
        """Send all changes up to now, then these sightings; the last batch says that it is complete."""
        while True:
            most = min(ENTRIES_PER_LOOK, self.left)
            entries, cursor = self.library.book.changes(self.cursor, self.markets, most)
            self.left -= len(entries)
            done = len(entries) < most or not self.left
            packs = pack_all([entry.raw for entry in entries])
            # A reader that is cut between two packs of one look asks for the whole look again.
            for body in packs[:-1]:
                await self._send(body, b"", complete=False)
            self.cursor = cursor
            last = packs[-1] if packs else b""
            if not done:
                await self._send(last, b"", complete=False)
                continue
            for sighting in sightings[:-1]:
                await self._send(last, sighting, complete=False)
                last = b""
            await self._send(last, sightings[-1] if sightings else b"", complete=True)
            return

    async def _send(self, offers: bytes, alive: bytes, *, complete: bool) -> None:
        book = self.library.book
        await self.library.send(self.stream, OfferBatch(book.id, self.cursor, complete, offers, alive))
