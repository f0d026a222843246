"""A provider's own side: what shuts its shop, what the ledger remembers, what it is told of itself."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from escrow_bridge import layout
from escrow_bridge.qubic import identity_of
from protocol.control import PauseArgs, RestartArgs, ResumeArgs, StopArgs
from protocol.control_market import OfferArgs
from protocol.control_provider import ProviderArgs, ProviderView
from protocol.control_wallet import SendArgs
from protocol.errors import ConfigInvalid, EngineUnreachable, NoOffer, UsageError
from protocol.lease_state import Lease, Phase
from protocol.query import Filter
from protocol.units import Qu, Seconds, amount_due, net_of
from qubixd import engine_choice, lease_desk
from qubixd import provider as provider_module
from qubixd.control import offer, send
from qubixd.provider_desk import provider
from tests.support.rental import Rental, rental
from tests.support.world import PRICE, Person
from tests.support.world_jobs import job, now_ms

Clock = trio.testing.MockClock
ELSEWHERE = identity_of(bytes(range(32)))


async def nobody(event: object) -> None: ...


async def seen(person: Person, pause: bool | None = None) -> ProviderView:
    return await provider(person.up, ProviderArgs(pause), nobody)


async def until_shut(one: Rental, code: str) -> ProviderView:
    with trio.fail_after(600):
        while True:
            view = await seen(one.alice)
            if code in [hindrance.code for hindrance in view.shop.hindrances]:
                return view
            await trio.sleep(0.5)


async def until_offers(one: Rental, count: int) -> None:
    """Wait until bob knows so many live offers that are open."""
    with trio.fail_after(600):
        while one.bob.up.offers.book.query(Filter(), (), 1, now_ms()).total != count:
            await trio.sleep(0.5)


async def running(one: Rental, seconds: float = 60) -> Lease:
    lease = await one.world.rent(one.bob, job(seconds=seconds))
    return await one.world.until(lease.lease_id, one.alice, lambda known: known.phase is Phase.RUNNING)


# --- pause and price ----------------------------------------------------------------------------


async def test_a_paused_provider_takes_nothing_new_and_ends_what_runs(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        lease = await running(one, seconds=20)
        view = await seen(one.alice, pause=True)
        assert (view.shop.open, view.shop.paused) == (False, True)
        assert [hindrance.code for hindrance in view.shop.hindrances] == ["provider.paused"]
        await until_offers(one, 0)
        with pytest.raises(NoOffer):
            await one.world.rent(one.bob, job(seconds=1))
        (ended,) = await one.world.until_ended(lease.lease_id, one.alice)
        assert (ended.phase, ended.seconds) == (Phase.DONE, 20)
        assert (await seen(one.alice, pause=False)).shop.open
        await until_offers(one, 1)


async def test_pause_and_price_outlive_the_daemon(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await offer(one.alice.up, OfferArgs(5_000_000), nobody)
        await seen(one.alice, pause=True)
        await one.world.kill(one.alice)
        await one.world.start("alice")
        assert one.alice.up.shop.price_qu_per_hour == 5_000_000
        view = await seen(one.alice)
        assert (view.shop.price_qu_per_hour, view.shop.paused) == (5_000_000, True)


async def test_a_price_in_the_settings_that_is_another_one_wins(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await offer(one.alice.up, OfferArgs(5_000_000), nobody)
        for price, expected in ((PRICE, 5_000_000), (PRICE + 1, PRICE + 1), (None, one_suggests(one))):
            await one.world.kill(one.alice)
            one.alice.settings["price"] = price
            await one.world.start("alice")
            assert one.alice.up.shop.price_qu_per_hour == expected


def one_suggests(one: Rental) -> Qu:
    return one.alice.up.parts.machine.suggested_price


async def test_withdrawing_the_offer_is_the_same_pause(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await offer(one.alice.up, OfferArgs(withdraw=True), nobody)
        assert (await seen(one.alice)).shop.paused
        await offer(one.alice.up, OfferArgs(withdraw=False), nobody)
        assert not (await seen(one.alice)).shop.paused


async def test_who_offers_nothing_is_told_so(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        with pytest.raises(ConfigInvalid, match="offers nothing"):
            await seen(one.bob)
        with pytest.raises(ConfigInvalid, match="offers nothing"):
            await seen(one.bob, pause=True)


# --- what shuts the shop ------------------------------------------------------------------------


async def test_an_engine_that_is_away_shuts_the_shop_until_it_is_back(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rental(tmp_path) as one:

        async def away() -> None:
            raise EngineUnreachable("the Docker engine does not answer; start it")

        with monkeypatch.context() as patched:
            patched.setattr(one.alice.engine, "check", away)
            view = await until_shut(one, "provider.engine_away")
            assert (view.runner.answers, view.shop.open) == (False, False)
            assert view.runner.sentence == "the Docker engine does not answer; start it"
            await until_offers(one, 0)
        await until_offers(one, 1)
        assert (await seen(one.alice)).shop.open


async def test_a_wallet_without_the_bond_shuts_the_shop(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        rest = one.world.balance(one.alice) - layout.SIGNATURE_BOND + 1
        await send(one.alice.up, SendArgs("all", ELSEWHERE, rest), nobody)
        view = await until_shut(one, "provider.too_poor")
        assert one.alice.wallet.identity in view.shop.hindrances[0].sentence
        assert (view.shop.open, view.balance) == (False, layout.SIGNATURE_BOND - 1)


async def test_what_this_machine_lacks_is_said_and_does_not_shut_it(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        node = one.alice.up
        node.provider.parts = replace(node.parts, remarks=(("provider.no_internet", "no Internet here"),))
        view = await seen(one.alice)
        assert [(each.code, each.closes) for each in view.shop.hindrances] == [
            ("provider.no_internet", False)
        ]
        assert view.shop.open


# --- what it earns and runs ---------------------------------------------------------------------


async def test_a_job_is_seen_while_it_runs_and_in_the_earnings_after_it(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        lease = await running(one, seconds=30)
        held = await one.world.until(lease.lease_id, one.alice, lambda known: known.promised > 0)
        view = await seen(one.alice)
        (shown,) = view.jobs
        assert (shown.lease_id, shown.phase, shown.image) == (lease.lease_id.hex(), "running", "test:1")
        assert shown.promised_qu >= held.promised
        assert shown.promised_qu + shown.owed_qu == amount_due(PRICE, Seconds(shown.seconds))
        assert view.machine.cpu_millis.taken == shown.cpu_millis == lease.terms.wish.cpu_millis
        assert view.earnings.total_qu == 0
        assert view.earnings.promised_qu == net_of(Qu(shown.promised_qu))

        (ended,) = await one.world.until_ended(lease.lease_id, one.alice)
        view = await seen(one.alice)
        assert (view.jobs, view.machine.cpu_millis.taken) == ([], 0)
        earned = net_of(ended.paid)
        assert (view.earnings.today_qu, view.earnings.total_qu, view.earnings.leases) == (earned, earned, 1)
        assert (view.earnings.promised_qu, view.earnings.owed_qu) == (0, 0)
        assert [(each.lease_id, each.received_qu) for each in view.ended] == [(shown.lease_id, earned)]

        await one.world.kill(one.alice)
        await one.world.start("alice")
        await trio.testing.wait_all_tasks_blocked()
        assert (await seen(one.alice)).earnings.total_qu == earned, "the ledger knows it"


async def test_a_caller_pauses_resumes_and_restarts_its_job(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        lease = await running(one, seconds=30)
        lease_id = lease.lease_id.hex()
        await one.world.until(lease.lease_id, one.bob, lambda known: known.phase is Phase.RUNNING)
        event = await lease_desk.pause(one.bob.up, PauseArgs(lease_id), nobody)
        assert event.lease and event.lease.frozen
        assert event.detail == "the job is frozen; the machine stays reserved and the meter runs on"
        await one.world.until(lease.lease_id, one.alice, lambda known: known.frozen)
        assert [shown.frozen for shown in (await seen(one.alice)).jobs] == [True]
        await lease_desk.resume(one.bob.up, ResumeArgs(lease_id), nobody)
        await one.world.until(lease.lease_id, one.alice, lambda known: not known.frozen)
        await lease_desk.restart(one.bob.up, RestartArgs(lease_id), nobody)
        again = await one.world.until(lease.lease_id, one.alice, lambda known: known.restarted_at > 0)
        assert again.phase is Phase.RUNNING
        await lease_desk.stop(one.bob.up, StopArgs(lease_id), nobody)
        await one.world.until_ended(lease.lease_id, one.alice, one.bob)


async def test_only_who_rents_pauses_and_only_what_runs(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        lease = await running(one, seconds=5)
        lease_id, refused = lease.lease_id.hex(), "only who rented the machine"
        with pytest.raises(UsageError, match=refused):
            await lease_desk.pause(one.alice.up, PauseArgs(lease_id), nobody)
        with pytest.raises(UsageError, match=refused):
            await lease_desk.resume(one.alice.up, ResumeArgs(lease_id), nobody)
        with pytest.raises(UsageError, match=refused):
            await lease_desk.restart(one.alice.up, RestartArgs(lease_id), nobody)
        await one.world.until_ended(lease.lease_id, one.bob)
        with pytest.raises(UsageError, match="there is nothing to pause: done"):
            await lease_desk.pause(one.bob.up, PauseArgs(lease.lease_id.hex()), nobody)


def test_every_hindrance_is_on_the_page_for_providers() -> None:
    sources = [Path(module.__file__ or "").read_text() for module in (provider_module, engine_choice)]
    codes = {code for source in sources for code in re.findall(r'"(provider\.[a-z_]+)"', source)}
    page = (Path(__file__).parents[2] / "docs" / "provider.md").read_text()
    # A caller is never asked for its hindrances.
    assert codes - {"provider.none"} == set(re.findall(r"\| `(provider\.[a-z_]+)` \|", page))
