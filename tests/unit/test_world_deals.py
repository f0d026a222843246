"""Deals that are not made: each refusal comes before any money moves, and says why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from escrow_bridge.layout import SIGNATURE_BOND
from protocol.errors import (
    BalanceTooLow,
    CapacityTaken,
    ChainUnreachable,
    NoOffer,
    PeerRefused,
    PeerUnreachable,
    PriceAboveLimit,
    QuoteChanged,
)
from protocol.jobspec import parse
from protocol.lease_state import Lease, Phase
from protocol.units import Qu, net_of
from qubixd.book import Entry
from qubixd.hiring import Search, demand_of
from qubixd.wire_libp2p import peer_id_of
from tests.support.rental import Rental, due, rental
from tests.support.world import PRICE, Person, World
from tests.support.world_jobs import job

Clock = trio.testing.MockClock
WHOLE_MACHINE = job(seconds=5).replace("cpus: 1", "cpus: 4")


async def test_a_quote_above_the_offer_is_refused(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        one.alice.up.shop.price_qu_per_hour = Qu(PRICE + 1)  # and the offer stays as it is
        with pytest.raises(QuoteChanged, match="the offer said"):
            await one.rent()
        assert await one.bob.up.all_leases() == []
        one.check_nothing_sent()


async def test_a_price_above_the_limit_is_refused_without_asking(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        heard = one.alice.up.parts.wire.counters.streams_in
        for how in ({"max_price": Qu(PRICE - 1)}, {"text": job(extra=f"max_price: {PRICE - 1}\n")}):
            with pytest.raises(
                PriceAboveLimit, match=f"asks {PRICE:,} QU per hour and your limit is {PRICE - 1:,}"
            ):
                await one.rent(**how)
        assert one.alice.up.parts.wire.counters.streams_in == heard, "nobody was asked"
        one.check_nothing_sent()


async def test_a_price_that_rose_above_the_limit_is_refused_by_the_provider(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        one.alice.up.shop.price_qu_per_hour = Qu(PRICE + 1)
        with pytest.raises(PeerRefused) as refused:
            await one.rent(max_price=PRICE)
        assert refused.value.refusal_code == PriceAboveLimit.code
        one.check_nothing_sent()


async def test_the_limit_itself_is_no_refusal(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=2), max_price=PRICE)
        one.check_books(*await one.ended())


async def test_a_balance_too_low_is_said_before_anybody_is_asked(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        with pytest.raises(
            BalanceTooLow, match=r"needs a deposit of 3,600,000,000 QU .* holds 1,000,000,000"
        ):
            await one.rent(job(hours=1_000))
        one.check_nothing_sent()


async def test_money_for_one_job_of_two(tmp_path: Path, autojump_clock: Clock) -> None:
    """Each alone could be paid; the deposit that comes second is refused or handed back whole."""
    async with rental(tmp_path) as one:
        first = await one.rent(job(seconds=3, hours=200))
        second = await one.rent(job(seconds=3, hours=200))
        ends = [
            (await one.world.until_ended(lease.lease_id, one.alice, one.bob))[1] for lease in (first, second)
        ]
        loser, winner = sorted(ends, key=lambda lease: lease.paid)
        assert (winner.phase, winner.paid) == (Phase.DONE, due(3))
        assert loser.phase is Phase.FAILED and "holds only" in loser.sentence
        assert loser.reason in ("wallet.balance_too_low", "chain.funding_failed")
        assert len(one.alice.engine.starts) == 1
        assert one.world.balance(one.bob) == one.world.funds - due(3)
        one.world.check_conservation()


async def test_an_unreachable_chain_is_said_at_once(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        one.world.chain.reachable = False
        with pytest.raises(ChainUnreachable):
            await one.rent()
        one.world.chain.reachable = True
        one.check_nothing_sent()


async def test_two_callers_race_for_the_last_capacity(tmp_path: Path, autojump_clock: Clock) -> None:
    """Both have a good quote; one of the acceptances comes second."""
    async with rental(tmp_path) as one:
        carol = await one.world.start("carol")
        await one.world.until_offered(carol)
        leases: dict[str, Lease] = {}

        async def rent(person: Person) -> None:
            leases[person.name] = await one.world.rent(person, WHOLE_MACHINE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rent, one.bob)
            nursery.start_soon(rent, carol)
        assert len(leases) == 2, "both were quoted"
        ends = [
            (await one.world.until_ended(leases[person.name].lease_id, person))[0]
            for person in (one.bob, carol)
        ]
        loser, winner = sorted(ends, key=lambda lease: lease.paid)
        assert (winner.phase, winner.paid) == (Phase.DONE, due(5))
        assert (loser.phase, loser.reason) == (Phase.FAILED, CapacityTaken.code)
        assert not loser.escrow_id and loser.promised == 0
        balances = sorted(one.world.balance(person) for person in (one.bob, carol))
        assert balances == [one.world.funds - due(5), one.world.funds]
        one.world.check_conservation()


async def test_capacity_comes_back_when_a_lease_ends(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(WHOLE_MACHINE)
        await one.until(one.bob, Phase.RUNNING)
        with pytest.raises(NoOffer, match="fits: too few CPUs"):
            await one.world.rent(one.bob, WHOLE_MACHINE)
        await one.ended()
        await trio.sleep(1)
        await one.rent(WHOLE_MACHINE)
        served, paid = await one.ended()
        assert served.phase is paid.phase is Phase.DONE


async def test_a_closed_shop_is_in_nobodys_book(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        one.alice.up.shop.open_for_business = False
        with pytest.raises(PeerRefused, match="takes no jobs"):
            await one.rent()
        one.alice.up.offers.changed()
        await trio.sleep(1)
        with pytest.raises(NoOffer, match="no offers are known"):
            await one.rent()
        one.check_nothing_sent()


async def test_a_provider_that_vanished_is_said(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.world.kill(one.alice)
        with pytest.raises(PeerUnreachable):
            await one.rent()
        one.check_nothing_sent()


async def test_the_next_provider_is_asked_when_the_cheapest_refuses(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.world.start("anna", provider=True, price=int(PRICE) - 1)
        await one.world.until_offered(one.bob, 2)
        one.world.people["anna"].up.shop.open_for_business = False
        lease = await one.rent(job(seconds=2))
        assert lease.terms.provider == one.alice.peer
        await one.ended()


async def test_a_provider_is_chosen_by_name_or_by_peer_id(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        for wanted in ("ali", "alice", peer_id_of(one.alice.peer)):
            assert [e.offer.name for e in await _candidates(one, wanted)] == ["alice"]
        for wanted in ("bob", "alices", peer_id_of(one.bob.peer)):
            with pytest.raises(NoOffer, match=r"none of the offers known here \(1\) is by a provider"):
                await _candidates(one, wanted)


async def _candidates(one: Rental, provider: str) -> list[Entry]:
    wanted = parse(job())
    found = await one.bob.up.hiring.candidates(Search(wanted, demand_of(wanted, PRICE, provider)))
    return [candidate.entry for candidate in found]


async def test_nothing_of_a_refused_job_is_left_behind(tmp_path: Path, autojump_clock: Clock) -> None:
    """The world's `rent` leaves the submission to the front door; here only leases' folders count."""
    async with rental(tmp_path) as one:
        with pytest.raises(PriceAboveLimit):
            await one.rent(max_price=Qu(1))
        assert not os.path.exists(one.bob.root / "leases")


async def test_a_provider_without_the_bond_takes_no_jobs(tmp_path: Path, autojump_clock: Clock) -> None:
    """It could not send the transaction that cashes the vouchers: it would work for nothing."""
    async with World(tmp_path) as world:
        alice = world.people["alice"] = Person("alice", world.root / "alice", provider=True)
        await world.start("alice")
        bob = await world.start("bob")
        world.fund(alice.wallet.public_key, Qu(SIGNATURE_BOND - 1))
        await trio.sleep(30)
        with pytest.raises(NoOffer):
            await world.rent(bob, job())
        world.fund(alice.wallet.public_key, Qu(1))
        await world.until_offered(bob)
        lease = await world.rent(bob, job(seconds=5))
        served, _ = await world.until_ended(lease.lease_id, alice, bob)
        assert served.phase is Phase.DONE
        assert world.balance(alice) == SIGNATURE_BOND + net_of(due(5))
