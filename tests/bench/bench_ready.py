"""How soon a rented container runs: through two daemons, the escrow contract and Docker, against plain
`docker run` of the same image.

The figure counts from the moment the caller sees its deposit locked to the moment it hears that the
job is ready: telling the provider, its own look at the chain, laying out the input files, starting the
container, and the news coming back. What comes before that is the chain's pace, not ours: it is in
`detail`, with the whole time from the command on.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Final

import trio

from tests.bench.bench_job import plain_docker_run_seconds
from tests.support.daemons import Daemon, daemons
from tests.support.engine import engine_client, ensure_busybox

RUNS: Final = 7
TICK_SECONDS: Final = 0.2
JOB: Final = """
name: ready
resources: {{image: "{image}", cpus: 1, memory: 64MB, disk: 10MB}}
max_hours: 0.02
run: sleep 1
"""


async def phase_seconds(caller: Daemon, image: str, folder: Path) -> dict[str, float]:
    """Rent once; seconds from the command at which each phase was first heard of."""
    begun, heard = time.perf_counter(), dict[str, float]()
    arguments = {
        "job_yaml": JOB.format(image=image),
        "base_dir": str(folder),
        "output_dir": str(folder / "out"),
    }
    async with aclosing(caller.stream("run", **arguments)) as events:
        async for event in events:
            heard.setdefault(event["phase"], time.perf_counter() - begun)
    return heard


async def _rent(image: str) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="q-") as name:
        root = Path(name)
        async with daemons(root, tick_seconds=TICK_SECONDS) as town:
            offer = ("--provider", "--price", "3600", "--runner", "docker")
            provider = await town.start("alice", *offer)
            caller = await town.start("bob", "--bootstrap", provider.address, "--interval", "1")
            await caller.until_offered()
            return [await phase_seconds(caller, image, root) for _ in range(RUNS)]


def ready_vs_docker_run() -> dict[str, object]:
    """Median of both, in one run."""
    image = ensure_busybox(engine_client())
    plain = statistics.median(plain_docker_run_seconds(image, RUNS))
    heard = trio.run(_rent, image)
    ready = statistics.median(one["running"] - one["provisioning"] for one in heard)
    return {
        "value": round(ready / plain, 2),
        "unit": "ratio",
        "reference": "docker run",
        "detail": {
            "funded_to_ready_s": round(ready, 3),
            "docker_run_s": round(plain, 3),
            "command_to_ready_s": round(statistics.median(one["running"] for one in heard), 3),
            "tick_s": TICK_SECONDS,
            "runs": RUNS,
        },
    }


BENCHES: Final = {"job.ready_vs_docker_run": ready_vs_docker_run}
