"""What nodes say to each other: one frozen dataclass a message, one table of kinds.

Sizes and ranges are part of the types (message_fields); `decode` refuses whatever does not fit them. Here is
what makes a lease and what it is told; extension_, job_, market_, path_, relay_ and tunnel_messages have the
rest, by a name here, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from msgspec import Meta

from protocol.codec import Table
from protocol.extension_messages import MAX_EXTENSION_BYTES as MAX_EXTENSION_BYTES
from protocol.extension_messages import Extend as Extend
from protocol.extension_messages import Extended as Extended
from protocol.extension_messages import Extension as Extension
from protocol.job_messages import GetLogs as GetLogs
from protocol.job_messages import GetMeters as GetMeters
from protocol.job_messages import GetOutputs as GetOutputs
from protocol.job_messages import Go as Go
from protocol.job_messages import GpuUse as GpuUse
from protocol.job_messages import JobOrder as JobOrder
from protocol.job_messages import OpenProof as OpenProof
from protocol.job_messages import Pause as Pause
from protocol.job_messages import Prepared as Prepared
from protocol.job_messages import Progress as Progress
from protocol.job_messages import PutInputs as PutInputs
from protocol.job_messages import Restart as Restart
from protocol.job_messages import Resume as Resume
from protocol.job_messages import Sample as Sample
from protocol.market_messages import Directory as Directory
from protocol.market_messages import GetOffers as GetOffers
from protocol.market_messages import GetReceipts as GetReceipts
from protocol.market_messages import Heartbeat as Heartbeat
from protocol.market_messages import Liveness as Liveness
from protocol.market_messages import OfferBatch as OfferBatch
from protocol.market_messages import Receipt as Receipt
from protocol.market_messages import Settlement as Settlement
from protocol.message_fields import MAX_MESSAGE_BYTES as MAX_MESSAGE_BYTES
from protocol.message_fields import MAX_OFFER_BYTES as MAX_OFFER_BYTES
from protocol.message_fields import MAX_ORDER_BYTES as MAX_ORDER_BYTES
from protocol.message_fields import MAX_PROGRAM_BYTES as MAX_PROGRAM_BYTES
from protocol.message_fields import MAX_RECEIPT_BYTES as MAX_RECEIPT_BYTES
from protocol.message_fields import MAX_SEALED_BYTES as MAX_SEALED_BYTES
from protocol.message_fields import MAX_SIGHTINGS as MAX_SIGHTINGS
from protocol.message_fields import SIGHTING_BYTES as SIGHTING_BYTES
from protocol.message_fields import (
    Address,
    Bytes32,
    Count32,
    Duration,
    Escrow32,
    Id,
    Instant,
    Lease32,
    Money,
    Peer,
    Sentence,
    Signature,
    Size,
    Tag8,
    TickNumber,
    Ticks,
    Word,
)
from protocol.path_messages import DialBack as DialBack
from protocol.path_messages import PathOffer as PathOffer
from protocol.path_messages import Punch as Punch
from protocol.relay_messages import Connect as Connect
from protocol.relay_messages import Incoming as Incoming
from protocol.relay_messages import Observe as Observe
from protocol.relay_messages import Observed as Observed
from protocol.relay_messages import Reserve as Reserve
from protocol.relay_messages import Reserved as Reserved
from protocol.tunnel_messages import OpenFiles as OpenFiles
from protocol.tunnel_messages import OpenProgram as OpenProgram
from protocol.tunnel_messages import OpenTcp as OpenTcp
from protocol.tunnel_messages import OpenUdp as OpenUdp
from protocol.units import Qu, Seconds, UnixMs


@dataclass(frozen=True)
class Gpu:
    """One graphics card as offered. `digest` is SHA-256 of its UUID."""

    model: Word
    vram_mib: Count32
    digest: Bytes32


@dataclass(frozen=True)
class Capacity:
    """What a machine has to rent, or what a job wants of it."""

    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=16)]
    cpu_millis: Count32
    memory_mib: Count32
    disk_mib: Count32


@dataclass(frozen=True)
class Wish:
    """What a job needs. An empty `gpu_model` with a `gpu_count` accepts any model."""

    gpu_model: Word
    gpu_count: Annotated[int, Meta(ge=0, le=16)]
    gpu_vram_mib: Count32
    cpu_millis: Count32
    memory_mib: Count32
    disk_mib: Count32
    arch: Word = ""
    """The processor the image was made for, "amd64" or "arm64"; empty accepts any."""
    cuda: Count32 = 0
    """The least CUDA version the driver must support, as NVML counts: 12040 for 12.4; 0 for none."""
    internet: bool = False
    """Whether the job wants to reach the Internet; without it has no network."""


@dataclass(frozen=True)
class Offer:
    """A provider's standing advertisement. The highest `sequence` of a provider is its only one."""

    sequence: Size
    issued_at: Instant
    expires_at: Instant
    withdrawn: bool
    network: Word
    contract_index: Count32
    qubic_id: Id
    name: Word
    region: Word
    gpu_class: Word
    runner: Word
    price_qu_per_hour: Money
    """Of each GPU, or of the machine for a job that wants none; disk is paid beside it."""
    storage_qu_per_tib_hour: Money
    """What 1 TiB (2^20 MiB) of rented disk costs an hour."""
    capacity: Capacity
    addresses: Annotated[tuple[Address, ...], Meta(max_length=8)]
    layers: Annotated[tuple[Tag8, ...], Meta(max_length=48)]
    """What is on this machine already: the first 8 bytes of each image layer's SHA-256, and of the SHA-256
    of each image's name."""
    pull_mib_per_s: Annotated[int, Meta(ge=0, le=100_000)]
    """How fast images came here lately; 0 if that is not known."""
    arch: Word = ""
    """The machine's processor, "amd64" or "arm64"."""
    cuda: Count32 = 0
    """The newest CUDA version its driver supports, as in Wish; 0 without one."""
    internet: bool = False
    """Whether jobs here may reach the Internet."""
    closes_at: Instant = UnixMs(0)
    """When its schedule closes next: no job is taken whose rented time would end later. 0: it does not."""


@dataclass(frozen=True)
class QuoteRequest:
    """A caller asks for a price on one job. `nonce` makes each lease's terms unique."""

    nonce: Bytes32
    network: Word
    contract_index: Count32
    caller_id: Id
    wish: Wish
    image: Address
    order_sha256: Bytes32
    max_price_qu_per_hour: Money
    max_seconds: Duration
    interval_seconds: Annotated[Seconds, Meta(ge=1, le=3_600)]
    budget: Money = Qu(0)
    """The job is stopped before it costs more; 0 for no limit beside the rented time."""
    ready_seconds: Duration = Seconds(600)
    """How long the job may take from its start until it is ready."""
    idle_seconds: Duration = Seconds(0)
    """The job is stopped when it has done nothing for so long; 0 for never."""
    proof: bool = False
    """Nothing starts and nothing is paid before the caller has proved the machine (docs/proof.md)."""


@dataclass(frozen=True)
class Terms:
    """All that both sides agree on. SHA-256 of its signed bytes is the lease id."""

    nonce: Bytes32
    network: Word
    contract_index: Count32
    provider: Peer
    provider_id: Id
    caller: Peer
    caller_id: Id
    wish: Wish
    gpu_digests: Annotated[tuple[Bytes32, ...], Meta(max_length=16)]
    image: Address
    runner: Word
    order_sha256: Bytes32
    meter: Word
    """What vouchers count; "seconds" is the only meter today."""
    price_qu_per_hour: Money
    """All-in: machine and disk; the traffic of the job's files and the fee are contained."""
    max_seconds: Duration
    interval_seconds: Annotated[Seconds, Meta(ge=1, le=3_600)]
    unpaid_intervals: Annotated[int, Meta(ge=1, le=100)]
    """How many intervals may run unpaid before the provider pauses the job."""
    deposit: Money
    deadline_ticks: Ticks
    challenge_ticks: Ticks
    pull_seconds: Duration
    start_seconds: Duration
    quoted_at: Instant
    valid_until: Instant
    storage_qu_per_hour: Money = Qu(0)
    """The part of the price that is for the disk."""
    budget: Money = Qu(0)
    ready_seconds: Duration = Seconds(600)
    idle_seconds: Duration = Seconds(0)
    proof: bool = False
    """These four as the caller asked for them."""
    closes_at: Instant = UnixMs(0)
    """As in Offer: the rented time ends before that, and none is added beyond it."""


@dataclass(frozen=True)
class Refusal:
    """No, and why: a stable code and one sentence."""

    code: Word
    sentence: Sentence


@dataclass(frozen=True)
class Accept:
    """The caller takes a quote: the provider's signed terms, returned byte for byte.

    `addresses` are where the caller can be dialled; empty when it cannot.
    """

    signed_terms: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]
    addresses: Annotated[tuple[Address, ...], Meta(max_length=8)]


@dataclass(frozen=True)
class Ack:
    """Understood and written down."""


@dataclass(frozen=True)
class Funded:
    """The caller's escrow is on chain; the provider looks for itself."""

    lease_id: Lease32
    escrow_id: Escrow32
    open_tick: TickNumber


@dataclass(frozen=True)
class Running:
    """The job became ready `age_ms` before this was sent; billing began then."""

    lease_id: Lease32
    age_ms: Size


@dataclass(frozen=True)
class Meter:
    """Cumulative seconds the provider has metered so far."""

    lease_id: Lease32
    seconds: Duration


@dataclass(frozen=True)
class Voucher:
    """The caller's promise: the provider may take `cumulative` from the escrow in all."""

    lease_id: Lease32
    escrow_id: Escrow32
    cumulative: Money
    signature: Signature


@dataclass(frozen=True)
class Stop:
    """The caller ends the lease."""

    lease_id: Lease32
    reason: Word


@dataclass(frozen=True)
class Exited:
    """The job has ended (or could not start: then `reason` is an error code)."""

    lease_id: Lease32
    exit_code: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
    reason: Word
    sentence: Sentence
    seconds: Duration
    outputs_sha256: Bytes32
    outputs_bytes: Size
    """0 when there are no outputs."""


MESSAGES: Final = Table(
    "message",
    {
        1: Offer,
        2: QuoteRequest,
        3: Terms,
        4: Refusal,
        5: Accept,
        6: Ack,
        7: Funded,
        8: Running,
        9: Meter,
        10: Voucher,
        11: Stop,
        12: Exited,
        13: JobOrder,
        14: PutInputs,
        15: GetOutputs,
        16: GetLogs,
        17: GetOffers,
        18: OfferBatch,
        19: Directory,
        20: Heartbeat,
        21: Liveness,
        22: Receipt,
        23: Settlement,
        24: GetReceipts,
        25: Prepared,
        26: Go,
        27: Pause,
        28: Resume,
        29: Restart,
        30: GetMeters,
        31: Sample,
        32: OpenProof,
        33: Progress,
        34: PathOffer,
        35: DialBack,
        36: Punch,
        37: Reserve,
        38: Reserved,
        39: Connect,
        40: Incoming,
        41: Observe,
        42: Observed,
        43: OpenTcp,
        44: OpenUdp,
        45: OpenProgram,
        46: OpenFiles,
        47: Extend,
        48: Extension,
        49: Extended,
    },
)


def encode(message: object) -> bytes:
    """Bytes of any message of the table."""
    return MESSAGES.encode(message)


def decode(data: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> Any:
    """The checked message in `data`. MessageInvalid or MessageTooLarge otherwise."""
    return MESSAGES.decode(data, max_bytes)
