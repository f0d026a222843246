"""A provider whose engine goes away under its running daemon: what nobody could see is not billed."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.rental import due, rental
from tests.support.world_jobs import job

Clock = trio.testing.MockClock


@pytest.mark.parametrize(("dies", "least", "most"), [(True, 10, 14), (False, 80, 80)])
async def test_the_meter_stands_still_until_the_job_is_seen_again(
    tmp_path: Path, autojump_clock: Clock, dies: bool, least: int, most: int
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=80))
        await one.until_paid(due(10))
        engine = one.alice.engine
        engine.away = True
        if dies:
            engine.reboot()
        await trio.sleep(40)
        held = (await one.alice.up.leases.get(one.lease_id)).seconds
        assert held <= 14, "nobody knows whether it runs"
        engine.away = False
        served, paid = await one.ended()
        assert due(least) <= paid.paid <= due(most)
        one.check_books(served, paid)
