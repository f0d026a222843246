"""What real containers use, read from the kernel and held against the engine's own figures."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import docker
import pytest
import trio

from protocol.units import LeaseId
from qubixd.runner import Usage
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_config import container_name
from qubixd.runner.usage import Kernel, Place, Usages, of_stats
from tests.support.runners import LIMIT_SECONDS, MIB, Bench

pytestmark = pytest.mark.docker

BURN: Final = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
HOLD: Final = "for n in 1 2; do dd if=/dev/zero of=/dev/shm/held$n bs=1M count=10 2>/dev/null; done"
"""What is in memory files is the job's memory."""
SENT_BYTES: Final = 3_000_000


@pytest.fixture
async def bench(tmp_path: Path, busybox_image: str) -> AsyncIterator[Bench]:
    made = Bench.make(
        lambda: DockerRunner(tmp_path / "state", disk_check_seconds=0.2),
        busybox_image,
        tmp_path / "workspace",
    )
    yield made
    await made.remove_all()


async def usage(bench: Bench, lease_id: LeaseId) -> Usage:
    found = await bench.runner.usage([lease_id])
    return found[lease_id]


async def paused(bench: Bench, script: str) -> LeaseId:
    """A job that did something, said so, and stands still, so that all figures stand still, too."""
    spec = bench.spec(f"{script}; echo it is done; sleep 1000")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "it is done")
    await bench.runner.pause(spec.lease_id)
    return spec.lease_id


def engine_says(engine: docker.DockerClient, lease_id: LeaseId) -> Usage:
    stats = engine.api.stats(container_name(lease_id), stream=False, one_shot=True)
    found = of_stats(stats)
    assert found is not None
    return found


async def test_the_kernel_and_the_engine_say_the_same(
    bench: Bench, docker_engine: docker.DockerClient
) -> None:
    lease_id = await paused(bench, f"{BURN}; {HOLD}")
    found, engine = await usage(bench, lease_id), engine_says(docker_engine, lease_id)
    assert found.cpu_ns == engine.cpu_ns > 10_000_000
    assert found.memory_bytes >= 20 * MIB and abs(found.memory_bytes - engine.memory_bytes) < MIB
    assert (found.received_bytes, found.sent_bytes) == (0, 0)  # it has no network


async def test_the_disk_is_as_it_was_measured_last(bench: Bench) -> None:
    spec = bench.spec(
        "dd if=/dev/zero of=/workspace/file bs=1M count=3 2>/dev/null; echo it is done; sleep 1000"
    )
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "it is done")
    assert (await usage(bench, spec.lease_id)).disk_bytes is None
    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.runner.wait, spec.lease_id)
            while ((await usage(bench, spec.lease_id)).disk_bytes or 0) < 3 * MIB:
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


async def test_a_job_that_began_anew_is_found_again_and_an_ended_one_is_not(bench: Bench) -> None:
    spec = bench.spec(f"{BURN}; echo it is done; sleep 1000")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "it is done")
    assert (await usage(bench, spec.lease_id)).cpu_ns
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.restart(spec.lease_id, {}, 0.0, b"12345678")
        while not await bench.runner.usage([spec.lease_id]):
            await trio.sleep(0.1)
        await bench.runner.stop(spec.lease_id, 0.0)
        assert await bench.runner.usage([spec.lease_id, LeaseId(b"n" * 32)]) == {}


async def test_where_the_kernel_is_another_s_the_engine_is_asked(bench: Bench, tmp_path: Path) -> None:
    lease_id = await paused(bench, f"{BURN}; {HOLD}")
    runner = bench.runner
    assert isinstance(runner, DockerRunner)
    near = await usage(bench, lease_id)
    runner._usages = Usages(runner._engine, Kernel(tmp_path / "proc", tmp_path / "groups"))
    far = await usage(bench, lease_id)
    assert far.cpu_ns == near.cpu_ns and abs(far.memory_bytes - near.memory_bytes) < MIB
    await runner.stop(lease_id, 0.0)
    assert await runner.usage([lease_id]) == {}


# --- traffic --------------------------------------------------------------------------------------


@contextmanager
def removing(*things: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for thing in things:
            thing.remove(**({"force": True} if hasattr(thing, "kill") else {}))


def place_of(container: Any) -> Place:
    container.reload()
    return Place(container.id, container.attrs["State"]["Pid"])


async def test_bytes_that_are_sent_are_counted_on_both_sides(
    docker_engine: docker.DockerClient, busybox_image: str
) -> None:
    """Also for one that has joined the network of another, as jobs with the Internet have."""
    await trio.to_thread.run_sync(_send_known_bytes, docker_engine, busybox_image)


def _send_known_bytes(engine: docker.DockerClient, image: str) -> None:
    network = engine.networks.create(f"qubix-test-{uuid.uuid4().hex[:12]}", internal=True)
    run: Any = engine.containers.run
    with removing(network):
        fence = run(image, ["sleep", "1000"], network=network.name, detach=True)
        with removing(fence):
            listen = ["sh", "-c", f"sleep 1000 | nc -l -p 5000 | head -c {SENT_BYTES} | wc -c; sleep 1000"]
            job = run(image, listen, network_mode=f"container:{fence.id}", detach=True)
            fence.reload()
            address = fence.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"]
            send = [
                "sh",
                "-c",
                f"until head -c {SENT_BYTES} /dev/zero | nc {address} 5000; do sleep 0.1; done; sleep 1000",
            ]
            sender = run(image, send, network=network.name, detach=True)
            with removing(job, sender):
                for line in job.logs(stream=True, follow=True):
                    assert int(line) == SENT_BYTES
                    break
                kernel = Kernel()
                received, shared, sent = (kernel.read(place_of(one)) for one in (job, fence, sender))
    assert received is not None and shared is not None and sent is not None
    assert SENT_BYTES < received.received_bytes < SENT_BYTES * 1.1
    assert received.received_bytes <= shared.received_bytes < received.received_bytes + 10_000
    assert SENT_BYTES < sent.sent_bytes < SENT_BYTES * 1.1
