"""The local control API: what a front end says to its own daemon over the control socket.

Frames are a u32 big-endian length and one msgpack map. A front end sends
`{"id": n, "verb": name, "args": {...}}`; the daemon answers any number of `{"id": n, "event": {...}}`
and then one of `{"id": n, "ok": {...}}` or `{"id": n, "error": {"code", "message", "exit_code"}}`.
Requests of one connection are served at the same time; closing the connection cancels them.
`connect` turns its connection into a tunnel (control_tunnels).
Bodies are the dataclasses below as maps. Bytes appear as lower-case hex except log data (raw).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgpack
import msgspec
from msgspec import Meta

from protocol import (
    control_access,
    control_doctor,
    control_market,
    control_meters,
    control_provider,
    control_relay,
    control_tunnels,
    control_wallet,
)
from protocol.codec import convert, unpack
from protocol.control_market import Text
from protocol.errors import MessageInvalid

MAX_FRAME_BYTES: Final = 8 * 1024 * 1024
FRAME_HEADER_BYTES: Final = 4
API_VERSION: Final = 1

# --- arguments of each verb -------------------------------------------------------------------


@dataclass(frozen=True)
class StatusArgs:
    pass


@dataclass(frozen=True)
class RunArgs:
    """Take a lease and run a job. Events come at every change of the lease; `ok` is like the last one.

    `job_yaml` is the job file's text, `base_dir` the absolute folder its paths start from.
    With `detach` the answer comes as soon as the lease exists here.
    """

    job_yaml: str
    base_dir: str
    output_dir: str
    secrets: dict[str, str] = field(default_factory=dict)
    """Those that a template needs and that are not here are made by the daemon (jobspec.Job.makes)."""
    max_price_qu_per_hour: Annotated[int, Meta(ge=0)] | None = None
    provider: str = ""
    """A peer id, the end of one, or the beginning of a name; empty = the best that fits."""
    detach: bool = False
    ask: bool = False
    """Sign nothing before a `confirm` has said yes to the quote in the event `quoted`."""
    where: Text = ""
    """Conditions on the provider in the filter language, beside the job file's own."""
    order_by: Text = ""
    """Sort keys, instead of the job file's."""


@dataclass(frozen=True)
class ConfirmArgs:
    """Yes or no to the quote that a `run` with `ask` waits with."""

    token: str
    accept: bool


@dataclass(frozen=True)
class PsArgs:
    all: bool = False
    """Ended leases too."""


@dataclass(frozen=True)
class LogsArgs:
    """Events are LogChunk."""

    lease: str
    """A lease id or an unambiguous prefix of one."""
    follow: bool = False


@dataclass(frozen=True)
class StopArgs:
    lease: str


@dataclass(frozen=True)
class PauseArgs:
    """Freeze a job. The machine stays reserved and the meter runs on."""

    lease: str


@dataclass(frozen=True)
class ResumeArgs:
    lease: str


@dataclass(frozen=True)
class RestartArgs:
    """End a job and begin it anew in its workspace. The meter runs on."""

    lease: str


@dataclass(frozen=True)
class WaitArgs:
    """Follow a lease to its end: events and answer as for `run`."""

    lease: str


@dataclass(frozen=True)
class ShutdownArgs:
    """End the daemon in order. Running jobs go on."""


VERBS: Final[dict[str, type]] = {
    "status": StatusArgs,
    "offer": control_market.OfferArgs,
    "doctor": control_doctor.DoctorArgs,
    "provider": control_provider.ProviderArgs,
    "market": control_market.MarketArgs,
    "why": control_market.WhyArgs,
    "score": control_market.ScoreArgs,
    "deny": control_market.DenyArgs,
    "stake": control_market.StakeArgs,
    "directories": control_market.DirectoriesArgs,
    "run": RunArgs,
    "confirm": ConfirmArgs,
    "ps": PsArgs,
    "logs": LogsArgs,
    "metrics": control_meters.MetricsArgs,
    "access": control_access.AccessArgs,
    "connect": control_tunnels.ConnectArgs,
    "tunnel": control_tunnels.TunnelArgs,
    "forward": control_tunnels.ForwardArgs,
    "stop": StopArgs,
    "pause": PauseArgs,
    "resume": ResumeArgs,
    "restart": RestartArgs,
    "wait": WaitArgs,
    "relay": control_relay.RelayArgs,
    "rent_relay": control_relay.RentRelayArgs,
    "wallet": control_wallet.WalletArgs,
    "send": control_wallet.SendArgs,
    "history": control_wallet.HistoryArgs,
    "shutdown": ShutdownArgs,
}

# --- answers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DifferenceView:
    """Something that chain and ledger do not agree on and that no event can repair."""

    lease_id: str
    code: str
    sentence: str
    drift_qu: int


@dataclass(frozen=True)
class StatusView:
    api_version: int
    peer_id: str
    addresses: list[str]
    peers: int
    provider: bool
    runner: str
    network: str
    contract_index: int
    tick: int
    identity: str
    offers: int
    data_dir: str
    counters: dict[str, int]
    """Gossip and stream totals, and offers dropped by reason (`offer.forged`, `offer.stale`, ...);
    `reconcile.*`: differences between chain and ledger, with `reconcile.drift_qu` for those that stand."""
    differences: list[DifferenceView] = field(default_factory=list)


@dataclass(frozen=True)
class LeaseView:
    lease_id: str
    role: str
    phase: str
    reason: str
    sentence: str
    name: str
    peer_id: str
    """The other side."""
    runner: str
    image: str
    gpu: str
    price_qu_per_hour: int
    interval_seconds: int
    max_loss_qu: int
    """The most this side can lose if the other vanishes at the worst moment."""
    deposit: int
    promised: int
    paid: int
    provider_received: int
    fee: int
    refunded: int
    vouchers: int
    seconds: int
    exit_code: int | None
    outputs_sha256: str
    output_dir: str
    escrow_id: str
    opened_at_ms: int
    ended_at_ms: int
    settled: bool
    differences: list[str] = field(default_factory=list)
    """Codes of what the chain says otherwise, see docs/money.md."""
    frozen: bool = False
    """Its caller has paused it; the meter runs on."""
    restarts: int = 0
    """As its provider: how often it was begun anew because it had ended."""
    detail: str = ""
    """What happens now, in words; empty when it has ended."""
    path: control_tunnels.PathView | None = None
    """How tunnels with the other side travel now; None where there are none."""


@dataclass(frozen=True)
class PsView:
    leases: list[LeaseView]


@dataclass(frozen=True)
class WayView:
    """The way to a provider, measured before it is paid; for jobs with ports of the kind game."""

    kind: str
    """A PathKind."""
    rtt_ms: float
    """The median of several pings."""
    jitter_ms: float
    """How much they differ: between the fastest and all but the slowest tenth."""
    sentence: str
    """What that means for playing."""


@dataclass(frozen=True)
class QuoteView:
    """A provider's signed terms before this side signs them."""

    token: str
    """For `confirm`."""
    provider: str
    price_qu_per_hour: int
    """All in: machine and disk. The fee is contained; the job's files travel for nothing."""
    max_seconds: int
    interval_seconds: int
    deposit: int
    """All that it can cost: the price for the whole rented time. What is not used comes back."""
    max_loss_qu: int
    max_loss_intervals: float
    machine_qu_per_hour: int = 0
    disk_qu_per_hour: int = 0
    fee_qu_per_hour: int = 0
    """Contained in machine and disk: what the contract keeps of the price."""
    way: WayView | None = None


@dataclass(frozen=True)
class RunEvent:
    """`phase` in words a person understands; `lease` is None while providers are being asked."""

    phase: str
    detail: str
    lease: LeaseView | None
    quote: QuoteView | None = None
    """What is about to be signed; comes once, before there is a lease."""
    waiting: str = ""
    """Why it takes unusually long, in a sentence, while it is the chain that is waited for."""


@dataclass(frozen=True)
class LogChunk:
    data: bytes


@dataclass(frozen=True)
class Done:
    """Answer of verbs that have nothing to tell."""


ANSWERS: Final[dict[str, type]] = {
    "status": StatusView,
    "doctor": control_doctor.DoctorView,
    "offer": control_market.OfferAnswer,
    "provider": control_provider.ProviderView,
    "market": control_market.MarketView,
    "why": control_market.WhyView,
    "score": control_market.ScoreView,
    "deny": control_market.DenyView,
    "stake": control_market.StakeView,
    "directories": control_market.DirectoriesView,
    "run": RunEvent,
    "confirm": Done,
    "ps": PsView,
    "logs": Done,
    "metrics": control_meters.MetricsView,
    "access": control_access.AccessView,
    "connect": control_tunnels.ConnectView,
    "tunnel": control_tunnels.TunnelEnd,
    "forward": control_tunnels.ForwardEnd,
    "stop": RunEvent,
    "pause": RunEvent,
    "resume": RunEvent,
    "restart": RunEvent,
    "wait": RunEvent,
    "relay": control_relay.RelaysView,
    "rent_relay": RunEvent,
    "wallet": control_wallet.WalletView,
    "send": control_wallet.PaymentView,
    "history": control_wallet.HistoryView,
    "shutdown": Done,
}
EVENTS: Final[dict[str, type]] = {
    "run": RunEvent,
    "logs": LogChunk,
    "metrics": control_meters.SampleView,
    "tunnel": control_tunnels.PathView,
    "forward": control_tunnels.ForwardEvent,
    "wait": RunEvent,
    "rent_relay": RunEvent,
    "send": control_wallet.WaitingEvent,
    "stake": control_wallet.WaitingEvent,
}
"""What a verb answers with, and what the events before the answer are."""


# --- frames -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    id: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    verb: Annotated[str, Meta(max_length=32)]
    args: dict[str, Any]


def to_body(value: object) -> dict[str, Any]:
    """A dataclass of this module as a map ready for a frame (or, without bytes, for JSON)."""
    body: dict[str, Any] = msgspec.to_builtins(value, builtin_types=(bytes,))
    return body


def pack(frame: dict[str, Any]) -> bytes:
    """One frame with its length in front."""
    packed: bytes = msgpack.packb(frame)
    return len(packed).to_bytes(FRAME_HEADER_BYTES, "big") + packed


def read_request(data: bytes) -> tuple[Request, Any]:
    """A checked request and its typed arguments. MessageInvalid otherwise."""
    request = read_head(data)
    return request, read_args(request)


def read_head(data: bytes) -> Request:
    """A request whose verb and arguments are still to be checked. MessageInvalid otherwise."""
    request: Request = convert(unpack(data, "control request"), Request, "control request")
    return request


def read_args(request: Request) -> Any:
    """The typed arguments of a request. MessageInvalid otherwise."""
    kind = VERBS.get(request.verb)
    if kind is None:
        raise MessageInvalid(f"the daemon knows no verb {request.verb!r}; known: {', '.join(VERBS)}")
    return convert(request.args, kind, f"arguments of {request.verb}")


def read_answer(data: bytes) -> dict[str, Any]:
    """One answer frame as a map; its shape is the daemon's word."""
    frame = unpack(data, "control answer")
    if not (isinstance(frame, dict) and isinstance(frame.get("id"), int)):
        raise MessageInvalid("the daemon's answer is not a map with an id")
    return frame
