"""The escrow contract's structs as bytes, exactly as contracts/Qubix.h lays them out.

Little-endian, C padding (there is none), K12 over whole structs. tests/vectors/contract_layout.json
holds the same figures as the compiled contract reports them.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from escrow_bridge.qubic import SIGNATURE_BYTES, k12
from protocol.units import EscrowId, LeaseId, Qu, QubicId, Tick

VOUCHER_TAG: Final = b"QubixVch"
NO_SIGNATURE: Final = bytes(SIGNATURE_BYTES)
SIGNATURE_BOND: Final = Qu(100)
"""To attach for each signature a call has checked; comes back unless the signature is wrong."""
MAX_OPEN_BATCH: Final = 8
MAX_REDEEM_BATCH: Final = 9
CROWD: Final = 256
"""Each time so many places are taken, the least deposit doubles; QUBIX_CROWD of the contract."""
MAX_DEPOSIT: Final = Qu(10**15)
"""Of one channel, top-ups included; QUBIX_MAX_DEPOSIT of the contract."""
MAX_DEADLINE_TICKS: Final = 8_000_000
"""From the tick of an Open or TopUp on; QUBIX_MAX_DEADLINE_TICKS of the contract."""


class Procedure(enum.IntEnum):
    """Input types of transactions to the contract."""

    OPEN = 1
    TOP_UP = 2
    REDEEM = 3
    CLOSE = 4
    REQUEST_CLOSE = 5
    FINALIZE = 6
    OPEN_MANY = 7
    REDEEM_MANY = 8
    REGISTER = 9
    UPDATE = 10
    EXIT = 11
    RATE = 12
    SLASH = 13
    OPEN_DISPUTE = 14
    DECIDE = 15
    ROTATE = 16
    BUY = 17


class Function(enum.IntEnum):
    """Input types of the contract's read functions."""

    GET_ESCROW = 1
    GET_INFO = 2
    GET_PROVIDER = 3
    GET_TICKET = 4
    GET_DISPUTE = 5
    GET_ARBITERS = 6


_ESCROW_KEY: Final = struct.Struct("<32s32s32sII")
_VOUCHER: Final = struct.Struct("<8s32sq")
_OPEN: Final = struct.Struct("<32s32sIIQI4x")
_LEASE: Final = struct.Struct("<32s32sqIII4x")
_OPEN_MANY_TAIL: Final = struct.Struct("<QI4x")
_TOP_UP: Final = struct.Struct("<32sqI4x")
_PAY: Final = struct.Struct("<32sq64s")
_REDEEM_MANY_TAIL: Final = struct.Struct("<I4x")
_CHANNEL: Final = struct.Struct("<II32s32sqqIIIII4x")
_INFO: Final = struct.Struct("<8IQ9q2Q")
ID_BYTES: Final = 32


def escrow_id(
    caller: QubicId, provider: QubicId, terms: LeaseId, contract_index: int, open_tick: Tick
) -> EscrowId:
    """K12 of {caller 32, provider 32, terms 32, contractIndex u32, openTick u32}, 104 bytes."""
    for part in (caller, provider, terms):
        _check_id(part)
    return EscrowId(k12(_ESCROW_KEY.pack(caller, provider, terms, contract_index, open_tick)))


def voucher_digest(escrow: EscrowId, cumulative: Qu) -> bytes:
    """What the caller signs: K12 of {tag 8, escrow 32, cumulative i64}, 48 bytes."""
    return k12(_VOUCHER.pack(VOUCHER_TAG, _check_id(escrow), cumulative))


def open_input(
    provider: QubicId,
    terms: LeaseId,
    deadline_tick: Tick,
    challenge_ticks: int,
    network: int,
    burn_basis_points: int = 0,
) -> bytes:
    """Open: {provider 32, terms 32, deadlineTick u32, challengeTicks u32, network u64, burnBasisPoints u32,
    4 unused}; the amount is the deposit. `network` is GetInfo's: the contract refuses another."""
    head = (_check_id(provider), _check_id(terms), deadline_tick, challenge_ticks)
    return _OPEN.pack(*head, network, burn_basis_points)


@dataclass(frozen=True)
class LeaseOrder:
    """One lease of OpenMany."""

    provider: QubicId
    terms: LeaseId
    deposit: Qu
    deadline_tick: Tick
    challenge_ticks: int
    burn_basis_points: int = 0
    """Of the provider's part; burned instead of paid."""


def open_many_input(leases: Sequence[LeaseOrder], network: int) -> bytes:
    """OpenMany: {8 x {provider 32, terms 32, deposit i64, deadlineTick u32, challengeTicks u32,
    burnBasisPoints u32, 4 unused}, network u64, count u32, 4 unused}, 720 bytes; the amount is the sum of
    the deposits. Raises ValueError for none or more than 8."""
    packed = [
        _LEASE.pack(
            _check_id(lease.provider),
            _check_id(lease.terms),
            lease.deposit,
            lease.deadline_tick,
            lease.challenge_ticks,
            lease.burn_basis_points,
        )
        for lease in leases
    ]
    return _batch(packed, MAX_OPEN_BATCH, _LEASE.size) + _OPEN_MANY_TAIL.pack(network, len(packed))


def redeem_many_input(vouchers: Sequence[bytes]) -> bytes:
    """RedeemMany: {9 x pay_input, count u32, 4 unused}, 944 bytes; the amount is SIGNATURE_BOND for each.
    Raises ValueError for none or more than 9."""
    return _batch(vouchers, MAX_REDEEM_BATCH, _PAY.size) + _REDEEM_MANY_TAIL.pack(len(vouchers))


def _batch(parts: Sequence[bytes], most: int, size: int) -> bytes:
    if not 1 <= len(parts) <= most or any(len(part) != size for part in parts):
        raise ValueError(f"one call takes 1 to {most} parts of {size} bytes, not {len(parts)}")
    return b"".join(parts).ljust(most * size, b"\0")


def pay_input(escrow: EscrowId, cumulative: Qu, signature: bytes) -> bytes:
    """Redeem and Close: {escrow 32, cumulative i64, signature 64}."""
    if len(signature) != SIGNATURE_BYTES:
        raise ValueError(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    return _PAY.pack(_check_id(escrow), cumulative, signature)


def parse_pay_input(payload: bytes) -> tuple[EscrowId, Qu, bytes]:
    """(escrow, cumulative, signature) as the contract reads them: short is filled up, long is cut."""
    escrow, cumulative, signature = _PAY.unpack(payload[: _PAY.size].ljust(_PAY.size, b"\0"))
    return EscrowId(escrow), Qu(cumulative), signature


def parse_redeem_many_input(payload: bytes) -> tuple[tuple[EscrowId, Qu, bytes], ...]:
    """The vouchers of RedeemMany as the contract reads them, each as of `parse_pay_input`, in the order in
    which they are judged; none for a count that it refuses."""
    vouchers_bytes = MAX_REDEEM_BATCH * _PAY.size
    payload = payload.ljust(vouchers_bytes + _REDEEM_MANY_TAIL.size, b"\0")
    (count,) = _REDEEM_MANY_TAIL.unpack_from(payload, vouchers_bytes)
    if not 1 <= count <= MAX_REDEEM_BATCH:
        return ()
    return tuple(parse_pay_input(payload[at * _PAY.size :]) for at in range(count))


def top_up_input(escrow: EscrowId, before: Qu, deadline_tick: Tick) -> bytes:
    """TopUp: {escrow 32, deposit i64, deadlineTick u32, 4 unused}, 48 bytes; the amount is added to the
    deposit. `before`: the deposit as it is; the contract refuses if it is another by then."""
    return _TOP_UP.pack(_check_id(escrow), before, deadline_tick)


def parse_top_up_input(payload: bytes) -> tuple[EscrowId, Qu, Tick]:
    """(escrow, deposit before, deadline tick) as the contract reads them: short is filled up, long is cut."""
    escrow, before, deadline = _TOP_UP.unpack(payload[: _TOP_UP.size].ljust(_TOP_UP.size, b"\0"))
    return EscrowId(escrow), Qu(before), Tick(deadline)


def escrow_input(escrow: EscrowId) -> bytes:
    """RequestClose, Finalize, GetEscrow: {escrow 32}."""
    return bytes(_check_id(escrow))


@dataclass(frozen=True)
class EscrowView:
    """One open channel as the contract holds it."""

    escrow_id: EscrowId
    caller: QubicId
    provider: QubicId
    deposit: Qu
    paid: Qu
    """Cumulative, gross: the fee is a part of it."""
    deadline_tick: Tick
    """First tick in which nothing can be redeemed any more."""
    close_tick: Tick
    """The same for a close asked for by the caller; 0 = not asked for."""
    challenge_ticks: int
    open_tick: Tick
    burn_basis_points: int = 0
    """Of the provider's part of each payment; burned instead of paid."""
    as_of: Tick = field(default=Tick(0), compare=False)
    """The tick the answer was given in: what ran in earlier ticks is in it."""

    @property
    def last_tick(self) -> Tick:
        """First tick in which nothing can be redeemed any more, whichever way it came."""
        return self.close_tick or self.deadline_tick


@dataclass(frozen=True)
class EscrowReading:
    """GetEscrow's answer; `view` is None when no such channel is open."""

    tick: Tick
    view: EscrowView | None


def decode_reading(escrow: EscrowId, output: bytes) -> EscrowReading | None:
    """GetEscrow: {exists u32, tick u32, caller 32, provider 32, deposit i64, paid i64, deadlineTick u32,
    closeTick u32, challengeTicks u32, openTick u32, burnBasisPoints u32, 4 unused}, 112 bytes; None if it
    is not that."""
    if len(output) != _CHANNEL.size:
        return None
    exists, tick, caller, provider, deposit, paid, *ticks, burn = _CHANNEL.unpack(output)
    deadline, close, challenge, opened = ticks
    if not exists:
        return EscrowReading(Tick(tick), None)
    view = EscrowView(
        escrow_id=escrow,
        caller=QubicId(caller),
        provider=QubicId(provider),
        deposit=Qu(deposit),
        paid=Qu(paid),
        deadline_tick=Tick(deadline),
        close_tick=Tick(close),
        challenge_ticks=challenge,
        open_tick=Tick(opened),
        burn_basis_points=burn,
        as_of=Tick(tick),
    )
    return EscrowReading(Tick(tick), view)


def encode_reading(view: EscrowView) -> bytes:
    """The GetEscrow answer that `view` was decoded from."""
    return _CHANNEL.pack(
        1,
        view.as_of,
        view.caller,
        view.provider,
        view.deposit,
        view.paid,
        view.deadline_tick,
        view.close_tick,
        view.challenge_ticks,
        view.open_tick,
        view.burn_basis_points,
    )


@dataclass(frozen=True)
class ContractInfo:
    """GetInfo: the contract's constants and running totals (amounts in QU, gross)."""

    contract_index: int
    tick: Tick
    fee_basis_points: int
    capacity: int
    min_deadline_ticks: int
    max_deadline_ticks: int
    min_challenge_ticks: int
    max_challenge_ticks: int
    network: int
    """Tells this network from all others; whoever opens a lease names it."""
    open_balance: Qu
    """Deposits of open channels less what was paid out of them."""
    stakes: Qu
    """Of registered providers."""
    bonds: Qu
    """Of undecided disputes."""
    fees_undistributed: Qu
    fees_burned: Qu
    fees_collected: Qu
    shares_burned: Qu
    """Of the providers' parts, as the leases said."""
    stakes_burned: Qu
    volume: Qu
    opened: int
    closed: int

    @property
    def taken(self) -> int:
        """Places with an open channel."""
        return self.opened - self.closed

    @property
    def least_deposit(self) -> Qu:
        """What a new lease must lock at least, if there is a place."""
        return Qu(1 << self.taken // CROWD)


def decode_info(output: bytes) -> ContractInfo | None:
    """GetInfo: 8 x u32, u64, 9 x i64, 2 x u64, in ContractInfo's order, 128 bytes; None if it is not that."""
    if len(output) != _INFO.size:
        return None
    return ContractInfo(*_INFO.unpack(output))


def _check_id(value: bytes) -> bytes:
    if len(value) != ID_BYTES:
        raise ValueError(f"an id has {ID_BYTES} bytes, not {len(value)}")
    return value
