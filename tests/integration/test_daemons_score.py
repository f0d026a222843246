"""Whole daemons and trust: after a real lease both words are with the directory, and scores follow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from tests.integration.test_daemons import PROVIDER, job_args
from tests.support.daemons import Daemon, daemons


async def until_scored(daemon: Daemon, provider: str, reason: str) -> dict[str, Any]:
    """A daemon's score of a provider, once it gives that reason."""
    score: dict[str, Any] = {}
    with trio.move_on_after(40):
        while reason not in score.get("reasons", ()):
            await trio.sleep(1)
            score = await daemon.call("score", provider=provider)
        return score
    raise AssertionError(f"{daemon.name} says {score}\n{daemon.log()}")


async def test_a_real_lease_is_known_to_both_sides_and_to_strangers(tmp_path: Path) -> None:
    async with daemons(tmp_path, people=4) as town:
        dora = await town.start("dora", "--directory")
        alice = await town.start("alice", *PROVIDER, "--use-directory", dora.address)
        bob = await town.start("bob", "--use-directory", dora.address, "--interval", "1")
        carol = await town.start("carol", "--use-directory", dora.address)
        for node in (bob, carol):
            await node.until_offered()
        (offer,) = (await bob.call("market"))["offers"]
        provider = offer["peer_id"]
        unknown = await bob.call("score", provider=provider)
        assert unknown["newcomer"] and unknown["confidence"] == 0
        await bob.call("run", **job_args(tmp_path))
        own = await until_scored(bob, provider, "leases of your own: 1 of 1 known here")
        assert own["score"] > unknown["score"]
        stranger = await until_scored(carol, provider, "1 caller has paid it")
        assert unknown["score"] < stranger["score"] < own["score"]
        assert alice.process is not None
        await check_evidence(carol, provider, tmp_path / "evidence.json")


async def check_evidence(daemon: Daemon, provider: str, path: Path) -> None:
    """It holds without any daemon, and has both sides' words."""
    answer = await daemon.call("score", provider=provider, evidence=True)
    path.write_text(answer["evidence"])
    (lease,) = json.loads(answer["evidence"])["leases"]
    assert lease["receipt"] and lease["settlement"]
    command = [sys.executable, "-m", "qubixd.evidence", str(path)]
    checked = await trio.run_process(command, capture_stdout=True, stdin=subprocess.DEVNULL)
    assert json.loads(checked.stdout)["same"] is True
