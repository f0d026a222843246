"""The escrow contract: several leases opened at once, several vouchers redeemed at once, burn shares."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from escrow_bridge.layout import LeaseOrder, open_many_input, redeem_many_input
from protocol.units import LeaseId, Qu, QubicId, Tick
from tests.support.escrow import (
    BOND,
    CAPACITY,
    CROWD,
    OPEN_MANY,
    REDEEM_MANY,
    Code,
    Desk,
    burned,
    fee,
    net,
)
from tests.support.guild import Guild
from tests.support.probes import FIRST_TICK, NULL_ID, QUBIX


@pytest.fixture
def desk() -> Desk:
    return Desk()


def lease(desk: Desk, number: int, deposit: int = 1_000) -> LeaseOrder:
    return LeaseOrder(
        QubicId(desk.provider.public_key),
        LeaseId(number.to_bytes(32, "little")),
        Qu(deposit),
        Tick(desk.host.tick + 100),
        20,
    )


def open_many(
    desk: Desk, leases: list[LeaseOrder], attached: int | None = None
) -> tuple[Code, int, list[bytes]]:
    """(code, which lease it is about, escrow ids)"""
    amount = sum(order.deposit for order in leases) if attached is None else attached
    output = desk.call(desk.caller, OPEN_MANY, open_many_input(leases, desk.network), amount)
    code, refused = struct.unpack_from("<II", output)
    return Code(code), refused, [output[8 + 32 * i : 40 + 32 * i] for i in range(8)]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_leases_opened_together_are_like_leases_opened_alone(desk: Desk, count: int) -> None:
    orders = [lease(desk, number, 1_000 + number) for number in range(count)]
    code, _, escrows = open_many(desk, orders)
    assert code == Code.OK
    for order, escrow in zip(orders, escrows, strict=False):
        channel = desk.channel(escrow)
        assert channel and (channel.deposit, channel.deadline_tick) == (order.deposit, order.deadline_tick)
        assert desk.redeem(escrow, 100) == Code.OK
        assert desk.open(order.deposit, terms=order.terms)[0] == Code.ALREADY_OPEN, "it is the same id"
    assert escrows[count:] == [NULL_ID] * (8 - count)
    assert desk.info().opened == count
    desk.check()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"provider": NULL_ID}, Code.BAD_PARTY),
        ({"deposit": 0}, Code.BAD_DEPOSIT),
        ({"deposit": -1_000}, Code.BAD_DEPOSIT),
        ({"deadline_tick": FIRST_TICK}, Code.BAD_DEADLINE),
        ({"challenge_ticks": 0}, Code.BAD_CHALLENGE),
        ({"burn_basis_points": 10_001}, Code.BAD_BURN),
        ({"terms": bytes(32)}, Code.ALREADY_OPEN),
    ],
)
def test_one_bad_lease_refuses_all(desk: Desk, change: dict[str, object], code: Code) -> None:
    orders = [lease(desk, number) for number in range(4)]
    orders[2] = replace(orders[2], **change)  # type: ignore[arg-type]  # one field of its own type
    state = desk.host.state(QUBIX)
    assert open_many(desk, orders, 4_000) == (code, 2, [NULL_ID] * 8)
    assert (desk.balances(), desk.host.state(QUBIX)) == ((0, 0, 0, 0), state)


@pytest.mark.parametrize("attached", [0, 1_999, 2_001])
def test_the_attached_amount_is_the_sum_of_the_deposits(desk: Desk, attached: int) -> None:
    assert open_many(desk, [lease(desk, 0), lease(desk, 1)], attached)[0] == Code.BAD_DEPOSIT
    assert desk.balances() == (0, 0, 0, 0)


def test_deposits_that_overflow_in_sum_are_refused(desk: Desk) -> None:
    """Eight of the largest are 8e15, which a signed word holds."""
    orders = [lease(desk, number, 10**15) for number in range(8)]
    assert open_many(desk, orders, 1_000)[0] == Code.BAD_DEPOSIT
    assert desk.balances() == (0, 0, 0, 0)


def test_a_batch_grows_the_crowd_lease_by_lease(desk: Desk) -> None:
    for number in range(CROWD - 2):
        assert desk.open(1, terms=b"\7" * 30 + struct.pack("<H", number))[0] == Code.OK
    orders = [lease(desk, number, 1 + number // 2) for number in range(4)]
    assert open_many(desk, [*orders[:2], lease(desk, 2, 1)], 3)[:2] == (Code.FULL, 2)
    assert open_many(desk, orders, 6)[0] == Code.OK
    desk.check()


@pytest.mark.parametrize("count", [0, 9, 2**32 - 1])
def test_a_wrong_count_is_refused(desk: Desk, count: int) -> None:
    opening = bytearray(open_many_input([lease(desk, 0)], desk.network))
    opening[-8:-4] = struct.pack("<I", count)
    assert desk.code(desk.caller, OPEN_MANY, bytes(opening), 1_000) == Code.BAD_COUNT
    redeeming = bytearray(redeem_many_input([bytes(104)]))
    redeeming[-8:-4] = struct.pack("<I", count + (count == 9))
    assert desk.code(desk.caller, REDEEM_MANY, bytes(redeeming), 1_000) == Code.BAD_COUNT
    assert desk.balances() == (0, 0, 0, 0)


def test_an_id_whose_lease_left_a_ticket_is_refused_among_many() -> None:
    guild = Guild()
    assert guild.register() == Code.OK
    guild.ended_lease(terms=(7).to_bytes(32, "little"))
    assert open_many(guild, [lease(guild, 6), lease(guild, 7)])[:2] == (Code.ALREADY_OPEN, 1)
    assert guild.info().open_balance == 0
    assert open_many(guild, [lease(guild, 6)])[0] == Code.OK


def test_leases_that_do_not_all_fit_are_refused(desk: Desk) -> None:
    for number in range(CAPACITY - 1):
        assert desk.open(10**5, terms=number.to_bytes(32, "big"))[0] == Code.OK
    assert open_many(desk, [lease(desk, 0, 10**5), lease(desk, 1, 10**5)])[0] == Code.FULL
    assert open_many(desk, [lease(desk, 1, 10**5)])[0] == Code.OK


def redeem_many(desk: Desk, vouchers: list[bytes], attached: int) -> tuple[Code, int, list[Code]]:
    output = desk.call(desk.stranger, REDEEM_MANY, redeem_many_input(vouchers), attached)
    code, redeemed, *codes = struct.unpack("<II16I", output)
    return Code(code), redeemed, [Code(each) for each in codes[: len(vouchers)]]


def test_nine_vouchers_are_judged_alone(desk: Desk) -> None:
    first, second = desk.opened(10_000), desk.open(10_000, terms=b"\1" * 32)[1]
    vouchers = [
        desk.voucher(first, 100),
        desk.voucher(first, 100),
        desk.voucher(second, 200, by=desk.provider),
        desk.voucher(first, 10_001),
        desk.voucher(NULL_ID, 5),
        desk.voucher(second, 300),
        second + desk.voucher(first, 500)[32:],
        desk.voucher(first, 400),
        desk.voucher(second, 2_000),
    ]
    code, redeemed, codes = redeem_many(desk, vouchers, 9 * BOND + 7)
    assert (code, redeemed) == (Code.OK, 4)
    assert codes == [
        Code.OK,
        Code.NOT_RISING,
        Code.BAD_SIGNATURE,
        Code.ABOVE_DEPOSIT,
        Code.UNKNOWN_ESCROW,
        Code.OK,
        Code.BAD_SIGNATURE,
        Code.OK,
        Code.OK,
    ]
    assert desk.balances()[:3] == (-20_000, net(400) + net(2_000), -2 * BOND), "each bad one burned its bond"
    desk.check()


def test_a_batch_needs_a_bond_for_each_voucher(desk: Desk) -> None:
    escrow = desk.opened()
    vouchers = [desk.voucher(escrow, 100), desk.voucher(escrow, 200)]
    assert redeem_many(desk, vouchers, 2 * BOND - 1) == (Code.NEEDS_BOND, 0, [Code.OK, Code.OK])
    assert desk.balances() == (-10_000, 0, 0, 10_000)
    assert redeem_many(desk, vouchers, 2 * BOND)[:2] == (Code.OK, 2)
    assert desk.balances()[1:3] == (190, 0)


@pytest.mark.parametrize("share", [1, 250, 3_333, 10_000])
def test_a_burn_share_comes_out_of_the_providers_part_only(desk: Desk, share: int) -> None:
    escrow = desk.open(1_000_000, burn=share)[1]
    reserve = desk.host.reserve(QUBIX)
    for cumulative in (1, 19, 20, 999, 123_457):
        assert desk.redeem(escrow, cumulative) == Code.OK
        assert desk.balances()[1] == net(cumulative, share), "the same however often one redeems"
        assert desk.info().shares_burned == burned(cumulative, share)
        assert desk.info().fees_undistributed == fee(cumulative)
        assert desk.host.reserve(QUBIX) == reserve + burned(cumulative, share)
        desk.check()
    assert desk.close(escrow, 500_000) == Code.OK
    assert desk.balances()[:2] == (-500_000, net(500_000, share))
    desk.check()


@pytest.mark.parametrize("cumulative", [1, 9_999, 970_000_000_000_001, 10**15])
def test_a_burn_share_is_exact_up_to_the_largest_amount(desk: Desk, cumulative: int) -> None:
    desk.host.credit(desk.caller.public_key, 10**15)
    escrow = desk.open(10**15, burn=9_999)[1]
    assert desk.redeem(escrow, cumulative) == Code.OK
    assert desk.balances()[1] == net(cumulative, 9_999)
    desk.check()
