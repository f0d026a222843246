"""Whole daemons over libp2p, TCP and the devnet: a job end to end, and SIGKILL in the middle of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from protocol.errors import DiskFull
from protocol.units import fee_of
from tests.support.daemons import FUNDS, PATIENCE_SECONDS, Daemon, Refused, Town, daemons

JOB = """
name: sum
resources: {{image: "any:1", cpus: 1, memory: 64MB, disk: 10MB}}
file_mounts: {{numbers.txt: ./numbers.txt}}
max_hours: 0.05
run: |
  echo begun
  {pause}
  awk '{{ s += $1 }} END {{ print s }}' numbers.txt > sum.txt
"""
pytestmark = pytest.mark.timeout(300)  # many processes, on a machine that may be slow

PROVIDER = ("--provider", "--price", "3600000", "--runner", "process", "--name", "alice")


def job_args(folder: Path, pause: str = "sleep 1") -> dict[str, object]:
    (folder / "numbers.txt").write_text("\n".join(map(str, range(1, 1_001))))
    return {
        "job_yaml": JOB.format(pause=pause),
        "base_dir": str(folder),
        "output_dir": str(folder / "out"),
    }


async def two(town: Town) -> tuple[Daemon, Daemon]:
    """A provider, and a caller that knows it as its only bootstrap address."""
    alice = await town.start("alice", *PROVIDER)
    bob = await town.start("bob", "--bootstrap", alice.address, "--interval", "1")
    await bob.until_offered()
    return alice, bob


async def check_books(alice: Daemon, bob: Daemon, lease: dict[str, Any]) -> None:
    paid = lease["paid"]
    assert lease["phase"] == "done", lease
    assert paid > 0 and paid % 1_000 == 0
    assert lease["deposit"] == paid + lease["refunded"]
    assert (await bob.call("wallet"))["balance"] == FUNDS - paid
    assert (await alice.call("wallet"))["balance"] == FUNDS + paid - fee_of(paid)


@pytest.mark.parametrize("way", ["node", "nodes", "rpc"])
async def test_two_daemons_do_one_job(tmp_path: Path, way: str) -> None:
    async with daemons(tmp_path) as town:
        town.chain = town.devnet.chains[way]
        alice, bob = await two(town)
        answer = await bob.call("run", **job_args(tmp_path))
        await check_books(alice, bob, answer["lease"])
        assert (tmp_path / "out" / "sum.txt").read_text().strip() == "500500"
        logs = [event async for event in bob.stream("logs", lease=answer["lease"]["lease_id"])]
        assert b"".join(event.get("data", b"") for event in logs) == b"begun\n"
        assert await alice.stop() == 0
        assert await bob.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["alice", "bob"])
@pytest.mark.parametrize("phase", ["funding", "provisioning", "running", "stopping", "settling"])
async def test_sigkill_in_the_middle(tmp_path: Path, victim: str, phase: str) -> None:
    async with daemons(tmp_path) as town:
        alice, bob = await two(town)
        lease_id = await kill_at(
            alice if victim == "alice" else bob, phase, bob, job_args(tmp_path, "sleep 2")
        )
        with trio.fail_after(PATIENCE_SECONDS):
            answer = await bob.call("wait", lease=lease_id)
        await check_books(alice, bob, answer["lease"])
        assert (tmp_path / "out" / "sum.txt").read_text().strip() == "500500"


async def kill_at(victim: Daemon, phase: str, caller: Daemon, args: dict[str, object]) -> str:
    """Run a job, SIGKILL somebody as soon as the caller's lease is in `phase`, start it again."""
    async with aclosing(caller.stream("run", **args)) as events:
        with trio.fail_after(PATIENCE_SECONDS):
            async for event in events:
                if event["phase"] == phase:
                    break
    await victim.kill()
    await victim.start()
    return str(event["lease"]["lease_id"])


async def test_strangers_meet_through_one_bootstrap_address(tmp_path: Path) -> None:
    """The node in the middle neither offers nor rents; it is all that the other two know."""
    async with daemons(tmp_path, people=3) as town:
        carol = await town.start("carol")
        alice = await town.start("alice", *PROVIDER, "--bootstrap", carol.address)
        bob = await town.start("bob", "--bootstrap", carol.address, "--interval", "1")
        await bob.until_offered()
        answer = await bob.call("run", **job_args(tmp_path))
        await check_books(alice, bob, answer["lease"])
        assert (await carol.call("ps", all=True))["leases"] == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of some megabytes."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(mount)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system of its own can be mounted here: {mounted.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


@pytest.mark.parametrize("victim", ["alice", "bob"])
async def test_a_disk_that_fills_up_in_the_middle(tmp_path: Path, small_disk: Path, victim: str) -> None:
    """The daemon ends with one sentence; with room again it goes on and every QU is right."""
    async with daemons(tmp_path) as town:
        town.roots[victim] = small_disk / victim
        alice, bob = await two(town)
        dying, room = {"alice": alice, "bob": bob}[victim], tmp_path / "room"
        until_room = f"until [ -e {room} ]; do sleep 0.1; done"  # for the job's own output, too
        async with aclosing(bob.stream("run", **job_args(tmp_path, until_room))) as events:
            async for event in events:
                if event["phase"] == "running":
                    break
        fill(small_disk / "ballast")
        assert dying.process is not None
        with trio.fail_after(PATIENCE_SECONDS):
            assert await dying.process.wait() == DiskFull.exit_code
        assert dying.log().strip().splitlines()[-1].endswith("[disk.full]")
        assert "Traceback" not in dying.log()
        (small_disk / "ballast").unlink()
        room.touch()
        await dying.start()
        with trio.fail_after(PATIENCE_SECONDS):
            answer = await bob.call("wait", lease=event["lease"]["lease_id"])
        await check_books(alice, bob, answer["lease"])


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4_096)):
            pass


async def test_a_price_above_the_limit_is_refused_before_money_moves(tmp_path: Path) -> None:
    async with daemons(tmp_path) as town:
        _, bob = await two(town)
        with pytest.raises(Refused) as refused:
            await bob.call("run", max_price_qu_per_hour=3_599_999, **job_args(tmp_path))
        assert refused.value.code == "quote.price_above_limit"
        assert (await bob.call("wallet"))["balance"] == FUNDS
        assert (await bob.call("ps", all=True))["leases"] == []
