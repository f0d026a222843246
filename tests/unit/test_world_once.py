"""A front end that asks again for what it asked before: one lease, however often it was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from protocol.control import ConfirmArgs, RunArgs, RunEvent
from protocol.errors import NoOffer, UsageError
from protocol.lease_state import TERMINAL, Phase
from protocol.units import LeaseId
from qubixd.control import confirm, run
from tests.support.rental import Rental, rental
from tests.support.world_jobs import job

Clock = trio.testing.MockClock


async def ask(one: Rental, confirmed: trio.Event | None = None, quoted: trio.Event | None = None) -> RunEvent:
    """As the wizard does: with the same output folder each time; yes is said once `confirmed`."""

    async def take(event: object) -> None:
        assert isinstance(event, RunEvent)
        if event.quote:
            if quoted is not None:
                quoted.set()
            if confirmed is not None:
                await confirmed.wait()
            await confirm(one.bob.up, ConfirmArgs(event.quote.token, accept=True), take)

    out = str(one.bob.root / "out")
    args = RunArgs(job(seconds=3), str(one.world.root), out, ask=True, detach=True, once=True)
    return await run(one.bob.up, args, take)


async def test_the_same_wish_again_is_the_same_lease(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        first, second = await ask(one), await ask(one)
        assert first.lease and second.lease and first.lease.lease_id == second.lease.lease_id
        assert len(await one.bob.up.all_leases()) == 1
        assert one.bob.up.wishes == {}


async def test_a_wish_that_was_given_up_is_no_lease(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        with trio.move_on_after(5) as gave_up:
            await ask(one, trio.Event())
        assert gave_up.cancelled_caught
        assert await one.bob.up.all_leases() == []
        assert (await ask(one)).lease
        assert len(await one.bob.up.all_leases()) == 1


async def test_two_at_once_rent_once(tmp_path: Path, autojump_clock: Clock) -> None:
    """The second waits for what becomes of the first."""
    async with rental(tmp_path) as one:
        quoted, confirmed = trio.Event(), trio.Event()
        ids: list[str] = []

        async def wish() -> None:
            event = await ask(one, confirmed, quoted)
            assert event.lease
            ids.append(event.lease.lease_id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wish)
            await quoted.wait()
            nursery.start_soon(wish)
            await trio.testing.wait_all_tasks_blocked()
            confirmed.set()
        assert len(set(ids)) == 1 and len(ids) == 2
        assert len(await one.bob.up.all_leases()) == 1


async def test_who_wants_one_job_of_a_name_gets_the_one_that_goes_on(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Two at the same time, each with a folder of its own; when it has ended there may be another."""
    async with rental(tmp_path) as one:
        told: list[RunEvent] = []

        async def take(event: object) -> None:
            assert isinstance(event, RunEvent)
            told.append(event)

        async def sole(folder: str) -> None:
            out = str(tmp_path / folder)
            told.append(
                await run(
                    one.bob.up, RunArgs(job(seconds=3), str(tmp_path), out, detach=True, sole=True), take
                )
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sole, "a")
            nursery.start_soon(sole, "b")
        (lease,) = await one.bob.up.all_leases()
        assert {event.lease.lease_id for event in told if event.lease} == {lease.lease_id.hex()}
        assert "somebody else asks for this job" in "".join(event.detail for event in told)
        await one.world.until_ended(lease.lease_id, one.bob)
        await sole("c")
        assert len(await one.bob.up.all_leases()) == 2 and one.bob.up.wishes == {}


def ident(text: str) -> LeaseId:
    return LeaseId(bytes.fromhex(text))


async def test_what_is_replaced_ends_once_another_is_open_and_not_before(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        bob = one.bob.up

        async def replace_by(folder: str, text: str, old: str, where: str = "") -> str:
            out = str(tmp_path / folder)
            args = RunArgs(text, str(tmp_path), out, detach=True, sole=True, replaces=old, where=where)
            lease = (await run(bob, args, lambda event: trio.lowlevel.checkpoint())).lease
            assert lease is not None
            return lease.lease_id

        long = job(seconds=100, hours=0.05)
        old = await replace_by("a", long, "")
        await one.world.until(ident(old), one.bob, lambda lease: lease.phase is Phase.RUNNING)
        with pytest.raises(NoOffer):
            await replace_by("b", long, old, where="region=nowhere")
        with pytest.raises(UsageError, match="no job called"):
            await replace_by("b", long.replace("name: ", "name: other-", 1), old)
        assert (await bob.leases.get(ident(old))).phase is Phase.RUNNING
        found: list[str] = []

        async def both(folder: str) -> None:
            found.append(await replace_by(folder, long, old))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(both, "c")
            nursery.start_soon(both, "d")
        (new,) = set(found)
        await one.world.until(ident(old), one.bob, lambda lease: lease.phase in TERMINAL)
        assert await replace_by("e", long, old) == new, "what has ended meanwhile is in nobody's way"
        assert new != old
        ended = await one.world.until(ident(old), one.bob, lambda lease: lease.phase in TERMINAL)
        assert ended.phase is Phase.CANCELLED
        await one.world.until(ident(new), one.bob, lambda lease: lease.phase is Phase.RUNNING)


async def test_another_folder_is_another_wish(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await ask(one)
        args = RunArgs(job(seconds=3), str(tmp_path), str(tmp_path / "other"), detach=True, once=True)
        await run(one.bob.up, args, lambda event: trio.lowlevel.checkpoint())
        assert len(await one.bob.up.all_leases()) == 2
