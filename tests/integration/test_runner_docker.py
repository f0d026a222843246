"""What the Docker runner does to keep strangers' jobs apart, on a real engine."""

from __future__ import annotations

import http.server
import io
import json
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest
import trio
import trio.testing

from protocol.errors import DiskFull, EngineUnreachable, StartFailed
from protocol.units import LeaseId
from qubixd.runner import ExitReason, JobExit, JobState
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_config import container_name
from tests.support.runners import LIMIT_SECONDS, MIB, Bench, unix_door

pytestmark = pytest.mark.docker

SECRET = "kept-from-every-record-7391"
HOSTILE_IMAGE = "qubix-test/hostile:latest"


@pytest.fixture
async def bench(tmp_path: Path, busybox_image: str) -> AsyncIterator[Bench]:
    made = Bench.make(
        lambda: DockerRunner(tmp_path / "state", disk_check_seconds=0.2),
        busybox_image,
        tmp_path / "workspace",
    )
    yield made
    await made.remove_all()


@pytest.fixture
def hostile_image(docker_engine: docker.DockerClient, busybox_image: str) -> Iterator[str]:
    """An image that asks for everything through its own settings."""
    dockerfile = f"""
    FROM {busybox_image}
    RUN mkdir -m 777 /open
    ENV LD_PRELOAD=/evil.so NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all HARMLESS=yes
    ENTRYPOINT ["/bin/false"]
    HEALTHCHECK CMD touch /workspace/healthcheck
    LABEL qubix.lease=00 qubix.home=00 qubix.disk_bytes=0
    STOPSIGNAL SIGWINCH
    USER root
    VOLUME /data
    WORKDIR /tmp
    """
    docker_engine.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=HOSTILE_IMAGE, rm=True)
    yield HOSTILE_IMAGE
    docker_engine.images.remove(HOSTILE_IMAGE, force=True)


async def test_job_has_no_privileges(bench: Bench) -> None:
    _, said = await bench.run("cat /proc/self/status; id -u; cat /proc/self/oom_score_adj; ls /dev")
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    lines = said.splitlines()
    assert "0" not in lines and "500" in lines
    assert not {"sda", "vda", "mem", "kmsg", "fuse"} & set(lines)


async def test_only_workspace_and_small_tmpfs_are_writable(bench: Bench) -> None:
    script = """
    for d in / /bin /etc /usr /var /proc/sys /sys /dev/shm /tmp /run /workspace; do
      if (: > $d/probe) 2>/dev/null; then echo "$d"; fi
    done"""
    _, said = await bench.run(script)
    assert set(said.split()) == {"/dev/shm", "/tmp", "/run", "/workspace"}
    _, said = await bench.run("df -P /tmp /run /dev/shm | awk 'NR > 1 {print $2}'")
    assert [int(kib) * 1024 for kib in said.split()] == [256 * MIB, 16 * MIB, 32 * MIB]


async def test_job_reaches_no_network(bench: Bench) -> None:
    found = [a.address for a in psutil.net_if_addrs().get("docker0", ()) if a.family is socket.AF_INET]
    server = http.server.HTTPServer(("0.0.0.0", 0), http.server.SimpleHTTPRequestHandler)
    port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for address in ("127.0.0.1", *found):
            with socket.create_connection((address, port), timeout=5):
                pass  # the host itself reaches it there, so the job's failure means something
        script = f"""
        for a in 127.0.0.1 {" ".join(found)} 10.0.0.1 192.168.0.1 169.254.169.254 1.1.1.1; do
          if nc -w 2 $a {port} </dev/null 2>/dev/null; then echo "reached $a"; fi
        done
        ls /sys/class/net; ls /var/run/docker.sock 2>/dev/null || true"""
        _, said = await bench.run(script)
    finally:
        server.shutdown()
        server.server_close()
    assert said.split() == ["lo"]


async def test_image_settings_have_no_power(bench: Bench, hostile_image: str, docker_engine: Any) -> None:
    spec = bench.spec(
        "env; id -u; pwd; mount | grep ' /data '; touch /open/x || echo ready; sleep 600", image=hostile_image
    )
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "ready")
    said = await bench.said(spec.lease_id)
    assert "HARMLESS=yes\n" in said and "NVIDIA_VISIBLE_DEVICES=void\n" in said
    assert "LD_PRELOAD" not in said and "NVIDIA_DRIVER_CAPABILITIES" not in said
    assert "Read-only file system" in said
    assert "\n0\n" not in said and "\n/workspace\n" in said and "tmpfs on /data" in said
    info = docker_engine.api.inspect_container(container_name(spec.lease_id))
    assert {mount["Type"] for mount in info["Mounts"]} <= {"bind", "tmpfs"}
    assert not any(entry.startswith("LD_PRELOAD=") for entry in info["Config"]["Env"])
    assert info["Config"]["Labels"]["qubix.lease"] == spec.lease_id.hex()
    assert "Health" not in info["State"]
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.stop(spec.lease_id, grace_seconds=LIMIT_SECONDS)
    assert (await bench.runner.wait(spec.lease_id)).code == 143  # SIGTERM, not the image's signal


async def test_secrets_are_in_no_record(bench: Bench, docker_engine: docker.DockerClient) -> None:
    spec = bench.spec("echo ready; sleep 600; echo $TOKEN")
    await bench.begin(spec, {"TOKEN": SECRET})
    await bench.until_said(spec.lease_id, "ready")
    name = container_name(spec.lease_id)
    kept = json.dumps(docker_engine.api.inspect_container(name)) + json.dumps(docker_engine.api.top(name))
    kept += await bench.said(spec.lease_id) + repr(bench.runner)
    assert "sleep 600" in kept and SECRET not in kept
    state = bench.workspace.parent
    assert not [path for path in state.rglob("*") if path.is_file() and SECRET in path.read_text()]


async def test_a_crash_at_any_instant_of_the_start_is_made_good(
    bench: Bench, docker_engine: docker.DockerClient
) -> None:
    spec = bench.spec('echo "got $TOKEN"')
    runner = bench.runner
    assert isinstance(runner, DockerRunner)
    await runner._engine.call(lambda client: runner._jobs._create(client, spec))  # created, no more
    assert (await runner.status(spec.lease_id)).state is JobState.ABSENT
    assert await runner.leases() == {spec.lease_id}
    docker_engine.containers.get(container_name(spec.lease_id)).start()  # and another: started, no more
    bench.reopen()
    await bench.begin(spec, {"TOKEN": "t"})
    with trio.fail_after(LIMIT_SECONDS):
        assert (await bench.runner.wait(spec.lease_id)).code == 0
    assert await bench.said(spec.lease_id) == "got t\n"


async def test_job_can_be_stopped_when_no_note_can_be_kept(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "full").touch()  # where the notes' directory should go
    runner = DockerRunner(tmp_path / "full")
    spec = bench.spec("sleep 600")
    await runner.start(spec)
    with pytest.raises(DiskFull):
        await runner.release(spec.lease_id, {"TOKEN": "t"})
    with trio.fail_after(LIMIT_SECONDS):
        await runner.stop(spec.lease_id, grace_seconds=LIMIT_SECONDS)
        assert (await runner.wait(spec.lease_id)).reason is ExitReason.STOPPED
    await runner.remove(spec.lease_id)


async def test_memory_limit(bench: Bench) -> None:
    ended, _ = await bench.run("x=$(cat /dev/zero | tr '\\0' x)", memory_bytes=32 * MIB)
    assert ended.reason is ExitReason.OUT_OF_MEMORY and ended.code != 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB, on which less is free than a host wants for itself."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_a_job_that_fills_the_disk_itself_ends_below_its_own_limit(
    bench: Bench, small_disk: Path
) -> None:
    quiet, greedy = small_disk / "quiet", small_disk / "greedy"
    quiet.mkdir()
    greedy.mkdir()
    modest = bench.spec("sleep 600", workspace=quiet)
    await bench.begin(modest)
    script = "i=0; while :; do i=$((i+1)); head -c 500000 /dev/zero > f$i; sleep 0.1; done"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.runner.wait, modest.lease_id)
        ended, _ = await bench.run(script, workspace=greedy, disk_bytes=1 << 40)
        nursery.cancel_scope.cancel()
    assert ended.reason is ExitReason.DISK_LIMIT
    assert (await bench.runner.status(modest.lease_id)).state is JobState.RUNNING


async def test_fork_bomb_is_bounded(bench: Bench) -> None:
    script = "i=0; while [ $i -lt 100 ]; do sleep 30 & i=$((i+1)); done; echo all"
    ended, said = await bench.run(script, pids_max=20)
    assert ended.code != 0 and "all" not in said.split()
    assert "can't fork" in said


async def test_daemons_on_one_engine_keep_to_their_own_jobs(bench: Bench, tmp_path: Path) -> None:
    other = DockerRunner(tmp_path / "other")
    spec = bench.spec("sleep 600")
    await bench.begin(spec)
    assert await other.leases() == frozenset()
    assert (await other.status(spec.lease_id)).state is JobState.ABSENT
    await other.stop(spec.lease_id, grace_seconds=0)
    await other.remove(spec.lease_id)
    with pytest.raises(StartFailed, match="another daemon"):
        await other.start(spec)
    assert (await bench.runner.status(spec.lease_id)).state is JobState.RUNNING


async def test_job_that_the_engine_cannot_start_leaves_nothing(
    bench: Bench, docker_engine: docker.DockerClient
) -> None:
    with pytest.raises(StartFailed):
        await bench.runner.start(bench.spec("true", gpu_uuids=("GPU-00000000-none",)))
    with pytest.raises(StartFailed):
        await bench.runner.start(bench.spec("x" * 200_000))
    assert await bench.runner.leases() == frozenset()


async def test_many_who_wait_hold_no_thread_each(bench: Bench, docker_engine: docker.DockerClient) -> None:
    runner = bench.runner
    assert isinstance(runner, DockerRunner)
    specs = [bench.spec("until [ -e go ]; do sleep 0.05; done") for _ in range(4)]
    for spec in specs:
        await bench.begin(spec)
    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            for spec in specs:
                nursery.start_soon(runner.wait, spec.lease_id)
            while set(runner._disk.used()) != {spec.lease_id for spec in specs}:
                await trio.sleep(0.02)
            async with runner._engine.blocking:  # nobody holds one while nothing is measured
                while runner._engine.blocking.borrowed_tokens > 1:
                    await trio.sleep(0.02)
            (bench.workspace / "go").touch()
    assert runner._ends._stream is None  # nobody waits any more


async def test_dead_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"unix://{tmp_path}/closed.sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(f"{tmp_path}/closed.sock")  # bound, and nobody listens
    monkeypatch.setenv("DOCKER_HOST", address)
    runner = DockerRunner(tmp_path / "state")
    lease_id = LeaseId(os.urandom(32))
    for call in (runner.check, runner.leases, lambda: runner.status(lease_id)):
        with pytest.raises(
            EngineUnreachable, match=r"no Docker engine answers at .*; start it with"
        ) as raised:
            await call()
        assert address in str(raised.value)


async def test_waiting_outlives_an_engine_that_goes_away(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is reached through a door that is cut under the waiting, and opens when the job is over."""
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not engine.startswith("unix://"):
        pytest.skip("the engine is not on a unix socket")
    spec = bench.spec("echo ready; until [ -e go ]; do sleep 0.05; done; exit 4")
    await bench.begin(spec)
    door = tmp_path / "door"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{door}")
    through_the_door = bench.open()
    ended: list[JobExit] = []

    async def wait() -> None:
        ended.append(await through_the_door.wait(spec.lease_id))

    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            async with unix_door(door, engine.removeprefix("unix://")):
                await through_the_door.check()
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(EngineUnreachable):
                await through_the_door.check()
            (bench.workspace / "go").touch()
            assert (await bench.runner.wait(spec.lease_id)).code == 4
            assert not ended
            async with unix_door(door, engine.removeprefix("unix://")):
                while not ended:
                    await trio.sleep(0.05)
    assert ended == [await bench.runner.wait(spec.lease_id)]
