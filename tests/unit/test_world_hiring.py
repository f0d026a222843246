"""Whom a caller hires, and whom not (again): prices all in, wishes, failures, and the memory of a no."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

import ledger.settings
from protocol.control_market import DenyArgs, MarketArgs, ScoreArgs, WhyArgs, WhyView
from protocol.errors import EngineUnreachable, NoOffer, NotFound, PeerRefused, QuoteChanged
from protocol.images import image_tag
from protocol.jobspec import parse
from protocol.lease_state import Lease
from protocol.messages import Terms
from protocol.query import parse_filter, parse_sort
from protocol.signing import NodeKey
from protocol.units import Qu
from qubixd import market_desk
from qubixd.hiring import REMEMBERED, Search, demand_of
from qubixd.runner import Stock
from qubixd.standing import FIRST_WAIT_MS
from qubixd.wire import Verdict
from qubixd.wire_libp2p import peer_id_of
from tests.support.world import PRICE, World
from tests.support.world_jobs import job

Clock = trio.testing.MockClock
FOREVER = 400.0
"""Seconds that no offer of anybody dead outlives."""


async def nobody(event: object) -> None: ...


@asynccontextmanager
async def market(root: Path, **prices: int) -> AsyncIterator[World]:
    """A caller, bob, and providers with these prices."""
    async with World(root) as world:
        for name, price in prices.items():
            await world.start(name, provider=True, price=price, region="eu" if name < "c" else "us")
        await world.start("bob")
        await world.until_offered(world.people["bob"], len(prices))
        yield world


def name_of(world: World, lease: Lease) -> str:
    return next(one.name for one in world.people.values() if one.peer == lease.terms.provider)


async def hire(world: World, extra: str = "", **how: object) -> str:
    """Rent for a moment; who was hired."""
    bob = world.people["bob"]
    lease = await world.rent(bob, job(seconds=1, extra=extra), **how)
    await world.until_ended(lease.lease_id, bob)
    return name_of(world, lease)


async def explained(world: World, text: str = "", **how: object) -> WhyView:
    return await market_desk.why(world.people["bob"].up, WhyArgs(text, **how), nobody)  # type: ignore[arg-type]


async def test_the_lowest_price_all_in_comes_first(tmp_path: Path, autojump_clock: Clock) -> None:
    """A cheap machine with dear disk is not the cheapest."""
    async with market(tmp_path, anna=3_600_000, carl=3_500_000) as world:
        await world.kill(world.people["carl"])
        world.people["carl"].settings["storage_price"] = 200_000 * (1 << 20) // 10  # for 10 MiB: 200,000
        carl = await world.start("carl", provider=True)
        await world.until_offered(world.people["bob"], 2)
        while world.people["bob"].up.offers.book.get(carl.peer, carl.up.parts.now_ms()) is None:
            await trio.sleep(1)
        await trio.sleep(5)
        assert await hire(world) == "anna"


async def test_a_crowd_of_false_offers_does_not_have_every_job(tmp_path: Path, autojump_clock: Clock) -> None:
    """Twelve cheap providers with nobody behind them, and one that is known to be good."""
    async with market(tmp_path, anna=3_600_000) as world:
        bob, anna = world.people["bob"], world.people["anna"]
        book, now = bob.up.offers.book, bob.up.parts.now_ms
        real = book.get(anna.peer, now())
        assert real is not None
        for number in range(12):
            key = NodeKey(bytes([number] * 32))
            false = replace(real.offer, name=f"false-{number}", price_qu_per_hour=Qu(1), addresses=())
            assert book.consider(key.sign(false), now()) is Verdict.ACCEPT
        book.measure(anna.peer, score=0.3)
        assert await hire(world) == "anna"


async def test_a_provider_that_failed_is_not_asked_again_at_once(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with market(tmp_path, anna=3_000_000, carl=3_600_000) as world:
        anna, bob = world.people["anna"], world.people["bob"]
        anna.up.shop.price_qu_per_hour = Qu(3_300_000)  # her offer still says 3,000,000
        assert await hire(world) == "carl"
        assert bob.up.standing.allowed(anna.peer, bob.up.parts.now_ms()) is not None
        anna.up.shop.price_qu_per_hour = Qu(3_000_000)
        wanted = parse(job())
        (only,) = await bob.up.hiring.candidates(Search(wanted, demand_of(wanted, None, "")))
        assert only.entry.offer.name == await hire(world) == "carl", "though she is cheaper and honest again"
        await trio.sleep(FIRST_WAIT_MS / 1_000)
        assert await hire(world) == "anna"


async def test_a_refusal_counts_by_the_code_it_gives(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full is nobody's fault; a dead engine is the provider's."""
    async with market(tmp_path, anna=3_000_000) as world:
        anna, bob = world.people["anna"], world.people["bob"]
        anna.up.shop.open_for_business = False
        for barred in (False, True):
            if barred:
                monkeypatch.setattr("qubixd.quotes.make_terms", _no_engine)
            with pytest.raises(PeerRefused):
                await hire(world)
            assert (bob.up.standing.allowed(anna.peer, bob.up.parts.now_ms()) is not None) is barred


def _no_engine(*_: object) -> Terms:
    raise EngineUnreachable("no Docker engine answers")


async def test_nobody_waits_for_one_that_does_not_answer(tmp_path: Path, autojump_clock: Clock) -> None:
    async with market(tmp_path, anna=3_000_000, carl=3_600_000, dora=3_700_000) as world:
        bob = world.people["bob"]
        await world.kill(world.people["carl"])
        began = trio.current_time()
        lease = await world.rent(bob, job(seconds=1))
        assert name_of(world, lease) == "anna" and trio.current_time() - began < 5
        await world.kill(world.people["anna"])
        lease = await world.rent(bob, job(seconds=1))
        assert name_of(world, lease) == "dora", "the two before are dead, and nobody knows that yet"
        assert bob.up.standing.allowed(world.people["anna"].peer, bob.up.parts.now_ms())


async def test_who_is_denied_is_never_hired_until_forgiven(tmp_path: Path, autojump_clock: Clock) -> None:
    async with market(tmp_path, anna=3_000_000, carl=3_600_000) as world:
        node = world.people["bob"].up
        denied = await market_desk.deny(node, DenyArgs(add="anna"), nobody)
        assert [(one.name, one.reason) for one in denied.denied] == [("anna", "denied")]
        assert await hire(world) == "carl"
        with pytest.raises(NoOffer, match="on your deny list"):
            await hire(world, provider="anna")
        (offer, _) = (await market_desk.market(node, MarketArgs(), nobody)).offers
        assert offer.name == "anna" and "denied" in offer.not_hired
        assert (await market_desk.deny(node, DenyArgs(remove="anna"), nobody)).denied == []
        assert await hire(world) == "anna"


async def test_wishes_in_the_job_file_and_beside_it(tmp_path: Path, autojump_clock: Clock) -> None:
    async with market(tmp_path, anna=3_000_000, carl=3_600_000) as world:
        assert await hire(world) == "anna"
        assert await hire(world, "region: us\n") == "carl"
        assert await hire(world, "filter: price>=3100000\n") == "carl"
        assert await hire(world, "order_by: -price\n") == "carl"
        assert await hire(world, where=parse_filter("region=us")) == "carl"
        assert await hire(world, "order_by: price\n", order=parse_sort("-price")) == "carl"
        with pytest.raises(NoOffer, match="region is not what you asked for"):
            await hire(world, "region: mars\n")


async def test_the_round_trip_is_measured_where_it_matters(tmp_path: Path, autojump_clock: Clock) -> None:
    async with market(tmp_path, anna=3_000_000, carl=3_600_000) as world:
        bob = world.people["bob"]
        world.net.link(bob.peer, world.people["anna"].peer).delay_seconds = 0.2
        assert await hire(world, "max_rtt: 100ms\n") == "carl"
        assert await hire(world, "order_by: rtt\n") == "carl"
        seen = (await market_desk.market(bob.up, MarketArgs(sort="-rtt"), nobody)).offers
        assert [(one.name, round(one.rtt_ms or 0)) for one in seen] == [("anna", 400), ("carl", 40)]
        with pytest.raises(NoOffer, match="rtt is not what you asked for"):
            await hire(world, "max_rtt: 1\n")


async def test_newcomers_have_a_score_and_may_be_left_out(tmp_path: Path, autojump_clock: Clock) -> None:
    async with market(tmp_path, anna=3_000_000) as world:
        node = world.people["bob"].up
        view = await market_desk.score(node, ScoreArgs("anna", evidence=True), nobody)
        assert view.newcomer and view.score < 0.3 and view.reasons and view.evidence.startswith("{")
        with pytest.raises(NoOffer, match="score is not what you asked for"):
            await hire(world, "min_score: 0.9\n")
        (change, *_) = (await explained(world)).changes
        assert "score>=0.9" in change.fields


async def test_an_image_that_is_there_counts_like_a_lower_price(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five minutes of waiting are worth five percent."""
    monkeypatch.setattr("protocol.images.NO_IMAGES", "none")
    for dearer, chosen in ((1.04, "carl"), (1.08, "anna")):
        async with market(tmp_path / chosen, anna=PRICE, carl=round(PRICE * dearer)) as world:
            carl = world.people["carl"]
            await world.kill(carl)
            carl.engine.stock_now = Stock((image_tag("test:1"),), 0)
            await world.start("carl", provider=True)
            await trio.sleep(5)
            assert await hire(world) == chosen


async def test_why_nobody_took_it_is_known_after_a_restart(tmp_path: Path, autojump_clock: Clock) -> None:
    async with market(tmp_path, anna=3_000_000, carl=3_600_000) as world:
        bob = world.people["bob"]
        with pytest.raises(NotFound, match="name a job file"):
            await explained(world)
        with pytest.raises(NoOffer):
            await hire(world, "max_price: 2900000\nregion: us\n")
        await world.kill(bob)
        await world.start("bob")
        view = await explained(world)
        assert (view.job, view.known, view.fitting) == ("test", 2, 0)
        assert {group.code: group.count for group in view.groups} == {"price": 2, "filter.region": 1}
        assert view.changes[0].sentence == "raise max_price to 3,600,000"
        store = world.people["bob"].up.parts.store
        await ledger.settings.put(store, REMEMBERED, b"\x80")
        with pytest.raises(NotFound):
            await explained(world)


async def test_a_no_to_a_real_question_is_remembered_too(tmp_path: Path, autojump_clock: Clock) -> None:
    async with market(tmp_path, anna=3_000_000) as world:
        world.people["anna"].up.shop.open_for_business = False
        with pytest.raises(PeerRefused):
            await hire(world)
        view = await explained(world)
        assert (view.asked, view.agreed) == (1, 0)
        assert [group.code for group in view.groups] == ["quote.capacity_taken"]


async def test_asking_everybody_takes_nothing(tmp_path: Path, autojump_clock: Clock) -> None:
    async with market(tmp_path, anna=3_000_000, carl=3_600_000) as world:
        world.people["carl"].up.shop.price_qu_per_hour = Qu(3_700_000)
        view = await explained(world, job(), ask=True)
        assert (view.asked, view.agreed, view.fitting) == (2, 1, 2)
        assert {group.code for group in view.groups} == {"fits", QuoteChanged.code}
        assert world.chain.broadcasts == [] and await world.people["bob"].up.all_leases() == []
        assert list((world.people["bob"].root / "waiting").glob("*")) == []


async def test_a_provider_is_found_by_what_it_is_called(tmp_path: Path, autojump_clock: Clock) -> None:
    async with market(tmp_path, anna=3_000_000, annabel=3_600_000) as world:
        node, anna = world.people["bob"].up, world.people["anna"]
        for said in ("anna", peer_id_of(anna.peer), peer_id_of(anna.peer)[-8:]):
            assert market_desk.find_provider(node, said) == anna.peer
        for said in ("ann", "zoe", ""):
            with pytest.raises(NotFound):
                market_desk.find_provider(node, said)
