"""The vocabulary of the lease machine: what happens to a lease and what it wants done.

Events come in (`Receive...` from the peer, `Action...` from a person, `Chain...`/`Run...` as results,
`Clock...`/`TickPassed` as time); effects go out (`Send...`, `Chain...`, `Run...`).
All of them are plain data with a number, so that the journal can keep and replay them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.codec import Table
from protocol.lease_life import ActionPause as ActionPause
from protocol.lease_life import ActionRestart as ActionRestart
from protocol.lease_life import ActionResume as ActionResume
from protocol.lease_life import ReceiveGo as ReceiveGo
from protocol.lease_life import ReceivePause as ReceivePause
from protocol.lease_life import ReceivePrepared as ReceivePrepared
from protocol.lease_life import ReceiveRestart as ReceiveRestart
from protocol.lease_life import ReceiveResume as ReceiveResume
from protocol.lease_life import RunCollect as RunCollect
from protocol.lease_life import RunCollected as RunCollected
from protocol.lease_life import RunDiscard as RunDiscard
from protocol.lease_life import RunDiscarded as RunDiscarded
from protocol.lease_life import RunExited as RunExited
from protocol.lease_life import RunFailed as RunFailed
from protocol.lease_life import RunFetch as RunFetch
from protocol.lease_life import RunFetched as RunFetched
from protocol.lease_life import RunGo as RunGo
from protocol.lease_life import RunIdle as RunIdle
from protocol.lease_life import RunPause as RunPause
from protocol.lease_life import RunProve as RunProve
from protocol.lease_life import RunProved as RunProved
from protocol.lease_life import RunPull as RunPull
from protocol.lease_life import RunPulled as RunPulled
from protocol.lease_life import RunReady as RunReady
from protocol.lease_life import RunRestart as RunRestart
from protocol.lease_life import RunRestarted as RunRestarted
from protocol.lease_life import RunResume as RunResume
from protocol.lease_life import RunSeen as RunSeen
from protocol.lease_life import RunStart as RunStart
from protocol.lease_life import RunStarted as RunStarted
from protocol.lease_life import RunStop as RunStop
from protocol.lease_life import SendGo as SendGo
from protocol.lease_life import SendPause as SendPause
from protocol.lease_life import SendPrepared as SendPrepared
from protocol.lease_life import SendRestart as SendRestart
from protocol.lease_life import SendResume as SendResume
from protocol.lease_more import ActionExtend as ActionExtend
from protocol.lease_more import ChainToppedUp as ChainToppedUp
from protocol.lease_more import ChainTopUp as ChainTopUp
from protocol.lease_more import ChainTopUpFailed as ChainTopUpFailed
from protocol.lease_more import ReceiveExtended as ReceiveExtended
from protocol.lease_more import SendExtended as SendExtended
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
    """The job order and its input files are with the provider, checked and on disk.

    What the order says of the job's beginning and end is the provider's to know.
    """

    now: UnixMs
    restart: str = "never"
    restarts: int = 0
    awaits_ready: bool = False
    """Its order has a command that tells when it is ready."""


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
    | ReceivePrepared
    | RunProved
    | ReceiveGo
    | RunReady
    | ActionPause
    | ActionResume
    | ActionRestart
    | ReceivePause
    | ReceiveResume
    | ReceiveRestart
    | RunIdle
    | RunRestarted
    | RunDiscarded
    | RunSeen
    | ActionExtend
    | ChainToppedUp
    | ChainTopUpFailed
    | ReceiveExtended
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
    | SendPrepared
    | RunProve
    | SendGo
    | RunGo
    | SendPause
    | SendResume
    | SendRestart
    | RunRestart
    | ChainTopUp
    | SendExtended
)

EVENTS: Final = Table("event", dict(enumerate(Event.__args__, start=1)))
EFFECTS: Final = Table("effect", dict(enumerate(Effect.__args__, start=1)))

REPLACEABLE: Final = frozenset(
    {SendMeter, SendVoucher, ChainVerify, ChainRedeem}
    | {SendPause, SendResume, SendRestart, RunPause, RunResume, RunRestart, SendExtended}
)
"""Effects of which only the latest matters: a newer one replaces an older that is still waiting.
However often a peer repeats itself, one of each is all that waits."""


LANES: Final = {SendInputs: "upload", RunGo: "go", RunProve: "prove", ChainTopUp: "top-up"}
"""Effects that take long have a lane of their own: nothing short shall wait behind an upload, a proof, a job
that gets ready or money on its way, least of all the news that somebody wants to stop."""


def lane_of(effect: Effect) -> str:
    """Effects of one lane are done one after the other; lanes do not wait for each other."""
    if lane := LANES.get(type(effect)):
        return lane
    name = type(effect).__name__
    return next(lane for lane in ("Send", "Chain", "Run") if name.startswith(lane)).lower()
