"""What does not raise a score: each way to say more than was paid, against the real contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from protocol.errors import QubixError
from protocol.messages import Settlement
from protocol.score import HALF_PAID, LEAST_PAID, Score
from protocol.units import Qu
from qubixd.receipt_door import verify
from tests.support.offices import Office, Offices
from tests.support.receipt_deals import Deal, Party, Town


@asynccontextmanager
async def judged(town: Town, *deals: Deal) -> AsyncIterator[Office]:
    async with Offices(town) as offices:
        judge = await offices.open("judge", keeps_for_others=True)
        for deal in deals:
            offices.advertise(deal.provider)
        await judge.take(*deals)
        yield judge


async def score_of(town: Town, provider: Party, *deals: Deal) -> Score:
    """What somebody thinks of a provider who has heard this of it and asked the chain about all."""
    async with judged(town, *deals) as judge:
        result = await judge.score(provider)
        for _ in deals[::4]:
            result = await judge.score(provider)
        return result


def new_town(*, registered: bool = True) -> tuple[Town, Party, Party]:
    town = Town()
    provider, caller = town.party("alice"), town.party("bob")
    if registered:
        town.register(provider)
    return town, provider, caller


async def newcomer(town: Town, provider: Party) -> Score:
    async with Offices(town) as offices:
        offices.advertise(provider)
        judge = await offices.open("judge")
        return await judge.score(provider)


async def test_a_paid_lease_raises_it() -> None:
    """The reference: without this the tests below would say nothing."""
    town, provider, caller = new_town()
    deal = town.deal(provider, caller, paid=5 * HALF_PAID)
    base, raised = await newcomer(town, provider), await score_of(town, provider, deal)
    assert raised.g > base.g
    assert raised.reliability > base.reliability


@pytest.mark.parametrize("registered", [True, False])
async def test_an_unpaid_one_does_not(registered: bool) -> None:
    """Signatures of both sides, but no escrow was ever opened."""
    town, provider, caller = new_town(registered=registered)
    deal = town.deal(provider, caller, paid=5 * HALF_PAID, opens=False, closes=False)
    assert (await score_of(town, provider, deal)).g == (await newcomer(town, provider)).g


async def test_a_voucher_that_was_never_redeemed_does_not() -> None:
    """The escrow is open and the voucher good, but nobody has cashed it, whatever the settlement says."""
    town, provider, caller = new_town()
    deal = town.deal(provider, caller, paid=5 * HALF_PAID, closes=False)
    assert (await score_of(town, provider, deal)).g == (await newcomer(town, provider)).g


async def test_a_settlement_that_names_another_lease_s_transaction_does_not() -> None:
    town, provider, caller = new_town()
    real = town.deal(provider, caller, paid=LEAST_PAID)
    fake = town.deal(provider, caller, paid=5 * HALF_PAID, closes=False)
    borrowed = Deal(
        provider,
        caller,
        fake.signed_terms,
        fake.said,
        Settlement(fake.lease_id, real.settled.tick, real.settled.transaction),
    )
    assert (await score_of(town, provider, borrowed)).g == (await newcomer(town, provider)).g


async def test_of_a_voucher_cashed_in_part_only_that_part_counts() -> None:
    town, provider, caller = new_town()
    part = town.deal(provider, caller, paid=5 * HALF_PAID, redeems=LEAST_PAID)
    other = town.deal(provider, caller, paid=LEAST_PAID)
    assert (
        abs(
            (await score_of(town, provider, part)).reliability
            - (await score_of(town, provider, other)).reliability
        )
        < 1e-6
    )


async def test_transactions_that_moved_nothing_do_not_if_the_provider_is_registered() -> None:
    """An Open without cover is in its tick and locks nothing; so is the Close that follows. They cost
    nothing: only what the contract has counted counts."""
    town, provider, _ = new_town()
    poor = town.party("poor", Qu(1))
    deal = town.deal(provider, poor, paid=5 * HALF_PAID)
    assert (await score_of(town, provider, deal)).g == (await newcomer(town, provider)).g


async def test_and_stay_under_the_cap_if_it_is_not() -> None:
    town, provider, _ = new_town(registered=False)
    crowd = [town.deal(provider, town.party(f"poor {n}", Qu(1)), paid=50 * HALF_PAID) for n in range(12)]
    result = await score_of(town, provider, *crowd)
    assert result.g < 0.2


async def test_of_another_network_is_not_even_taken() -> None:
    town, provider, caller = new_town()
    deal = town.deal(provider, caller, paid=5 * HALF_PAID, network="testnet")
    async with judged(town) as judge:
        with pytest.raises(QubixError, match="another network"):
            await judge.take(deal)
        assert (await judge.score(provider)).confidence == 0


async def test_a_replay_counts_once() -> None:
    town, provider, caller = new_town()
    deal = town.deal(provider, caller, paid=HALF_PAID)
    once, often = await score_of(town, provider, deal), await score_of(town, provider, *[deal] * 6)
    assert often.g == once.g


async def test_of_two_receipts_for_one_lease_the_lesser_counts_in_any_order() -> None:
    town, provider, caller = new_town()
    deal = town.deal(provider, caller, paid=HALF_PAID)
    failed = deal.saying(outcome="failed", cumulative=Qu(0), voucher=b"")
    one, other = await score_of(town, provider, deal, failed), await score_of(town, provider, failed, deal)
    assert one.g == other.g < (await newcomer(town, provider)).g + 1e-12


async def test_a_paid_lease_copied_under_another_is_not_taken() -> None:
    town, provider, caller = new_town()
    paid = town.deal(provider, caller, paid=HALF_PAID)
    other = town.deal(provider, caller, paid=HALF_PAID, opens=False, closes=False)
    copied = paid.saying(signed_terms=other.signed_terms)
    async with judged(town) as judge:
        with pytest.raises(QubixError, match="not the one of these terms"):
            await judge.shelf.take(verify(copied.receipt))


async def test_a_famous_wallet_in_the_terms_lends_no_counters() -> None:
    """The wallet in the terms is registered for another node."""
    town, famous, _ = new_town()
    for number in range(6):
        town.deal(famous, town.party(f"c{number}"), paid=5 * HALF_PAID)
    thief = town.party("thief")
    deals = [
        town.deal(thief, town.party(f"p{n}", Qu(1)), paid=5 * HALF_PAID, provider_id=famous.wallet.public_key)
        for n in range(6)
    ]
    async with Offices(town) as offices:
        judge = await offices.open("judge", keeps_for_others=True)
        await judge.take(*deals)
        assert (await judge.score(thief)).g < 0.2


async def test_a_stranger_s_praise_without_the_provider_s_word_does_not_count() -> None:
    """Nor does it crowd out what the contract has counted."""
    town, provider, caller = new_town(registered=False)
    deal = town.deal(provider, caller, paid=5 * HALF_PAID)
    async with Offices(town) as offices:
        offices.advertise(provider)
        judge = await offices.open("judge", keeps_for_others=True)
        await judge.shelf.take(verify(deal.receipt))
        assert (await judge.score(provider)).confidence == 0
