"""Whole daemons and the market: goodbye on SIGTERM, with and without directories; silence after SIGKILL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.daemons import Daemon, Town, daemons

PROVIDER = ("--provider", "--price", "3600000", "--runner", "process", "--name", "alice")


async def offers_of(daemon: Daemon) -> list[dict[str, Any]]:
    offers: list[dict[str, Any]] = (await daemon.call("market"))["offers"]
    return offers


async def until_gone(daemon: Daemon, seconds: float) -> None:
    with trio.fail_after(seconds):
        while await offers_of(daemon):
            await trio.sleep(0.1)


async def directories(town: Town, count: int) -> list[Daemon]:
    """Each knows the first."""
    first = await town.start("directory-0", "--directory")
    others = [
        await town.start(f"directory-{number}", "--directory", "--bootstrap", first.address)
        for number in range(1, count)
    ]
    return [first, *others]


@pytest.mark.parametrize("count", [0, 2])
async def test_sigterm_says_goodbye(tmp_path: Path, count: int) -> None:
    """Everybody forgets the offer long before it would count as silent."""
    async with daemons(tmp_path, people=2 + max(count, 1)) as town:
        middle = await directories(town, count) if count else [await town.start("carol")]
        alice = await town.start("alice", *PROVIDER, "--bootstrap", middle[0].address)
        bob = await town.start("bob", "--bootstrap", middle[0].address)
        await bob.until_offered()
        for node in middle:
            await node.until_offered()
        assert await alice.stop() == 0
        for node in [bob, *middle]:
            await until_gone(node, 15)


async def test_a_daemon_prefers_the_directory_it_is_told_to_use(tmp_path: Path) -> None:
    async with daemons(tmp_path, people=3) as town:
        dora = await town.start("dora", "--directory")
        alice = await town.start("alice", *PROVIDER, "--use-directory", dora.address)
        bob = await town.start("bob", "--use-directory", dora.address)
        await bob.until_offered()
        assert await alice.stop() == 0
        await until_gone(bob, 15)
        counters = (await dora.call("status"))["counters"]
        assert not {name for name in counters if name.startswith("heartbeat.")}, counters
