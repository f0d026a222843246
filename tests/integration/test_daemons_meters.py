"""Meters through whole daemons: a real container, libp2p, the control socket and Prometheus' door."""

from __future__ import annotations

import os
import re
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.daemons import PATIENCE_SECONDS, Daemon, daemons
from tests.support.nvml import CARD, Machine, build_stub, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
JOB = """
name: burner
resources: {{image: "{image}", cpus: 0.5, memory: 64MB, disk: 10MB}}
max_hours: 0.05
run: while true; do :; done
"""


@pytest.mark.docker
async def test_a_busy_container_is_seen_by_its_caller_and_by_prometheus(
    tmp_path: Path, busybox_image: str
) -> None:
    async with daemons(tmp_path) as town:
        offer = ("--provider", "--price", "3600", "--runner", "docker", "--metrics", "127.0.0.1:0")
        alice = await town.start("alice", *offer)
        bob = await town.start("bob", "--bootstrap", alice.address, "--interval", "1")
        await bob.until_offered()
        arguments = {"base_dir": str(tmp_path), "output_dir": str(tmp_path / "out"), "detach": True}
        begun = await bob.call("run", job_yaml=JOB.format(image=busybox_image), **arguments)
        lease_id = begun["lease"]["lease_id"]
        with trio.fail_after(PATIENCE_SECONDS):
            await until_busy(bob, lease_id)
            text = await scrape(alice)
        assert f'qubix_job_cpu_cores{{lease="{lease_id[:12]}"}} 0.' in text
        assert 'qubix_leases{phase="running",role="provider"} 1.0' in text
        assert "process_resident_memory_bytes" in text
        await bob.call("stop", lease=lease_id)
        await bob.call("wait", lease=lease_id)
        assert lease_id[:12] not in await scrape(alice)
        view = await bob.call("metrics", lease=lease_id, since_s=600)
        assert view["history"] and view["history"][-1]["cpu_millis"]["most"] > 100


async def until_busy(bob: Daemon, lease_id: str) -> None:
    async with aclosing(bob.stream("metrics", lease=lease_id, follow=True)) as events:
        async for sample in events:
            if 100 < sample["cpu_millis"] < 2_000 and sample["memory_mib"] > 0:
                return
    raise AssertionError("the job ended without having been busy")


async def scrape(alice: Daemon) -> str:
    found = re.search(r"metrics for Prometheus at (\S+)", alice.log())
    assert found, alice.log()
    async with httpx.AsyncClient() as client:
        return (await client.get(found[1])).text


GPU_JOB = """
name: on-a-card
resources: {image: "any:1", gpu: RTX4090:1, cpus: 0.5, memory: 64MB, disk: 10MB}
max_hours: 0.05
proof: never  # the card is a stub
run: sleep 1000
"""


async def test_a_card_s_figures_reach_the_caller(tmp_path: Path) -> None:
    """From NVML (a stub of its library, the real binding) through the daemons to the caller."""
    build_stub(tmp_path)
    machine = Machine(tmp_path / "cards", CARD)
    stub = environment(tmp_path) | {"QUBIX_NVML_STATE": str(machine.path)}
    async with daemons(tmp_path) as town:
        offer = ("--provider", "--price", "3600", "--runner", "process", "--metrics", "127.0.0.1:0")
        alice = await town.start("alice", *offer, environment=stub | {"PATH": os.environ["PATH"]})
        bob = await town.start("bob", "--bootstrap", alice.address, "--interval", "1")
        await bob.until_offered()
        arguments = {"base_dir": str(tmp_path), "output_dir": str(tmp_path / "out"), "detach": True}
        begun = await bob.call("run", job_yaml=GPU_JOB, **arguments)
        lease_id = begun["lease"]["lease_id"]
        machine.card(0, use=57, used=12 << 30, celsius=66, milliwatts=310_000)
        with trio.fail_after(PATIENCE_SECONDS):
            card = await until_card(bob, lease_id, 570)
            text = await scrape(alice)
        assert (card["memory_mib"], card["temperature_c"], card["power_mw"]) == (12 << 10, 66, 310_000)
        labels = f'{{gpu="{card["gpu"]}",lease="{lease_id[:12]}"}}'
        assert f"qubix_job_gpu_usage_ratio{labels} 0.57\n" in text
        assert f"qubix_job_gpu_power_watts{labels} 310.0\n" in text
        assert f'qubix_gpu_healthy{{gpu="{card["gpu"]}"}} 1.0\n' in text
        await bob.call("stop", lease=lease_id)
        await bob.call("wait", lease=lease_id)


async def until_card(bob: Daemon, lease_id: str, use_permille: int) -> dict[str, Any]:
    async with aclosing(bob.stream("metrics", lease=lease_id, follow=True)) as events:
        async for sample in events:
            for card in sample["gpus"]:
                if card["use_permille"] == use_permille:
                    return dict(card)
    raise AssertionError("the job ended before its card was seen to work")
