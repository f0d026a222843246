"""What pages and the API are given: rows of the mirror with names and types.

Bytes are raw, times Unix milliseconds, money QU. Numbers of an offer stand in whole steps of their field, as
in the mirror; `OfferView.value` says them in the field's unit. Texts called `label` and the like are the
providers' own: whoever shows them makes them harmless (web/safe.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from protocol.query import FIELDS, Known

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
Kind = Literal["gpu", "provider"]


@dataclass(frozen=True, slots=True)
class Status:
    """The mirror itself; all of it is as old as `updated_ms`."""

    network: str
    contract_index: int
    node: str
    """Peer id of the node that mirrors."""
    book: str
    """Random; change numbers of another book mean something else."""
    change: int
    """The newest."""
    updated_ms: int
    peers: int
    directories: int
    tick: int
    forgotten: int
    """Who knows the market as of this change or before may have missed that an offer ended."""


@dataclass(frozen=True, slots=True)
class OfferView:
    """One offer, in the order of OFFER_SQL's columns."""

    peer: bytes
    peer_id: str
    change: int
    live: int
    first_seen_ms: int
    seen_ms: int
    expires_ms: int
    closes_ms: int
    """0: its schedule does not close."""
    sequence: int
    label: str
    region_label: str
    gpu_label: str
    provider_id: bytes
    """The provider's wallet."""
    most_gpus: int
    """It has ever offered; `gpus` are those that are free."""
    gpus: int
    vram: int
    price: int
    storage: int
    ram: int
    cpus: int
    disk: int
    cuda: int
    score: int | None
    reliability: int | None
    issued: int
    """Unix second."""
    gpu: str
    gpu_model: str
    region: str
    market: str
    name: str
    runner: str
    runtime: str
    internet: str
    arch: str
    record: bytes
    """The provider's signed envelope, as it was gossiped; empty once the offer has ended."""

    def value(self, field: str, now_ms: int = 0) -> Known:
        """As `protocol.query.matches` takes it, in the field's unit; None where it is not known."""
        if field == "age":
            return now_ms // 1_000 - self.issued
        if field == "provider":
            return self.peer.hex()
        if field == "gpu":
            return tuple(name for name in (self.gpu, self.gpu_model) if name)
        found: int | str | None = getattr(self, field, None)
        if isinstance(found, int) and FIELDS[field].step != 1:
            return found / FIELDS[field].step
        return found if found != "" else None


@dataclass(frozen=True, slots=True)
class Total:
    """How many there are; not `exact`: at least so many, and nobody has counted on."""

    number: int
    exact: bool


@dataclass(frozen=True, slots=True)
class OfferPage:
    offers: tuple[OfferView, ...]
    next: str
    """The cursor to go on with; empty if these were the last."""
    total: Total | None
    """None if it was not asked for."""


@dataclass(frozen=True, slots=True)
class ScoreView:
    """Shares are 0 to 1."""

    score: float
    performance: float
    reliability: float
    efficiency: float
    confidence: float
    newcomer: bool
    reasons: tuple[str, ...]
    evidence: str
    """A JSON object: all that the score is computed from."""
    at_ms: int


@dataclass(frozen=True, slots=True)
class ProviderView:
    """`offer` is its newest, live or ended within the last hour."""

    offer: OfferView
    score: ScoreView | None
    days: tuple[tuple[int, int], ...]
    """(Unix day, bit mask of its hours in UTC in which it was alive), oldest first."""


@dataclass(frozen=True, slots=True)
class Candle:
    span_ms: int
    start_ms: int
    open: int
    high: int
    low: int
    close: int
    cheapest: int
    offers: int
    gpus: int


@dataclass(frozen=True, slots=True)
class ModelView:
    """One GPU class on offer now."""

    gpu: str
    """As filters compare it."""
    label: str
    """As one of its providers writes it."""
    offers: int
    gpus: int
    """Free ones."""
    most_gpus: int
    cheapest: int
    vram: int
    """GiB of the largest card."""


@dataclass(frozen=True, slots=True)
class RegionView:
    """Where offers are; `region` is "" where providers do not say."""

    region: str
    offers: int
    gpus: int
    cheapest: int


@dataclass(frozen=True, slots=True)
class StatView:
    """One hour of the network; `hour` counts from 1970-01-01 UTC."""

    hour: int
    offers: int
    providers: int
    gpus: int
    free_gpus: int
    peers: int
    settled_qu: int
    leases: int


@dataclass(frozen=True, slots=True)
class Live:
    """The market at this moment."""

    offers: int
    gpus: int
    """In all."""
    free_gpus: int
    models: int
    cheapest: int
    """QU an hour; 0 if there is no offer."""


@dataclass(frozen=True, slots=True)
class SettlementView:
    lease_id: bytes
    provider: bytes
    gpu: str
    paid_qu: int
    seconds: int
    outcome: str
    """completed, stopped or failed."""
    proof: str
    """ticket, seen or claimed (protocol.score.Proof)."""
    open_tick: int
    close_tick: int
    """0 until the provider has told where it was settled."""
    transaction: bytes
    """Its digest, or nothing."""
    ended_ms: int


@dataclass(frozen=True, slots=True)
class SettlementPage:
    settlements: tuple[SettlementView, ...]
    next: str


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Offers that changed after a change number, in the order in which they did; `live` = 0 have ended."""

    offers: tuple[OfferView, ...]
    newest: int
    """Go on from here."""
    complete: bool
    """There was nothing more at this moment."""
