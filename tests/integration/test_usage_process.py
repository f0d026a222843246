"""What plain processes use, children and all."""

from __future__ import annotations

from pathlib import Path

import trio

from protocol.units import LeaseId
from qubixd.runner.process import ProcessRunner
from tests.support.runners import LIMIT_SECONDS, MIB, Bench

SCRIPT = """
( i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done )
sleep 1000 &
echo it is done
wait
"""


async def test_a_job_s_processes_count_together(tmp_path: Path) -> None:
    bench = Bench.make(lambda: ProcessRunner(tmp_path / "state"), "", tmp_path / "workspace")
    bench.image = "any:1"
    spec = bench.spec(SCRIPT)
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "it is done")
    found = await bench.runner.usage([spec.lease_id, LeaseId(b"n" * 32)])
    used = found.pop(spec.lease_id)
    assert used.cpu_ns > 20_000_000 and 0 < used.memory_bytes < 100 * MIB and not found
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.stop(spec.lease_id, 0.0)
    assert await bench.runner.usage([spec.lease_id]) == {}
    await bench.remove_all()
