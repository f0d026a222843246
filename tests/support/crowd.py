"""Providers by the thousand for tests of the book: offers with made-up signatures, taken as if checked."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from protocol import messages, signing
from protocol.messages import Gpu, Offer
from protocol.signing import Signed
from protocol.units import PeerKey, UnixMs
from qubixd.book import OfferBook
from qubixd.wire import Verdict
from tests.support.deals import CAPACITY, NOW, offer


def peer(name: str) -> PeerKey:
    return PeerKey(hashlib.sha256(name.encode()).digest())


def offer_of(name: str, now: int = NOW, sequence: int = 1, **fields: object) -> Offer:
    """An offer with a card of its own."""
    card = Gpu("NVIDIA GeForce RTX 4090", 24_564, hashlib.sha256(b"card of " + name.encode()).digest())
    made = replace(offer(sequence, now), name=name, capacity=replace(CAPACITY, gpus=(card,)))
    return replace(made, **fields)  # type: ignore[arg-type]  # fields come from tests


def take(
    book: OfferBook,
    name: str,
    now: int = NOW,
    source: PeerKey | None = None,
    sequence: int = 1,
    **fields: object,
) -> Verdict:
    made = offer_of(name, now, sequence, **fields)
    envelope = signing._pack(
        peer(name), messages.encode(made), bytes(64)
    )  # checking 10,000 would take a second
    return book.take(Signed(peer(name), made, envelope), UnixMs(now), source)


def sighting(name: str, age_seconds: int = 0) -> bytes:
    return peer(name)[:8] + bytes([age_seconds])
