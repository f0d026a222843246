"""Disputes: a bond, two of three arbiters, a time-out that leaves all as it was; changes of arbiters."""

from __future__ import annotations

import pytest

from escrow_bridge.devnet.host import contract_id
from escrow_bridge.qubic import Wallet
from tests.support.escrow import PURSE, Code
from tests.support.guild import BOND_OF_DISPUTE, DISPUTE_TICKS, ENOUGH, METADATA, STAKE, Guild
from tests.support.probes import NULL_ID, QUBIX

FOR_CALLER, FOR_PROVIDER = 1, 2


@pytest.fixture
def guild() -> Guild:
    guild = Guild()
    assert guild.register() == Code.OK
    return guild


@pytest.fixture
def escrow(guild: Guild) -> bytes:
    return guild.ended_lease(burn=10_000)


def bonds(guild: Guild) -> tuple[int, int, int]:
    """What the caller and the provider have of the bond, and what the contract holds of it."""
    caller = guild.host.balance(guild.caller.public_key) - PURSE + 10_000
    provider = guild.host.balance(guild.provider.public_key) - PURSE + STAKE
    return caller, provider, guild.info().bonds


def test_a_dispute_holds_the_bond_and_counts(guild: Guild, escrow: bytes) -> None:
    assert guild.dispute(escrow) == Code.OK
    assert bonds(guild) == (-BOND_OF_DISPUTE, 0, BOND_OF_DISPUTE)
    case, view, ticket = guild.case(escrow), guild.view(), guild.ticket(escrow)
    assert case and view and ticket
    assert (case.caller, case.provider) == (guild.caller.public_key, guild.provider.public_key)
    assert (case.evidence, case.until_tick) == (METADATA, guild.host.tick + DISPUTE_TICKS)
    assert (case.verdicts, view.disputed, view.failed, ticket.disputed) == ((0, 0, 0), 1, 0, True)
    guild.check()


@pytest.mark.parametrize("bond", [0, BOND_OF_DISPUTE - 1, BOND_OF_DISPUTE + 1])
def test_the_bond_is_exact(guild: Guild, escrow: bytes, bond: int) -> None:
    assert guild.dispute(escrow, bond=bond) == Code.BAD_DEPOSIT
    assert bonds(guild) == (0, 0, 0)


def test_only_the_caller_of_an_ended_lease_disputes_it_and_once(guild: Guild, escrow: bytes) -> None:
    assert guild.dispute(escrow, by=guild.stranger) == Code.NO_TICKET
    assert guild.dispute(escrow, by=guild.provider) == Code.NO_TICKET
    assert guild.dispute(guild.open(terms=METADATA)[1]) == Code.NO_TICKET
    assert guild.dispute(escrow) == Code.OK
    assert guild.dispute(escrow) == Code.ALREADY_DONE
    assert guild.rate(escrow, 1) == Code.OK, "a dispute does not cost the rating"


@pytest.mark.parametrize("disputed", [True, False])
def test_an_id_whose_lease_left_a_ticket_opens_no_more(guild: Guild, escrow: bytes, disputed: bool) -> None:
    """In the same tick it would be the same id: a new ticket would be free of the first's rating and dispute,
    and a second dispute would bury the first one's bond."""
    assert guild.rate(escrow, 1) == Code.OK
    assert not disputed or guild.dispute(escrow) == Code.OK
    assert guild.open(2 * ENOUGH) == (Code.ALREADY_OPEN, NULL_ID)
    assert guild.open(2 * ENOUGH, terms=METADATA)[0] == Code.OK, "other terms are another lease"
    assert guild.rate(escrow, 1) == Code.ALREADY_DONE
    assert guild.dispute(escrow) == (Code.ALREADY_DONE if disputed else Code.OK)
    case = guild.case(escrow)
    assert case and guild.info().bonds == BOND_OF_DISPUTE
    leap(guild, -(-case.until_tick // 16) * 16)
    leap(guild, guild.host.tick + 1)
    assert guild.info().bonds == 0
    guild.check()


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (2, 0)])
def test_two_arbiters_for_the_caller_return_the_bond(
    guild: Guild, escrow: bytes, pair: tuple[int, int]
) -> None:
    assert guild.dispute(escrow) == Code.OK
    for arbiter in pair:
        assert guild.decide(escrow, FOR_CALLER, guild.arbiters[arbiter]) == Code.OK
    view = guild.view()
    assert view and (view.disputed, view.failed, view.stake) == (1, 1, STAKE), "a stake falls to proof only"
    assert bonds(guild) == (0, 0, 0)
    assert guild.case(escrow) is None
    guild.check()


def test_two_arbiters_for_the_provider_give_it_the_bond(guild: Guild, escrow: bytes) -> None:
    assert guild.dispute(escrow) == Code.OK
    for arbiter, verdict in zip(guild.arbiters, (FOR_PROVIDER, FOR_CALLER, FOR_PROVIDER), strict=True):
        assert guild.decide(escrow, verdict, arbiter) == Code.OK
    view = guild.view()
    assert view and (view.disputed, view.failed) == (1, 0)
    assert bonds(guild) == (-BOND_OF_DISPUTE, BOND_OF_DISPUTE, 0)
    assert guild.decide(escrow, FOR_CALLER, guild.arbiters[1]) == Code.UNKNOWN_DISPUTE
    assert guild.dispute(escrow) == Code.ALREADY_DONE, "a lease is judged once"


def test_only_arbiters_decide_and_each_once(guild: Guild, escrow: bytes) -> None:
    assert guild.decide(escrow, FOR_CALLER, guild.arbiters[0]) == Code.UNKNOWN_DISPUTE
    assert guild.dispute(escrow) == Code.OK
    for wallet in (guild.caller, guild.provider, guild.stranger):
        assert guild.decide(escrow, FOR_CALLER, wallet) == Code.NOT_ARBITER
    for verdict in (0, 3, 255):
        assert guild.decide(escrow, verdict, guild.arbiters[0]) == Code.BAD_VERDICT
    assert guild.decide(escrow, FOR_CALLER, guild.arbiters[0]) == Code.OK
    assert guild.decide(escrow, FOR_CALLER, guild.arbiters[0]) == Code.ALREADY_DONE
    assert bonds(guild)[2] == BOND_OF_DISPUTE


def leap(guild: Guild, tick: int) -> None:
    guild.host.end_tick()
    guild.host.begin_tick(tick)


@pytest.mark.parametrize("votes", [[], [FOR_CALLER], [FOR_PROVIDER], [FOR_CALLER, FOR_PROVIDER]])
def test_what_nobody_decides_leaves_all_as_it_was(guild: Guild, escrow: bytes, votes: list[int]) -> None:
    assert guild.dispute(escrow) == Code.OK
    for arbiter, verdict in zip(guild.arbiters, votes, strict=False):
        assert guild.decide(escrow, verdict, arbiter) == Code.OK
    case = guild.case(escrow)
    assert case
    leap(guild, case.until_tick)
    assert guild.decide(escrow, FOR_CALLER, guild.arbiters[2]) == Code.TOO_LATE
    sweep = (case.until_tick + 15) // 16 * 16
    leap(guild, sweep)
    leap(guild, sweep + 1)
    assert guild.case(escrow) is None
    view = guild.view()
    assert view and (view.disputed, view.failed, bonds(guild)) == (1, 0, (0, 0, 0))
    guild.check()


def test_the_last_tick_to_decide_is_exact(guild: Guild, escrow: bytes) -> None:
    assert guild.dispute(escrow) == Code.OK
    case = guild.case(escrow)
    assert case
    leap(guild, case.until_tick - 1)
    assert guild.decide(escrow, FOR_CALLER, guild.arbiters[2]) == Code.OK


def test_too_many_disputes_are_refused_with_the_bond(guild: Guild) -> None:
    for number in range(64):
        assert guild.dispute(guild.ended_lease(terms=number.to_bytes(32, "big"))) == Code.OK
    assert guild.dispute(guild.ended_lease(terms=b"\xee" * 32)) == Code.FULL
    assert guild.info().bonds == 64 * BOND_OF_DISPUTE
    guild.check()


def test_an_arbiter_does_not_judge_itself() -> None:
    guild = Guild()
    guild.provider = guild.arbiters[0]
    guild.host.credit(guild.provider.public_key, PURSE)
    assert guild.register() == Code.OK
    escrow = guild.ended_lease()
    assert guild.dispute(escrow) == Code.OK
    assert guild.decide(escrow, FOR_PROVIDER, guild.arbiters[0]) == Code.NOT_ARBITER
    assert guild.decide(escrow, FOR_CALLER, guild.arbiters[1]) == Code.OK


def arbiters(guild: Guild) -> list[bytes]:
    output = guild.host.query(QUBIX, 6, b"")
    return [output[start : start + 32] for start in (0, 32, 64)]


def test_two_arbiters_replace_one(guild: Guild, escrow: bytes) -> None:
    old = [arbiter.public_key for arbiter in guild.arbiters]
    assert arbiters(guild) == old
    new = Wallet("n" * 55)
    guild.host.credit(new.public_key, 10)
    assert guild.rotate(new.public_key, 2, guild.arbiters[0]) == Code.OK
    assert guild.rotate(new.public_key, 1, guild.arbiters[1]) == Code.OK, "another place is another wish"
    assert guild.rotate(new.public_key, 2, guild.arbiters[0]) == Code.OK, "one arbiter counts once"
    assert arbiters(guild) == old
    assert guild.rotate(new.public_key, 2, guild.arbiters[1]) == Code.OK
    assert arbiters(guild) == [*old[:2], new.public_key]
    assert guild.dispute(escrow) == Code.OK
    assert guild.decide(escrow, FOR_CALLER, guild.arbiters[2]) == Code.NOT_ARBITER
    assert guild.decide(escrow, FOR_CALLER, new) == Code.OK


def test_wishes_end_with_a_rotation(guild: Guild) -> None:
    first, second, third = guild.arbiters
    assert guild.rotate(guild.caller.public_key, 2, first) == Code.OK
    assert guild.rotate(guild.stranger.public_key, 0, second) == Code.OK
    assert guild.rotate(guild.caller.public_key, 2, third) == Code.OK
    assert guild.rotate(guild.stranger.public_key, 0, first) == Code.OK
    assert arbiters(guild)[0] == first.public_key, "the old wish of the second does not count any more"


def test_rotations_that_are_refused(guild: Guild) -> None:
    arbiter, key = guild.arbiters[0], guild.stranger.public_key
    assert guild.rotate(key, 0, guild.stranger) == Code.NOT_ARBITER
    assert guild.rotate(key, 3, arbiter) == Code.BAD_COUNT
    for candidate in (NULL_ID, contract_id(QUBIX), guild.arbiters[1].public_key):
        assert guild.rotate(candidate, 0, arbiter) == Code.BAD_PARTY
    guild.network ^= 1
    assert guild.rotate(key, 0, arbiter) == Code.BAD_NETWORK
