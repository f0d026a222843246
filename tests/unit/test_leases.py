"""The lease loop by itself: effects are performed in order, again until done, and across restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from ledger import journal
from ledger.store import inline, open_store
from protocol import lease_model as m
from protocol import lease_provider
from protocol.errors import ChainUnreachable, LeaseUnknown
from protocol.lease_state import Lease, Phase
from protocol.units import EscrowId, LeaseId, Qu, Seconds, Tick, UnixMs
from qubixd.leases import CLOCK_SECONDS, SLEPT_MS, Leases, Task
from tests.support.lease_plan import make_terms
from tests.support.world_jobs import now_ms

Clock = trio.testing.MockClock
LEASE = LeaseId(bytes(range(32)))
TERMS = make_terms()


@dataclass
class Hands:
    """A Perform that writes down what it was given and does what `answer` says."""

    answer: Callable[[Task, int], m.Event | None] = lambda task, times: None
    done: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    scratch: list[bytes] = field(default_factory=list)
    save: bytes = b""

    async def __call__(self, task: Task, /) -> m.Event | None:
        await trio.sleep(0.01)
        name = type(task.effect).__name__
        self.tried.append(name)
        self.scratch.append(task.scratch)
        if self.save:
            await task.save(self.save)
        event = self.answer(task, self.tried.count(name))
        self.done.append(name)
        return event


@asynccontextmanager
async def running(path: Path, hands: Hands, clock: Callable[[], UnixMs] = now_ms) -> AsyncIterator[Leases]:
    async with open_store(path / "ledger.sqlite", inline) as store, trio.open_nursery() as nursery:
        leases = Leases(store, clock)
        await nursery.start(leases.run, hands)
        yield leases
        nursery.cancel_scope.cancel()


async def add(leases: Leases) -> Lease:
    lease, effects = lease_provider.new(LEASE, TERMS, peer_addresses=(), now=now_ms())
    return await leases.add(lease, effects, m.ReceiveAccepted(now_ms()))


async def start_running(leases: Leases) -> Lease:
    """Through every step up to a running job."""
    await add(leases)
    await trio.sleep(1)
    for event in (
        m.ReceiveInputs(now_ms()),
        m.RunPulled(now_ms()),
        m.ChainOpened(EscrowId(bytes(32)), Tick(10), Tick(10_000), now_ms()),
        m.RunStarted(now_ms(), now_ms()),
        m.RunReady(now_ms(), now_ms()),
    ):
        lease = await leases.feed(LEASE, event)
    assert lease.phase is Phase.RUNNING
    return lease


async def test_a_new_lease_is_written_down_and_begun(tmp_path: Path, autojump_clock: Clock) -> None:
    hands = Hands()
    async with running(tmp_path, hands) as leases:
        lease = await add(leases)
        await trio.sleep(1)
        assert hands.done == ["RunPull"] and leases.active() == (lease,)
        assert await add(leases) == lease
        await trio.sleep(1)
        assert hands.done == ["RunPull"], "the same lease twice is one lease"


async def test_a_pull_that_never_ends_ends_with_its_lease(tmp_path: Path, autojump_clock: Clock) -> None:
    class Slow(Hands):
        async def __call__(self, task: Task, /) -> m.Event | None:
            if isinstance(task.effect, m.RunPull):
                await trio.sleep_forever()
            return await super().__call__(task)

    hands = Slow()
    async with running(tmp_path, hands) as leases:
        await add(leases)
        await trio.sleep(1)
        await leases.feed(LEASE, m.ActionStop(now_ms()))
        await trio.sleep(1)
        assert sorted(hands.done) == ["RunDiscard", "SendExited"]


async def test_what_is_unknown_is_said(tmp_path: Path, autojump_clock: Clock) -> None:
    async with running(tmp_path, Hands()) as leases:
        with pytest.raises(LeaseUnknown, match="no lease 0001020304050607"):
            await leases.feed(LEASE, m.ActionStop(now_ms()))


@pytest.mark.parametrize("error", [ChainUnreachable("away"), FileNotFoundError("gone"), trio.TooSlowError()])
async def test_an_effect_is_tried_until_it_is_done(
    tmp_path: Path, autojump_clock: Clock, error: Exception
) -> None:
    def third_time(task: Task, times: int) -> m.Event | None:
        if times < 3:
            raise error
        return m.RunPulled(now_ms())

    hands = Hands(third_time)
    async with running(tmp_path, hands) as leases:
        await add(leases)
        await trio.sleep(60)
        assert (hands.tried, hands.done) == (["RunPull"] * 3, ["RunPull"])
        assert (await leases.get(LEASE)).has_image


async def test_an_effect_cut_short_is_tried_after_the_restart_with_what_it_had_saved(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    def never(task: Task, times: int) -> m.Event | None:
        raise ChainUnreachable("away")

    async with running(tmp_path, Hands(never, save=b"so far")) as leases:
        await add(leases)
        await trio.sleep(1)
    hands = Hands()
    async with running(tmp_path, hands) as leases:
        await trio.sleep(60)
        assert (hands.done, hands.scratch) == (["RunPull"], [b"so far"])
    hands = Hands()
    async with running(tmp_path, hands) as leases:
        await trio.sleep(60)
        assert hands.tried == [], "done is done"
        assert [lease.phase for lease in leases.active()] == [Phase.FUNDING]


async def test_only_the_newest_reading_of_a_meter_is_sent(tmp_path: Path, autojump_clock: Clock) -> None:
    """A caller that comes back hears where the meter is, not where it has been."""
    away = True
    sent: list[int] = []

    def send(task: Task, times: int) -> m.Event | None:
        if isinstance(task.effect, m.SendMeter):
            if away:
                raise ChainUnreachable("away")
            sent.append(task.effect.seconds)
        return None

    hands = Hands(send)
    async with running(tmp_path, hands) as leases:
        await start_running(leases)
        await trio.sleep(TERMS.interval_seconds * (TERMS.unpaid_intervals + 2))
        lease = await leases.get(LEASE)
        assert lease.phase is Phase.PAUSED
        away = False
        await trio.sleep(30)
        assert sent and set(sent) == {lease.seconds}


async def test_a_lane_that_is_stuck_holds_up_no_other(tmp_path: Path, autojump_clock: Clock) -> None:
    def no_word_gets_through(task: Task, times: int) -> m.Event | None:
        if isinstance(task.effect, m.SendRunning | m.SendMeter):
            raise ChainUnreachable("away")
        return None

    hands = Hands(no_word_gets_through)
    async with running(tmp_path, hands) as leases:
        await start_running(leases)
        await leases.feed(LEASE, m.ActionStop(now_ms()))
        await trio.sleep(1)
        assert sorted(hands.done) == ["RunGo", "RunPull", "RunStart", "RunStop"]


async def test_a_jump_of_the_clock_gives_everybody_patience_anew(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """The machine slept: what the others could not say meanwhile must not end a lease."""
    slept = 0

    def clock() -> UnixMs:
        return UnixMs(now_ms() + slept)

    async with running(tmp_path, Hands(), clock) as leases:
        patience_ms = (await add(leases)).timer_at - now_ms()
        slept = patience_ms + SLEPT_MS + 1
        await trio.sleep(2 * CLOCK_SECONDS)
        assert (await leases.get(LEASE)).phase is Phase.FUNDING
        await trio.sleep(patience_ms / 1_000)
        assert (await leases.get(LEASE)).reason == "lease.not_funded", "an honest wait does end it"


async def test_last_words_are_carried_for_long_but_not_for_ever(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ms = 7_200_000
    monkeypatch.setattr("qubixd.leases.GIVE_UP_MS", long_ms)

    def nobody_there(task: Task, times: int) -> m.Event | None:
        if isinstance(task.effect, m.SendExited):
            raise ChainUnreachable("away")
        return None

    hands = Hands(nobody_there)
    async with running(tmp_path, hands) as leases:
        await add(leases)
        await leases.feed(LEASE, m.ChainOpened(EscrowId(bytes(32)), Tick(10), Tick(10_000), now_ms()))
        await leases.feed(LEASE, m.RunFailed("runner.start_failed", "it does not start", now_ms()))
        await leases.feed(LEASE, m.RunDiscarded(now_ms()))
        await leases.feed(LEASE, m.ChainClosed(Qu(0), TERMS.deposit, now_ms()))
        assert (await leases.get(LEASE)).phase is Phase.FAILED and leases.active() == ()
        await trio.sleep(long_ms / 1_000 - 600)
        before = len(hands.tried)
        await trio.sleep(1_200)
        assert len(hands.tried) > before, "still trying shortly before"
        gave_up = len(hands.tried)
        await trio.sleep(3_600)
        assert len(hands.tried) == gave_up
    async with running(tmp_path, hands) as leases:
        await trio.sleep(600)
        assert len(hands.tried) == gave_up, "and not again after a restart"


async def test_listeners_hear_every_change_in_order(tmp_path: Path, autojump_clock: Clock) -> None:
    async with running(tmp_path, Hands()) as leases:
        with leases.listen(LEASE) as mine, leases.listen(None) as all_of_them:
            await start_running(leases)
            for channel in (mine, all_of_them):
                heard = [channel.receive_nowait() for _ in range(channel.statistics().current_buffer_used)]
                phases = list(dict.fromkeys(lease.phase for lease in heard))
                assert phases == [Phase.FUNDING, Phase.PROVISIONING, Phase.RUNNING]


async def test_a_listener_that_falls_behind_finds_the_end(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qubixd.leases.KEPT_FOR_LISTENERS", 2)
    async with running(tmp_path, Hands()) as leases:
        with leases.listen(LEASE) as changes:
            await start_running(leases)
            assert [lease.phase async for lease in changes] == [Phase.FUNDING, Phase.FUNDING]


async def test_a_peer_that_takes_nothing_does_not_fill_a_lane(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It pays for hours and answers no meter. What waits for it is the newest, not all of them."""

    def never(task: Task, times: int) -> m.Event | None:
        if isinstance(task.effect, m.SendRunning):
            raise ChainUnreachable("away")
        return None

    async with open_store(":memory:", inline) as store, trio.open_nursery() as nursery:
        leases = Leases(store, now_ms)
        await nursery.start(leases.run, Hands(never))
        lease = await start_running(leases)
        step_ms = TERMS.interval_seconds * 1_000
        for count in range(1, 10_100):
            effects = (m.SendMeter(Seconds(count)),)
            monkeypatch.setattr("qubixd.leases.step", lambda lease, event, told=effects: (lease, told))
            await leases.feed(LEASE, m.ClockPassed(UnixMs(lease.started_at + count * step_ms)))
        waiting = [one.kind for one in await journal.pending(store) if one.lane == "send"]
        assert waiting == ["SendRunning", "SendMeter"]
        nursery.cancel_scope.cancel()


async def test_a_stranger_that_locked_no_money_is_not_told_of_the_end_for_a_day(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    def away(task: Task, times: int) -> m.Event | None:
        if isinstance(task.effect, m.SendExited):
            raise ChainUnreachable("away")
        return None

    async with open_store(":memory:", inline) as store, trio.open_nursery() as nursery:
        leases = Leases(store, now_ms)
        await nursery.start(leases.run, Hands(away))
        await add(leases)
        await trio.sleep(200)
        assert leases.active() == ()
        assert [one.kind for one in await journal.pending(store)] == ["SendExited"]
        await trio.sleep(900)
        assert await journal.pending(store) == ()
        nursery.cancel_scope.cancel()
