"""The host against facts of a genuine node: how money moves, and who is told."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from escrow_bridge.devnet.host import Host, contract_id
from tests.support.probes import (
    ALICE,
    BOB,
    CALLER,
    FIRST_TICK,
    GENESIS,
    MONEY,
    NOBODY,
    NULL_ID,
    OPENER,
    QUIET,
    new_chain,
    run,
)

MOVE, BURN, DIVIDENDS, SET_REPLY = 1, 2, 3, 4
MAX_AMOUNT = 10**15
REFUSED = -1_000_000_000_000_001
INVALID = -(2**63)
WITHOUT_A_PROCEDURE, BY_PROCEDURE, BY_TRANSFER, BY_CALL = 0, 1, 2, 6


@dataclass(frozen=True)
class Seen:
    """What the probe's POST_INCOMING_TRANSFER saw last, and when its procedure ran."""

    source: bytes
    invocator: bytes
    originator: bytes
    amount: int
    reward: int
    balance: int
    count: int
    type: int
    total: int
    procedure_at: int
    replied: int
    dividends_within: bool


def seen(chain: Host) -> Seen:
    fields = struct.unpack("<32s32s32sqqqQI4xQQq32sq?7x", chain.query(MONEY, 1, b""))
    return Seen(*fields[:10] + fields[12:])


def balance(chain: Host) -> int:
    return chain.balance(contract_id(MONEY))


def move(chain: Host, to: bytes, amount: int, reward: int = 0) -> tuple[int, int, bool]:
    """(what qpi.transfer returned, own balance then, whether the destination was known before)."""
    output = run(chain, MONEY, MOVE, to + struct.pack("<q", amount), reward)
    result, left, known = struct.unpack("<qq?7x", output)
    return result, left, known


@pytest.fixture
def chain() -> Host:
    """MONEY owns 1,000 QU."""
    host = new_chain()
    assert host.apply(ALICE, contract_id(MONEY), 1_000, 0, b"")
    return host


def test_transfer_returns_the_remaining_balance(chain: Host) -> None:
    assert move(chain, BOB, 300) == (700, 700, False)
    assert move(chain, BOB, 700) == (0, 0, True)
    assert chain.balance(BOB) == 1_000


def test_too_much_returns_what_is_missing_and_does_nothing(chain: Host) -> None:
    assert move(chain, BOB, 1_001)[:2] == (-1, 1_000)
    assert chain.entity(BOB) is None


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT + 1, -(2**63), 2**63 - 1])
def test_an_impossible_amount_is_refused(chain: Host, amount: int) -> None:
    assert move(chain, BOB, amount)[:2] == (REFUSED, 1_000)


def test_amount_zero_creates_an_unknown_destination(chain: Host) -> None:
    assert move(chain, BOB, 0) == (1_000, 1_000, False)
    assert move(chain, BOB, 0) == (1_000, 1_000, True)
    assert chain.balance(BOB) == 0


def test_to_itself_says_less_but_keeps_all(chain: Host) -> None:
    before = seen(chain).total
    assert move(chain, contract_id(MONEY), 400)[:2] == (600, 1_000)
    assert seen(chain).total == before + 2, "the procedure, and the own notification"
    assert (seen(chain).source, seen(chain).type) == (contract_id(MONEY), BY_TRANSFER)


def test_to_the_zero_id_destroys(chain: Host) -> None:
    assert move(chain, NULL_ID, 400)[:2] == (600, 600)
    assert chain.destroyed == 400
    assert chain.balance(NULL_ID) == 0


@pytest.mark.parametrize(
    ("to", "result", "left"),
    [(BOB, 1_090, 1_090), (contract_id(QUIET), INVALID, 1_100), (NULL_ID, INVALID, 1_100)],
    ids=["user", "contract", "zero id"],
)
def test_while_money_comes_in_only_users_can_be_paid(chain: Host, to: bytes, result: int, left: int) -> None:
    run(chain, MONEY, SET_REPLY, to + struct.pack("<q", 10))
    chain.apply(ALICE, contract_id(MONEY), 100, 0, b"")
    assert seen(chain).replied == result
    assert balance(chain) == left
    assert not seen(chain).dividends_within


def test_burn_feeds_the_own_reserve_by_exactly_the_amount(chain: Host) -> None:
    before = chain.reserve(MONEY)
    burned = struct.unpack("<qq", run(chain, MONEY, BURN, struct.pack("<qI", 300, 0)))
    assert burned == (700, before + 300)
    assert (chain.destroyed, balance(chain), chain.reserve(MONEY)) == (300, 700, before + 300)


@pytest.mark.parametrize(("amount", "result"), [(1_001, -1), (-1, REFUSED), (MAX_AMOUNT + 1, REFUSED)])
def test_burn_refuses_like_transfer(chain: Host, amount: int, result: int) -> None:
    output = run(chain, MONEY, BURN, struct.pack("<qI", amount, 0))
    assert struct.unpack("<qq", output) == (result, chain.reserve(MONEY))
    assert balance(chain) == 1_000


@pytest.mark.parametrize(
    ("per_share", "done", "left"),
    [(1, True, 324), (0, True, 1_000), (2, False, 1_000), (-1, False, 1_000), (2**62, False, 1_000)],
)
def test_dividends_take_676_times_and_vanish_without_shares(
    chain: Host, per_share: int, done: bool, left: int
) -> None:
    output = run(chain, MONEY, DIVIDENDS, struct.pack("<q", per_share))
    assert (output == b"\x01", balance(chain), chain.destroyed) == (done, left, 1_000 - left)


def test_what_does_nothing_keeps_the_money(chain: Host) -> None:
    run(chain, QUIET, 1, amount=10)
    assert chain.balance(contract_id(QUIET)) == 10


@pytest.mark.parametrize("input_type", [0, 77])
def test_money_without_a_procedure_stays_and_shows_as_type_0(chain: Host, input_type: int) -> None:
    assert chain.call(ALICE, contract_id(MONEY), 10, input_type, b"") == b""
    assert balance(chain) == 1_010
    assert (seen(chain).source, seen(chain).amount, seen(chain).type) == (ALICE, 10, WITHOUT_A_PROCEDURE)
    assert (seen(chain).invocator, seen(chain).originator, seen(chain).reward) == (NULL_ID, NULL_ID, 0)


def test_the_notification_comes_first_with_the_money_credited(chain: Host) -> None:
    before = seen(chain).total
    move(chain, BOB, 0, reward=10)
    assert (seen(chain).count, seen(chain).procedure_at) == (before + 1, before + 2)
    assert (seen(chain).balance, seen(chain).amount, seen(chain).type) == (1_010, 10, BY_PROCEDURE)


def test_without_money_nobody_is_notified(chain: Host) -> None:
    before = seen(chain).total
    move(chain, contract_id(MONEY), 0)
    assert seen(chain).total == before + 1


def test_a_transfer_by_a_contract_shows_its_real_invocator(chain: Host) -> None:
    chain.apply(ALICE, contract_id(CALLER), 50, 0, b"")
    output = run(chain, CALLER, 3, struct.pack("<q", 30))
    assert struct.unpack("<qqI4x", output) == (1_030, chain.reserve(MONEY), 0)
    assert (seen(chain).invocator, seen(chain).originator) == (contract_id(CALLER), ALICE)
    assert (seen(chain).source, seen(chain).type, seen(chain).amount) == (contract_id(CALLER), BY_CALL, 30)


@pytest.mark.parametrize("reserve", [0, -5])
def test_without_a_reserve_nothing_runs_and_money_comes_back(chain: Host, reserve: int) -> None:
    chain.set_reserve(MONEY, reserve)
    before, total = chain.balance(ALICE), seen(chain).total
    assert run(chain, MONEY, MOVE, BOB + struct.pack("<q", 5), 10) == b""
    assert chain.apply(ALICE, contract_id(MONEY), 10, 0, b"")
    assert (chain.balance(ALICE), balance(chain), chain.entity(BOB)) == (before, 1_000, None)
    assert seen(chain).total == total, "functions still answer"


def test_anyone_can_refill_a_reserve_and_a_deficit_wants_more_than_itself(chain: Host) -> None:
    chain.set_reserve(QUIET, -5)
    run(chain, MONEY, BURN, struct.pack("<qI", 5, QUIET))
    assert (chain.reserve(QUIET), run(chain, QUIET, 2)) == (0, b"")
    run(chain, MONEY, BURN, struct.pack("<qI", 1, QUIET))
    assert chain.reserve(QUIET) == 1
    assert run(chain, QUIET, 2) != b""


def test_a_transaction_that_cannot_be_afforded_is_skipped(chain: Host) -> None:
    whole = chain.balance(ALICE)
    assert not chain.apply(ALICE, BOB, whole + 1, 0, b"")
    assert chain.apply(ALICE, BOB, whole, 0, b"")
    assert not chain.apply(ALICE, BOB, whole, 0, b"")
    assert chain.balance(BOB) == whole


def test_who_has_nothing_can_send_nothing(chain: Host) -> None:
    assert not chain.apply(NOBODY, contract_id(QUIET), 0, 2, b"")
    move(chain, NOBODY, 0)
    assert not chain.apply(NOBODY, contract_id(QUIET), 0, 2, b"")
    move(chain, NOBODY, 1)
    assert chain.apply(NOBODY, contract_id(QUIET), 0, 2, b"")


@pytest.mark.parametrize("source", [contract_id(MONEY), NULL_ID])
def test_nobody_can_send_as_a_contract(chain: Host, source: bytes) -> None:
    assert not chain.apply(source, BOB, 1, 0, b"")


def test_money_to_an_index_without_a_contract_stays_there(chain: Host) -> None:
    assert chain.apply(ALICE, contract_id(OPENER + 1), 10, 1, b"")
    assert chain.balance(contract_id(OPENER + 1)) == 10


def test_entities_count_their_moves(chain: Host) -> None:
    chain.end_tick()
    chain.begin_tick(FIRST_TICK + 5)
    chain.apply(ALICE, BOB, 10, 0, b"")
    bob, alice = chain.entity(BOB), chain.entity(ALICE)
    assert bob and alice
    assert (bob.incoming, bob.outgoing, bob.incoming_count, bob.last_incoming_tick) == (10, 0, 1, 1_005)
    assert (alice.outgoing, alice.outgoing_count, alice.last_outgoing_tick) == (1_010, 2, 1_005)
    assert alice.balance == GENESIS - 1_010
