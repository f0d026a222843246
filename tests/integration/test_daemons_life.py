"""Whole daemons, a real engine: a job lives through a restart and its daemon's death; its secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import docker
import pytest
import trio

from tests.support.daemons import PATIENCE_SECONDS, Daemon, daemons

SECRET = "a-word-that-is-nowhere-else"
JOB = """
name: life
resources: {{image: "{image}", cpus: 1, memory: 64MB, disk: 10MB}}
secrets: [WORD]
max_hours: 0.05
ready: test -e begun-1
restart: on_failure
restarts: 1
run: |
  number=$(ls | grep -c begun || true)
  touch begun-$((number + 1))
  printf %s "$WORD" | sha256sum | cut -c1-64 >> words
  test -e begun-2 || {{ sleep 6; exit 3; }}
  while ! test -e leave; do sleep 0.2; done
"""
PROVIDER = ("--provider", "--price", "3600000", "--runner", "docker", "--name", "alice")

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


async def test_a_job_lives_through_its_restart_and_its_daemons_death_and_keeps_its_secrets(
    tmp_path: Path, busybox_image: str, docker_engine: docker.DockerClient
) -> None:
    async with daemons(tmp_path) as town, trio.open_nursery() as nursery:
        alice = await town.start("alice", *PROVIDER)
        bob = await town.start("bob", "--bootstrap", alice.address, "--interval", "1")
        await bob.until_offered()
        ended = trio.Event()
        nursery.start_soon(rent, bob, tmp_path, busybox_image, ended)
        workspace = await until_there(alice.root, "begun-1")
        await until_running(alice)  # whoever ends before it is ready has failed
        check_nowhere(tmp_path, docker_engine)
        await alice.kill()  # the job ends meanwhile, and is to be begun anew
        await trio.sleep(7)
        await alice.start()
        await until_there(alice.root, "begun-2")
        check_nowhere(tmp_path, docker_engine)
        (workspace / "leave").touch()
        with trio.fail_after(PATIENCE_SECONDS):
            await ended.wait()
        lease = (await bob.call("ps", all=True))["leases"][0]
        assert (lease["phase"], lease["reason"]) == ("done", "job.completed"), lease
        words = (tmp_path / "out" / "words").read_text().split()
        assert len(words) == 2 and len(set(words)) == 1, "both runs had the secret"
        assert lease["paid"] + lease["refunded"] == lease["deposit"] and lease["paid"] > 0
        check_nowhere(tmp_path, docker_engine)
        assert not list(alice.root.rglob("secrets")), "not even sealed, once the job has ended"


async def rent(bob: Daemon, folder: Path, image: str, ended: trio.Event) -> None:
    job = {"job_yaml": JOB.format(image=image), "base_dir": str(folder), "secrets": {"WORD": SECRET}}
    with suppress(AssertionError):  # the connection may be cut with the test
        async with aclosing(bob.stream("run", **job, output_dir=str(folder / "out"))) as events:
            async for _ in events:
                pass
    ended.set()


async def until_running(daemon: Daemon) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while [lease["phase"] for lease in (await daemon.call("ps"))["leases"]] != ["running"]:
            await trio.sleep(0.1)


async def until_there(root: Path, name: str) -> Path:
    """The folder that has a file of this name, once there is one."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not (found := list(root.rglob(name))):
            await trio.sleep(0.1)
    return found[0].parent


def check_nowhere(root: Path, engine: docker.DockerClient) -> None:
    """Neither in a file of either side, nor in a log, nor in what the engine tells of any container."""
    for data in every_file(root):
        assert SECRET.encode() not in data
    for container in engine.containers.list(all=True, filters={"label": "qubix.lease"}):
        with suppress(docker.errors.NotFound):
            assert SECRET not in json.dumps(engine.api.inspect_container(str(container.id)))
            assert SECRET.encode() not in container.logs()


def every_file(root: Path) -> Iterator[bytes]:
    for path in root.rglob("*"):
        with suppress(FileNotFoundError, PermissionError):
            if path.is_file():
                yield path.read_bytes()
