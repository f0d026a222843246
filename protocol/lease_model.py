"""The vocabulary of the lease machine: what happens to a lease and what it wants done.

Events come in (`Receive...` from the peer, `Action...` from a person, `Chain...`/`Run...` as results,
`Clock...`/`TickPassed` as time); effects go out (`Send...`, `Chain...`, `Run...`).
All of them are plain data with a number, so that the journal can keep and replay them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.codec import Table
from protocol.units import EscrowId, Qu, Seconds, Tick, UnixMs

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
    """The job order and its input files are with the provider, checked and on disk."""

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
