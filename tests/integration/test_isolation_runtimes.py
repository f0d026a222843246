"""Jobs under gVisor, for real: on a second engine that knows it, with settings of which one does not work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from protocol.errors import ConfigInvalid, StartFailed
from qubixd.runner import ExitReason
from qubixd.runner.docker import DockerRunner
from qubixd.runner.fence import ensure_image
from qubixd.runner.runtimes import Runtime, choose, installed, prove
from tests.support.engine import ensure_busybox
from tests.support.runners import MIB, Bench
from tests.support.second_engine import missing, second_engine

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(bool(missing("runsc")), reason=missing("runsc") or "-"),
]

RUNSC = "/usr/bin/runsc"
ROOM: dict[str, Any] = {"pids_max": 512, "memory_bytes": 128 * MIB}
"""The sandbox's own threads and memory count against the job's."""


def runtime(*arguments: str) -> dict[str, Any]:
    return {"path": RUNSC, "runtimeArgs": list(arguments)}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    runtimes = {
        "runsc": runtime("--network=none"),
        "gvisor": runtime("--network=host"),
        "broken": runtime("--no-such-option"),
    }
    with second_engine({"runtimes": runtimes}) as found:
        yield found


@pytest.fixture(scope="module")
def engine(address: str) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=address)
    yield client
    client.close()


@pytest.fixture
async def bench(
    address: str, engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    monkeypatch.setenv("DOCKER_HOST", address)
    image = ensure_busybox(engine)
    made = Bench.make(lambda: DockerRunner(tmp_path / "state", runtime="runsc"), image, tmp_path / "w")
    yield made
    await made.remove_all()


def test_what_is_installed_is_chosen_and_named(engine: docker.DockerClient) -> None:
    runtimes = installed(engine.api.info())
    assert set(runtimes) == {"runc", "runsc", "gvisor", "broken"}
    assert choose("auto", runtimes, gpus=False) == Runtime("runsc", "docker+runsc", fenced=False)
    assert choose("gvisor", runtimes, gpus=False) == Runtime("gvisor", "docker+runsc", fenced=True)
    with pytest.raises(ConfigInvalid, match="broken, gvisor, runc, runsc"):
        choose("kata", runtimes, gpus=False)


def test_a_runtime_is_tried_before_it_is_offered(engine: docker.DockerClient, tmp_path: Path) -> None:
    image = ensure_image(engine.api, tmp_path)
    for name in ("runc", "runsc", "gvisor"):
        assert prove(engine.api, Runtime(name, "", True), image) == ""
    assert prove(engine.api, Runtime("broken", "", True), image)
    assert not engine.containers.list(all=True)


async def test_job_has_a_kernel_of_its_own_and_the_same_limits(bench: Bench) -> None:
    script = """
    dmesg | head -n 1
    for d in / /bin /etc /proc/sys /dev/shm /tmp /workspace; do
      if (: > $d/probe) 2>/dev/null; then echo "writes $d"; fi
    done
    grep -E '^Cap(Prm|Bnd)' /proc/self/status
    ls /sys/class/net
    echo "secret $TOKEN"; sleep 0 & wait; exit 7"""
    ended, said = await bench.run(script, {"TOKEN": "t"}, **ROOM)
    assert (ended.code, ended.reason) == (7, ExitReason.EXITED)
    assert "Starting gVisor" in said and "secret t" in said
    assert [line for line in said.splitlines() if line.startswith("writes")] == [
        "writes /dev/shm",
        "writes /tmp",
        "writes /workspace",
    ]
    assert said.count("0000000000000000") == 2 and "\nlo\n" in said and "eth0" not in said
    assert (bench.workspace / "probe").exists()


async def test_sandboxed_memory_is_limited(bench: Bench) -> None:
    ended, said = await bench.run("dd if=/dev/zero of=/dev/null bs=300M count=1; echo survived", **ROOM)
    assert ended.code != 0 and "survived" not in said


async def test_runtime_that_does_not_run_fails_the_start(bench: Bench, tmp_path: Path) -> None:
    runner = DockerRunner(tmp_path / "other", runtime="broken")
    with pytest.raises(StartFailed):
        await runner.start(bench.spec("true"))
    assert await runner.leases() == frozenset()
