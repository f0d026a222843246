"""Whose process is whose, on the real engine: what the watch over the GPUs tells jobs from strangers by."""

from __future__ import annotations

import os
from pathlib import Path

import docker
import pytest

from qubixd.health import programs
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_config import container_name
from tests.support.runners import Bench


@pytest.mark.docker
async def test_a_job_s_processes_are_known_by_its_container(busybox_image: str, tmp_path: Path) -> None:
    bench = Bench.make(lambda: DockerRunner(tmp_path / "state"), busybox_image, tmp_path / "workspace")
    spec = bench.spec("echo up; sleep 600 & wait")
    try:
        await bench.begin(spec)
        await bench.until_said(spec.lease_id, "up")
        known = await bench.runner.containers()
        (container,) = known
        assert known == {container: spec.lease_id}
        engine = docker.from_env()
        told = engine.api.inspect_container(container_name(spec.lease_id))
        listed = engine.api.top(container)["Processes"]
        engine.close()
        assert told["Id"] == container
        pids = [int(line[1]) for line in listed]
        found = programs([*pids, os.getpid()])
        assert {found[pid].container for pid in pids} == {container}
        assert "sleep" in {found[pid].name for pid in pids}
        assert found[os.getpid()].container != container
        await bench.runner.pause(spec.lease_id)
        assert await bench.runner.containers() == known
    finally:
        await bench.remove_all()
    assert await bench.runner.containers() == {}
