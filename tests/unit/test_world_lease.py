"""One lease through two real nodes and the real contract, on a virtual clock."""

from __future__ import annotations

from pathlib import Path

import trio.testing

from protocol.lease_state import Phase
from protocol.units import fee_of
from tests.support.world import World
from tests.support.world_jobs import job


async def test_a_job_is_run_paid_and_delivered(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path) as world:
        alice = await world.start("alice", provider=True)
        bob = await world.start("bob")
        await world.until_offered(bob)
        before = world.balance(alice), world.balance(bob)
        lease = await world.rent(bob, job(seconds=10))
        served, paid = await world.until_ended(lease.lease_id, alice, bob)
        assert (paid.phase, served.phase) == (Phase.DONE, Phase.DONE)
        assert paid.paid == served.paid == 10_000
        assert world.balance(alice) - before[0] == 10_000 - fee_of(paid.paid)
        assert before[1] - world.balance(bob) == 10_000
        assert (bob.root / "out" / "result.txt").read_text() == "ran 10 0\n"
        world.check_conservation()
