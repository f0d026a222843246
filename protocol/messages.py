"""What nodes say to each other: one frozen dataclass a message, one table of kinds.

Sizes and ranges are part of the types; `decode` refuses whatever does not fit them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from msgspec import Meta

from protocol.codec import Table
from protocol.units import MAX_QU, EscrowId, LeaseId, PeerKey, Qu, QubicId, Seconds, Tick, UnixMs

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Id = Annotated[QubicId, Meta(min_length=32, max_length=32)]
Peer = Annotated[PeerKey, Meta(min_length=32, max_length=32)]
Lease32 = Annotated[LeaseId, Meta(min_length=32, max_length=32)]
Escrow32 = Annotated[EscrowId, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Money = Annotated[Qu, Meta(ge=0, le=MAX_QU)]
Count32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Ticks = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TickNumber = Annotated[Tick, Meta(ge=0, le=2**32 - 1)]
Size = Annotated[int, Meta(ge=0, le=2**53)]
Instant = Annotated[UnixMs, Meta(ge=0, le=2**53)]
Duration = Annotated[Seconds, Meta(ge=0, le=366 * 86_400)]
Tag8 = Annotated[bytes, Meta(min_length=8, max_length=8)]
Word = Annotated[str, Meta(max_length=64)]
Address = Annotated[str, Meta(max_length=256)]
Sentence = Annotated[str, Meta(max_length=512)]

MAX_OFFER_BYTES: Final = 4_096
MAX_RECEIPT_BYTES: Final = 8_192
MAX_SIGHTINGS: Final = 400
"""Of one Liveness, so that it fits into a gossip message."""
SIGHTING_BYTES: Final = 9
MAX_MESSAGE_BYTES: Final = 65_536
MAX_ORDER_BYTES: Final = 262_144
"""A job order may carry a long script and many variables."""
MAX_SEALED_BYTES: Final = MAX_MESSAGE_BYTES + 48
"""Of secrets: a NaCl sealed box is 48 bytes longer than what is in it."""
MAX_PROGRAM_BYTES: Final = 8 << 20
"""Of the program by which a caller proves a machine."""


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


@dataclass(frozen=True)
class JobOrder:
    """What to run. Its SHA-256 is in the terms."""

    name: Word
    image: Address
    script: Annotated[str, Meta(max_length=65_536)]
    envs: Annotated[dict[Word, Annotated[str, Meta(max_length=32_768)]], Meta(max_length=256)]
    secrets_sha256: Bytes32
    """Of the encoded secrets, which travel beside the order and are kept apart from it."""
    outputs: Annotated[tuple[Address, ...], Meta(max_length=64)]
    inputs_sha256: Bytes32
    inputs_bytes: Size
    ready: Annotated[str, Meta(max_length=4_096)] = ""
    """A shell command that succeeds inside as soon as the job is ready; empty: it is when it has begun."""
    restart: Word = "never"
    """What becomes of a job that ends by itself: "never", "on_failure" or "always" begun again."""
    restarts: Annotated[int, Meta(ge=0, le=1_000)] = 0
    """How many times at most."""


@dataclass(frozen=True)
class PutInputs:
    """Precedes `inputs_bytes` raw bytes (a tar archive) on a file stream."""

    lease_id: Lease32
    order: Annotated[bytes, Meta(max_length=MAX_ORDER_BYTES)]
    secrets: Annotated[bytes, Meta(max_length=MAX_SEALED_BYTES)]
    """Sealed for the provider's node key; their digest in the order is that of the opened ones."""


@dataclass(frozen=True)
class GetOutputs:
    """Asks for the output archive from byte `offset` on; raw bytes follow an Ack."""

    lease_id: Lease32
    offset: Size


@dataclass(frozen=True)
class GetLogs:
    """Asks for the job's output from byte `offset` on; raw bytes follow an Ack."""

    lease_id: Lease32
    offset: Size
    follow: bool


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


@dataclass(frozen=True)
class Prepared:
    """The job's container is there and waits: the caller may prove the machine and say Go."""

    lease_id: Lease32


@dataclass(frozen=True)
class Go:
    """The machine is what was rented; the job shall begin."""

    lease_id: Lease32


@dataclass(frozen=True)
class Pause:
    """Freeze the job. The machine stays reserved and the meter runs on."""

    lease_id: Lease32
    sequence: Count32
    """Rises with every Pause and Resume of a lease; one that comes late is passed over."""


@dataclass(frozen=True)
class Resume:
    lease_id: Lease32
    sequence: Count32


@dataclass(frozen=True)
class Restart:
    """End the job and begin it anew in its workspace; the meter runs on. Asked again with the same nonce
    it happens once."""

    lease_id: Lease32
    nonce: Tag8


@dataclass(frozen=True)
class GetMeters:
    """Asks for a running job's Samples that are newer than `since`; with `follow`, for the later ones too."""

    lease_id: Lease32
    since: Instant
    follow: bool


@dataclass(frozen=True)
class GpuUse:
    """One card at one instant; None where the card does not tell."""

    digest: Bytes32
    use_permille: Annotated[int, Meta(ge=0, le=1_000)] | None
    memory_mib: Count32
    temperature_c: Annotated[int, Meta(ge=-300, le=1_000)] | None
    power_mw: Count32 | None


@dataclass(frozen=True)
class Sample:
    """What a job used at one instant of the provider's clock. Traffic counts from the job's start."""

    at: Instant
    cpu_millis: Count32
    """Thousandths of a core, over the last second or so."""
    memory_mib: Count32
    disk_mib: Count32
    received_bytes: Size
    sent_bytes: Size
    gpus: Annotated[tuple[GpuUse, ...], Meta(max_length=16)]


@dataclass(frozen=True)
class OpenProof:
    """Precedes a program that shall run in the job's container; after an Ack its input and output follow."""

    lease_id: Lease32
    program_sha256: Bytes32
    program_bytes: Annotated[int, Meta(ge=1, le=MAX_PROGRAM_BYTES)]


@dataclass(frozen=True)
class Progress:
    """How far the provider has come with a phase of the job. Told when it can be, never told again."""

    lease_id: Lease32
    phase: Word
    permille: Annotated[int, Meta(ge=0, le=1_000)]
    sentence: Sentence


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
    },
)


def encode(message: object) -> bytes:
    """Bytes of any message of the table."""
    return MESSAGES.encode(message)


def decode(data: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> Any:
    """The checked message in `data`. MessageInvalid or MessageTooLarge otherwise."""
    return MESSAGES.decode(data, max_bytes)
