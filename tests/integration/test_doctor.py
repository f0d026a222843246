"""The doctor of real daemons on one machine: it says what they can know, and what is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import Daemon, daemons

pytestmark = pytest.mark.timeout(200)

PROVIDER = ("--provider", "--price", "3600000", "--runner", "process", "--name", "alice")


async def examined(daemon: Daemon) -> tuple[dict[str, Any], dict[str, str]]:
    """(the facts, the level of each finding)."""
    view = await daemon.call("doctor", patience_seconds=2.0)
    return view["facts"], {one["code"]: one["level"] for one in view["findings"]}


async def test_two_on_loopback(tmp_path: Path) -> None:
    async with daemons(tmp_path) as town:
        alice = await town.start("alice", *PROVIDER)
        bob = await town.start("bob", "--bootstrap", alice.address)
        await bob.until_offered()
        facts, found = await examined(alice)
        assert found["net.loopback_only"] == "bad" and "net.reachable" not in found
        assert {found[code] for code in ("net.peers", "chain.answers", "clock.right", "provider.ready")} == {
            "good"
        }
        assert facts["balance"] and facts["tick"] and facts["runner"] == "process"
        facts, found = await examined(bob)
        assert found["net.loopback_only"] == "note" and facts["offers"] == 1 and facts["peers"] == 1
        await alice.kill()
        town.devnet.process.kill()
        await town.devnet.process.wait()
        facts, found = await examined(bob)
        assert found["chain.unreachable"] == "bad" and facts["chain_error"] and facts["balance"] is None
        assert found["net.no_peers"] == "bad" and "clock.right" not in found
