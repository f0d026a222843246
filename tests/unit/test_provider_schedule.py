"""A provider that follows its schedule: offers and quotes by the clock, and jobs that nothing cuts short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import trio
import trio.testing

from protocol.control_market import OfferAnswer, OfferArgs
from protocol.control_network import NetworkArgs
from protocol.control_provider import ProviderArgs
from protocol.control_schedule import PreviewArgs, PreviewView
from protocol.errors import ConfigInvalid, PeerRefused, ScheduleInvalid
from protocol.lease_state import Phase
from protocol.query import Filter
from protocol.units import Qu, Seconds, UnixMs
from qubixd.control import offer
from qubixd.network_desk import network
from qubixd.provider_desk import provider
from qubixd.quotes import House
from qubixd.schedule_desk import Use, preview, use_of, worth
from qubixd.shop import RISE_MS, Shop, read_schedule, zone_here
from tests.support.rental import Rental, rental
from tests.support.world import PRICE
from tests.support.world_jobs import EPOCH_MS, job, now_ms

Clock = trio.testing.MockClock
HOUR = 3_600
"""The worlds begin on Friday, 2027-01-15, at 08:00 UTC."""


async def nobody(event: object) -> None: ...


async def follow(one: Rental, text: str) -> OfferAnswer:
    return await offer(one.alice.up, OfferArgs(schedule=text), nobody)


async def until_minute(minute: float) -> None:
    await trio.sleep((moment(minute) - now_ms()) / 1_000)


def house(one: Rental) -> House:
    return one.alice.up.provider.house()


async def until_offers(one: Rental, count: int) -> None:
    with trio.fail_after(120):
        while one.bob.up.offers.book.query(Filter(), (), 1, now_ms()).total != count:
            await trio.sleep(0.5)


async def test_the_shop_opens_and_closes_at_the_minute(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        answer = await follow(one, "zone UTC; 08:03-08:05 closed; 08:06-08:10 price 7000000")
        assert answer.schedule is not None
        assert (answer.schedule.open, answer.schedule.then) == (True, "closed")
        assert answer.schedule.until == "Fri 08:03 (UTC)"
        await until_minute(3 - 1 / 60)
        assert house(one).open_for_business
        await until_minute(3)
        assert not house(one).open_for_business
        await until_offers(one, 0)
        assert now_ms() < EPOCH_MS + 185_000
        shop = (await provider(one.alice.up, ProviderArgs(), nobody)).shop
        assert [why.code for why in shop.hindrances] == ["provider.closed"]
        assert "it opens Fri 08:05 (UTC)" in shop.hindrances[0].sentence
        await until_minute(5)
        await until_offers(one, 1)
        await until_minute(7.1)
        own = one.alice.up.offers.own
        assert own is not None
        assert (own.offer.price_qu_per_hour, house(one).price_qu_per_hour) == (7_000_000, 7_000_000)
        assert own.offer.closes_at == EPOCH_MS + (24 * HOUR + 180) * 1_000


async def test_a_job_that_would_outlive_the_hours_is_not_taken(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await follow(one, "zone UTC; 10:00-18:00 closed")
        with pytest.raises(PeerRefused, match="closes in 1 h 59 min") as refused:
            await one.world.rent(one.bob, job(hours=2.5))
        assert refused.value.refusal_code == "quote.shop_closes"
        lease = await one.world.rent(one.bob, job(hours=1.5, seconds=20))
        assert lease.terms.closes_at == EPOCH_MS + 2 * HOUR * 1_000
        await one.world.until_ended(lease.lease_id, one.alice)


async def test_a_new_schedule_leaves_running_jobs_alone(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        lease = await one.world.rent(one.bob, job(hours=1, seconds=30))
        await one.world.until(lease.lease_id, one.alice, lambda known: known.phase is Phase.RUNNING)
        await follow(one, "zone UTC; closed")
        assert not house(one).open_for_business
        (ended,) = await one.world.until_ended(lease.lease_id, one.alice)
        assert (ended.phase, ended.seconds) == (Phase.DONE, 30)
        assert ended.terms.price_qu_per_hour == lease.terms.price_qu_per_hour


async def test_it_outlives_the_daemon_and_can_be_taken_back(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await follow(one, "zone Asia/Tokyo; closed")
        await one.world.kill(one.alice)
        await one.world.start("alice")
        assert str(one.alice.up.shop.schedule) == "zone Asia/Tokyo; closed"
        assert not house(one).open_for_business
        assert (await follow(one, " ")).schedule is None
        assert house(one).open_for_business


async def test_what_cannot_be_read_changes_nothing(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await follow(one, "zone UTC; 18-20 closed")
        for text, error in (("mon", ScheduleInvalid), ("zone Mars/Olympus; closed", ConfigInvalid)):
            with pytest.raises(error):
                await offer(one.alice.up, OfferArgs(1, schedule=text), nobody)
        assert str(one.alice.up.shop.schedule) == "zone UTC; 18:00-20:00 closed"
        assert one.alice.up.shop.price_qu_per_hour == PRICE


# --- prices -------------------------------------------------------------------------------------


def moment(minute: float) -> UnixMs:
    return UnixMs(EPOCH_MS + round(minute * 60_000))


def ago(days: int) -> UnixMs:
    return UnixMs(now_ms() - days * 86_400_000)


def test_a_price_that_has_just_risen_is_quoted_a_minute_later() -> None:
    shop = Shop(Qu(5), True, read_schedule("zone UTC; 09:00-10:00 price 9; 10:00-11:00 price 3"))
    quoted = [shop.quoted_price(moment(at)) for at in (59.9, 60, 60.5, 61, 90, 119.9, 120, 121)]
    assert quoted == [5, 5, 5, 9, 9, 9, 3, 3]
    assert shop.hours(moment(60)).price == 9
    assert RISE_MS == 60_000


def test_who_opens_asks_at_once_what_it_wants() -> None:
    shop = Shop(Qu(5), True, read_schedule("zone UTC; 09:00-10:00 price 9; 08:00-09:00 closed"))
    assert shop.quoted_price(moment(60)) == 9


def test_a_schedule_without_zone_has_that_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/St_Johns")
    assert str(read_schedule("closed")) == "zone America/St_Johns; closed"
    monkeypatch.setenv("TZ", ":Nowhere/There")
    ZoneInfo(zone_here()) if zone_here() != "UTC" else None


# --- what a week brings -------------------------------------------------------------------------


def test_a_week_at_a_price() -> None:
    use = Use([1.0] * 168, 4.0)
    assert worth(use, None, Qu(100)) == 168 * 95
    plan = read_schedule("zone UTC; closed; mon 06:30-07:00 price 1000; mon 09:00-11:00 open")
    assert worth(use, plan, Qu(100)) == (500 + 200) * 95 // 100


async def test_the_use_of_the_last_weeks(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        lease = await one.world.rent(one.bob, job(hours=1, seconds=90))
        (ended,) = await one.world.until_ended(lease.lease_id, one.alice)
        view: PreviewView = await preview(
            one.alice.up, PreviewArgs(10_000_000, "zone UTC; 08:01-24:00 closed"), nobody
        )
        assert (view.weeks, view.used_hours) == (1.0, 0.03)
        assert view.week_now_qu == pytest.approx(PRICE / 40 * 0.95, rel=0.01)
        assert view.week_qu == pytest.approx(10_000_000 / 40 / 60 * 0.95, rel=0.01)  # a minute of the hour
        assert view.lost_hours == pytest.approx(0.025, abs=0.01)
        assert view.open_hours == pytest.approx(7 * (8 + 1 / 60))
        assert one.alice.up.shop.schedule is None
        always = await preview(one.alice.up, PreviewArgs(schedule=" "), nobody)
        assert (always.schedule, always.open_hours) == (None, 168)
        old = [replace(ended, opened_at=ago(10), ended_at=ago(40))]
        assert sum(use_of(old, ZoneInfo("UTC"), now_ms()).hours) == 0
        three = replace(ended, seconds=Seconds(3 * HOUR), ended_at=moment(60))
        tokyo = use_of([three], ZoneInfo("Asia/Tokyo"), now_ms())
        assert [hour for hour, amount in enumerate(tokyo.hours) if amount] == [96 + 17]


# --- the network --------------------------------------------------------------------------------


async def test_the_network_as_a_node_sees_it(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        lease = await one.world.rent(one.bob, job(seconds=60))
        await one.world.until(lease.lease_id, one.alice, lambda known: known.phase is Phase.RUNNING)
        view = await network(one.bob.up, NetworkArgs(measure=True), nobody)
        (alice,) = [peer for peer in view.peers if "lease" in peer.roles]
        assert (alice.name, alice.roles[:2], alice.way) == ("alice", ["lease", "provider"], "wire")
        assert alice.rtt_ms is not None
        assert (view.total, view.relayed) == (len(view.peers), 0)
        assert (view.chain.state, view.chain.sentence) == ("ok", "")
        assert view.chain.tick and view.chain.age_ms < 10_000
        assert view.gossip.offers == 1
        assert view.gossip.topics
