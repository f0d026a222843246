"""Buying a digital item: 98 % to the seller, 2 % royalty to the contract, a ticket as the proof."""

from __future__ import annotations

import pytest

from escrow_bridge.devnet.host import contract_id
from escrow_bridge.layout_registry import TicketKind, TicketView
from protocol.units import Qu, QubicId
from tests.support.escrow import Code
from tests.support.guild import ENOUGH, Guild
from tests.support.probes import EPOCH, NULL_ID, QUBIX

ITEM = b"\x17" * 32


@pytest.fixture
def guild() -> Guild:
    return Guild()


def ticket(guild: Guild, kind: TicketKind = TicketKind.PURCHASE) -> TicketView | None:
    buyer, seller = QubicId(guild.caller.public_key), QubicId(guild.provider.public_key)
    return guild.ticket_of(kind, ITEM, buyer, seller)


@pytest.mark.parametrize("price", [ENOUGH, ENOUGH + 49, 10**12 + 1])
def test_a_purchase_pays_the_seller_and_leaves_a_proof(guild: Guild, price: int) -> None:
    assert guild.buy(ITEM, price) == Code.OK
    royalty = price * 2 // 100
    assert guild.balances() == (-price, price - royalty, 0, royalty)
    assert ticket(guild) == TicketView(Qu(price), EPOCH, False, False)
    assert guild.info().fees_undistributed == guild.info().fees_collected == royalty
    guild.check()


def test_a_purchase_sent_twice_is_paid_once(guild: Guild) -> None:
    assert guild.buy(ITEM, ENOUGH) == Code.OK
    assert guild.buy(ITEM, ENOUGH) == Code.ALREADY_DONE
    assert guild.balances()[0] == -ENOUGH
    assert guild.buy(ITEM, ENOUGH, by=guild.stranger) == Code.OK
    assert guild.buy(b"\x18" * 32, ENOUGH) == Code.OK


@pytest.mark.parametrize("price", [0, ENOUGH - 1])
def test_a_price_too_small_comes_back(guild: Guild, price: int) -> None:
    assert guild.buy(ITEM, price) == Code.BAD_DEPOSIT
    assert guild.balances() == (0, 0, 0, 0)


def test_sellers_are_users(guild: Guild) -> None:
    for seller in (NULL_ID, contract_id(QUBIX), guild.caller.public_key):
        assert guild.buy(ITEM, ENOUGH, seller=seller) == Code.BAD_PARTY
    guild.network ^= 1
    assert guild.buy(ITEM, ENOUGH) == Code.BAD_NETWORK
    assert guild.balances() == (0, 0, 0, 0)


def test_a_purchase_is_no_lease(guild: Guild) -> None:
    """Else one could rate and dispute a provider for the price of an item."""
    assert guild.register() == guild.buy(ITEM, ENOUGH) == Code.OK
    assert ticket(guild, TicketKind.LEASE) is None
    assert guild.rate(ITEM, 1) == guild.dispute(ITEM) == Code.NO_TICKET


def test_a_proof_of_purchase_expires(guild: Guild) -> None:
    assert guild.buy(ITEM, ENOUGH) == Code.OK
    guild.next_epoch()
    assert ticket(guild)
    guild.next_epoch()
    assert ticket(guild) is None


def test_nobody_can_buy_the_tickets_of_leases_away(guild: Guild) -> None:
    assert guild.register() == Code.OK
    for number in range(1_024):
        assert guild.buy(number.to_bytes(32, "little"), ENOUGH) == Code.OK
    before = guild.balances()
    assert guild.buy(b"\xff" * 32, ENOUGH) == Code.FULL
    assert guild.balances() == before
    assert guild.rate(guild.ended_lease(), 5) == Code.OK
    guild.next_epoch()
    guild.next_epoch()
    assert guild.buy(b"\xff" * 32, ENOUGH) == Code.OK
    guild.check()
