"""How soon a job's own first output is there: our Docker runner against plain `docker run`.

Both from the same image, with the image present, until the first byte the process inside has written
has been read outside. Runs alternate, so that a busy machine slows both; the medians are compared.
Part of the difference is that `docker run` connects its container to a bridge and our jobs have none.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Final

import trio

from protocol.units import LeaseId
from qubixd.runner import RunSpec
from qubixd.runner.docker import DockerRunner
from tests.support.engine import engine_client, ensure_busybox

RUNS: Final = 15
SCRIPT: Final = "echo ready; exec sleep 60"


def plain_docker_run_seconds(image: str, runs: int) -> list[float]:
    """Wall seconds of `docker run`, each from the command to the first byte of its output."""
    return [_plain_run(image) for _ in range(runs)]


def _plain_run(image: str) -> float:
    name = f"qubix-bench-{os.urandom(6).hex()}"
    begun = time.perf_counter()
    command = ["docker", "run", "--rm", "--name", name, image, "/bin/sh", "-c", SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        if running.stdout.read(1) != b"r":
            raise RuntimeError("docker run did not print what it was told to")
        seconds = time.perf_counter() - begun
        subprocess.run(["docker", "kill", name], check=True, capture_output=True, timeout=60)
    return seconds


async def runner_start_seconds(runner: DockerRunner, image: str, workspace: Path) -> float:
    """Wall seconds from `start`, through the gate, to the first byte of the job's log."""
    spec = RunSpec(
        lease_id=LeaseId(os.urandom(32)),
        image=image,
        script=SCRIPT,
        env={},
        workspace=workspace,
        gpu_uuids=(),
        cpu_millis=1000,
        memory_bytes=256 << 20,
        disk_bytes=64 << 20,
    )
    begun = time.perf_counter()
    try:
        await runner.start(spec)
        await runner.release(spec.lease_id, {})
        async with aclosing(runner.logs(spec.lease_id, follow=True)) as chunks:
            await anext(chunks)
        return time.perf_counter() - begun
    finally:
        await runner.remove(spec.lease_id)


async def _alternate(image: str, runs: int) -> tuple[list[float], list[float]]:
    with tempfile.TemporaryDirectory() as directory:
        workspace = Path(directory) / "workspace"
        workspace.mkdir()
        runner = DockerRunner(Path(directory) / "state")
        ours, plain = [], []
        for _ in range(runs + 1):
            ours.append(await runner_start_seconds(runner, image, workspace))
            plain.append(await trio.to_thread.run_sync(_plain_run, image))
    return ours[1:], plain[1:]  # the first of each warms the engine's caches


def runner_ready_vs_docker_run() -> dict[str, object]:
    """Median time of our runner over the median of `docker run`; below 1 is faster."""
    image = ensure_busybox(engine_client())
    ours, plain = trio.run(_alternate, image, RUNS)
    return {
        "value": round(statistics.median(ours) / statistics.median(plain), 3),
        "unit": "ratio",
        "reference": "docker run",
        "detail": {
            "runner_seconds_median": round(statistics.median(ours), 4),
            "docker_run_seconds_median": round(statistics.median(plain), 4),
            "runs": RUNS,
        },
    }


def ready_overhead() -> dict[str, object]:
    """What our runner takes longer than `docker run`, with image and input files there; below 0 is
    faster. At most 0.5 is asked."""
    image = ensure_busybox(engine_client())
    ours, plain = trio.run(_alternate, image, RUNS)
    return {
        "value": round(statistics.median(ours) - statistics.median(plain), 3),
        "unit": "s",
        "reference": "docker run",
        "detail": {
            "runner_seconds_median": round(statistics.median(ours), 4),
            "runner_seconds_worst": round(max(ours), 4),
            "docker_run_seconds_median": round(statistics.median(plain), 4),
            "runs": RUNS,
        },
    }


BENCHES = {
    "job.ready_overhead_s": ready_overhead,
    "job.runner_ready_vs_docker_run": runner_ready_vs_docker_run,
}
