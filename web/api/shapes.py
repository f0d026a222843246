"""The answers of /v1 as types: what is encoded is what OpenAPI describes (web/api/openapi.py).

Times are Unix milliseconds, money QU, sizes GiB, shares 0 to 1. Texts that providers chose are given as they
wrote them: whoever shows them must escape them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct

PEER_ID = "^(12D3KooW[1-9A-HJ-NP-Za-km-z]{44}|[0-9a-fA-F]{64})$"
AT = "^[0-9A-Za-z]{0,64}-[0-9]{1,18}$"

PeerId = Annotated[str, Meta(description="The provider: its libp2p peer id, which is its Ed25519 key.")]
Text = Annotated[str, Meta(description="As the provider wrote it, unescaped; may be empty.")]
Name = Annotated[str, Meta(description="As filters compare it; empty where the provider does not say.")]
Qu = Annotated[int, Meta(ge=0, description="QU.")]
Count = Annotated[int, Meta(ge=0)]
Ms = Annotated[int, Meta(description="Unix time in milliseconds.")]
Gib = Annotated[float, Meta(description="GiB.")]
Share = Annotated[float, Meta(description="From 0 to 1.")]
Maybe = Annotated[float | None, Meta(description="From 0 to 1; null until this indexer knows.")]
At = Annotated[
    str,
    Meta(
        description="The mirror's state that this is as of; /v1/events?since= goes on from here.",
        examples=["9f2c51a07be4d813-1000042"],
    ),
]
Next = Annotated[str | None, Meta(description="Cursor of the next page (`after`); null on the last one.")]
Check = Annotated[
    str,
    Meta(
        description="How to check an offer's `signed` without trusting this indexer.",
        examples=["/verify.py"],
    ),
]


class Error(Struct, frozen=True, omit_defaults=True):
    code: Annotated[str, Meta(description="Stable; for programs.", examples=["query.invalid"])]
    message: Annotated[str, Meta(description="One sentence; for people.")]
    parameter: Annotated[str | None, Meta(description="Which parameter is wrong.")] = None
    position: Annotated[int | None, Meta(description="Where it goes wrong, in characters from 0.")] = None


class Failure(Struct, frozen=True):
    """Every answer that is not a success."""

    error: Error


class Offer(Struct, frozen=True):
    """A provider's standing offer. Everything up to `closes_ms` is what the provider signed (`market` follows
    from its `gpu`); what comes after that is this indexer's own knowledge."""

    peer_id: PeerId
    wallet: Annotated[str, Meta(description="The provider's Qubic identity.")]
    name: Text
    region: Text
    gpu: Annotated[Text, Meta(examples=["RTX_4090"])]
    gpus: Annotated[Count, Meta(description="That are free now.")]
    vram_gb: Annotated[Count, Meta(description="GiB of its largest card, as sold.")]
    price_qu_per_hour: Annotated[Qu, Meta(description="Of each GPU, or of a machine without.")]
    storage_qu_per_tib_hour: Qu
    ram_gb: Gib
    cpus: float
    disk_gb: Gib
    cuda: Annotated[float, Meta(description="The newest that its driver supports; 0 without.")]
    market: Name
    runner: Name
    runtime: Name
    arch: Name
    internet: bool
    sequence: Count
    issued_ms: Ms
    expires_ms: Annotated[Ms, Meta(description="Of an offer that has ended: when it did.")]
    closes_ms: Annotated[int | None, Meta(description="When its schedule closes; null if it does not.")]
    live: Annotated[bool, Meta(description="False: it has ended, within the last hour.")]
    most_gpus: Annotated[Count, Meta(description="It has ever offered here.")]
    first_seen_ms: Ms
    seen_ms: Ms
    score: Maybe
    reliability: Maybe
    signed: Annotated[
        bytes,
        Meta(
            description="The provider's signed envelope, in base64; empty once the offer has ended. msgpack"
            " [1, key (32), payload, signature (64)]: Ed25519 over 'qubix/1', a zero byte and the payload,"
            " which is msgpack [1, the offer]."
        ),
    ]


class Total(Struct, frozen=True):
    number: Count
    exact: Annotated[bool, Meta(description="False: there are at least so many.")]


class Offers(Struct, frozen=True):
    offers: list[Offer]
    next: Next
    total: Annotated[Total | None, Meta(description="null if it was not asked for.")]
    at: At
    check: Check


class OneOffer(Struct, frozen=True):
    offer: Offer
    at: At
    check: Check


class Gone(Struct, frozen=True):
    """This offer has ended, or does not match the stream's filter (any more)."""

    peer_id: PeerId
    live: Annotated[bool, Meta(description="It is there, but does not match.")]


class Score(Struct, frozen=True):
    score: Share
    performance: Share
    reliability: Share
    efficiency: Share
    confidence: Share
    newcomer: bool
    reasons: list[str]
    evidence: Annotated[
        Raw,
        Meta(
            description="All that it was computed from: leases, and what the contract counts.",
            extra_json_schema={"type": "object"},
        ),
    ]
    at_ms: Ms


class Day(Struct, frozen=True):
    day: Annotated[Count, Meta(description="Since 1970-01-01, UTC.")]
    hours: Annotated[int, Meta(ge=0, lt=2**24, description="Bit h is set if it was alive in hour h, UTC.")]


class Candle(Struct, frozen=True):
    """Asking prices, QU per GPU and hour, within one span."""

    start_ms: Ms
    open: Qu
    high: Qu
    low: Qu
    close: Qu
    cheapest: Qu
    offers: Count
    gpus: Count


class Provider(Struct, frozen=True):
    offer: Offer
    score: Score | None
    days: Annotated[list[Day], Meta(description="Up to 60 days, oldest first.")]
    prices: Annotated[list[Candle], Meta(description="By hour, for 14 days, oldest first.")]
    at: At
    check: Check


class Prices(Struct, frozen=True):
    subject: Annotated[str, Meta(description="The GPU as filters compare it, or the provider's key.")]
    span: Annotated[str, Meta(description="hour or day")]
    candles: Annotated[list[Candle], Meta(description="Oldest first.")]
    at: At


class Model(Struct, frozen=True):
    """One class of GPU on offer."""

    gpu: Name
    label: Text
    offers: Count
    free_gpus: Count
    gpus: Count
    cheapest_qu_per_hour: Qu
    vram_gb: Count


class Models(Struct, frozen=True):
    models: Annotated[list[Model], Meta(description="Those with the most offers first.")]


class Region(Struct, frozen=True):
    region: Name
    offers: Count
    free_gpus: Count
    cheapest_qu_per_hour: Qu


class Regions(Struct, frozen=True):
    regions: Annotated[list[Region], Meta(description="Those with the most offers first.")]


class Now(Struct, frozen=True):
    """The market at this moment, up to five seconds old."""

    offers: Count
    gpus: Count
    free_gpus: Count
    models: Count
    cheapest_qu_per_hour: Qu


class Hour(Struct, frozen=True):
    start_ms: Ms
    offers: Count
    providers: Count
    gpus: Count
    free_gpus: Count
    peers: Count
    settled_qu: Annotated[Qu, Meta(description="Of leases that ended in it, as far as the chain proves it.")]
    leases: Count


class Stats(Struct, frozen=True):
    now: Now
    hours: Annotated[list[Hour], Meta(description="Oldest first.")]


class Network(Struct, frozen=True):
    network: Annotated[str, Meta(description="The chain that these offers settle on.")]
    contract_index: Count
    node: Annotated[str, Meta(description="Peer id of the node that mirrors.")]
    peers: Count
    directories: Count
    tick: Annotated[Count, Meta(description="The newest of the chain that it knows.")]
    at: At
    updated_ms: Annotated[Ms, Meta(description="When the mirror was last complete.")]


class Settlement(Struct, frozen=True):
    """A lease that is over. Nothing of its caller is known here."""

    lease_id: str
    provider: PeerId
    gpu: Text
    paid_qu: Qu
    seconds: Count
    outcome: Annotated[str, Meta(description="completed, stopped (by the caller) or failed.")]
    proof: Annotated[
        str,
        Meta(description="ticket (the contract says so), seen (on the chain) or claimed (by the caller)."),
    ]
    open_tick: Count
    close_tick: Annotated[int | None, Meta(description="null until it is known where it was settled.")]
    transaction: Annotated[str | None, Meta(description="Hash of the transaction that settled it.")]
    ended_ms: Ms


class Settlements(Struct, frozen=True):
    settlements: Annotated[list[Settlement], Meta(description="The newest first.")]
    next: Next
    at: At


class Gpu(Struct, frozen=True):
    """One class of GPU that is known, on offer or not."""

    name: str
    title: str
    market: str
    vram_gb: float
    bandwidth_gb_s: float
    tflops: dict[str, float]
    credits_per_hour: Annotated[tuple[int, int], Meta(description="Suggested, from and to; 0.20 USD each.")]
    sources: dict[str, str]
    note: str


class Catalogue(Struct, frozen=True):
    markets: list[str]
    gpus: list[Gpu]


class UseCase(Struct, frozen=True):
    """Something to rent a machine for."""

    name: str
    title: str
    words: Annotated[list[str], Meta(description="Other names it answers to.")]
    group: str
    min_vram_gb: float
    recommended_vram_gb: float
    splits: Annotated[bool, Meta(description="Several cards may share the work.")]
    weights: Annotated[dict[str, float], Meta(description="How much of the speed hangs on what.")]
    connection: str
    why: str
    source: str


class UseCases(Struct, frozen=True):
    use_cases: list[UseCase]


class Recommended(Struct, frozen=True):
    offer: Offer
    gpus: Annotated[Count, Meta(description="Cards that one would rent there.")]
    qu_per_hour: Annotated[Qu, Meta(description="All in: these cards, or the machine, and the disk.")]
    speed: Annotated[float, Meta(description="1.0 is a machine with an RTX 4090 and enough of all else.")]
    reasons: str
    above_next: Annotated[str, Meta(description="Why it is above the next one; empty for the last.")]


class Recommendation(Struct, frozen=True):
    """Most speed for a QU first, as `qubix market --for` ranks them."""

    use_case: UseCase
    found: list[Recommended]
    total: Annotated[Count, Meta(description="Offers with room for it.")]
    check: Check
