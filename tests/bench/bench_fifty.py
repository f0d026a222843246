"""What a provider's daemon costs its machine while fifty containers run for a caller, all of it: metering,
vouchers, the watch over each container and each escrow. Held against `docker stats` of the same containers in
the same run.

Real daemons, the devnet's contract, the machine's Docker engine. The figure is processor seconds a second of
the daemon's process; memory is its own (not shared with others) and what it grew by since it had no job.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import psutil
import trio

from qubixd.runner.docker import DockerRunner
from tests.support.daemons import Daemon, daemons
from tests.support.engine import engine_client, ensure_busybox

JOBS: Final = 50
AT_ONCE: Final = 6
"""Leases that are being made: a caller may have eight unfunded ones with a provider."""
TICK_SECONDS: Final = 1.0
INTERVAL_SECONDS: Final = 5
MEASURED_SECONDS: Final = 20
SETTLE_SECONDS: Final = 15
ENGINE_PROCESSES: Final = ("dockerd", "containerd")
MIB: Final = 1 << 20
JOB: Final = """
name: one-of-many
resources: {{image: "{image}", cpus: 0.02, memory: 16MB, disk: 1MB}}
max_hours: 0.5
run: while true; do sleep 1; done
"""


async def _rent(caller: Daemon, image: str, folder: Path, number: int) -> None:
    """Return when the job runs."""
    arguments = {
        "job_yaml": JOB.format(image=image),
        "base_dir": str(folder),
        "output_dir": str(folder / str(number)),
    }
    async with aclosing(caller.stream("run", **arguments)) as events:
        async for event in events:
            if event["phase"] == "running":
                return
    raise RuntimeError("a job did not come to run")


async def _rent_all(caller: Daemon, image: str, folder: Path) -> None:
    free = trio.CapacityLimiter(AT_ONCE)

    async def one(number: int) -> None:
        async with free:
            await _rent(caller, image, folder, number)

    async with trio.open_nursery() as nursery:
        for number in range(JOBS):
            nursery.start_soon(one, number)


def _cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(float(one.user + one.system) for one in times)


async def _share(*processes: psutil.Process) -> float:
    before, began = _cpu_seconds(processes), time.perf_counter()
    await trio.sleep(MEASURED_SECONDS)
    return (_cpu_seconds(processes) - before) / (time.perf_counter() - began)


async def _shares(process: psutil.Process) -> tuple[float, float]:
    """Of the process, and of the engine's processes in the same time (0 where they are not here)."""
    engine = [one for one in psutil.process_iter() if one.name() in ENGINE_PROCESSES]
    found: list[float] = [0.0, 0.0]

    async def note(place: int, *processes: psutil.Process) -> None:
        found[place] = await _share(*processes)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, 0, process)
        nursery.start_soon(note, 1, *engine)
    return found[0], found[1]


async def _docker_stats_shares() -> tuple[float, float]:
    """Of the command line tool, and of the engine while it serves it."""
    with subprocess.Popen(["docker", "stats"], stdout=subprocess.DEVNULL) as running:
        try:
            await trio.sleep(SETTLE_SECONDS / 3)
            return await _shares(psutil.Process(running.pid))
        finally:
            running.kill()


async def _measure(image: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="q-") as name:
        root = Path(name)
        try:
            async with daemons(root, tick_seconds=TICK_SECONDS) as town:
                provider = await town.start("alice", "--provider", "--price", "3600", "--runner", "docker")
                interval = ("--interval", str(INTERVAL_SECONDS))
                caller = await town.start("bob", "--bootstrap", provider.address, *interval)
                await caller.until_offered()
                found = await _figures(provider, caller, image, root)
                await _stop_all(caller)
                return found
        finally:
            await _remove_all(DockerRunner(root / "alice" / "runner"))


async def _figures(provider: Daemon, caller: Daemon, image: str, root: Path) -> dict[str, float]:
    assert provider.process is not None
    process = psutil.Process(provider.process.pid)
    empty_bytes, idle = process.memory_full_info().uss, await _share(process)
    began = time.perf_counter()
    await _rent_all(caller, image, root)
    rented = time.perf_counter() - began
    await trio.sleep(SETTLE_SECONDS)
    busy, engine = await _shares(process)
    stats, engine_for_stats = await _docker_stats_shares()
    leases = (await provider.call("ps"))["leases"]
    return {
        "busy": busy,
        "idle": idle,
        "engine": engine,
        "stats": stats,
        "engine_for_stats": engine_for_stats,
        "running": sum(one["phase"] == "running" for one in leases),
        "renting_s": rented,
        "empty_bytes": empty_bytes,
        "full_bytes": process.memory_full_info().uss,
        "threads": process.num_threads(),
    }


async def _remove_all(runner: DockerRunner) -> None:
    """Whatever a daemon that died has left."""
    with trio.CancelScope(shield=True):
        for lease_id in await runner.leases():
            await runner.remove(lease_id)


async def _stop_all(caller: Daemon) -> None:
    for lease in (await caller.call("ps"))["leases"]:
        await caller.call("stop", lease=lease["lease_id"])
    with trio.move_on_after(240):
        while (await caller.call("ps"))["leases"]:
            await trio.sleep(1)


def fifty_cpu_share() -> dict[str, object]:
    """Fifty jobs at once."""
    found = trio.run(_measure, ensure_busybox(engine_client()))
    if found["running"] != JOBS:
        raise RuntimeError(f"only {found['running']} of {JOBS} jobs ran")
    return {
        "value": round(found["busy"], 3),
        "unit": "cores",
        "reference": "docker stats",
        "detail": {
            "docker_stats_cores": round(found["stats"], 3),
            "engine_cores": round(found["engine"], 3),
            "engine_while_docker_stats_cores": round(found["engine_for_stats"], 3),
            "without_jobs_cores": round(found["idle"], 4),
            "memory_mib": round(found["full_bytes"] / MIB, 1),
            "memory_without_jobs_mib": round(found["empty_bytes"] / MIB, 1),
            "memory_per_job_kib": round((found["full_bytes"] - found["empty_bytes"]) / JOBS / 1_024, 1),
            "threads": found["threads"],
            "jobs": JOBS,
            "interval_s": INTERVAL_SECONDS,
            "tick_s": TICK_SECONDS,
            "renting_all_s": round(found["renting_s"], 1),
            "measured_s": MEASURED_SECONDS,
        },
    }


BENCHES: Final = {"job.fifty_cpu_share": fifty_cpu_share}
