"""The escrow contract: closing by the caller, expiry, and refunds without anyone acting."""

from __future__ import annotations

import struct

import pytest

from tests.support.escrow import FINALIZE, REQUEST_CLOSE, Code, Desk
from tests.support.probes import FIRST_TICK, NULL_ID, QUBIX

SWEEP = 16


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.tick_to(FIRST_TICK + SWEEP - FIRST_TICK % SWEEP)
    return desk


def request_close(desk: Desk, escrow: bytes) -> tuple[Code, int]:
    code, close_tick = struct.unpack("<II", desk.call(desk.caller, REQUEST_CLOSE, escrow))
    return Code(code), close_tick


def test_a_request_opens_the_challenge_window(desk: Desk) -> None:
    escrow, now = desk.opened(challenge=25), desk.host.tick
    assert request_close(desk, escrow) == (Code.OK, now + 25)
    channel = desk.channel(escrow)
    assert channel and channel.close_tick == now + 25
    assert desk.balances()[3] == 10_000, "the money stays until the window is over"


def test_the_window_ends_with_the_deadline_at_the_latest(desk: Desk) -> None:
    escrow, now = desk.opened(deadline=40, challenge=25), desk.host.tick
    desk.tick_to(now + 20)
    assert request_close(desk, escrow) == (Code.OK, now + 40)


def test_a_second_request_does_not_move_the_window(desk: Desk) -> None:
    escrow, now = desk.opened(challenge=25), desk.host.tick
    request_close(desk, escrow)
    desk.tick_to(now + 5)
    assert request_close(desk, escrow)[0] == Code.CLOSING
    channel = desk.channel(escrow)
    assert channel and channel.close_tick == now + 25


def test_a_request_is_the_callers_and_needs_a_living_channel(desk: Desk) -> None:
    escrow, now = desk.opened(deadline=33), desk.host.tick
    for wallet in (desk.provider, desk.stranger):
        assert desk.code(wallet, REQUEST_CLOSE, escrow) == Code.NOT_CALLER
    assert request_close(desk, NULL_ID)[0] == Code.UNKNOWN_ESCROW
    desk.tick_to(now + 33)
    assert request_close(desk, escrow)[0] == Code.TOO_LATE


@pytest.mark.parametrize("by", ["caller", "provider", "stranger"])
@pytest.mark.parametrize("closing", [True, False], ids=["closing", "deadline"])
def test_finalize_is_anyones_and_exact_to_the_tick(desk: Desk, by: str, closing: bool) -> None:
    escrow, now = desk.opened(deadline=200 if closing else 37, challenge=37), desk.host.tick
    assert desk.redeem(escrow, 1_000) == Code.OK
    if closing:
        request_close(desk, escrow)
    desk.tick_to(now + 36)
    assert desk.code(getattr(desk, by), FINALIZE, escrow) == Code.TOO_EARLY
    assert desk.redeem(escrow, 2_000) == Code.OK, "the last tick in which one can redeem"
    desk.tick_to(now + 37)
    assert desk.redeem(escrow, 3_000) == Code.TOO_LATE
    assert desk.code(getattr(desk, by), FINALIZE, escrow) == Code.OK
    assert desk.balances() == (-2_000, 1_900, 0, 100)
    assert desk.code(getattr(desk, by), FINALIZE, escrow) == Code.UNKNOWN_ESCROW
    desk.check()


@pytest.mark.parametrize("closing", [True, False], ids=["closing", "deadline"])
def test_expiry_refunds_without_anyone_acting(desk: Desk, closing: bool) -> None:
    escrow, now = desk.opened(deadline=200 if closing else 40, challenge=40), desk.host.tick
    assert desk.redeem(escrow, 1_000) == Code.OK
    if closing:
        request_close(desk, escrow)
    desk.tick_to(now + 48)
    assert desk.channel(escrow) is not None, "the next sweep ends tick 48"
    desk.tick_to(now + 49)
    assert desk.channel(escrow) is None
    assert desk.balances() == (-1_000, 950, 0, 50)
    assert desk.info().closed == 1
    desk.check()


def test_a_sweep_leaves_the_living_alone(desk: Desk) -> None:
    now = desk.host.tick
    escrows = {
        deadline: desk.open(100, deadline=deadline, terms=bytes([deadline]) * 32)[1]
        for deadline in range(33, 97)
    }
    desk.tick_to(now + 65)
    alive = {deadline for deadline, escrow in escrows.items() if desk.channel(escrow)}
    assert alive == set(range(65, 97))
    assert desk.balances()[3] == 100 * len(alive)
    desk.check()


def test_only_a_sweep_that_refunds_writes(desk: Desk) -> None:
    now = desk.host.tick
    desk.opened(deadline=40)
    for tick in range(now + 1, now + 50):
        desk.tick_to(tick)
        desk.host.end_tick()
        assert desk.host.state_changed(QUBIX) == (tick == now + 48)


def test_without_a_reserve_refunds_wait_until_somebody_feeds_it(desk: Desk) -> None:
    escrow, now = desk.opened(deadline=40), desk.host.tick
    desk.host.set_reserve(QUBIX, 0)
    desk.tick_to(now + 70)
    assert desk.call(desk.caller, FINALIZE, escrow) == b""
    assert desk.channel(escrow) is not None
    desk.host.set_reserve(QUBIX, 1)
    assert desk.code(desk.caller, FINALIZE, escrow) == Code.OK
    assert desk.balances() == (0, 0, 0, 0)


def test_without_a_reserve_the_end_of_an_epoch_refunds(desk: Desk) -> None:
    over, alive = desk.opened(deadline=40), desk.open(deadline=90, terms=b"\1" * 32)[1]
    desk.host.set_reserve(QUBIX, 0)
    desk.tick_to(desk.host.tick + 70)
    assert desk.channel(over) is not None
    desk.host.end_tick()
    desk.host.change_epoch()
    desk.host.begin_tick(desk.host.tick + 1)
    assert desk.channel(over) is None and desk.channel(alive) is not None
    assert desk.balances() == (-10_000, 0, 0, 10_000)
    desk.check()
