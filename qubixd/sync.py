"""How books are told to others: offers packed into batches, and reading somebody's book over one stream.

`/qubix/book/1`: the reader sends one GetOffers, the book's keeper OfferBatch frames, all bare: the stream
is authenticated, and every offer inside is its provider's own envelope. A batch carries the cursor to go
on from, so a reader that lost its stream misses nothing and gets little twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from protocol import messages, signing
from protocol.errors import MessageInvalid, PeerRefused, StreamBroken
from protocol.messages import MAX_SIGHTINGS, SIGHTING_BYTES, GetOffers, OfferBatch, Refusal
from protocol.units import PeerKey, UnixMs
from qubixd.book import OfferBook
from qubixd.places import Bucket
from qubixd.talk import patience
from qubixd.wire import Stream, Verdict, Wire, receive_frame, send_frame

PROTOCOL: Final = "/qubix/book/1"
MAX_PACKED: Final = 60_000
MAX_UNPACKED: Final = 1 << 20
MAX_RECORDS: Final = 1_000
"""In one batch."""
MAX_FRAME: Final = 65_536
MAX_REQUEST: Final = 8_192
SNAPSHOT_LIMIT: Final = 100_000
ANSWER_SECONDS: Final = 20.0
"""Between two batches of a snapshot."""
QUIET_SECONDS: Final = 45.0
"""Between two batches of a stream that is followed; its keeper says something every 20 s."""
FLOW_RATE: Final = 1_500.0
"""Records a second, in the long run, after the snapshot; 100,000 providers need about half of it."""
FLOW_BURST: Final = 15_000.0
BATCH_COST: Final = 10
"""A batch counts as so many records."""
MAX_WRONG: Final = 20
"""Records of one stream that no honest keeper can have in its book."""
RECORDS_PER_TURN: Final = 50
"""Signatures checked before other tasks have their turn: about 5 ms."""
_LENGTH_BYTES: Final = 2


def pack(records: Iterable[bytes]) -> bytes:
    """zlib of the records, each with a u16 big-endian length in front; b"" for none."""
    body = b"".join(len(record).to_bytes(_LENGTH_BYTES, "big") + record for record in records)
    return zlib.compress(body, 1) if body else b""


def pack_all(records: Sequence[bytes]) -> list[bytes]:
    """As many packs as it takes to keep each within the limits of a batch."""
    packed = pack(records)
    size = sum(len(record) + _LENGTH_BYTES for record in records)
    if len(packed) <= MAX_PACKED and size <= MAX_UNPACKED and len(records) <= MAX_RECORDS:
        return [packed] if packed else []
    half = len(records) // 2
    return pack_all(records[:half]) + pack_all(records[half:])


def unpack(packed: bytes) -> list[bytes]:
    """The records of a pack. MessageInvalid if it is none, or unpacks to more than a batch may hold."""
    if not packed:
        return []
    unzip = zlib.decompressobj()
    try:
        body = unzip.decompress(packed, MAX_UNPACKED + 1)
    except zlib.error as error:
        raise MessageInvalid("a batch of offers is not zlib") from error
    if len(body) > MAX_UNPACKED or not unzip.eof or unzip.unused_data:
        raise MessageInvalid(f"a batch of offers must be one zlib stream of at most {MAX_UNPACKED} bytes")
    return list(_split(body))


def _split(body: bytes) -> list[bytes]:
    records: list[bytes] = []
    start = 0
    while start < len(body):
        begin = start + _LENGTH_BYTES
        start = begin + int.from_bytes(body[start:begin], "big")
        if start > len(body) or start == begin or len(records) == MAX_RECORDS:
            raise MessageInvalid(f"a batch holds at most {MAX_RECORDS} whole offers and nothing else")
        records.append(body[begin:start])
    return records


def pack_sightings(
    signs: Iterable[tuple[PeerKey, UnixMs]], now: UnixMs, more_seconds: int = 0
) -> list[bytes]:
    """Sightings as Liveness and OfferBatch carry them, in packs of MAX_SIGHTINGS.

    Ages are rounded up, so that what is told on never makes a provider look younger; `more_seconds` is
    for those who tell on what they were told, lest two of them keep a dead provider alive by turns.
    """
    ages = ((peer, -((at - now) // 1_000) + more_seconds) for peer, at in signs)
    body = b"".join(peer[:8] + bytes([max(0, min(age, 255))]) for peer, age in ages)
    step = MAX_SIGHTINGS * SIGHTING_BYTES
    return [body[start : start + step] for start in range(0, len(body), step)]


@dataclass
class Place:
    """How far somebody's book has been read."""

    book: bytes = b""
    cursor: int = 0


@dataclass
class Reader:
    """Reads one peer's book into ours."""

    wire: Wire
    book: OfferBook
    now_ms: Callable[[], UnixMs]
    peer: PeerKey
    place: Place
    markets: tuple[str, ...] = ()
    on_complete: Callable[[], None] = lambda: None
    """Called once all that the peer knew when it was asked has been read."""
    complete: bool = False
    _wrong: int = 0

    async def read(self, addresses: Sequence[str] = (), *, follow: bool, limit: int = SNAPSHOT_LIMIT) -> None:
        """Until the end of the snapshot, which has at most `limit` offers, or for ever.

        PeerUnreachable, PeerRefused, StreamBroken if the peer cannot or will not (go on) with it;
        MessageInvalid and MessageTooLarge if it breaks the rules.
        """
        with patience(ANSWER_SECONDS):
            stream = await self.wire.open(self.peer, PROTOCOL, addresses)
        async with stream:
            await self._ask(stream, follow, limit)
            await self._take_all(stream, follow)

    async def _ask(self, stream: Stream, follow: bool, limit: int) -> None:
        question = GetOffers(self.markets, self.place.book, self.place.cursor, limit, follow)
        with patience(ANSWER_SECONDS):
            try:
                await send_frame(stream, messages.encode(question))
                await stream.send_eof()
            except trio.BrokenResourceError as error:
                raise StreamBroken("the connection broke while a book was asked for") from error

    async def _take_all(self, stream: Stream, follow: bool) -> None:
        flow = Bucket(FLOW_RATE, SNAPSHOT_LIMIT * 1.5)  # with what batches and sightings count
        while (batch := await self._next(stream)) is not None:
            records = unpack(batch.offers)
            if not flow.take(BATCH_COST + len(records) + len(batch.alive) / (10 * SIGHTING_BYTES)):
                raise MessageInvalid("a book's keeper sends more than any market has to say")
            await self._take(records)
            if len(batch.alive) % SIGHTING_BYTES:
                raise MessageInvalid(f"sightings have {SIGHTING_BYTES} bytes each")
            self.book.heard(batch.alive, self.now_ms(), self.peer)
            self.place.book, self.place.cursor = batch.book, batch.cursor
            if batch.complete:
                if not self.complete:
                    self.complete, flow = True, Bucket(FLOW_RATE, FLOW_BURST)
                    self.on_complete()
                if not follow:
                    return
        raise StreamBroken("the keeper of a book ended the stream")

    async def _next(self, stream: Stream) -> OfferBatch | None:
        with patience(QUIET_SECONDS if self.complete else ANSWER_SECONDS):
            frame = await receive_frame(stream, MAX_FRAME)
        if frame is None:
            return None
        message = messages.decode(frame, MAX_FRAME)
        if isinstance(message, Refusal):
            raise PeerRefused(message.code, message.sentence)
        if not isinstance(message, OfferBatch):
            raise MessageInvalid("a book's keeper sent something that is no batch of offers")
        return message

    async def _take(self, records: Sequence[bytes]) -> None:
        for number, record in enumerate(records):
            if number % RECORDS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            if self.book.consider(record, self.now_ms(), self.peer) is Verdict.REJECT:
                self._wrong += 1
                if self._wrong > MAX_WRONG:
                    raise MessageInvalid("a book's keeper passes on offers that are wrong, again and again")


async def sees(wire: Wire, peer: PeerKey, addresses: Sequence[str], provider: PeerKey) -> bool | None:
    """Whether a peer's book has a live offer of that provider; None if the peer cannot tell."""
    question = messages.encode(GetOffers((), b"", 0, 1, follow=False, providers=(provider,)))
    with patience(ANSWER_SECONDS):
        stream = await wire.open(peer, PROTOCOL, addresses)
        async with stream:
            await send_frame(stream, question)
            await stream.send_eof()
            frame = await receive_frame(stream, MAX_FRAME)
    answer = messages.decode(frame or b"", MAX_FRAME)
    if not isinstance(answer, OfferBatch) or not answer.complete:
        return None
    return any(signing.signer_of(record) == provider for record in unpack(answer.offers))
