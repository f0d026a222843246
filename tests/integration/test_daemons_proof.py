"""Whole daemons, a real engine: a machine is proved inside the job's container before the job begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import daemons

JOB = """
name: proved
resources: {{image: "{image}", cpus: 1, memory: 64MB, disk: 10MB}}
max_hours: 0.05
proof: always
run: ls -A > names.txt
"""
PROVIDER = ("--provider", "--price", "3600000", "--runner", "docker", "--name", "alice")

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


async def test_a_job_whose_machine_is_proved_first(tmp_path: Path, busybox_image: str) -> None:
    async with daemons(tmp_path) as town:
        alice = await town.start("alice", *PROVIDER)
        bob = await town.start("bob", "--bootstrap", alice.address, "--interval", "1")
        await bob.until_offered()
        job = {"job_yaml": JOB.format(image=busybox_image), "base_dir": str(tmp_path)}
        answer = await bob.call("run", **job, output_dir=str(tmp_path / "out"))
        assert answer["lease"]["phase"] == "done", answer["lease"]
        said = "".join(path.read_text() for path in tmp_path.rglob("bob.log"))
        assert f"machine of lease {answer['lease']['lease_id'][:16]}: proved" in said
        names = (tmp_path / "out" / "names.txt").read_text().split()
        assert not any("proof" in name for name in names), "the job finds nothing of the program"
