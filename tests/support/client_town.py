"""Two daemons, a Docker provider and its caller, in which real clients are led into jobs: for a whole module.

The daemons live in a thread with a trio loop of its own, so that tests may be plain functions that run
programs. What a person would type goes through `Person.qubix`; its answers are those of `--json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from tests.support.daemons import PATIENCE_SECONDS, Daemon, daemons

PROVIDER: Final = ("--provider", "--price", "3600000", "--runner", "docker", "--name", "alice")
JOB: Final = """
name: {name}
template: {template}
resources: {{image: "{image}", cpus: {cpus}, memory: 768MB, disk: 200MB}}
max_hours: 0.5
proof: never
"""
"""`ready` is the template's: once the lease runs, its programs answer."""


@dataclass
class Person:
    """The caller, at a command line. `home` is a home directory of its own."""

    daemon: Daemon
    home: Path
    """Files that jobs bring are beside their job files in it."""
    leases: dict[str, str] = field(default_factory=dict)
    """Name of a job -> its lease."""

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"HOME": str(self.home), "QUBIX_DATA_DIR": str(self.daemon.root), "TERM": "xterm"}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tui.cli", *words]

    def run(self, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """A `qubix` to its end, whatever that is."""
        how = {"capture_output": True, "text": True, "timeout": PATIENCE_SECONDS} | how
        done: subprocess.CompletedProcess[str] = subprocess.run(
            self.command(*words), env=self.environment, check=False, **how
        )
        return done

    def told(self, *words: str) -> Any:
        """The last line of a `qubix --json` that went well."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.daemon.log()[-3000:]}"
        return json.loads(done.stdout.splitlines()[-1])

    @contextmanager
    def beside(self, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
        """A `qubix` that goes on until the block ends, with more variables in its environment."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(self.command(*words), env=self.environment | more, **pipes) as process:
            try:
                yield process
            finally:
                process.terminate()

    def begin(self, name: str, template: str, image: str, *, cpus: float = 0.4, extra: str = "") -> None:
        """Rent a machine for a job."""
        file = self.home / f"{name}.yaml"
        file.write_text(JOB.format(name=name, template=template, image=image, cpus=cpus) + extra)
        out = str(self.home / f"out-{name}")
        self.leases[name] = self.told("run", str(file), "--detach", "--output", out)["lease_id"]

    def running(self, name: str) -> str:
        """The lease of a job that was begun, once it runs."""
        self._until_running(self.leases[name])
        return self.leases[name]

    def _until_running(self, lease_id: str) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            (lease,) = [one for one in self.told("ps", "-a")["leases"] if one["lease_id"] == lease_id]
            if lease["phase"] == "running":
                return
            assert not lease["reason"], f"{lease['sentence']}\n{self.run('logs', lease_id).stdout}"
            time.sleep(0.3)
        raise AssertionError(
            f"the job did not run: {self.run('logs', lease_id).stdout}\n{self.daemon.log()[-3000:]}"
        )


@contextmanager
def client_town(root: Path, provider: tuple[str, ...] = PROVIDER) -> Iterator[Person]:
    """The caller, once an offer has reached it. At the end all daemons and jobs are gone."""
    people: list[Person] = []
    ready, leave = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    async def live() -> None:
        async with daemons(root) as town:
            alice = await town.start("alice", *provider)
            bob = await town.start("bob", "--bootstrap", alice.address, "--interval", "5")
            await bob.until_offered()
            (root / "home").mkdir()
            people.append(Person(bob, root / "home"))
            ready.set()
            await trio.to_thread.run_sync(leave.wait)
            await end_leases(bob)

    def run() -> None:
        try:
            trio.run(live)
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        ready.wait()
        if failed:
            raise failed[0]
        yield people[0]
    finally:
        leave.set()
        thread.join()
    if failed:
        raise failed[0]


async def end_leases(bob: Daemon) -> None:
    """Stop all jobs and wait until each has ended."""

    async def end(lease_id: str) -> None:
        await bob.call("stop", lease=lease_id)
        await bob.call("wait", lease=lease_id)

    with trio.move_on_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            for lease in (await bob.call("ps"))["leases"]:
                nursery.start_soon(end, lease["lease_id"])
