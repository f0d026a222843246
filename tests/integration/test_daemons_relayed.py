"""Whole daemons that nobody can dial: they meet, hire, pay and fetch results through a relay, which dies and
comes back while the job runs."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from tests.integration.test_daemons import PROVIDER, check_books, job_args
from tests.support.daemons import PATIENCE_SECONDS, Daemon, daemons

HIDDEN = ("--announce", "/ip4/127.0.0.1/tcp/1")
"""Whoever dials that finds nobody."""
pytestmark = pytest.mark.timeout(300)


async def until_places(relay: Daemon, count: int) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while (await relay.call("relay"))["own"]["places"] != count:
            await trio.sleep(0.2)


async def test_two_daemons_do_one_job_through_a_relay_that_dies_meanwhile(tmp_path: Path) -> None:
    async with daemons(tmp_path, people=3) as town:
        rita = await town.start("rita", "--relay")
        through = (*HIDDEN, "--bootstrap", rita.address, "--use-relay", rita.address)
        alice = await town.start("alice", *PROVIDER, *through)
        bob = await town.start("bob", *through, "--interval", "10")
        await until_places(rita, 2)
        await bob.until_offered()
        killed = False
        async with aclosing(bob.stream("run", **job_args(tmp_path, "sleep 6"))) as events:
            async for event in events:
                if event["phase"] == "running" and not killed:
                    killed = True
                    assert (await rita.call("relay"))["own"]["joined"] > 0
                    await rita.kill()
                    await rita.start()
        await check_books(alice, bob, event["lease"])
        assert (tmp_path / "out" / "sum.txt").read_text().strip() == "500500"
        for daemon in (alice, bob):
            addresses = (await daemon.call("status"))["addresses"]
            assert [address.count("/p2p-circuit/") for address in addresses] == [0, 1], addresses
            assert await daemon.stop() == 0
