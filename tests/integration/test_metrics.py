"""What a node tells Prometheus, read as Prometheus reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import trio
import trio.testing
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from protocol.lease_state import Phase
from protocol.messages import GpuUse
from protocol.units import UnixMs, net_of
from qubixd.metrics import FRESH_SECONDS, registry_of
from tests.support.meter_values import CARD
from tests.support.rental import rental
from tests.support.world import Person
from tests.support.world_jobs import job, now_ms

Clock = trio.testing.MockClock
Label = tuple[tuple[str, str], ...]
JOB = (
    "qubix_job_cpu_cores",
    "qubix_job_memory_bytes",
    "qubix_job_disk_bytes",
    "qubix_job_network_receive_bytes_total",
    "qubix_job_network_transmit_bytes_total",
)
GPU = ("usage_ratio", "memory_bytes", "temperature_celsius", "power_watts")


def read(person: Person) -> dict[tuple[str, Label], float]:
    """(name, labels) -> value."""
    text = generate_latest(registry_of(person.up)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_provider_from_its_first_job_to_its_earnings(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        before = read(one.alice)
        assert before["qubix_earned_qu_total", ()] == 0 and before["qubix_peers", ()] == 1
        assert before["qubix_offers", ()] == 1 and before["process_cpu_seconds_total", ()] > 0
        assert {value for (name, _), value in before.items() if name == "qubix_leases"} == {0}
        assert not [name for name, _ in before if name.startswith("qubix_job")]

        await one.rent(job(seconds=60))
        await one.until(one.bob, Phase.RUNNING)
        await trio.sleep(20)
        now, label = read(one.alice), (("lease", one.lease_id.hex()[:12]),)
        assert [now[name, label] for name in JOB[:3]] == [0.5, 8 << 20, 2 << 20]
        assert 15_000 <= now[JOB[3], label] <= 25_000 and now[JOB[4], label] == 0
        assert 15 <= now["qubix_job_metered_seconds_total", label] <= 25
        assert now["qubix_leases", (("phase", "running"), ("role", "provider"))] == 1

        served, _ = await one.ended()
        after = read(one.alice)
        assert not [name for name, labels in after if labels == label]
        assert after["qubix_earned_qu_total", ()] == net_of(served.paid) > 0
        assert "qubix_earned_qu_total" not in [name for name, _ in read(one.bob)]


async def test_what_a_card_tells_and_nothing_else(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=600))
        await one.until(one.bob, Phase.RUNNING)
        await trio.sleep(5)
        meters = one.alice.up.metering.meters
        mute = GpuUse(b"m" * 32, None, 7, None, None)
        newest = meters.latest(one.lease_id, FRESH_SECONDS)
        assert newest is not None
        assert meters.add(one.lease_id, replace(newest, at=UnixMs(now_ms() + 1), gpus=(CARD, mute)))
        found, lease = read(one.alice), ("lease", one.lease_id.hex()[:12])
        told = [found[f"qubix_job_gpu_{name}", (("gpu", "67" * 6), lease)] for name in GPU]
        assert told == [0.5, 1_000 << 20, 60, 200]
        assert [name for name, labels in found if ("gpu", "6d" * 6) in labels] == [
            "qubix_job_gpu_memory_bytes"
        ]


async def test_an_old_number_is_not_told(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=600))
        await one.until(one.bob, Phase.RUNNING)
        await trio.sleep(5)
        one.alice.engine.load_millis = None  # from now on nobody can say what jobs use
        assert "qubix_job_cpu_cores" in [name for name, _ in read(one.alice)]
        await trio.sleep(FRESH_SECONDS + 1)
        names = [name for name, _ in read(one.alice)]
        assert "qubix_job_cpu_cores" not in names and "qubix_job_metered_seconds_total" in names
