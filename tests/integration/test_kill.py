"""Either daemon is killed at every step of its journal, goes on after a restart, and no QU is lost.

Each case is one lease in a small world on a virtual clock: the node dies instead of its n-th ledger
call, or right after its n-th commit. Between them lie all effects, so every effect is interrupted
before, between and after what it does and what is written about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol import lease_model as m
from protocol.lease_state import TERMINAL, Lease, Phase
from protocol.units import LeaseId, fee_of
from tests.support.world import Killed, Person, World, fast_root
from tests.support.world_jobs import job, now_ms

JOB_SECONDS = 6
PLAIN = job(seconds=JOB_SECONDS)
FULL = job(seconds=JOB_SECONDS, extra="proof: always\nready: after 2\nrestart: on_failure")
"""Through the gate, a proof and a readiness command; frozen, thawed and begun anew on the way."""
RESTART = b"restart1"
DOWN_SECONDS = 2.5
NEVER = 1_000_000


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    with fast_root(tmp_path) as folder:
        yield folder


@dataclass(frozen=True)
class Verdict:
    code: str = ""
    sentence: str = ""


async def prove(lease: Lease) -> Verdict:
    await trio.sleep(1)
    return Verdict()


async def one_lease(root: Path, text: str, victim: str, how: str, point: int) -> tuple[int, int]:
    """Rent once, with `victim` killed at `point`; the victim's ledger calls and commits if it lived."""
    async with World(root) as world:
        world.prove = prove
        alice = await world.start("alice", provider=True)
        bob = await world.start("bob")
        await world.until_offered(bob)
        dying = {"alice": alice, "bob": bob}[victim]
        dying.calls = dying.commits = 0
        setattr(dying, f"kill_{how}", point)
        world.nursery.start_soon(_revive, world, dying)
        lease_id = await _rent(world, bob, text)
        if lease_id is None:
            _check_nothing_happened(world, alice, bob, await bob.up.all_leases())
        else:
            if text == FULL:
                world.nursery.start_soon(_live, world, bob, lease_id)
            served, paid = await world.until_ended(lease_id, alice, bob)
            _check_books(world, alice, bob, served, paid, text)
        assert dying.deaths == (0 if point == NEVER else 1)
        return dying.calls, dying.commits


async def _live(world: World, bob: Person, lease_id: LeaseId) -> None:
    """The caller freezes the job and begins it anew; what it did not live to do it does after its death."""
    for event in (m.ActionPause, m.ActionResume, partial(m.ActionRestart, RESTART)):
        await world.until(lease_id, bob, lambda lease: lease.seconds >= 1 or lease.phase in TERMINAL)
        await trio.sleep(0.6)
        with suppress(Killed):
            if bob.node is None:
                await bob.born.wait()
            await bob.up.leases.feed(lease_id, event(now_ms()))


async def _rent(world: World, bob: Person, text: str) -> LeaseId | None:
    """The lease, or None when the caller died before it had written one down."""
    with suppress(Killed):
        return (await world.rent(bob, text)).lease_id
    await bob.dead.wait()
    await bob.born.wait()
    leases = await bob.up.all_leases()
    return leases[0].lease_id if leases else None


async def _revive(world: World, dying: Person) -> None:
    """Whenever the node dies, start it again a little later."""
    while True:
        await dying.dead.wait()
        await trio.sleep(DOWN_SECONDS)
        await world.start(dying.name)


def _check_nothing_happened(world: World, alice: Person, bob: Person, leases: list[Lease]) -> None:
    assert leases == []
    assert alice.engine.starts == []
    world.check_conservation()


def _check_books(world: World, alice: Person, bob: Person, served: Lease, paid: Lease, text: str) -> None:
    assert (paid.phase, served.phase) == (Phase.DONE, Phase.DONE), (paid.reason, served.reason)
    assert len(alice.engine.starts) == 1, "the job ran once"
    assert paid.paid == served.paid
    if text == PLAIN:
        assert JOB_SECONDS * 1_000 <= paid.paid <= (JOB_SECONDS + 1) * 1_000
    assert paid.paid + paid.refunded == paid.terms.deposit
    assert world.balance(alice) == world.funds + paid.paid - fee_of(paid.paid)
    assert world.balance(bob) == world.funds - paid.paid
    assert (bob.root / "out" / "result.txt").read_text() == f"ran {JOB_SECONDS} 0\n"
    world.check_conservation()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("victim", ["alice", "bob"])
@pytest.mark.parametrize("text", [PLAIN, FULL], ids=["plain", "full"])
async def test_killed_at_every_step(
    root: Path, autojump_clock: trio.testing.MockClock, text: str, victim: str, how: str
) -> None:
    calls, commits = await one_lease(root / "alive", text, victim, how, NEVER)
    points = calls if how == "before" else commits
    assert points > 10
    for point in range(1, points + 1):
        try:
            await one_lease(root / str(point), text, victim, how, point)
        except BaseException as error:
            error.add_note(f"{victim} was killed {how} {point} of {points}")
            raise
