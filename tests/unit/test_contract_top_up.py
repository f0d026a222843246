"""The escrow contract: more deposit for an open channel, and more time."""

from __future__ import annotations

import struct

import pytest

from escrow_bridge.qubic import Wallet
from tests.support.escrow import (
    CONTRACT,
    FINALIZE,
    MAX_DEADLINE,
    MAX_DEPOSIT,
    REQUEST_CLOSE,
    TOP_UP,
    Code,
    Desk,
)
from tests.support.probes import FIRST_TICK, NULL_ID

TERMS = bytes(range(32))
LAST_TICK = FIRST_TICK + 1_000
"""Deadline of what `Desk.opened` opens in the first tick."""


@pytest.fixture
def desk() -> Desk:
    return Desk()


def more(escrow: bytes, before: int, deadline: int) -> bytes:
    return escrow + struct.pack("<qI4x", before, deadline)


def top_up(
    desk: Desk, escrow: bytes, amount: int, before: int, deadline: int = LAST_TICK, by: Wallet | None = None
) -> Code:
    return desk.code(by or desk.caller, TOP_UP, more(escrow, before, deadline), amount)


def test_a_top_up_raises_the_deposit_moves_the_deadline_and_nothing_else(desk: Desk) -> None:
    escrow = desk.opened(100)
    assert desk.redeem(escrow, 60) == Code.OK
    before = desk.channel(escrow)
    desk.tick_to(FIRST_TICK + 5)
    assert top_up(desk, escrow, 50, 100, LAST_TICK + 300) == Code.OK
    after = desk.channel(escrow)
    assert before and after
    assert (after.deposit, after.deadline_tick) == (150, LAST_TICK + 300)
    unchanged = ("caller", "provider", "paid", "close_tick", "challenge_ticks", "open_tick")
    assert all(getattr(after, name) == getattr(before, name) for name in unchanged)
    assert desk.redeem(escrow, 150) == Code.OK
    desk.check()


def test_the_deadline_may_stay(desk: Desk) -> None:
    escrow = desk.opened(100)
    assert top_up(desk, escrow, 50, 100) == Code.OK
    channel = desk.channel(escrow)
    assert channel and (channel.deposit, channel.deadline_tick) == (150, LAST_TICK)


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        (-FIRST_TICK, Code.BAD_DEADLINE),
        (999, Code.BAD_DEADLINE),
        (1_000, Code.OK),
        (1_001, Code.OK),
        (7 + MAX_DEADLINE, Code.OK),
        (8 + MAX_DEADLINE, Code.BAD_DEADLINE),
        (2**32 - 1 - FIRST_TICK, Code.BAD_DEADLINE),
    ],
)
def test_a_deadline_never_comes_nearer_and_stays_as_near_as_that_of_a_new_lease(
    desk: Desk, ticks: int, expected: Code
) -> None:
    """Counted from the tick of the top-up: seven later than that of the opening."""
    escrow = desk.opened(100)
    desk.tick_to(FIRST_TICK + 7)
    assert top_up(desk, escrow, 50, 100, FIRST_TICK + ticks) == expected
    channel = desk.channel(escrow)
    taken = expected == Code.OK
    assert channel and channel.deadline_tick == (FIRST_TICK + ticks if taken else LAST_TICK)
    assert desk.balances() == ((-150, 0, 0, 150) if taken else (-100, 0, 0, 100))


@pytest.mark.parametrize("before", [0, 1, 99, 101, 150, -100, 2**63 - 1, -(2**63)])
def test_who_is_wrong_about_the_deposit_adds_nothing(desk: Desk, before: int) -> None:
    escrow = desk.opened(100)
    assert top_up(desk, escrow, 50, before, LAST_TICK + 300) == Code.CHANGED
    channel = desk.channel(escrow)
    assert channel and (channel.deposit, channel.deadline_tick) == (100, LAST_TICK)
    assert desk.balances() == (-100, 0, 0, 100)


def test_a_copy_adds_nothing_and_its_money_comes_back(desk: Desk) -> None:
    """In the same tick, later, and after another top-up: the deposit is never again what it was."""
    escrow = desk.opened(100)
    for attempt in (Code.OK, Code.CHANGED):
        assert top_up(desk, escrow, 50, 100, LAST_TICK + 10) == attempt
    desk.tick_to(FIRST_TICK + 20)
    assert top_up(desk, escrow, 50, 100, LAST_TICK + 10) == Code.CHANGED
    assert top_up(desk, escrow, 25, 150, LAST_TICK + 20) == Code.OK
    assert desk.redeem(escrow, 175) == Code.OK, "what is paid does not count: the deposit is all that came"
    for amount, before in ((50, 100), (25, 150)):
        assert top_up(desk, escrow, amount, before, LAST_TICK + 20) == Code.CHANGED
    channel = desk.channel(escrow)
    assert channel and (channel.deposit, channel.deadline_tick) == (175, LAST_TICK + 20)
    assert desk.balances()[0] == -175
    desk.check()


def test_a_top_up_is_the_callers(desk: Desk) -> None:
    escrow = desk.opened(100)
    for wallet in (desk.provider, desk.stranger):
        assert top_up(desk, escrow, 50, 100, by=wallet) == Code.NOT_CALLER
    assert top_up(desk, TERMS, 50, 100) == top_up(desk, NULL_ID, 50, 0) == Code.UNKNOWN_ESCROW
    assert desk.balances() == (-100, 0, 0, 100)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0, Code.BAD_DEPOSIT), (1, Code.OK), (MAX_DEPOSIT - 100, Code.OK), (MAX_DEPOSIT - 99, Code.BAD_DEPOSIT)],
)
def test_a_deposit_never_exceeds_what_one_transfer_can_refund(
    desk: Desk, amount: int, expected: Code
) -> None:
    desk.host.credit(desk.caller.public_key, MAX_DEPOSIT)
    escrow = desk.opened(100)
    assert top_up(desk, escrow, amount, 100) == expected
    desk.check()


def test_no_top_up_while_closing_or_after_the_deadline(desk: Desk) -> None:
    closing, expiring = desk.opened(100), desk.open(100, deadline=33, terms=TERMS)[1]
    assert desk.code(desk.caller, REQUEST_CLOSE, closing) == Code.OK
    assert top_up(desk, closing, 50, 100) == Code.CLOSING
    desk.tick_to(FIRST_TICK + 33)
    assert top_up(desk, expiring, 50, 100) == Code.TOO_LATE
    assert desk.balances() == (-100, 0, 0, 100), "the closing one was refunded meanwhile"


def test_the_last_tick_is_early_enough(desk: Desk) -> None:
    escrow = desk.open(100, deadline=33)[1]
    desk.tick_to(FIRST_TICK + 32)
    assert top_up(desk, escrow, 50, 100, FIRST_TICK + 200) == Code.OK
    desk.tick_to(FIRST_TICK + 199)
    assert desk.redeem(escrow, 150) == Code.OK, "all of the new time counts"


def test_what_ends_at_the_old_deadline_ends_at_the_new_one(desk: Desk) -> None:
    """The sweep, the end of an epoch, Finalize and the window of a close."""
    escrow = desk.open(100, deadline=33)[1]
    assert top_up(desk, escrow, 50, 100, FIRST_TICK + 100) == Code.OK
    desk.tick_to(FIRST_TICK + 70)
    desk.host.change_epoch()
    assert desk.info().closed == 0, "neither a sweep nor an epoch takes it before its time"
    assert desk.code(desk.stranger, FINALIZE, escrow) == Code.TOO_EARLY
    desk.tick_to(FIRST_TICK + 95)
    assert desk.code(desk.caller, REQUEST_CLOSE, escrow) == Code.OK
    channel = desk.channel(escrow)
    assert channel and channel.close_tick == FIRST_TICK + 100, "the window ends with the new deadline"
    desk.tick_to(FIRST_TICK + 132)
    assert (desk.info().closed, desk.balances()) == (1, (0, 0, 0, 0))


def test_a_top_up_does_not_hold_up_the_provider(desk: Desk) -> None:
    """It comes before or after a close in one tick: in both orders nobody loses anything."""
    for topped_first in (True, False):
        escrow, start = desk.opened(100, deadline=1_000), desk.balances()
        if topped_first:
            assert top_up(desk, escrow, 50, 100, desk.host.tick + 1_100) == Code.OK
            assert desk.close(escrow, 40) == Code.OK
        else:
            assert desk.close(escrow, 40) == Code.OK
            assert top_up(desk, escrow, 50, 100, desk.host.tick + 1_100) == Code.UNKNOWN_ESCROW
        caller, provider, _, held = (now - then for now, then in zip(desk.balances(), start, strict=True))
        assert (caller, provider, held) == (100 - 40, 38, 40 - 38 - 100)
        desk.tick_to(desk.host.tick + 1)


def test_without_its_new_fields_it_is_refused(desk: Desk) -> None:
    """Who still sends the escrow alone says that the deposit is 0."""
    escrow = desk.opened(100)
    assert desk.code(desk.caller, TOP_UP, escrow, 50) == Code.CHANGED
    assert desk.host.balance(CONTRACT) == 100
