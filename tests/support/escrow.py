"""Drives the escrow contract on a native host, as a caller, a provider and a stranger would.

Bytes are packed here by hand, on purpose apart from escrow_bridge/layout.py: the two check each other
by tests/vectors/contract_layout.json.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from escrow_bridge.devnet.host import Host, contract_id
from escrow_bridge.qubic import Wallet, k12
from tests.support.probes import NULL_ID, QUBIX, new_chain

OPEN, TOP_UP, REDEEM, CLOSE, REQUEST_CLOSE, FINALIZE, OPEN_MANY, REDEEM_MANY = range(1, 9)
REGISTER, UPDATE, EXIT, RATE, SLASH, OPEN_DISPUTE, DECIDE, ROTATE, BUY = range(9, 18)
GET_ESCROW, GET_INFO = 1, 2
VOUCHER_TAG: Final = b"QubixVch"
MIN_DEADLINE, MAX_DEADLINE = 32, 8_000_000
MIN_CHALLENGE, MAX_CHALLENGE = 16, 100_000
CAPACITY: Final = 4_096
CROWD: Final = 256
MAX_DEPOSIT: Final = 10**15
PURSE: Final = 10**13
BOND: Final = 100
NO_SIGNATURE: Final = bytes(64)
CONTRACT: Final = contract_id(QUBIX)


class Code(enum.IntEnum):
    OK = 0
    UNKNOWN_ESCROW = 1
    NOT_CALLER = 2
    NOT_PROVIDER = 3
    BAD_PARTY = 4
    BAD_DEPOSIT = 5
    BAD_DEADLINE = 6
    BAD_CHALLENGE = 7
    FULL = 8
    ALREADY_OPEN = 9
    CLOSING = 10
    TOO_LATE = 11
    TOO_EARLY = 12
    NOT_RISING = 13
    ABOVE_DEPOSIT = 14
    BAD_SIGNATURE = 15
    TRANSFER_FAILED = 16
    BAD_NETWORK = 17
    BAD_BURN = 18
    NEEDS_BOND = 19
    BAD_COUNT = 20
    UNKNOWN_PROVIDER = 21
    ALREADY_REGISTERED = 22
    EXITING = 23
    NO_TICKET = 24
    BAD_STARS = 25
    ALREADY_DONE = 26
    BAD_RECEIPTS = 27
    NOT_ARBITER = 28
    UNKNOWN_DISPUTE = 29
    BAD_VERDICT = 30
    CHANGED = 31


@dataclass(frozen=True)
class Channel:
    caller: bytes
    provider: bytes
    deposit: int
    paid: int
    deadline_tick: int
    close_tick: int
    challenge_ticks: int
    open_tick: int
    burn_basis_points: int = 0


@dataclass(frozen=True)
class Info:
    contract_index: int
    tick: int
    fee_basis_points: int
    capacity: int
    min_deadline_ticks: int
    max_deadline_ticks: int
    min_challenge_ticks: int
    max_challenge_ticks: int
    network: int
    open_balance: int
    stakes: int
    bonds: int
    fees_undistributed: int
    fees_burned: int
    fees_collected: int
    shares_burned: int
    stakes_burned: int
    volume: int
    opened: int
    closed: int


def fee(paid: int) -> int:
    return paid * 500 // 10_000


def burned(paid: int, basis_points: int) -> int:
    return (paid - fee(paid)) * basis_points // 10_000


def net(paid: int, burn_basis_points: int = 0) -> int:
    return paid - fee(paid) - burned(paid, burn_basis_points)


class Desk:
    """One chain with the escrow; three wallets with PURSE each."""

    def __init__(self) -> None:
        self.host: Host = new_chain()
        self.caller, self.provider, self.stranger = (Wallet(letter * 55) for letter in "cps")
        for wallet in (self.caller, self.provider, self.stranger):
            self.host.credit(wallet.public_key, PURSE)
        self.network = self.info().network

    def call(self, by: Wallet, procedure: int, payload: bytes, amount: int = 0) -> bytes:
        output = self.host.call(by.public_key, CONTRACT, amount, procedure, payload)
        assert output is not None, "skipped"
        return output

    def code(self, by: Wallet, procedure: int, payload: bytes, amount: int = 0) -> Code:
        return Code(int.from_bytes(self.call(by, procedure, payload, amount)[:4], "little"))

    def open(
        self,
        deposit: int = 10_000,
        *,
        deadline: int = 1_000,
        challenge: int = 20,
        provider: bytes | None = None,
        terms: bytes = NULL_ID,
        by: Wallet | None = None,
        burn: int = 0,
    ) -> tuple[Code, bytes]:
        """(code, escrow id). `deadline` and `challenge` count ticks from now."""
        who = self.provider.public_key if provider is None else provider
        ticks = (self.host.tick + deadline, challenge)
        payload = who + terms + struct.pack("<IIQI4x", *ticks, self.network, burn)
        output = self.call(by or self.caller, OPEN, payload, deposit)
        return Code(int.from_bytes(output[32:36], "little")), output[:32]

    def opened(self, deposit: int = 10_000, *, deadline: int = 1_000, challenge: int = 20) -> bytes:
        """Escrow id of a channel that must open."""
        code, escrow = self.open(deposit, deadline=deadline, challenge=challenge)
        assert code == Code.OK
        return escrow

    def voucher(self, escrow: bytes, cumulative: int, by: Wallet | None = None) -> bytes:
        """Payload of Redeem and Close: escrow, cumulative, signature (the caller's, if not another's)."""
        digest = k12(VOUCHER_TAG + escrow + struct.pack("<q", cumulative))
        return escrow + struct.pack("<q", cumulative) + (by or self.caller).sign(digest)

    def redeem(self, escrow: bytes, cumulative: int, by: Wallet | None = None) -> Code:
        return self.code(by or self.provider, REDEEM, self.voucher(escrow, cumulative), BOND)

    def close(self, escrow: bytes, cumulative: int) -> Code:
        return self.code(self.provider, CLOSE, self.voucher(escrow, cumulative), BOND)

    def channel(self, escrow: bytes) -> Channel | None:
        output = self.host.query(QUBIX, GET_ESCROW, escrow)
        exists, tick, *fields = struct.unpack("<II32s32sqqIIIII4x", output)
        assert tick == self.host.tick
        return Channel(*fields) if exists else None

    def info(self) -> Info:
        return Info(*struct.unpack("<8IQ9q2Q", self.host.query(QUBIX, GET_INFO, b"")))

    def tick_to(self, tick: int) -> None:
        """Ends this tick and begins `tick`, passing all between."""
        while self.host.tick < tick:
            self.host.end_tick()
            self.host.begin_tick(self.host.tick + 1)

    def balances(self) -> tuple[int, int, int, int]:
        """QU of the caller, the provider, the stranger and the contract, relative to the start."""
        caller, provider, stranger = (
            self.host.balance(wallet.public_key) - PURSE
            for wallet in (self.caller, self.provider, self.stranger)
        )
        return caller, provider, stranger, self.host.balance(CONTRACT)

    def check(self) -> None:
        """The invariant of the contract."""
        info = self.info()
        parts = (info.open_balance, info.stakes, info.bonds, info.fees_undistributed)
        assert self.host.balance(CONTRACT) == sum(parts)
        assert min(parts) >= 0
