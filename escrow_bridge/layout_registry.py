"""The contract's registry of providers, receipts, ratings, disputes and purchases as bytes.

Beside escrow_bridge/layout.py, which has the channels, and held to the same golden files. Little-endian.
`network` is always GetInfo's word; the contract refuses another.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from escrow_bridge.qubic import SIGNATURE_BYTES, k12
from protocol.units import EscrowId, Qu, QubicId, Tick

RECEIPT_TAG: Final = b"QubixRct"
MIN_STAKE: Final = Qu(1_000_000)
DISPUTE_BOND: Final = Qu(100_000)
MIN_TICKET: Final = Qu(10_000)
"""What a lease must have paid to be rated or disputed, and the least price of an item."""
SLASH_BOND: Final = Qu(200)
"""To attach to Slash, for its two signatures; comes back unless one is wrong."""
ARBITERS: Final = 3

_REGISTER: Final = struct.Struct("<32s32sQ")
_EXIT: Final = struct.Struct("<Q")
_RATE: Final = struct.Struct("<32s32sI4x")
_RECEIPT: Final = struct.Struct("<8sQ32s32sII")
_SLASH: Final = struct.Struct("<32s32s32s32sIIII64s64s")
_OPEN_DISPUTE: Final = struct.Struct("<32s32s32s")
_DECIDE: Final = struct.Struct("<32sI4x")
_ROTATE: Final = struct.Struct("<32sQI4x")
_BUY: Final = struct.Struct("<32s32sQ")
_TICKET_KEY: Final = struct.Struct("<Q32s32s32s")
_PROVIDER: Final = struct.Struct("<II32s32sqqQIIIIII")
_TICKET: Final = struct.Struct("<IIqIHH")
_DISPUTE: Final = struct.Struct("<II32s32s32sqI4x4I")


class TicketKind(enum.IntEnum):
    LEASE = 1
    PURCHASE = 2


class Verdict(enum.IntEnum):
    FOR_CALLER = 1
    FOR_PROVIDER = 2


def register_input(peer_key: bytes, metadata: bytes, network: int) -> bytes:
    """Register and Update: {peerKey 32, metadata 32, network u64}; the amount is (added to) the stake."""
    return _REGISTER.pack(_sized(peer_key), _sized(metadata), network)


def exit_input(network: int) -> bytes:
    """Exit: {network u64}."""
    return _EXIT.pack(network)


def rate_input(escrow: EscrowId, provider: QubicId, stars: int) -> bytes:
    """Rate: {escrow 32, provider 32, stars u32 (1 to 5), 4 unused}."""
    return _RATE.pack(_sized(escrow), _sized(provider), stars)


@dataclass(frozen=True)
class Receipt:
    """A provider's word, given after a lease of a whole GPU: it was taken from one tick until another."""

    gpu: bytes
    """Digest of the GPU, 32 bytes."""
    escrow: EscrowId
    from_tick: Tick
    until_tick: Tick
    """First tick in which the GPU was free again; never in the future."""

    def digest(self, network: int) -> bytes:
        """What the provider signs: K12 of {tag 8, network u64, gpu 32, escrow 32, fromTick u32, untilTick
        u32}, 88 bytes."""
        ids = (_sized(self.gpu), _sized(self.escrow))
        return k12(_RECEIPT.pack(RECEIPT_TAG, network, *ids, self.from_tick, self.until_tick))


def slash_input(
    provider: QubicId, first: Receipt, first_signature: bytes, second: Receipt, second_signature: bytes
) -> bytes:
    """Slash: {provider 32, gpu 32, two escrows 32, two x {fromTick u32, untilTick u32}, two signatures 64},
    272 bytes; the amount is SLASH_BOND. Raises ValueError if the receipts are of different GPUs."""
    if first.gpu != second.gpu:
        raise ValueError("two receipts contradict each other only if they are of one GPU")
    return _SLASH.pack(
        _sized(provider),
        _sized(first.gpu),
        _sized(first.escrow),
        _sized(second.escrow),
        first.from_tick,
        first.until_tick,
        second.from_tick,
        second.until_tick,
        _sized(first_signature, SIGNATURE_BYTES),
        _sized(second_signature, SIGNATURE_BYTES),
    )


def open_dispute_input(escrow: EscrowId, provider: QubicId, evidence: bytes) -> bytes:
    """OpenDispute: {escrow 32, provider 32, evidence 32}; the amount is DISPUTE_BOND."""
    return _OPEN_DISPUTE.pack(_sized(escrow), _sized(provider), _sized(evidence))


def decide_input(escrow: EscrowId, verdict: Verdict) -> bytes:
    """Decide: {escrow 32, verdict u32, 4 unused}."""
    return _DECIDE.pack(_sized(escrow), verdict)


def rotate_input(candidate: QubicId, network: int, slot: int) -> bytes:
    """Rotate: {candidate 32, network u64, slot u32 (0 to 2), 4 unused}."""
    return _ROTATE.pack(_sized(candidate), network, slot)


def buy_input(seller: QubicId, item: bytes, network: int) -> bytes:
    """Buy: {seller 32, item 32, network u64}; the amount is the price."""
    return _BUY.pack(_sized(seller), _sized(item), network)


def ticket_input(kind: TicketKind, subject: bytes, holder: QubicId, provider: QubicId) -> bytes:
    """GetTicket: {kind u64, subject 32 (escrow or item), holder 32 (caller or buyer), provider 32 (or
    seller)}, 104 bytes."""
    return _TICKET_KEY.pack(kind, _sized(subject), _sized(holder), _sized(provider))


@dataclass(frozen=True)
class ProviderView:
    """A registered provider. Amounts in QU."""

    peer_key: bytes
    metadata: bytes
    stake: Qu
    volume: Qu
    """Gross, of its ended leases that paid MIN_TICKET."""
    stars: int
    """Sum of all ratings."""
    ratings: int
    completed: int
    disputed: int
    failed: int
    """Disputes lost."""
    since_tick: Tick
    exit_epoch: int
    """0: stays; else the stake comes back at the end of this epoch."""


def decode_provider(output: bytes) -> ProviderView | None:
    """GetProvider: {exists u32, tick u32, the fields above}, 120 bytes. None: there is none, or it is not
    that."""
    if len(output) != _PROVIDER.size:
        return None
    exists, _, *fields = _PROVIDER.unpack(output)
    return ProviderView(*fields) if exists else None


def provider_tick(output: bytes) -> Tick | None:
    """The tick in which GetProvider was answered; None if it is not that."""
    return Tick(_PROVIDER.unpack(output)[1]) if len(output) == _PROVIDER.size else None


@dataclass(frozen=True)
class TicketView:
    """The right to rate and dispute a lease, or the proof of a purchase."""

    amount: Qu
    """What the lease paid, gross, or the price."""
    epoch: int
    """It expires at the end of the next one."""
    rated: bool
    disputed: bool


def decode_ticket(output: bytes) -> TicketView | None:
    """GetTicket: {exists u32, tick u32, amount i64, epoch u32, rated u16, disputed u16}, 24 bytes."""
    if len(output) != _TICKET.size:
        return None
    exists, _, amount, epoch, rated, disputed = _TICKET.unpack(output)
    return TicketView(Qu(amount), epoch, bool(rated), bool(disputed)) if exists else None


@dataclass(frozen=True)
class DisputeView:
    caller: QubicId
    provider: QubicId
    evidence: bytes
    bond: Qu
    until_tick: Tick
    """First tick in which nobody can decide it any more."""
    verdicts: tuple[int, ...]
    """Of each arbiter; 0: none yet."""


def decode_dispute(output: bytes) -> DisputeView | None:
    """GetDispute: {exists u32, tick u32, caller 32, provider 32, evidence 32, bond i64, untilTick u32, 4
    unused, verdicts 4 x u32}, 136 bytes."""
    if len(output) != _DISPUTE.size:
        return None
    exists, _, caller, provider, evidence, bond, until, *verdicts = _DISPUTE.unpack(output)
    ids = (QubicId(caller), QubicId(provider))
    return DisputeView(*ids, evidence, Qu(bond), Tick(until), tuple(verdicts[:ARBITERS])) if exists else None


def _sized(value: bytes, size: int = 32) -> bytes:
    if len(value) != size:
        raise ValueError(f"{size} bytes are needed here, not {len(value)}")
    return value
