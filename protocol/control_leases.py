"""The leases' part of the local control API: taking one, following it, what is known of it.

Arguments and answers of `run`, `confirm`, `ps`, `logs`, `stop`, `pause`, `resume`, `restart` and `wait`;
frames and all else are in protocol/control.py. Money is whole QU, instants are Unix milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from protocol import control_tunnels
from protocol.control_market import Text


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
    once: bool = False
    """Rent nothing if a lease here has this `output_dir` already, and follow that one: so one may ask again
    after the daemon was away in the middle."""
    sole: bool = False
    """Rent nothing while a job of this name goes on that was rented here, and follow that one: whoever asks
    at the same time gets the same lease."""
    replaces: Text = ""
    """Id of a lease with a job of this name: it is ended once another one is open, and not before, so that
    nobody is left with nothing where no machine is found. `sole` looks past it."""


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
    max_seconds: int = 0
    """The rented time as far as the deposit reaches."""
    started_at_ms: int = 0
    """When the job became ready and the meter began; 0 = not yet."""
    extending: bool = False
    """More time is agreed on, and its money is on the way."""


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
    closes_at_ms: int = 0
    """When the provider's schedule closes: the rented time ends before, and none is added beyond. 0: it does
    not close."""


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
