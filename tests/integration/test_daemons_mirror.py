"""Whole daemons and the public mirror: a directory and somebody else, fed by one network, show the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from ledger.mirror_schema import NAMES, NUMBERS
from tests.support.daemons import PATIENCE_SECONDS, Daemon, daemons
from tests.support.mirrors import meta, rows

PROVIDER = ("--provider", "--runner", "process")
FACTS = ("peer", "peer_id", "expires_ms", "sequence", "label", "provider_id", "record", *NUMBERS, *NAMES)
MEASURED = ("score", "reliability")
"""By each node for itself, when it comes to it."""


def file_of(daemon: Daemon) -> Path:
    return daemon.root / "mirror.db"


def shown(daemon: Daemon) -> list[tuple[Any, ...]]:
    facts = ", ".join(one for one in FACTS if one not in MEASURED)
    return rows(file_of(daemon), f"SELECT {facts} FROM offers WHERE live = 1 ORDER BY peer")


def prices(daemon: Daemon) -> dict[str, int]:
    return dict(rows(file_of(daemon), "SELECT label, price FROM offers WHERE live = 1"))


async def until_priced(daemon: Daemon, **expected: int) -> float:
    """Seconds until this daemon's file says so."""
    begun = trio.current_time()
    with trio.fail_after(PATIENCE_SECONDS):
        while not file_of(daemon).exists() or not meta(file_of(daemon)) or prices(daemon) != expected:
            await trio.sleep(0.05)
    return trio.current_time() - begun


async def until_same(one: Daemon, other: Daemon) -> None:
    """Offers are renewed all the time, and not heard of everywhere at once."""
    with trio.fail_after(PATIENCE_SECONDS):
        while shown(one) != shown(other):
            await trio.sleep(0.05)


async def test_two_mirrors_of_one_network_show_the_same(tmp_path: Path) -> None:
    async with daemons(tmp_path, people=4) as town:
        dora = await town.start("dora", "--directory")
        meet = ("--bootstrap", dora.address)
        bob = await town.start("bob", "--mirror", *meet)
        alice = await town.start("alice", *PROVIDER, "--name", "alice", "--price", "3600000", *meet)
        carol = await town.start("carol", *PROVIDER, "--name", "carol", "--price", "7200000", *meet)
        for mirror in (dora, bob):
            await until_priced(mirror, alice=3_600_000, carol=7_200_000)
        await until_same(dora, bob)
        await alice.call("offer", price_qu_per_hour=4_000_000)
        for mirror in (dora, bob):
            await until_priced(mirror, alice=4_000_000, carol=7_200_000)
        await until_same(dora, bob)
        await bob.kill()
        assert await carol.stop() == 0
        await until_priced(dora, alice=4_000_000)
        await bob.start()
        await until_priced(bob, alice=4_000_000)
        await until_same(dora, bob)
        assert meta(file_of(dora))["node"] == dora.ready["peer_id"] != meta(file_of(bob))["node"]
        view = await bob.call("mirror")
        assert (view["on"], view["offers"], view["trouble"]) == (True, 1, "")
