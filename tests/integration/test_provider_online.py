"""A machine that goes online with one command: nothing configured, a real engine, a stranger's job, money.

Every person here has an empty home. Only the provider's and the caller's own commands are typed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.timeout(600), pytest.mark.docker]

JOB = """name: count
resources: {{image: "{image}", memory: 64MB, disk: 64MB}}
outputs: [out.txt]
max_hours: 0.05
run: |
  for n in 1 2 3; do echo step $n; sleep 1; done
  echo done > out.txt
"""
PLAY_MONEY = 1_000_000_000


@dataclass(frozen=True)
class Machine:
    """A user of this machine: data directories and settings are found below `home` only."""

    home: Path

    def types(self, *words: str, who: str = "") -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("QUBIX_")}
        env |= {"XDG_DATA_HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "config")}
        whose = ["--data-dir", str(self.home / who)] if who else []
        command = [sys.executable, "-m", "tui.cli", *whose, *words]
        return subprocess.run(
            command, env=env, cwd=self.home, capture_output=True, text=True, timeout=300, check=False
        )

    def asks(self, *words: str, who: str = "") -> Any:
        """The last JSON of a command that works."""
        done = self.types(*words, "--json", who=who)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="q-") as name:
        here = Machine(Path(name))
        try:
            yield here
        finally:
            for who in ("", "caller"):
                here.types("down", who=who)
            here.types("devnet", "--end")


def test_one_command_is_enough_on_each_side(machine: Machine, busybox_image: str) -> None:
    up = machine.types("up", "--provider", "--detach")
    assert up.returncode == 0, up.stderr
    assert "coins are play money" in up.stderr
    for word in ("machine", "price", "jobs by", "docker", "wallet", "The machine takes jobs."):
        assert word in up.stdout, up.stdout
    before = machine.asks("provider")
    assert before["shop"]["open"] and before["balance"] == PLAY_MONEY
    assert before["earnings"]["total_qu"] == 0

    (machine.home / "job.yaml").write_text(JOB.format(image=busybox_image))
    lease = machine.asks("run", "--up", "job.yaml", "--output", "out", who="caller")
    assert (lease["phase"], lease["exit_code"], lease["settled"]) == ("done", 0, True)
    assert (machine.home / "out" / "out.txt").read_text() == "done\n"

    after = machine.asks("provider")
    gained = lease["paid"] - lease["fee"]
    assert gained > 0
    assert [after["earnings"][name] for name in ("today_qu", "total_qu", "leases")] == [gained, gained, 1]
    assert after["earnings"]["days"][0]["qu"] == gained
    assert (after["jobs"], [one["lease_id"] for one in after["ended"]]) == ([], [lease["lease_id"]])
    assert after["ended"][0]["received_qu"] == gained
    assert after["balance"] == PLAY_MONEY + gained


def test_pause_and_price_outlive_the_daemon(machine: Machine, busybox_image: str) -> None:
    machine.asks("up", "--provider", "--detach", "--runner", "docker")
    machine.asks("offer", "--price", "123456")
    machine.asks("provider", "pause")
    machine.types("down")
    machine.asks("up", "--provider", "--detach")
    view = machine.asks("provider")
    assert (view["shop"]["price_qu_per_hour"], view["shop"]["paused"]) == (123_456, True)
    assert [one["code"] for one in view["shop"]["hindrances"]][-1:] == ["provider.paused"]

    (machine.home / "job.yaml").write_text(JOB.format(image=busybox_image))
    refused = machine.types("run", "--up", "job.yaml", "--yes", who="caller")
    assert refused.returncode == 3, refused.stderr

    assert not machine.asks("provider", "resume")["shop"]["paused"]
    for _ in range(60):
        if machine.asks("market", who="caller")["offers"]:
            break
    lease = machine.asks("run", "job.yaml", "--output", "out", who="caller")
    assert (lease["phase"], lease["price_qu_per_hour"]) == ("done", 123_456)


def test_who_offers_nothing_is_told_so(machine: Machine) -> None:
    machine.asks("up", "--detach")
    done = machine.types("provider")
    assert done.returncode == 2
    assert done.stderr == (
        "error: this daemon offers nothing; start it with `qubix up --provider` [config.invalid]\n"
    )
