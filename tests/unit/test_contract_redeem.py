"""The escrow contract: redeeming vouchers and closing by the provider."""

from __future__ import annotations

import struct

import pytest

from escrow_bridge.qubic import Wallet, k12
from tests.support.escrow import (
    BOND,
    CLOSE,
    FINALIZE,
    MAX_DEPOSIT,
    NO_SIGNATURE,
    REDEEM,
    REQUEST_CLOSE,
    VOUCHER_TAG,
    Code,
    Desk,
    fee,
    net,
)
from tests.support.probes import FIRST_TICK, NULL_ID


@pytest.fixture
def desk() -> Desk:
    return Desk()


def paid(desk: Desk, escrow: bytes) -> int:
    channel = desk.channel(escrow)
    assert channel is not None
    return channel.paid


def test_a_voucher_pays_95_percent_and_keeps_5(desk: Desk) -> None:
    escrow = desk.opened(10_000)
    assert desk.redeem(escrow, 4_000) == Code.OK
    assert desk.balances() == (-10_000, 3_800, 0, 6_200)
    assert paid(desk, escrow) == 4_000
    desk.check()


@pytest.mark.parametrize("by", ["caller", "provider", "stranger"])
def test_anyone_can_redeem_and_the_provider_is_paid(desk: Desk, by: str) -> None:
    escrow = desk.opened(10_000)
    assert desk.redeem(escrow, 4_000, by=getattr(desk, by)) == Code.OK
    assert desk.balances() == (-10_000, 3_800, 0, 6_200)


def test_a_provider_without_any_money_can_be_paid(desk: Desk) -> None:
    newcomer = Wallet("n" * 55)
    _, escrow = desk.open(10_000, provider=newcomer.public_key)
    assert not desk.host.apply(newcomer.public_key, bytes(32), 0, REDEEM, desk.voucher(escrow, 10))
    assert desk.redeem(escrow, 4_000, by=desk.stranger) == Code.OK
    assert desk.host.balance(newcomer.public_key) == 3_800


def test_the_fee_counts_the_cumulative_amount_however_often_one_redeems(desk: Desk) -> None:
    escrow = desk.opened(1_000)
    for cumulative in range(1, 200):
        assert desk.redeem(escrow, cumulative) == Code.OK
        assert desk.balances()[1] == net(cumulative)
    assert desk.info().fees_undistributed == fee(199) == 9
    desk.check()


@pytest.mark.parametrize("cumulative", [1, 19, 20, 9_999, 10_001, 970_000_000_000_001, MAX_DEPOSIT])
def test_the_fee_is_exact_up_to_the_largest_amount(desk: Desk, cumulative: int) -> None:
    desk.host.credit(desk.caller.public_key, MAX_DEPOSIT)
    escrow = desk.opened(MAX_DEPOSIT)
    assert desk.redeem(escrow, cumulative) == Code.OK
    assert desk.balances()[1] == net(cumulative)
    assert desk.info().fees_undistributed == fee(cumulative)
    assert desk.info().volume == cumulative
    desk.check()


@pytest.mark.parametrize(
    ("cumulative", "expected"),
    [
        (0, Code.NOT_RISING),
        (-1, Code.NOT_RISING),
        (-(2**63), Code.NOT_RISING),
        (500, Code.NOT_RISING),
        (501, Code.OK),
        (10_000, Code.OK),
        (10_001, Code.ABOVE_DEPOSIT),
        (2**63 - 1, Code.ABOVE_DEPOSIT),
    ],
)
def test_what_may_be_redeemed_after_500_of_10000(desk: Desk, cumulative: int, expected: Code) -> None:
    escrow = desk.opened(10_000)
    assert desk.redeem(escrow, 500) == Code.OK
    before = desk.balances()
    assert desk.redeem(escrow, cumulative) == expected
    assert (desk.balances() == before) == (expected != Code.OK)
    desk.check()


def test_only_the_callers_signature_counts(desk: Desk) -> None:
    escrow = desk.opened()
    for wallet in (desk.provider, desk.stranger):
        assert (
            desk.code(desk.provider, REDEEM, desk.voucher(escrow, 10, by=wallet), BOND) == Code.BAD_SIGNATURE
        )
    assert desk.balances() == (-10_000, -2 * BOND, 0, 10_000)


@pytest.mark.parametrize("position", [0, 31, 32, 39, 40, 71, 72, 103])
def test_any_changed_byte_makes_a_voucher_worthless(desk: Desk, position: int) -> None:
    escrow = desk.opened()
    payload = bytearray(desk.voucher(escrow, 0x0010))
    payload[position] ^= 1
    assert desk.code(desk.stranger, REDEEM, bytes(payload), BOND) not in (Code.OK, Code.TRANSFER_FAILED)
    assert desk.balances()[:2] == (-10_000, 0)


def test_a_voucher_fits_no_other_channel(desk: Desk) -> None:
    first = desk.opened()
    _, second = desk.open(terms=b"\x01" * 32)
    mixed = second + desk.voucher(first, 10)[32:]
    assert desk.code(desk.provider, REDEEM, mixed, BOND) == Code.BAD_SIGNATURE


def test_a_signature_over_something_else_is_no_voucher(desk: Desk) -> None:
    escrow = desk.opened()
    for message in (escrow + struct.pack("<q", 10), bytes(8) + escrow + struct.pack("<q", 10), VOUCHER_TAG):
        payload = escrow + struct.pack("<q", 10) + desk.caller.sign(k12(message))
        assert desk.code(desk.provider, REDEEM, payload, BOND) == Code.BAD_SIGNATURE


def test_a_voucher_is_worth_nothing_after_its_channel(desk: Desk) -> None:
    old = desk.opened()
    assert desk.close(old, 100) == Code.OK
    assert desk.redeem(old, 200) == Code.UNKNOWN_ESCROW
    desk.tick_to(FIRST_TICK + 1)
    new = desk.opened()
    assert desk.code(desk.provider, REDEEM, new + desk.voucher(old, 200)[32:], BOND) == Code.BAD_SIGNATURE


@pytest.mark.parametrize(("tick", "expected"), [(49, Code.OK), (50, Code.TOO_LATE), (55, Code.TOO_LATE)])
def test_the_deadline_is_exact_to_the_tick(desk: Desk, tick: int, expected: Code) -> None:
    escrow = desk.opened(deadline=50)
    desk.tick_to(FIRST_TICK + tick)
    assert desk.redeem(escrow, 10) == expected


def test_close_takes_the_last_voucher_and_refunds_at_once(desk: Desk) -> None:
    escrow = desk.opened(10_000)
    assert desk.redeem(escrow, 1_000) == Code.OK
    assert desk.close(escrow, 4_000) == Code.OK
    assert desk.balances() == (-4_000, 3_800, 0, 200)
    assert desk.channel(escrow) is None
    assert (desk.info().opened, desk.info().closed, desk.info().open_balance) == (1, 1, 0)
    desk.check()


def test_close_at_what_was_paid_needs_no_signature(desk: Desk) -> None:
    escrow = desk.opened(10_000)
    assert desk.redeem(escrow, 1_000) == Code.OK
    payload = escrow + struct.pack("<q", 1_000) + NO_SIGNATURE
    assert desk.code(desk.provider, CLOSE, payload) == Code.OK
    assert desk.balances() == (-1_000, 950, 0, 50)


def test_close_of_all_refunds_nothing(desk: Desk) -> None:
    escrow = desk.opened(10_000)
    assert desk.close(escrow, 10_000) == Code.OK
    assert desk.balances() == (-10_000, 9_500, 0, 500)
    desk.check()


def test_close_is_the_providers(desk: Desk) -> None:
    escrow = desk.opened()
    for wallet in (desk.caller, desk.stranger):
        assert desk.code(wallet, CLOSE, desk.voucher(escrow, 10)) == Code.NOT_PROVIDER
    assert desk.code(desk.provider, CLOSE, desk.voucher(NULL_ID, 10)) == Code.UNKNOWN_ESCROW


@pytest.mark.parametrize(
    ("cumulative", "expected"), [(99, Code.NOT_RISING), (-1, Code.NOT_RISING), (10_001, Code.ABOVE_DEPOSIT)]
)
def test_a_close_that_redeems_wrongly_changes_nothing(desk: Desk, cumulative: int, expected: Code) -> None:
    escrow = desk.opened(10_000)
    assert desk.redeem(escrow, 100) == Code.OK
    before = desk.host.state(7), desk.balances()
    assert desk.close(escrow, cumulative) == expected
    unsigned = escrow + struct.pack("<q", 200) + NO_SIGNATURE
    assert (desk.host.state(7), desk.balances()) == before
    assert desk.code(desk.provider, CLOSE, unsigned, BOND) == Code.BAD_SIGNATURE
    assert desk.host.state(7) == before[0]


def test_after_the_deadline_the_provider_can_only_refund(desk: Desk) -> None:
    escrow = desk.opened(10_000, deadline=33)
    desk.tick_to(FIRST_TICK + 33)
    assert desk.close(escrow, 10) == Code.TOO_LATE
    assert desk.close(escrow, 0) == Code.OK
    assert desk.balances() == (0, 0, 0, 0)


def test_while_the_caller_closes_the_provider_can_still_redeem_and_close(desk: Desk) -> None:
    escrow = desk.opened(10_000, challenge=20)
    assert desk.code(desk.caller, REQUEST_CLOSE, escrow) == Code.OK
    desk.tick_to(FIRST_TICK + 19)
    assert desk.redeem(escrow, 1_000) == Code.OK
    assert desk.code(desk.stranger, FINALIZE, escrow) == Code.TOO_EARLY
    assert desk.close(escrow, 2_000) == Code.OK
    assert desk.balances() == (-2_000, 1_900, 0, 100)
