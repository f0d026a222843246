"""The escrow contract: refusals give back, fees are burned and shared out, unasked money has a place."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from escrow_bridge.devnet.host import contract_id
from tests.support.escrow import (
    BUY,
    CLOSE,
    CONTRACT,
    DECIDE,
    EXIT,
    FINALIZE,
    NO_SIGNATURE,
    OPEN,
    OPEN_DISPUTE,
    OPEN_MANY,
    PURSE,
    RATE,
    REDEEM,
    REDEEM_MANY,
    REGISTER,
    REQUEST_CLOSE,
    ROTATE,
    SLASH,
    TOP_UP,
    UPDATE,
    Code,
    Desk,
    fee,
)
from tests.support.probes import ALICE, FIRST_TICK, MONEY, NULL_ID, OPENER, QUBIX, run

SHARES = 676
Refusal = Callable[[Desk, bytes], tuple[int, bytes]]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def amount(cumulative: int) -> bytes:
    return struct.pack("<q", cumulative) + NO_SIGNATURE


def word(value: int) -> bytes:
    return struct.pack("<Q", value)


REFUSALS: dict[str, Refusal] = {
    "open with oneself": lambda desk, _: (OPEN, desk.stranger.public_key + bytes(32) + bytes(8)),
    "open without input": lambda desk, _: (OPEN, b""),
    "open for a past deadline": lambda desk, _: (OPEN, desk.provider.public_key + bytes(40)),
    "top up another's": lambda _, escrow: (TOP_UP, escrow),
    "top up nothing": lambda _, escrow: (TOP_UP, NULL_ID),
    "top up without saying what is there": lambda _, escrow: (TOP_UP, escrow + bytes(16)),
    "redeem nothing": lambda _, escrow: (REDEEM, NULL_ID),
    "redeem without signature": lambda _, escrow: (REDEEM, escrow + amount(5)),
    "redeem too much": lambda _, escrow: (REDEEM, escrow + amount(10_001)),
    "redeem less": lambda _, escrow: (REDEEM, escrow + amount(0)),
    "close another's": lambda _, escrow: (CLOSE, escrow + amount(0)),
    "close nothing": lambda _, escrow: (CLOSE, NULL_ID),
    "request the close of another's": lambda _, escrow: (REQUEST_CLOSE, escrow),
    "request the close of nothing": lambda _, escrow: (REQUEST_CLOSE, NULL_ID),
    "finalize too early": lambda _, escrow: (FINALIZE, escrow),
    "finalize nothing": lambda _, escrow: (FINALIZE, NULL_ID),
    "open no leases": lambda _, escrow: (OPEN_MANY, b""),
    "redeem no vouchers": lambda _, escrow: (REDEEM_MANY, b""),
    "redeem without bonds": lambda _, escrow: (REDEEM_MANY, bytes(936) + b"\1"),
    "register on another network": lambda _, escrow: (REGISTER, b""),
    "register with too little": lambda desk, _: (REGISTER, bytes(64) + word(desk.network)),
    "update what is not registered": lambda desk, _: (UPDATE, bytes(64) + word(desk.network)),
    "leave what was not joined": lambda desk, _: (EXIT, word(desk.network)),
    "rate without stars": lambda _, escrow: (RATE, escrow),
    "rate without a ticket": lambda _, escrow: (RATE, escrow + bytes(32) + b"\5"),
    "slash nobody": lambda _, escrow: (SLASH, b""),
    "dispute without a ticket": lambda _, escrow: (OPEN_DISPUTE, escrow),
    "decide nothing": lambda _, escrow: (DECIDE, escrow),
    "rotate as a stranger": lambda desk, _: (ROTATE, bytes(32) + word(desk.network)),
    "buy on another network": lambda desk, _: (BUY, desk.provider.public_key),
    "buy for too little": lambda desk, _: (BUY, desk.provider.public_key + bytes(32) + word(desk.network)),
}


@pytest.mark.parametrize("attached", [0, 1, 99])
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
def test_a_refused_call_returns_the_money_and_writes_nothing(
    desk: Desk, refusal: Refusal, attached: int
) -> None:
    escrow = desk.opened(10_000)
    desk.host.end_tick()
    desk.host.begin_tick(desk.host.tick + 1)
    before = desk.balances(), desk.host.state(QUBIX)
    procedure, payload = refusal(desk, escrow)
    output = desk.call(desk.stranger, procedure, payload, attached)
    code = output[32:36] if procedure == OPEN else output[:4]
    assert int.from_bytes(code, "little") != Code.OK
    assert (desk.balances(), desk.host.state(QUBIX)) == before
    assert not desk.host.state_changed(QUBIX), "a refusal must not cost a hash of the state"
    desk.check()


@pytest.mark.parametrize("procedure", [REDEEM, CLOSE])
@pytest.mark.parametrize(
    ("attached", "burned", "expected"),
    [
        (0, 0, Code.NEEDS_BOND),
        (99, 0, Code.NEEDS_BOND),
        (100, 100, Code.BAD_SIGNATURE),
        (777, 100, Code.BAD_SIGNATURE),
    ],
)
def test_a_bad_signature_burns_the_bond_and_nothing_else(
    desk: Desk, procedure: int, attached: int, burned: int, expected: Code
) -> None:
    """Checking a signature costs the reserve, so a wrong one feeds it; without a bond none is checked."""
    escrow = desk.opened(10_000)
    desk.host.end_tick()
    desk.host.begin_tick(desk.host.tick + 1)
    reserve, state = desk.host.reserve(QUBIX), desk.host.state(QUBIX)
    assert desk.code(desk.provider, procedure, escrow + amount(5), attached) == expected
    assert desk.balances() == (-10_000, -burned, 0, 10_000)
    assert (desk.host.reserve(QUBIX), desk.host.state(QUBIX)) == (reserve + burned, state)
    assert not desk.host.state_changed(QUBIX)
    assert desk.host.destroyed == burned


def test_money_with_a_call_that_needs_none_comes_back(desk: Desk) -> None:
    escrow = desk.opened(10_000)
    assert desk.code(desk.stranger, REDEEM, desk.voucher(escrow, 1_000), 177) == Code.OK
    assert desk.code(desk.caller, REQUEST_CLOSE, escrow, 77) == Code.OK
    assert desk.code(desk.provider, CLOSE, desk.voucher(escrow, 2_000), 177) == Code.OK
    assert desk.balances() == (-2_000, 1_900, 0, 100)
    expiring = desk.opened(10_000, deadline=33)
    desk.tick_to(FIRST_TICK + 33)
    assert desk.code(desk.stranger, FINALIZE, expiring, 77) == Code.OK
    assert desk.balances() == (-2_000, 1_900, 0, 100)


@pytest.mark.parametrize("input_type", [0, 99, 65_535])
def test_money_without_a_procedure_comes_back(desk: Desk, input_type: int) -> None:
    assert desk.host.apply(desk.stranger.public_key, CONTRACT, 1_000, input_type, b"")
    assert desk.balances() == (0, 0, 0, 0)
    desk.check()


def test_money_from_a_contract_joins_the_fees(desk: Desk) -> None:
    """It cannot be sent back: a contract cannot pay a contract while money comes in."""
    desk.host.apply(ALICE, contract_id(OPENER), 500, 0, b"")
    run(desk.host, OPENER, 2, CONTRACT + struct.pack("<q", 400))
    info = desk.info()
    assert (info.fees_undistributed, info.fees_collected, info.open_balance) == (400, 400, 0)
    desk.check()


def test_another_contracts_burn_for_the_escrow_feeds_its_reserve(desk: Desk) -> None:
    before = desk.host.reserve(QUBIX)
    desk.host.apply(ALICE, contract_id(MONEY), 500, 0, b"")
    run(desk.host, MONEY, 2, struct.pack("<qI", 300, QUBIX))
    assert desk.host.reserve(QUBIX) == before + 300


@pytest.mark.parametrize("cumulative", [0, 19, 2_000, 16_900, 1_000_000_000, PURSE])
def test_an_epoch_burns_a_fifth_and_shares_out_the_rest(desk: Desk, cumulative: int) -> None:
    escrow = desk.opened(PURSE)
    if cumulative:
        assert desk.redeem(escrow, cumulative) == Code.OK
    before, reserve = desk.balances()[3], desk.host.reserve(QUBIX)
    desk.host.end_tick()
    desk.host.change_epoch()
    fees = fee(cumulative)
    burned = fees * 20 // 100
    shared = (fees - burned) // SHARES * SHARES
    info = desk.info()
    assert info.fees_undistributed == fees - burned - shared
    assert (info.fees_burned, info.fees_collected) == (burned, fees)
    assert desk.host.reserve(QUBIX) == reserve + burned
    assert desk.balances()[3] == before - burned - shared
    assert desk.host.destroyed == burned + shared
    desk.check()


def test_channels_live_on_over_an_epoch(desk: Desk) -> None:
    escrow = desk.opened(10_000)
    assert desk.redeem(escrow, 1_000) == Code.OK
    desk.host.end_tick()
    desk.host.change_epoch()
    desk.host.begin_tick(FIRST_TICK + 1)
    assert desk.close(escrow, 2_000) == Code.OK
    assert desk.balances()[:3] == (-2_000, 1_900, 0)
    desk.check()


def test_info_says_the_rules(desk: Desk) -> None:
    info = desk.info()
    assert (info.contract_index, info.tick) == (QUBIX, FIRST_TICK)
    assert (info.fee_basis_points, info.capacity) == (500, 4_096)
    assert (info.min_deadline_ticks, info.max_deadline_ticks) == (32, 8_000_000)
    assert (info.min_challenge_ticks, info.max_challenge_ticks) == (16, 100_000)


def test_an_unknown_escrow_does_not_exist(desk: Desk) -> None:
    assert desk.channel(NULL_ID) is None
    assert desk.channel(b"\x05" * 32) is None
