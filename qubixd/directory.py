"""Being a directory: taking heartbeats, telling who lives, saying that one may be used.

`/qubix/heartbeat/1`: a provider sends its offer (an envelope), then a bare Heartbeat every 30 s or its
offer again when that has changed, on one stream for as long as it lives; the directory answers once, Ack
or Refusal. What a directory tells by gossip is only what it heard itself, so nobody's word comes back to
him as news.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import trio

import ledger.settings
from ledger.store import Store
from protocol import messages, signing
from protocol.errors import MessageInvalid
from protocol.messages import MAX_OFFER_BYTES, Ack, Directory, Heartbeat, Liveness, Refusal
from protocol.signing import NodeKey
from protocol.units import PeerKey, UnixMs
from qubixd.book import ALIVE_MS, OfferBook
from qubixd.liveness import LIVENESS_TOPIC
from qubixd.places import Buckets, Places
from qubixd.register import Register
from qubixd.sync import pack_sightings
from qubixd.talk import REQUEST_TIMEOUT_S, patience
from qubixd.wire import Stream, Verdict, Wire, receive_frame, send_frame

log = logging.getLogger("qubix.directory")

PROTOCOL: Final = "/qubix/heartbeat/1"
RECORDS_TOPIC: Final = "/qubix/directories/1"
PLACES: Final = 500
"""Providers that one directory takes; each costs it a connection."""
MAX_BEAT_BYTES: Final = 64
"""A Heartbeat; an offer is always longer."""
SILENCE_SECONDS: Final = 75.0
REPORT_SECONDS: Final = (28.0, 30.0)
BEATS: Final = (0.2, 20)
"""Frames a second in the long run, and at once: what one provider may send."""
RECORD_LIFE_MS: Final = 1_800_000
RENEW_SHARE: Final = (0.3, 0.4)
"""Of its life, after which a directory's record is renewed: whoever misses one hears the next in time."""

MakeRecord = Callable[[int, UnixMs, UnixMs, int], Directory]
"""(sequence, issued at, expires at, free places) -> this node's record."""


class DirectoryService:
    def __init__(
        self,
        wire: Wire,
        key: NodeKey,
        book: OfferBook,
        register: Register,
        now_ms: Callable[[], UnixMs],
        make_record: MakeRecord,
        store: Store,
        places: int = PLACES,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.places = Places(places, each=2)  # two, because a provider may come back before we miss it
        self._wire, self._key, self._book, self._register = wire, key, book, register
        self._now_ms, self._make_record, self._store = now_ms, make_record, store
        self._beats = Buckets(*BEATS)
        self._heard: dict[PeerKey, UnixMs] = {}
        self._record: Directory | None = None
        self.raw = b""
        """This directory's own record, signed."""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._wire.serve(PROTOCOL, self._serve)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report)
            nursery.start_soon(self._announce)
            task_status.started()

    # Heartbeats

    @property
    def heard(self) -> int:
        """Providers heard from since the report before the last."""
        return len(self._heard)

    async def _serve(self, stream: Stream, peer: PeerKey) -> None:
        with patience(REQUEST_TIMEOUT_S):
            offer = await receive_frame(stream, MAX_OFFER_BYTES)
        with self.places.hold(peer, self._wire.remote_ip(peer)) as placed:
            if not placed:
                self.counters["heartbeat.no_place"] += 1
                refusal = Refusal("directory.full", "this directory has no place left; use another")
                await send_frame(stream, messages.encode(refusal))
                return
            self._take(offer or b"", peer)
            await send_frame(stream, messages.encode(Ack()))
            while True:
                with patience(SILENCE_SECONDS):
                    frame = await receive_frame(stream, MAX_OFFER_BYTES)
                if frame is None:
                    return
                self._take(frame, peer)

    def _take(self, frame: bytes, peer: PeerKey) -> None:
        """One heartbeat or offer of a provider's. MessageInvalid ends its stream."""
        now = self._now_ms()
        if not self._beats.take(peer):
            self._refuse("heartbeat.too_often", "a provider sends more heartbeats than it may")
        if len(frame) > MAX_BEAT_BYTES:
            if signing.signer_of(frame) != peer:
                self._refuse("heartbeat.not_its_own", "a provider may bring its own offer only")
            if self._book.consider(frame, now) is Verdict.REJECT:
                self._refuse("heartbeat.bad_offer", "a provider brought an offer that is wrong")
        else:
            beat = messages.decode(frame, MAX_BEAT_BYTES)
            if not isinstance(beat, Heartbeat):
                self._refuse("heartbeat.malformed", "only offers and heartbeats are taken here")
            entry = self._book.get(peer, now)  # None if it is withdrawn, or was silent for too long
            if entry is not None and entry.offer.sequence != beat.sequence:
                self._refuse("heartbeat.unknown_offer", "a heartbeat must be of the newest offer")
        self._heard[peer] = now
        for body in pack_sightings([(peer, now)], now):
            self._book.heard(body, now)

    def _refuse(self, reason: str, sentence: str) -> None:
        self.counters[reason] += 1
        raise MessageInvalid(sentence)

    # Telling others

    async def _report(self) -> None:
        while True:
            await trio.sleep(random.uniform(*REPORT_SECONDS))
            now = self._now_ms()
            self._heard = {peer: at for peer, at in self._heard.items() if now - at < ALIVE_MS}
            for number, body in enumerate(pack_sightings(self._heard.items(), now)):
                report = Liveness(UnixMs(now + number), body)  # each later than the one before
                await self._wire.publish(LIVENESS_TOPIC, self._key.sign(report))

    async def _announce(self) -> None:
        while True:
            now = self._now_ms()
            record = self._make_record(
                await self._next(now), now, UnixMs(now + RECORD_LIFE_MS), self.places.free
            )
            await self._publish(record)
            await trio.sleep(random.uniform(*RENEW_SHARE) * RECORD_LIFE_MS / 1_000)

    async def _next(self, now: UnixMs) -> int:
        return await ledger.settings.next_number(self._store, "directory", at_least=now)

    async def _publish(self, record: Directory) -> None:
        self._record, self.raw = record, self._key.sign(record)
        await self._wire.publish(RECORDS_TOPIC, self.raw)

    async def goodbye(self) -> None:
        """Tell the others that this directory ends."""
        if self._record is not None:
            now = self._now_ms()
            ended = replace(self._record, sequence=await self._next(now), issued_at=now, withdrawn=True)
            await self._publish(ended)
