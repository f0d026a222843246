"""What nodes say to each other about the market: books of offers, who lives, receipts of leases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from protocol.extension_messages import MAX_EXTENSION_BYTES
from protocol.message_fields import (
    MAX_OFFER_BYTES,
    MAX_SIGHTINGS,
    SIGHTING_BYTES,
    Address,
    Bytes32,
    Count32,
    Duration,
    Escrow32,
    Instant,
    Lease32,
    Money,
    Peer,
    Size,
    Tag8,
    TickNumber,
    Word,
)


@dataclass(frozen=True)
class GetOffers:
    """Asks for the offers a node knows, in the order in which they changed there.

    OfferBatch frames follow; with `follow` they go on with every later change until the stream ends.
    """

    markets: Annotated[tuple[Word, ...], Meta(max_length=64)]
    """Which markets (catalogue.market_of); none means all."""
    book: Annotated[bytes, Meta(max_length=8)]
    """The book that `cursor` belongs to; empty if this is the first time."""
    cursor: Size
    """The last change that is known already; of another book it counts as 0."""
    limit: Annotated[int, Meta(ge=1, le=100_000)]
    follow: bool
    providers: Annotated[tuple[Peer, ...], Meta(max_length=8)] = ()
    """If any are named: only what is known of these now, in one batch. It is complete if the node that
    answers reads the market itself, so that not knowing them means something."""


@dataclass(frozen=True)
class OfferBatch:
    """Some offers, the providers' own envelopes, and which of the providers live."""

    book: Tag8
    cursor: Size
    """The newest change contained; send it back to go on from here."""
    complete: bool
    """Nothing known at the moment of sending is left out."""
    offers: Annotated[bytes, Meta(max_length=60_000)]
    """zlib of the envelopes, each with a u16 big-endian length in front; at most 1 MiB unpacked."""
    alive: Annotated[bytes, Meta(max_length=MAX_SIGHTINGS * SIGHTING_BYTES)]
    """As in Liveness."""


@dataclass(frozen=True)
class Directory:
    """A node that keeps a book for others says so. The highest `sequence` of a node is its only one."""

    sequence: Size
    issued_at: Instant
    expires_at: Instant
    withdrawn: bool
    network: Word
    contract_index: Count32
    region: Word
    places: Count32
    """How many more providers it takes."""
    addresses: Annotated[tuple[Address, ...], Meta(max_length=8)]


@dataclass(frozen=True)
class Heartbeat:
    """A provider lives, and its newest offer is the one with this sequence."""

    sequence: Size


@dataclass(frozen=True)
class Liveness:
    """Which providers a directory has heard from. A hint: a directory can lie in it."""

    issued_at: Instant
    alive: Annotated[bytes, Meta(max_length=MAX_SIGHTINGS * SIGHTING_BYTES)]
    """9 bytes a provider: the first 8 of its peer key, then the age of its last heartbeat in seconds."""


@dataclass(frozen=True)
class Receipt:
    """The caller's word on a lease that is over, tied to the escrow that paid for it.

    The escrow id follows from the terms and the tick it was opened in; the voucher is the last one the
    caller signed for it.
    """

    signed_terms: Annotated[bytes, Meta(max_length=MAX_OFFER_BYTES)]
    """The provider's own envelope."""
    escrow_id: Escrow32
    open_tick: TickNumber
    outcome: Word
    """"completed", "stopped" (by the caller) or "failed" (by the provider)."""
    ready_ms: Size
    """From the deposit to the job's being ready; 0 if it never was."""
    seconds: Duration
    cumulative: Money
    voucher: Annotated[bytes, Meta(max_length=64)]
    """Empty if nothing was promised."""
    ended_at: Instant
    extension: Annotated[bytes, Meta(max_length=MAX_EXTENSION_BYTES)] = b""
    """The provider's envelope around the last Extension that was paid for; empty if there was none."""


@dataclass(frozen=True)
class Settlement:
    """The provider's word on where a lease was settled: a transaction that anyone can look up."""

    lease_id: Lease32
    tick: TickNumber
    transaction: Bytes32
    """K12 of the whole transaction."""


@dataclass(frozen=True)
class GetReceipts:
    """Asks for the receipts and settlements of providers; signed envelopes follow, then end of stream."""

    providers: Annotated[tuple[Peer, ...], Meta(min_length=1, max_length=64)]
    limit: Annotated[int, Meta(ge=1, le=1_000)]
    """For each provider: complaints and praise by halves, what the chain bears out first, then the newest."""
