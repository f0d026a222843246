"""The vocabulary of the lease machine: its state, what happens to it and what it wants done.

Events come in (`Receive...` from the peer, `Action...` from a person, `Chain...`/`Run...` as results,
`ClockPassed`/`TickPassed` as time); effects go out (`Send...`, `Chain...Order`, `Run...`).
All of them are plain data with a number, so that the journal can keep and replay them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from protocol.codec import Table
from protocol.messages import Terms
from protocol.units import EscrowId, LeaseId, Qu, Seconds, Tick, UnixMs


class Role(enum.StrEnum):
    CALLER = "caller"
    PROVIDER = "provider"


class Phase(enum.StrEnum):
    QUOTED = "quoted"
    FUNDING = "funding"
    PROVISIONING = "provisioning"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    SETTLING = "settling"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({Phase.DONE, Phase.FAILED, Phase.CANCELLED})
ACTIVE: Final = frozenset(Phase) - TERMINAL
BEFORE_RUNNING: Final = frozenset({Phase.QUOTED, Phase.FUNDING, Phase.PROVISIONING})
LIVE: Final = frozenset({Phase.RUNNING, Phase.PAUSED})
FUNDED: Final = frozenset({Phase.PROVISIONING, Phase.RUNNING, Phase.PAUSED, Phase.STOPPING, Phase.SETTLING})


@dataclass(frozen=True)
class Lease:
    """One side's whole knowledge of one lease. Instants are this side's own clock."""

    lease_id: LeaseId
    role: Role
    terms: Terms
    phase: Phase
    opened_at: UnixMs
    timer_at: UnixMs
    """When the present phase has taken too long; 0 = no limit."""
    peer_addresses: tuple[str, ...] = ()
    """Where the other side said it can be dialled."""
    name: str = ""
    output_dir: str = ""
    """Caller only: where the person wants the output files."""
    outcome: Phase = Phase.DONE
    """The terminal phase this lease is heading for."""
    reason: str = ""
    """Stable code of why it went that way; never empty in a terminal phase."""
    sentence: str = ""
    escrow_id: EscrowId = EscrowId(b"")
    open_tick: Tick = Tick(0)
    deadline_tick: Tick = Tick(0)
    has_inputs: bool = False
    has_image: bool = False
    closing: bool = False
    """The contract has (or is about to have) a caller's request to close."""
    funded_at: UnixMs = UnixMs(0)
    started_at: UnixMs = UnixMs(0)
    paused_at: UnixMs = UnixMs(0)
    paused_ms: int = 0
    told_at: UnixMs = UnixMs(0)
    """Provider only: when the meter was last told again during a pause."""
    stop_asked_at: UnixMs = UnixMs(0)
    """Caller only: when it told the provider to stop; 0 = it has not."""
    seconds: Seconds = Seconds(0)
    """Metered (provider); of what the provider metered, as much as our own watch has seen too (caller)."""
    promised: Qu = Qu(0)
    """Highest cumulative amount the caller has signed for (caller) or we hold a voucher for (provider)."""
    signature: bytes = b""
    """Provider only: of that highest voucher."""
    redeemed_at: UnixMs = UnixMs(0)
    """Provider only: when a voucher was last given to the chain before the end."""
    vouchers: int = 0
    exited: bool = False
    exit_code: int = -1
    collected: bool = False
    """Provider only: outputs and log are packed, or never will be."""
    outputs_sha256: bytes = bytes(32)
    outputs_bytes: int = 0
    settled: bool = False
    """The escrow has left the contract; `paid` and `refunded` are final."""
    paid: Qu = Qu(0)
    refunded: Qu = Qu(0)
    ended_at: UnixMs = UnixMs(0)


# --- events -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClockPassed:
    now: UnixMs


@dataclass(frozen=True)
class ClockResumed:
    """This node was down or asleep until now: everybody's patience starts afresh."""

    now: UnixMs


@dataclass(frozen=True)
class TickPassed:
    tick: Tick
    now: UnixMs


@dataclass(frozen=True)
class ReceiveAccepted:
    """The provider has written our acceptance down."""

    now: UnixMs


@dataclass(frozen=True)
class ReceiveRefused:
    """The peer said no to what we sent, for good."""

    code: str
    sentence: str
    now: UnixMs


@dataclass(frozen=True)
class ReceiveInputs:
    """The job order and its input files are here, checked and on disk."""

    now: UnixMs


@dataclass(frozen=True)
class ReceiveFunded:
    escrow_id: EscrowId
    open_tick: Tick
    now: UnixMs


@dataclass(frozen=True)
class ReceiveRunning:
    age_ms: int
    now: UnixMs


@dataclass(frozen=True)
class ReceiveMeter:
    seconds: Seconds
    now: UnixMs


@dataclass(frozen=True)
class ReceiveVoucher:
    """A voucher whose signature has been verified."""

    cumulative: Qu
    signature: bytes
    now: UnixMs


@dataclass(frozen=True)
class ReceiveStop:
    reason: str
    now: UnixMs


@dataclass(frozen=True)
class ReceiveExited:
    exit_code: int
    reason: str
    sentence: str
    seconds: Seconds
    outputs_sha256: bytes
    outputs_bytes: int
    now: UnixMs


@dataclass(frozen=True)
class ActionStop:
    """A person on this side ends the lease."""

    now: UnixMs


@dataclass(frozen=True)
class ChainOpened:
    """The escrow is in the contract and is what the terms say."""

    escrow_id: EscrowId
    open_tick: Tick
    deadline_tick: Tick
    now: UnixMs


@dataclass(frozen=True)
class ChainOpenFailed:
    """No escrow for this lease is or will be open."""

    code: str
    sentence: str
    now: UnixMs


@dataclass(frozen=True)
class ChainClosing:
    """The caller has asked the contract to close; the challenge window is open."""

    now: UnixMs


@dataclass(frozen=True)
class ChainClosed:
    """The escrow has left the contract: gross `paid` went to the provider side, the rest back."""

    paid: Qu
    refunded: Qu
    now: UnixMs


@dataclass(frozen=True)
class RunPulled:
    now: UnixMs


@dataclass(frozen=True)
class RunStarted:
    started_at: UnixMs
    now: UnixMs


@dataclass(frozen=True)
class RunFailed:
    """The job could not be made to run here."""

    code: str
    sentence: str
    now: UnixMs


@dataclass(frozen=True)
class RunExited:
    """The engine says how the job ended. `finished_at` is the engine's own time."""

    exit_code: int
    reason: str
    started_at: UnixMs
    finished_at: UnixMs
    now: UnixMs


@dataclass(frozen=True)
class RunCollected:
    """Outputs and log are packed and kept for the caller."""

    outputs_sha256: bytes
    outputs_bytes: int
    now: UnixMs


@dataclass(frozen=True)
class RunFetched:
    """Caller: outputs are here and unpacked, or cannot be had (`code` non-empty)."""

    code: str
    sentence: str
    now: UnixMs


# --- effects ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SendAccept:
    signed_terms: bytes
    """The provider's envelope, byte for byte."""


@dataclass(frozen=True)
class SendInputs:
    pass


@dataclass(frozen=True)
class SendFunded:
    escrow_id: EscrowId
    open_tick: Tick


@dataclass(frozen=True)
class SendRunning:
    started_at: UnixMs


@dataclass(frozen=True)
class SendMeter:
    seconds: Seconds


@dataclass(frozen=True)
class SendVoucher:
    escrow_id: EscrowId
    cumulative: Qu


@dataclass(frozen=True)
class SendStop:
    reason: str


@dataclass(frozen=True)
class SendExited:
    exit_code: int
    reason: str
    sentence: str
    seconds: Seconds
    outputs_sha256: bytes
    outputs_bytes: int


@dataclass(frozen=True)
class ChainOpen:
    pass


@dataclass(frozen=True)
class ChainVerify:
    """Look the escrow up and hold it against the terms."""

    escrow_id: EscrowId
    open_tick: Tick


@dataclass(frozen=True)
class ChainClose:
    """Provider: redeem the last voucher and refund the rest, at once."""

    escrow_id: EscrowId
    cumulative: Qu
    signature: bytes


@dataclass(frozen=True)
class ChainRedeem:
    """Provider: cash a voucher while the job goes on, so that an absence costs little."""

    escrow_id: EscrowId
    cumulative: Qu
    signature: bytes


@dataclass(frozen=True)
class ChainRequestClose:
    """Caller: open the challenge window."""

    escrow_id: EscrowId


@dataclass(frozen=True)
class RunPull:
    pass


@dataclass(frozen=True)
class RunStart:
    pass


@dataclass(frozen=True)
class RunPause:
    pass


@dataclass(frozen=True)
class RunResume:
    pass


@dataclass(frozen=True)
class RunStop:
    pass


@dataclass(frozen=True)
class RunCollect:
    """Pack outputs and log, then forget the container."""


@dataclass(frozen=True)
class RunDiscard:
    """Remove whatever of the job is here; nothing of it is owed to anyone."""


@dataclass(frozen=True)
class RunFetch:
    """Caller: fetch outputs and log from the provider."""

    outputs_sha256: bytes
    outputs_bytes: int


Event = (
    ClockPassed
    | ClockResumed
    | TickPassed
    | ReceiveAccepted
    | ReceiveRefused
    | ReceiveInputs
    | ReceiveFunded
    | ReceiveRunning
    | ReceiveMeter
    | ReceiveVoucher
    | ReceiveStop
    | ReceiveExited
    | ActionStop
    | ChainOpened
    | ChainOpenFailed
    | ChainClosing
    | ChainClosed
    | RunPulled
    | RunStarted
    | RunFailed
    | RunExited
    | RunCollected
    | RunFetched
)
Effect = (
    SendAccept
    | SendInputs
    | SendFunded
    | SendRunning
    | SendMeter
    | SendVoucher
    | SendStop
    | SendExited
    | ChainOpen
    | ChainVerify
    | ChainClose
    | ChainRequestClose
    | RunPull
    | RunStart
    | RunPause
    | RunResume
    | RunStop
    | RunCollect
    | RunDiscard
    | RunFetch
    | ChainRedeem
)

EVENTS: Final = Table("event", dict(enumerate(Event.__args__, start=1)))
EFFECTS: Final = Table("effect", dict(enumerate(Effect.__args__, start=1)))
STATES: Final = Table("lease", {1: Lease})

REPLACEABLE: Final = frozenset({SendMeter, SendVoucher, ChainVerify, ChainRedeem})
"""Effects of which only the latest matters: a newer one replaces an older that is still waiting.
However often a peer repeats itself, one of each is all that waits."""


def lane_of(effect: Effect) -> str:
    """Effects of one lane are done one after the other; lanes do not wait for each other.

    Inputs have a lane of their own: nothing short shall wait behind a long upload, least of all the
    news that the escrow is open or that the caller wants to stop.
    """
    if isinstance(effect, SendInputs):
        return "upload"
    name = type(effect).__name__
    return next(lane for lane in ("Send", "Chain", "Run") if name.startswith(lane)).lower()
