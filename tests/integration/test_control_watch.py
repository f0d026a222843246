"""The verb `watch`: the present first, then changes, at a pace; what is worth a notice; slow readers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from protocol.codec import convert
from protocol.control_watch import NOTICES, NOTICES_KEPT, WatchEvent
from protocol.lease_state import Phase
from qubixd.control import open_control
from tests.support.front_end import FrontEnd, front_end
from tests.support.rental import Rental, due, rental
from tests.support.world_jobs import job

Clock = trio.testing.MockClock


@dataclass
class Watching:
    """Somebody who watches; `told` is all that was said so far."""

    front: FrontEnd
    told: list[WatchEvent] = field(default_factory=list)

    async def until(self, found: Callable[[WatchEvent], object]) -> WatchEvent:
        """The next event for which this holds."""
        with trio.fail_after(600):
            while True:
                frame = await self.front.receive()
                event: WatchEvent = convert(frame["event"], WatchEvent, "event")
                self.told.append(event)
                if found(event):
                    return event

    async def kind(self, kind: str) -> WatchEvent:
        return await self.until(lambda event: event.kind == kind)

    async def notice(self, code: str) -> str:
        event = await self.until(lambda event: event.notice and event.notice.code == code)
        assert event.notice
        return event.notice.sentence

    def kinds(self) -> list[str]:
        return [event.kind for event in self.told]


@asynccontextmanager
async def watching(path: Path, **args: Any) -> AsyncIterator[Watching]:
    async with front_end(path) as front:
        await front.send("watch", **args)
        yield Watching(front)


@dataclass
class Town:
    one: Rental
    provider: Path
    caller: Path


@asynccontextmanager
async def town(root: Path) -> AsyncIterator[Town]:
    async with rental(root) as one, open_control(one.alice.up) as alice, open_control(one.bob.up) as bob:
        yield Town(one, alice, bob)


async def test_an_idle_node_tells_its_wallet_and_that_this_is_all(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with town(tmp_path) as at, watching(at.caller) as bob:
        await bob.kind("present")
        assert bob.kinds() == ["wallet", "present"]
        wallet = bob.told[0].wallet
        assert wallet and wallet.balance == at.one.world.funds
        with trio.move_on_after(60):
            await bob.kind("wallet")
        assert len(bob.told) == 2, "nothing has changed, so nothing was said"


async def test_a_lease_from_its_beginning_to_its_end(tmp_path: Path, autojump_clock: Clock) -> None:
    async with town(tmp_path) as at, watching(at.caller) as bob:
        await bob.kind("present")
        await at.one.rent(job(seconds=20))
        assert await bob.notice("lease.ready") == "test is ready: the machine is yours and the job runs"
        assert await bob.notice("lease.ended") == "test has completed"
        served, paid = await at.one.ended()
        wallet = await bob.until(lambda event: event.wallet and event.wallet.spent)
        assert wallet.wallet and (wallet.wallet.spent, wallet.wallet.escrowed) == (due(20), 0)
        assert wallet.wallet.balance == at.one.world.funds - due(20)
        phases = [event.lease.phase for event in bob.told if event.lease]
        assert phases[-1] == Phase.DONE and Phase.RUNNING in phases
        at.one.check_books(served, paid)


async def test_who_comes_later_is_told_the_present_and_no_old_notices(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with town(tmp_path) as at:
        await at.one.rent(job(seconds=1_000))
        await at.one.until_paid(due(10))
        async with watching(at.caller) as bob:
            await bob.kind("present")
            assert bob.kinds() == ["lease", "wallet", "present"]
            (lease,) = [event.lease for event in bob.told if event.lease]
            async with front_end(at.caller) as other:
                assert (await other.ask("ps")).leases == [lease]
                assert (await other.ask("wallet")).escrowed == bob.told[1].wallet.escrowed  # type: ignore[union-attr]  # kinds are asserted above


async def test_a_wallet_counts_the_leases_that_ended_before(tmp_path: Path, autojump_clock: Clock) -> None:
    async with town(tmp_path) as at:
        await at.one.rent(job(seconds=20))
        await at.one.ended()
        async with watching(at.provider) as alice, front_end(at.provider) as other:
            told = await alice.kind("wallet")
            assert told.wallet == await other.ask("wallet") and told.wallet and told.wallet.earned


async def test_only_what_is_asked_for_is_told(tmp_path: Path, autojump_clock: Clock) -> None:
    nothing = {"leases": False, "wallet": False, "notices": False}
    async with town(tmp_path) as at, watching(at.caller, **nothing) as bob:
        await bob.kind("present")
        await at.one.rent(job(seconds=5))
        await at.one.ended()
        with trio.move_on_after(30):
            await bob.until(lambda event: True)
        assert bob.kinds() == ["present"]


async def test_the_market_is_told_to_have_changed(tmp_path: Path, autojump_clock: Clock) -> None:
    async with town(tmp_path) as at, watching(at.caller, market=True) as bob:
        await bob.kind("present")
        (first,) = [event.market for event in bob.told if event.market]
        assert first.offers == 1
        async with front_end(at.provider) as other:
            await other.ask("offer", withdraw=True)
        later = await bob.until(lambda event: event.market and event.market.offers == 0)
        assert later.market and later.market.changes > first.changes


async def test_no_state_is_told_more_often_than_four_times_a_second(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with town(tmp_path) as at:
        lease = await at.one.rent(job(seconds=1_000))
        await at.one.until(at.one.bob, Phase.RUNNING)
        async with watching(at.caller, notices=False, wallet=False) as bob:
            await bob.kind("present")
            heard_before = len(bob.told)
            with trio.move_on_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_stir, at.one, lease.lease_id)
                    await bob.until(lambda event: False)
        assert 20 <= len(bob.told) - heard_before <= 41


async def _stir(one: Rental, lease_id: Any, seconds: float = 0.01) -> None:
    while True:
        one.bob.up.leases.announce(lease_id)
        await trio.sleep(seconds)


async def test_a_provider_that_falls_silent_and_comes_back(tmp_path: Path, autojump_clock: Clock) -> None:
    async with town(tmp_path) as at, watching(at.caller) as bob:
        await at.one.rent(job(seconds=100_000, hours=48))
        await at.one.until_paid(due(10))
        at.one.world.net.cut(at.one.alice.peer, at.one.bob.peer)
        assert "was not heard of for" in await bob.notice("lease.peer_lost")
        at.one.world.net.heal(at.one.alice.peer, at.one.bob.peer)
        assert await bob.notice("lease.peer_back") == "test: its provider answers again"


async def test_most_of_the_rented_time_is_used(tmp_path: Path, autojump_clock: Clock) -> None:
    async with town(tmp_path) as at, watching(at.caller) as bob:
        await at.one.rent(job(seconds=1_000, hours=0.1))
        sentence = await bob.notice("lease.budget")
        assert sentence == "test has used 80 % of its rented time (1 min left)"
        lease = await at.one.until(at.one.bob, Phase.RUNNING)
        assert 0.8 <= lease.seconds / 360 < 0.9
        codes = [event.notice.code for event in bob.told if event.notice]
        assert codes == ["lease.ready", "lease.budget"]


async def test_a_provider_is_told_of_guests_and_of_its_pay(tmp_path: Path, autojump_clock: Clock) -> None:
    async with town(tmp_path) as at, watching(at.provider) as alice:
        await at.one.rent(job(seconds=20))
        assert await alice.notice("lease.taken") == "a job has come: a caller has rented this machine"
        assert "QU were paid out to you" in await alice.notice("wallet.payout")


async def test_the_chain_that_has_to_be_waited_for(tmp_path: Path, autojump_clock: Clock) -> None:
    async with town(tmp_path) as at, watching(at.caller) as bob:
        await bob.kind("present")
        waiting = at.one.bob.up.waiting
        with waiting.reasons() as because:
            because("the node is asleep")
            await trio.sleep(20)
            because("the node is asleep")
            assert await bob.notice("chain.behind") == "the node is asleep"
        assert await bob.notice("chain.back") == "the chain goes on"


async def test_a_shop_that_closes_by_itself_but_not_a_pause(tmp_path: Path, autojump_clock: Clock) -> None:
    async with town(tmp_path) as at, watching(at.provider) as alice:
        await alice.kind("present")
        provider = at.one.alice.up.provider
        async with front_end(at.provider) as other:
            await other.ask("offer", withdraw=True)
            await other.ask("offer", withdraw=False)
        provider.engine_says = "the engine is asleep"
        provider.changed()
        assert await alice.notice("shop.closed") == "no new jobs are taken: the engine is asleep"
        provider.engine_says = ""
        provider.changed()
        await alice.notice("shop.open")
        assert [event.notice.code for event in alice.told if event.notice] == ["shop.closed", "shop.open"]


async def test_a_reader_who_sleeps_gets_the_newest_and_no_long_queue(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with town(tmp_path) as at, watching(at.caller) as bob:
        await bob.kind("present")
        lease = await at.one.rent(job(seconds=5_000, hours=2))
        with trio.move_on_after(400):
            await _stir(at.one, lease.lease_id, 0.1)
        newest = await at.one.until(at.one.bob, Phase.RUNNING)
        missed = await bob.until(lambda event: event.lease and event.lease.seconds >= newest.seconds)
        assert missed.lease and len(bob.told) < 4 * 400 / 2, "what it slept through was not kept for it"


async def test_of_many_notices_only_the_last_wait(tmp_path: Path, autojump_clock: Clock) -> None:
    async with town(tmp_path) as at, watching(at.provider, wallet=False) as alice:
        await alice.kind("present")
        provider = at.one.alice.up.provider
        for turn in range(NOTICES_KEPT):  # two notices each, before anybody reads
            for says in (f"asleep {turn}", ""):
                provider.engine_says = says
                provider.changed()
        last = f"no new jobs are taken: asleep {NOTICES_KEPT - 1}"
        await alice.until(lambda event: event.notice and event.notice.sentence == last)
        assert sum(event.kind == "notice" for event in alice.told) == NOTICES_KEPT - 1


async def test_whoever_hangs_up_leaves_nothing_behind(tmp_path: Path, autojump_clock: Clock) -> None:
    async with town(tmp_path) as at:
        node = at.one.bob.up
        heard = (node.leases.on_change, node.offers.book.on_change, node.connections.links.on_change)
        before = [len(callbacks) for callbacks in heard]
        async with watching(at.caller) as bob:
            await bob.kind("present")
            assert [len(callbacks) for callbacks in heard] == [count + 1 for count in before]
        await trio.sleep(1)
        assert [len(callbacks) for callbacks in heard] == before


@pytest.mark.parametrize("args", [{"leases": 1}, {"market": "yes"}])
async def test_bad_arguments(tmp_path: Path, autojump_clock: Clock, args: dict[str, Any]) -> None:
    async with town(tmp_path) as at, watching(at.caller, **args) as bob:
        assert (await bob.front.receive())["error"]["code"] == "wire.message_invalid"


def test_every_notice_has_a_description() -> None:
    """Each code that the daemon gives is in the table that front ends and docs are made from."""
    rooms = Path(__file__).parents[2] / "qubixd"
    source = "".join((rooms / name).read_text() for name in ("notices.py", "watch_desk.py"))
    assert set(re.findall(r'"((?:lease|wallet|shop|chain)\.\w+)"', source)) == set(NOTICES)
