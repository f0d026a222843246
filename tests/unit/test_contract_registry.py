"""The contract's registry: stakes, records, ratings, leaving."""

from __future__ import annotations

import pytest

from escrow_bridge.qubic import Wallet
from tests.support.escrow import PURSE, Code
from tests.support.guild import ENOUGH, METADATA, PEER, STAKE, Guild
from tests.support.probes import FIRST_TICK, QUBIX


@pytest.fixture
def guild() -> Guild:
    return Guild()


def test_a_provider_registers_with_a_stake(guild: Guild) -> None:
    assert guild.register() == Code.OK
    view = guild.view()
    assert view and (view.peer_key, view.metadata, view.stake) == (PEER, METADATA, STAKE)
    assert (view.since_tick, view.exit_epoch, view.completed, view.ratings) == (FIRST_TICK, 0, 0, 0)
    assert guild.info().stakes == STAKE
    assert guild.balances() == (0, -STAKE, 0, STAKE)
    guild.check()


@pytest.mark.parametrize("stake", [0, 999_999])
def test_a_stake_too_small_comes_back(guild: Guild, stake: int) -> None:
    assert guild.register(stake) == Code.BAD_DEPOSIT
    assert guild.view() is None
    assert guild.balances() == (0, 0, 0, 0)


def test_one_registers_once(guild: Guild) -> None:
    assert guild.register() == Code.OK
    assert guild.register() == Code.ALREADY_REGISTERED
    assert guild.balances()[1] == -STAKE


def test_registering_updating_and_leaving_name_the_network(guild: Guild) -> None:
    """Sent again on another network they would lock money or end a registration there."""
    guild.network ^= 1
    assert guild.register() == guild.exit() == guild.update(PEER, PEER, 5) == Code.BAD_NETWORK
    assert guild.balances() == (0, 0, 0, 0)


def test_a_full_registry_refuses_and_gives_the_stake_back(guild: Guild) -> None:
    for number in range(1_024):
        wallet = Wallet("".join(chr(97 + number // 26**place % 26) for place in range(55)))
        guild.host.credit(wallet.public_key, 1_000_000)
        assert guild.register(1_000_000, by=wallet) == Code.OK
    assert guild.register() == Code.FULL
    assert guild.balances()[1] == 0
    guild.check()


def test_an_update_changes_the_record_and_adds_to_the_stake(guild: Guild) -> None:
    assert guild.update(PEER, METADATA, 7) == Code.UNKNOWN_PROVIDER
    assert guild.register() == Code.OK
    assert guild.update(METADATA, PEER, 7) == Code.OK
    view = guild.view()
    assert view and (view.peer_key, view.metadata, view.stake) == (METADATA, PEER, STAKE + 7)
    assert guild.balances()[1] == -STAKE - 7
    guild.check()


def test_a_stake_never_exceeds_what_one_transfer_can_return(guild: Guild) -> None:
    guild.host.credit(guild.provider.public_key, 10**15)
    assert guild.register(10**15) == Code.OK
    assert guild.update(PEER, METADATA, 1) == Code.BAD_DEPOSIT
    guild.check()


def test_a_stake_comes_back_after_one_whole_epoch(guild: Guild) -> None:
    assert guild.exit() == Code.UNKNOWN_PROVIDER
    assert guild.register() == Code.OK
    guild.next_epoch()
    assert guild.exit() == Code.OK
    view = guild.view()
    assert view and view.exit_epoch == guild.host.epoch + 1
    assert guild.exit() == guild.update(PEER, METADATA, 5) == Code.EXITING
    guild.next_epoch()
    assert guild.view() and guild.balances()[1] == -STAKE
    guild.next_epoch()
    assert guild.view() is None
    assert (guild.balances(), guild.info().stakes) == ((0, 0, 0, 0), 0)
    assert guild.register() == Code.OK, "and may come again"
    guild.check()


def test_a_stake_comes_back_even_without_a_reserve(guild: Guild) -> None:
    assert guild.register() == guild.exit() == Code.OK
    guild.host.set_reserve(QUBIX, 0)
    guild.next_epoch()
    guild.next_epoch()
    assert guild.balances() == (0, 0, 0, 0)


@pytest.mark.parametrize(("paid", "counts"), [(ENOUGH - 1, 0), (ENOUGH, 1), (ENOUGH + 1, 1)])
def test_what_a_lease_paid_makes_it_count(guild: Guild, paid: int, counts: int) -> None:
    assert guild.register() == Code.OK
    escrow = guild.ended_lease(paid)
    view, ticket = guild.view(), guild.ticket(escrow)
    assert view and (view.completed, view.volume) == (counts, paid * counts)
    assert (ticket is not None) == bool(counts)
    assert ticket is None or (ticket.amount, ticket.rated, ticket.disputed) == (paid, False, False)


def test_a_lease_that_expires_counts_as_one_that_is_closed(guild: Guild) -> None:
    assert guild.register() == Code.OK
    escrow = guild.opened(20_000, deadline=40)
    assert guild.redeem(escrow, ENOUGH) == Code.OK
    guild.tick_to(FIRST_TICK + 60)
    view = guild.view()
    assert view and (view.completed, view.volume) == (1, ENOUGH)
    assert guild.rate(escrow, 4) == Code.OK


def test_leases_of_unregistered_providers_leave_no_ticket(guild: Guild) -> None:
    escrow = guild.ended_lease()
    assert guild.register() == Code.OK
    assert guild.rate(escrow, 5) == Code.NO_TICKET


def test_a_caller_rates_once(guild: Guild) -> None:
    assert guild.register() == Code.OK
    first, second = guild.ended_lease(), guild.ended_lease(terms=b"\1" * 32)
    for stars in (0, 6, 2**32 - 1):
        assert guild.rate(first, stars) == Code.BAD_STARS
    assert guild.rate(first, 5, by=guild.stranger) == Code.NO_TICKET
    assert guild.rate(b"\7" * 32, 5) == Code.NO_TICKET
    assert guild.rate(first, 5) == guild.rate(second, 2) == Code.OK
    assert guild.rate(first, 1) == Code.ALREADY_DONE
    view = guild.view()
    assert view and (view.ratings, view.stars) == (2, 7)


def test_an_open_lease_is_not_rated(guild: Guild) -> None:
    assert guild.register() == Code.OK
    escrow = guild.opened(50_000)
    assert guild.redeem(escrow, 20_000) == Code.OK
    assert guild.rate(escrow, 5) == Code.NO_TICKET


def test_a_ticket_lives_until_the_end_of_the_next_epoch(guild: Guild) -> None:
    assert guild.register() == Code.OK
    escrow = guild.ended_lease()
    guild.next_epoch()
    assert guild.ticket(escrow)
    guild.next_epoch()
    assert guild.ticket(escrow) is None
    assert guild.rate(escrow, 5) == Code.NO_TICKET


def test_who_has_left_is_not_rated(guild: Guild) -> None:
    assert guild.register() == Code.OK
    guild.next_epoch()
    assert guild.exit() == Code.OK
    guild.next_epoch()
    escrow = guild.ended_lease()
    guild.next_epoch()
    assert guild.rate(escrow, 5) == Code.UNKNOWN_PROVIDER


def test_when_all_tickets_are_given_out_leases_still_end(guild: Guild) -> None:
    assert guild.register() == Code.OK
    escrows = [guild.ended_lease(terms=number.to_bytes(32, "little")) for number in range(1_025)]
    assert guild.ticket(escrows[1_023]) and guild.ticket(escrows[1_024]) is None
    view = guild.view()
    assert view and view.completed == 1_025
    spent = PURSE - guild.host.balance(guild.caller.public_key)
    assert spent == 1_025 * ENOUGH
    guild.check()
