"""Why the chain is waited for: told after a moment of grace, as long as it is so, logged once a minute."""

from __future__ import annotations

import logging
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from escrow_bridge.chain import Balance, Outcome
from escrow_bridge.transfer import TransferOrder
from escrow_bridge.waiting import GRACE_SECONDS, LOG_EVERY_SECONDS, Waiting
from protocol import lease_model as m
from protocol.control import RunEvent, WaitArgs
from protocol.errors import BalanceTooLow, ChainDisagrees, ChainUnreachable
from protocol.lease_state import Lease, Phase, Role
from protocol.units import EscrowId, LeaseId, Qu, QubicId, UnixMs
from qubixd.control import VERBS
from qubixd.effects import PERFORMERS, Performer
from qubixd.leases import Task
from tests.support.chains import TICK_SECONDS, Store, make_world, wallet_of
from tests.support.lease_plan import make_terms
from tests.support.rental import rental
from tests.support.world_jobs import job

ORDER = TransferOrder(wallet_of(2).public_key, Qu(300))


async def test_the_usual_time_is_no_reason(autojump_clock: MockClock) -> None:
    waiting, seen = Waiting(), list[str]()
    waiting.on_change.append(lambda: seen.append(waiting.why))
    with waiting.reasons() as because:
        because("one")
        await trio.sleep(GRACE_SECONDS - 0.1)
        because("two")
        assert waiting.why == ""
        await trio.sleep(0.2)
        because("three")
        because("three")
        assert waiting.why == "three"
    assert waiting.why == "" and seen == ["three", ""]


async def test_who_waits_the_longest_is_heard(autojump_clock: MockClock) -> None:
    waiting = Waiting()
    for key in ("a", "b"):
        waiting.because(key, key)
        await trio.sleep(1)
    await trio.sleep(GRACE_SECONDS)
    for key in ("a", "b"):
        waiting.because(key, key)
    assert waiting.why == "a"
    waiting.over("a")
    waiting.over("a")
    assert waiting.why == "b"


async def test_the_log_has_it_once_a_minute(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    waiting, errors = Waiting(), [ChainUnreachable("cut off"), ChainDisagrees("A says 1, B says 2")]
    ends_at = trio.current_time() + 10 * LOG_EVERY_SECONDS

    async def answer() -> str:
        if trio.current_time() < ends_at:
            raise errors[int(trio.current_time()) % 2]
        return "here"

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(waiting.patiently, answer, 0.5)
    assert 9 <= len(caplog.records) <= 10
    assert {one.levelno for one in caplog.records} == {logging.WARNING}
    assert waiting.why == ""


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ("stopped", "tick 10000002 is the newest at the devnet; the transaction is for tick 1000000"),
        ("no outcome", "what was in tick 10000004 is not known yet at the devnet"),
        (
            "old balance",
            "the wallet is shown as of tick 10000000 at the devnet, and its last transaction is for",
        ),
        ("cut off", "the chain was cut off"),
    ],
)
async def test_each_reason_of_a_transfer_to_wait_has_a_sentence(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, trouble: str, sentence: str
) -> None:
    world, whys = make_world(), list[str]()
    bridge = world.bridge(world.caller)
    bridge.waiting.on_change.append(lambda: whys.append(bridge.waiting.why))
    before = await world.chain.balance(world.caller.public_key)
    if trouble == "old balance":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.tick_for_ever)
            await bridge.transfer(ORDER, b"", Store().save)
            nursery.cancel_scope.cancel()

    async def pending(transaction: bytes) -> Outcome:
        return Outcome.PENDING

    async def old(owner: QubicId) -> Balance:
        return before

    with monkeypatch.context() as patch:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.transfer, ORDER, b"", Store().save)
            if trouble == "no outcome":
                patch.setattr(world.chain, "outcome", pending)
            if trouble == "old balance":
                patch.setattr(world.chain, "balance", old)
            for _ in range(2 if trouble in ("stopped", "cut off") else 8):
                await trio.sleep(TICK_SECONDS)
                await world.chain.advance()
            world.chain.reachable = trouble != "cut off"
            await trio.sleep(GRACE_SECONDS + 5)
            assert len(whys) == 1 and whys[0].startswith(sentence)
            patch.undo()
            world.chain.reachable = True
            nursery.start_soon(world.tick_for_ever)
            while whys[-1]:
                await trio.sleep(TICK_SECONDS)
            nursery.cancel_scope.cancel()


async def test_what_fails_for_another_reason_waits_for_the_chain_no_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else people would be told of a silent node as long as the wallet is empty."""
    waiting, answers = Waiting(), iter([ChainUnreachable("cut off")] * 2 + [BalanceTooLow("empty")])

    async def fails(performer: Performer, task: Task, effect: m.Effect) -> None:
        raise next(answers)

    async def save(scratch: bytes) -> None:
        raise AssertionError("nothing to save")

    monkeypatch.setitem(PERFORMERS, m.ChainRequestClose, fails)
    performer = cast(Performer, SimpleNamespace(bridge=SimpleNamespace(waiting=waiting)))
    lease = Lease(LeaseId(b"l" * 32), Role.CALLER, make_terms(), Phase.SETTLING, UnixMs(0), UnixMs(0))
    task = Task(lease, m.ChainRequestClose(EscrowId(bytes(32))), b"", save)
    for error, why in ((ChainUnreachable, ""), (ChainUnreachable, "cut off"), (BalanceTooLow, "")):
        with pytest.raises(error):
            await Performer.__call__(performer, task)
        assert waiting.why == why
        await trio.sleep(GRACE_SECONDS + 1)


async def test_a_rentals_progress_says_why_its_deposit_waits(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    events: list[RunEvent] = []

    async def emit(event: object) -> None:
        assert isinstance(event, RunEvent)
        events.append(event)

    async with rental(tmp_path) as one, trio.open_nursery() as nursery:
        lease = await one.rent(job(seconds=3))
        nursery.start_soon(VERBS["wait"], one.bob.up, WaitArgs(lease.lease_id.hex()), emit)
        await one.until(one.bob, Phase.FUNDING)
        while not one.world.chain.broadcasts:
            await trio.sleep(0.1)
        one.world.chain.reachable = False
        await trio.sleep(GRACE_SECONDS + 5)
        one.world.chain.reachable = True
        one.check_books(*await one.ended())
    told = [event.waiting for event in events]
    assert [why for why, _ in groupby(told)] == ["", "the chain was cut off", ""]
    assert {event.phase for event in events if event.waiting} == {"funding"}
