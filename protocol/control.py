"""The local control API: what a front end says to its own daemon over the control socket.

Frames are a u32 big-endian length and one msgpack map. A front end sends
`{"id": n, "verb": name, "args": {...}}`; the daemon answers any number of `{"id": n, "event": {...}}`
and then one of `{"id": n, "ok": {...}}` or `{"id": n, "error": {"code", "message", "exit_code"}}`.
Requests of one connection are served at the same time; `leave` cancels one, closing the connection all.
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
    control_again,
    control_compare,
    control_doctor,
    control_extend,
    control_market,
    control_meters,
    control_mirror,
    control_network,
    control_prices,
    control_provider,
    control_relay,
    control_schedule,
    control_tunnels,
    control_wallet,
    control_watch,
)
from protocol.codec import convert, unpack
from protocol.control_leases import ConfirmArgs as ConfirmArgs
from protocol.control_leases import LeaseView as LeaseView
from protocol.control_leases import LogChunk as LogChunk
from protocol.control_leases import LogsArgs as LogsArgs
from protocol.control_leases import PauseArgs as PauseArgs
from protocol.control_leases import PsArgs as PsArgs
from protocol.control_leases import PsView as PsView
from protocol.control_leases import QuoteView as QuoteView
from protocol.control_leases import RestartArgs as RestartArgs
from protocol.control_leases import ResumeArgs as ResumeArgs
from protocol.control_leases import RunArgs as RunArgs
from protocol.control_leases import RunEvent as RunEvent
from protocol.control_leases import StopArgs as StopArgs
from protocol.control_leases import WaitArgs as WaitArgs
from protocol.control_leases import WayView as WayView
from protocol.errors import MessageInvalid

MAX_FRAME_BYTES: Final = 8 * 1024 * 1024
FRAME_HEADER_BYTES: Final = 4
API_VERSION: Final = 1

# --- arguments of each verb -------------------------------------------------------------------


@dataclass(frozen=True)
class HelloArgs:
    """What a front end asks before all else, so that it knows whether they understand each other."""

    api_version: Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class LeaveArgs:
    """Nobody waits for the answer to that request of this connection any more: serve it no longer. If it
    has not ended yet, it gets no answer."""

    request: Annotated[int, Meta(ge=0, le=2**32 - 1)]


@dataclass(frozen=True)
class StatusArgs:
    pass


@dataclass(frozen=True)
class ShutdownArgs:
    """End the daemon in order. Running jobs go on."""


VERBS: Final[dict[str, type]] = {
    "hello": HelloArgs,
    "leave": LeaveArgs,
    "status": StatusArgs,
    "offer": control_market.OfferArgs,
    "doctor": control_doctor.DoctorArgs,
    "provider": control_provider.ProviderArgs,
    "preview": control_schedule.PreviewArgs,
    "network": control_network.NetworkArgs,
    "market": control_market.MarketArgs,
    "prices": control_prices.PricesArgs,
    "mirror": control_mirror.MirrorArgs,
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
    "compare": control_compare.CompareArgs,
    "job_file": control_again.JobFileArgs,
    "connect": control_tunnels.ConnectArgs,
    "tunnel": control_tunnels.TunnelArgs,
    "forward": control_tunnels.ForwardArgs,
    "stop": StopArgs,
    "pause": PauseArgs,
    "resume": ResumeArgs,
    "restart": RestartArgs,
    "extend": control_extend.ExtendArgs,
    "wait": WaitArgs,
    "watch": control_watch.WatchArgs,
    "notices": control_watch.NoticesArgs,
    "relay": control_relay.RelayArgs,
    "rent_relay": control_relay.RentRelayArgs,
    "wallet": control_wallet.WalletArgs,
    "send": control_wallet.SendArgs,
    "history": control_wallet.HistoryArgs,
    "shutdown": ShutdownArgs,
}

# --- answers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class HelloView:
    api_version: int
    """Verbs and fields are added without another number; what is removed or means something else brings
    the next."""
    version: str
    """Of the daemon."""
    verbs: list[str]
    """That it knows, for front ends that are newer or older."""


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
class Done:
    """Answer of verbs that have nothing to tell."""


ANSWERS: Final[dict[str, type]] = {
    "hello": HelloView,
    "leave": Done,
    "status": StatusView,
    "doctor": control_doctor.DoctorView,
    "offer": control_market.OfferAnswer,
    "provider": control_provider.ProviderView,
    "preview": control_schedule.PreviewView,
    "network": control_network.NetworkView,
    "market": control_market.MarketView,
    "prices": control_prices.PricesView,
    "mirror": control_mirror.MirrorView,
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
    "notices": control_watch.NoticesView,
    "compare": control_compare.CompareView,
    "job_file": control_again.JobFileView,
    "connect": control_tunnels.ConnectView,
    "tunnel": control_tunnels.TunnelEnd,
    "forward": control_tunnels.ForwardEnd,
    "stop": RunEvent,
    "pause": RunEvent,
    "resume": RunEvent,
    "restart": RunEvent,
    "extend": control_extend.ExtendView,
    "wait": RunEvent,
    "watch": Done,
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
    "watch": control_watch.WatchEvent,
    "rent_relay": RunEvent,
    "extend": control_wallet.WaitingEvent,
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
