"""What one side knows of one lease, and the phases it goes through."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from protocol.codec import Table
from protocol.extension_messages import Extension
from protocol.messages import Gpu, Terms
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
    """The provider has the job's files."""
    has_image: bool = False
    closing: bool = False
    """The contract has (or is about to have) a caller's request to close."""
    funded_at: UnixMs = UnixMs(0)
    started_at: UnixMs = UnixMs(0)
    """When the job became ready, and billing began."""
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
    signed_terms: bytes = b""
    """Caller only: the provider's envelope around the terms, which its receipt will contain."""
    container_at: UnixMs = UnixMs(0)
    """Provider only: when the job's container was started; the job waits in it until it is let go."""
    restart: str = "never"
    restarts_allowed: int = 0
    awaits_ready: bool = False
    """Provider only: these three as the order has them."""
    prepared: bool = False
    """Caller only: the container waits, and the machine is being proved."""
    proved: bool = False
    """Caller only: the machine is what was rented."""
    released: bool = False
    """Provider only: the job may begin."""
    frozen: bool = False
    """The caller has frozen the job. The meter runs on; a pause for want of vouchers is a phase."""
    asked: int = 0
    """How many times it has frozen or thawed it."""
    nonces: tuple[bytes, ...] = ()
    """Of the last restarts that were asked for."""
    restarts: int = 0
    """Provider only: how many times the job was begun anew because it had ended."""
    restart_at: UnixMs = UnixMs(0)
    """Provider only: when the job, which has ended, is begun anew; 0 = it is not to be."""
    restarting: bytes = b""
    """Provider only: the nonce of a restart that is under way."""
    restarted_at: UnixMs = UnixMs(0)
    """Provider only: when the present run of the job began; 0 = it is the first."""
    unseen: bool = False
    """Provider only: this node or the engine was away, and has not yet seen the job again."""
    cards: tuple[Gpu, ...] = ()
    """Caller only: the rented cards as the provider's offer had them when its quote was taken."""
    arch: str = ""
    """Caller only: of the machine's processor, as that offer had it."""
    held: Qu = Qu(0)
    """What the escrow was seen to hold as its deposit; 0 = it was never topped up."""
    extending: Extension | None = None
    """More time that is agreed on and not yet paid for, as far as this side knows."""
    extensions: int = 0
    """The number of the newest extension: that was begun (caller) or that counts (provider)."""
    signed_extension: bytes = b""
    """Caller only: the provider's envelope around the newest that was begun."""
    extension: bytes = b""
    """Caller only: around the newest that counts; the receipt will contain it beside the first terms."""
    orders: tuple[str, ...] = ()
    """Caller only: the ids under which a person has ordered the last ones."""
    not_extended: str = ""
    """Caller only: why nothing came of the newest, in a sentence."""


def locked(lease: Lease) -> Qu:
    """What a lease's escrow holds as its deposit, as far as this side has seen."""
    return max(lease.held, lease.terms.deposit)


STATES: Final = Table("lease", {1: Lease})
