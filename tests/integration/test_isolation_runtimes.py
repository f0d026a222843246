"""Jobs under gVisor, for real: on a second engine that knows it, with settings of which one does not work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
import trio

from protocol.errors import ConfigInvalid, PortClosed, StartFailed
from qubixd.runner import ExitReason, Terminal
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_config import host_options
from qubixd.runner.fence import Fences
from qubixd.runner.own_image import ensure_image
from qubixd.runner.runtimes import Runtime, choose, installed, prove
from tests.support.beyond import SAID, host_listener
from tests.support.engine import ensure_busybox
from tests.support.runners import LIMIT_SECONDS, MIB, Bench
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
def second() -> Iterator[tuple[str, int]]:
    """Address and process of the engine."""
    runtimes = {
        "runsc": runtime("--network=none"),
        "gvisor": runtime("--network=host"),
        "broken": runtime("--no-such-option"),
    }
    with second_engine({"runtimes": runtimes}) as found:
        yield found


@pytest.fixture(scope="module")
def engine(second: tuple[str, int]) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=second[0])
    yield client
    client.close()


@pytest.fixture
async def bench(
    second: tuple[str, int], engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    monkeypatch.setenv("DOCKER_HOST", second[0])
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


async def test_a_sandbox_s_own_network_is_reached_through_a_program(bench: Bench) -> None:
    spec = bench.spec("nc -ll -p 4711 -e cat", **ROOM)
    await bench.begin(spec)
    with trio.fail_after(LIMIT_SECONDS):
        while True:
            with suppress(PortClosed):
                inside = await bench.runner.dial(spec.lease_id, 4711)
                break
        assert not isinstance(inside, trio.SocketStream | trio.socket.SocketType)
        await inside.send_all(b"hello")
        assert await inside.receive_some() == b"hello"
        await inside.aclose()
        program = await bench.runner.program(spec.lease_id, [], Terminal(81, 25))
        await program.send_all(b"stty size; exit 4\n")
        said = b""
        while part := await program.receive_some():
            said += part[1]
        assert b"25 81" in said and await program.exit_code() == 4
        await program.aclose()


async def test_runtime_that_does_not_run_fails_the_start(bench: Bench, tmp_path: Path) -> None:
    runner = DockerRunner(tmp_path / "other", runtime="broken")
    with pytest.raises(StartFailed):
        await runner.start(bench.spec("true"))
    assert await runner.leases() == frozenset()


@pytest.mark.parametrize("name", ["runc", "gvisor"])
async def test_the_fence_holds_for_runtimes_that_say_so(
    bench: Bench, engine: docker.DockerClient, second: tuple[str, int], name: str
) -> None:
    """The engine's host answers at the bridge, to whoever has no fence."""
    client, spec = engine.api, bench.spec("", internet=True, **ROOM)
    assert choose(name, installed(client.info()), gpus=False).fenced
    fences = Fences(bench.workspace.parent / "fences", home="home")
    try:
        networks = client.inspect_container(fences.start(client, spec.lease_id))["NetworkSettings"]
        bridge = networks["Networks"]["bridge"]["Gateway"]
        with host_listener(network_of=second[1]) as port:
            ask = ["/bin/sh", "-c", f"nc -w 2 {bridge} {port} </dev/null; echo asked"]
            config = {**host_options(spec, (), name), "mounts": []}
            said = [
                client_says(client, bench.image, ask, {**config, "network_mode": mode})
                for mode in ("bridge", config["network_mode"])
            ]
    finally:
        fences.remove(client, spec.lease_id)
    assert SAID in said[0] and SAID not in said[1] and "asked" in said[1]


def client_says(client: Any, image: str, command: list[str], options: dict[str, Any]) -> str:
    made = client.create_container(image, command, host_config=client.create_host_config(**options))["Id"]
    try:
        client.start(made)
        client.wait(made)
        return str(client.logs(made).decode())
    finally:
        client.remove_container(made, force=True)
