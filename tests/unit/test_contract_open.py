"""The escrow contract: opening a channel."""

from __future__ import annotations

import struct

import pytest

from escrow_bridge.devnet.host import QUBIX_HEADER, Host, contract_id
from escrow_bridge.qubic import k12
from tests.support.escrow import (
    CAPACITY,
    CROWD,
    MAX_CHALLENGE,
    MAX_DEADLINE,
    MAX_DEPOSIT,
    MIN_CHALLENGE,
    MIN_DEADLINE,
    Channel,
    Code,
    Desk,
)
from tests.support.probes import ALICE, FIRST_TICK, MONEY, NULL_ID, OPENER, QUBIX, run

TERMS = bytes(range(32))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_channel_is_what_was_asked_for(desk: Desk) -> None:
    code, escrow = desk.open(5_000, deadline=700, challenge=33, terms=TERMS)
    assert code == Code.OK
    assert desk.channel(escrow) == Channel(
        desk.caller.public_key, desk.provider.public_key, 5_000, 0, FIRST_TICK + 700, 0, 33, FIRST_TICK
    )
    assert desk.balances() == (-5_000, 0, 0, 5_000)
    desk.check()


def test_the_escrow_id_can_be_known_beforehand(desk: Desk) -> None:
    _, escrow = desk.open(terms=TERMS)
    parties = desk.caller.public_key + desk.provider.public_key
    assert escrow == k12(parties + TERMS + struct.pack("<II", QUBIX, FIRST_TICK))


def test_the_escrow_id_holds_the_tick_it_opened_in(desk: Desk) -> None:
    first = desk.opened()
    assert desk.close(first, 0) == Code.OK
    desk.tick_to(FIRST_TICK + 1)
    assert desk.opened() != first


@pytest.mark.parametrize(
    ("deposit", "expected"), [(0, Code.BAD_DEPOSIT), (1, Code.OK), (MAX_DEPOSIT, Code.OK)]
)
def test_deposits(desk: Desk, deposit: int, expected: Code) -> None:
    desk.host.credit(desk.caller.public_key, MAX_DEPOSIT)
    assert desk.open(deposit)[0] == expected
    desk.check()


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        (-1, Code.BAD_DEADLINE),
        (MIN_DEADLINE - 1, Code.BAD_DEADLINE),
        (MIN_DEADLINE, Code.OK),
        (MAX_DEADLINE, Code.OK),
        (MAX_DEADLINE + 1, Code.BAD_DEADLINE),
        (2**32 - 1 - FIRST_TICK, Code.BAD_DEADLINE),
    ],
)
def test_deadlines(desk: Desk, ticks: int, expected: Code) -> None:
    assert desk.open(deadline=ticks)[0] == expected


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        (0, Code.BAD_CHALLENGE),
        (MIN_CHALLENGE - 1, Code.BAD_CHALLENGE),
        (MIN_CHALLENGE, Code.OK),
        (MAX_CHALLENGE, Code.OK),
        (MAX_CHALLENGE + 1, Code.BAD_CHALLENGE),
        (2**32 - 1, Code.BAD_CHALLENGE),
    ],
)
def test_challenge_windows(desk: Desk, ticks: int, expected: Code) -> None:
    assert desk.open(challenge=ticks)[0] == expected


def test_parties_must_be_two_users(desk: Desk) -> None:
    for provider in (desk.caller.public_key, NULL_ID, contract_id(QUBIX), contract_id(MONEY)):
        assert desk.open(provider=provider) == (Code.BAD_PARTY, NULL_ID)
    assert desk.balances() == (0, 0, 0, 0)


def test_a_contract_cannot_be_the_caller(desk: Desk) -> None:
    """Nobody holds its key, and signatures of the lowest contract ids can be forged."""
    desk.host.apply(ALICE, contract_id(OPENER), 500, 0, b"")
    asked = (
        desk.provider.public_key + TERMS + struct.pack("<IIQQq", FIRST_TICK + 100, 20, desk.network, 0, 400)
    )
    assert run(desk.host, OPENER, 1, asked)[32:36] == bytes([Code.BAD_PARTY, 0, 0, 0])
    assert desk.host.balance(contract_id(OPENER)) == 500, "a contract gets its money back too"
    desk.check()


def test_an_opening_for_another_network_is_refused(desk: Desk) -> None:
    """A transaction names no network: without this, one sent to a test network could be sent again here."""
    desk.network ^= 1
    assert desk.open(500) == (Code.BAD_NETWORK, NULL_ID)
    assert desk.balances() == (0, 0, 0, 0)


def test_a_network_is_told_by_how_it_began() -> None:
    words = {
        Host.build({1: QUBIX_HEADER}, first_tick=tick, epoch=1).query(1, 2, b"")[32:40] for tick in (5, 5, 6)
    }
    assert len(words) == 2


@pytest.mark.parametrize(("burn", "expected"), [(10_000, Code.OK), (10_001, Code.BAD_BURN)])
def test_a_burn_share_is_a_part(desk: Desk, burn: int, expected: Code) -> None:
    assert desk.open(burn=burn)[0] == expected


def test_the_same_channel_opens_once_in_a_tick(desk: Desk) -> None:
    assert desk.open(100)[0] == Code.OK
    assert desk.open(200) == (Code.ALREADY_OPEN, NULL_ID)
    assert desk.open(200, terms=TERMS)[0] == Code.OK
    assert desk.balances() == (-300, 0, 0, 300)


def test_a_crowd_makes_places_dear_and_a_full_map_refuses(desk: Desk) -> None:
    """Twice the deposit for every 256 places taken: else 4,096 QU would keep everybody out."""
    locked = 0
    for number in range(CAPACITY):
        terms, least = number.to_bytes(32, "little"), 2 ** (number // CROWD)
        if number % CROWD == 0:
            assert desk.open(least - 1, terms=terms)[0] == (Code.FULL if number else Code.BAD_DEPOSIT)
        assert desk.open(least, terms=terms)[0] == Code.OK
        locked += least
    assert locked == 16_776_960
    assert desk.open(10**12, terms=b"\xff" * 32) == (Code.FULL, NULL_ID)
    assert desk.balances() == (-locked, 0, 0, locked)
    desk.tick_to(FIRST_TICK + 1_008)
    desk.tick_to(FIRST_TICK + 1_009)
    assert desk.info().closed == CAPACITY, "one sweep refunds a full map"
    assert desk.balances() == (0, 0, 0, 0)
    assert desk.open(1)[0] == Code.OK
