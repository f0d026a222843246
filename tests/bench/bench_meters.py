"""What metering costs for each running job: sampling it once a second and keeping the minutes.

The parts of a provider that look after containers (lease loop, a watch over each, ledger on disk) run in
this process over real containers, in turns with and without metering; the difference of their processor time
is the figure. Beside it the size of a day's rows in the ledger, and what one look costs by either way.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from ledger import meters as ledger_meters
from ledger.meters import KEEP_MINUTES, rolled_up
from ledger.store import Store, open_store
from protocol import lease_model as m
from protocol.lease_state import Lease, Phase, Role
from protocol.messages import GpuUse, Sample
from protocol.units import LeaseId, Seconds, UnixMs
from qubixd.leases import Leases, Task
from qubixd.meters import Meters
from qubixd.runner import RunSpec
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_config import container_name
from qubixd.runner.usage import Kernel, Place, of_stats
from qubixd.sampling import Sampler
from tests.support.engine import engine_client, ensure_busybox
from tests.support.lease_plan import make_terms

JOBS: Final = 20
TURNS: Final = 3
TURN_SECONDS: Final = 8
SCRIPT: Final = "while true; do sleep 1; done"
LOOKS: Final = 200


def _now_ms() -> UnixMs:
    return UnixMs(time.time_ns() // 1_000_000)


async def _nothing(task: Task) -> None:
    """Effects are no part of this."""


@asynccontextmanager
async def _jobs(runner: DockerRunner, image: str, root: Path) -> AsyncIterator[list[LeaseId]]:
    made = []
    try:
        for _ in range(JOBS):
            lease_id = LeaseId(os.urandom(32))
            made.append(lease_id)
            workspace = root / lease_id.hex()
            workspace.mkdir()
            memory, disk = 16 << 20, 1 << 20
            await runner.start(RunSpec(lease_id, image, SCRIPT, {}, workspace, (), 50, memory, disk))
            await runner.release(lease_id, {})
        yield made
    finally:
        with trio.CancelScope(shield=True):
            for lease_id in made:
                await runner.remove(lease_id)


def _lease(lease_id: LeaseId) -> Lease:
    hours = make_terms(interval_seconds=Seconds(3_600), max_seconds=Seconds(36_000))
    now = _now_ms()
    lease = Lease(lease_id, Role.PROVIDER, hours, Phase.RUNNING, now, UnixMs(0))
    return replace(lease, started_at=now)


async def _turns(leases: Leases, sampler: Sampler, meters: Meters) -> tuple[float, float]:
    """Processor seconds a second (with, without) metering, in turns."""
    spent = {True: 0.0, False: 0.0}
    for turn in range(2 * TURNS):
        metered = turn % 2 == 0
        async with trio.open_nursery() as nursery:
            if metered:
                await nursery.start(meters.run)
                await nursery.start(sampler.run)
            before = time.process_time()
            await trio.sleep(TURN_SECONDS)
            if metered:  # once a minute is more often than it happens here
                await meters.write(whole_minutes=False)
            spent[metered] += time.process_time() - before
            nursery.cancel_scope.cancel()
    return spent[True] / TURNS / TURN_SECONDS, spent[False] / TURNS / TURN_SECONDS


async def _measure(image: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="q-") as name:
        root = Path(name)
        runner = DockerRunner(root / "runner")
        async with (
            open_store(root / "ledger.sqlite") as store,
            _jobs(runner, image, root) as jobs,
            trio.open_nursery() as nursery,
        ):
            leases = Leases(store, _now_ms)
            await nursery.start(leases.run, _nothing)
            for lease_id in jobs:
                await leases.add(_lease(lease_id), (), m.ReceiveAccepted(_now_ms()))
                nursery.start_soon(runner.wait, lease_id)
            meters = Meters(store, leases, _now_ms)
            sampler = Sampler(leases, meters, runner, _now_ms, dict)
            with_meters, without = await _turns(leases, sampler, meters)
            samples = min(len(meters.since(lease_id, UnixMs(0))) for lease_id in jobs)
            if samples < TURNS * (TURN_SECONDS - 2):
                raise RuntimeError(f"a job has only {samples} samples")
            looks = await trio.to_thread.run_sync(_looks, jobs[0])
            nursery.cancel_scope.cancel()
        return {"with": with_meters, "without": without, **looks, **await _day_bytes(root)}


def _looks(lease_id: LeaseId) -> dict[str, float]:
    """Milliseconds of one look at one job: the kernel's files, and the engine's own figures."""
    client = engine_client().api
    info = client.inspect_container(container_name(lease_id))
    place, kernel = Place(info["Id"], info["State"]["Pid"]), Kernel()
    began = time.perf_counter()
    for _ in range(LOOKS):
        if kernel.read(place) is None:
            raise RuntimeError("the kernel's files of a container cannot be read here")
    kernel_ms = (time.perf_counter() - began) * 1_000 / LOOKS
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(5):
        of_stats(client.stats(info["Id"], stream=False, one_shot=True))
    engine_ms, engine_cpu_ms = (time.perf_counter() - began) * 200, (time.process_time() - cpu) * 200
    return {"kernel_ms": kernel_ms, "engine_ms": engine_ms, "engine_cpu_ms": engine_cpu_ms}


async def _day_bytes(root: Path) -> dict[str, float]:
    """How much a ledger grows by a day of one lease, without a GPU and with one, and when it is folded."""
    return {
        "day_bytes": await _grown(root / "day.sqlite", gpus=0, fold=False),
        "day_gpu_bytes": await _grown(root / "gpu.sqlite", gpus=1, fold=False),
        "folded_bytes": await _grown(root / "folded.sqlite", gpus=1, fold=True),
    }


async def _grown(path: Path, *, gpus: int, fold: bool) -> float:
    async with open_store(path) as store:
        leases = Leases(store, _now_ms)
        lease = _lease(LeaseId(bytes(32)))
        async with trio.open_nursery() as nursery:
            await nursery.start(leases.run, _nothing)
            await leases.add(lease, (), m.ReceiveAccepted(_now_ms()))
            nursery.cancel_scope.cancel()
        before = await _size(store)
        start = UnixMs(_now_ms() // 86_400_000 * 86_400_000)
        rows = rolled_up(
            lease.lease_id, (_sample(start, second, gpus) for second in range(0, KEEP_MINUTES * 60, 20))
        )
        await ledger_meters.keep(store, rows)
        if fold:
            await ledger_meters.fold(store, lease.lease_id, start + 86_400_000)
        return await _size(store) - before


def _sample(start: UnixMs, second: int, gpus: int) -> Sample:
    cards = tuple(GpuUse(bytes([n]) * 32, second % 1_000, second % 24_000, 60, 200_000) for n in range(gpus))
    return Sample(
        UnixMs(start + second * 1_000), second % 2_000, 500 + second % 99, 40, second * 999, second, cards
    )


async def _size(store: Store) -> float:
    """Bytes of the pages in use."""

    def used(db: sqlite3.Connection) -> int:
        names = ("page_count", "freelist_count", "page_size")
        pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        return int((pages - free) * size)

    return float(await store.read(used))


def meter_cpu_share() -> dict[str, object]:
    """Of one running job."""
    found = trio.run(_measure, ensure_busybox(engine_client()))
    share = (found["with"] - found["without"]) / JOBS
    return {
        "value": round(share, 6),
        "unit": "cores per job",
        "reference": "the same parts without metering",
        "detail": {
            "with_cores": round(found["with"], 4),
            "without_cores": round(found["without"], 4),
            "jobs": JOBS,
            "one_look_ms": round(found["kernel_ms"], 3),
            "one_look_by_engine_ms": round(found["engine_ms"], 1),
            "one_look_by_engine_cpu_ms": round(found["engine_cpu_ms"], 2),
            "ledger_day_kib": round(found["day_bytes"] / 1_024),
            "ledger_day_with_gpu_kib": round(found["day_gpu_bytes"] / 1_024),
            "ledger_day_folded_kib": round(found["folded_bytes"] / 1_024),
        },
    }


BENCHES: Final = {"job.meter_cpu_share": meter_cpu_share}
