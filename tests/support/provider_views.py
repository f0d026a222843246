"""Answers of a provider's daemon for tests of its screen, every field overridable."""

from __future__ import annotations

from typing import Any

from protocol.control_provider import (
    DayView,
    EarningsView,
    GpuView,
    HindranceView,
    JobView,
    MachineView,
    ProviderView,
    RunnerView,
    ShareView,
    ShopView,
)
from tests.support.views import HOSTILE, LEASE_ID

NOW_MS = 1_800_000_000_000


def gpu(**changes: Any) -> GpuView:
    body: dict[str, Any] = {
        "digest": "ab" * 32,
        "uuid": "GPU-1d2f3a4b-0000-1111-2222-333344445555",
        "model": "NVIDIA GeForce RTX 4090",
        "vram_mib": 24_564,
        "driver": "550.54.15",
        "cuda": "12.4",
        "pcie": "0000:01:00.0, gen 4 x16",
        "use_permille": 873,
        "memory_used_mib": 20_114,
        "temperature_c": 64,
        "power_mw": 312_400,
        "health": "ok",
        "sentence": "",
        "lease_id": LEASE_ID,
    }
    return GpuView(**(body | changes))


def job(**changes: Any) -> JobView:
    body: dict[str, Any] = {
        "lease_id": LEASE_ID,
        "name": "wordcount",
        "phase": "running",
        "detail": "the job is running",
        "reason": "",
        "caller": "12D3KooWAbcdEfgh",
        "image": "pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime",
        "opened_at_ms": NOW_MS - 3_600_000,
        "ended_at_ms": 0,
        "seconds": 3_540,
        "price_qu_per_hour": 360_000,
        "received_qu": 0,
        "promised_qu": 353_500,
        "owed_qu": 500,
        "gpus": ["ab" * 32],
        "cpu_millis": 4_000,
        "memory_mib": 16_384,
        "cpu_use_millis": 2_310,
        "memory_use_mib": 9_011,
        "gpu_use_permille": 873,
    }
    return JobView(**(body | changes))


def ended(**changes: Any) -> JobView:
    body = {
        "phase": "done",
        "ended_at_ms": NOW_MS - 60_000,
        "detail": "the job ended by itself with exit code 0",
        "reason": "job.completed",
        "received_qu": 342_000,
        "promised_qu": 360_000,
        "owed_qu": 0,
    }
    return job(**(body | changes))


def days(*amounts: int) -> list[DayView]:
    padded = [*amounts, *[0] * (14 - len(amounts))]
    return [DayView(f"2027-01-{15 - age:02}", qu, int(qu > 0), qu // 100) for age, qu in enumerate(padded)]


def provider(**changes: Any) -> ProviderView:
    body: dict[str, Any] = {
        "at_ms": NOW_MS,
        "peer_id": "12D3KooWAbcdEfgh",
        "identity": "A" * 60,
        "balance": 1_234_567,
        "network": "devnet",
        "shop": shop(),
        "earnings": EarningsView(
            684_000, 4_210_000, 9_876_543, 12_345_678, 41, 336_000, 500, days(684_000, 1_200_000, 0, 90_000)
        ),
        "machine": MachineView(
            "AMD EPYC 7543 32-Core Processor",
            "amd64",
            ShareView(64_000, 64_000, 4_000, 3_120),
            ShareView(257_000, 231_300, 16_384, 30_000),
            ShareView(1_900_000, 1_200_000, 10_240, 420_000),
            [gpu(), gpu(uuid="GPU-2", lease_id="", use_permille=0, power_mw=21_000, temperature_c=38)],
        ),
        "runner": RunnerView("docker+runsc", True, "", True, 3, 14_200),
        "jobs": [job()],
        "ended": [ended(), ended(phase="failed", received_qu=0, detail="the image could not be fetched")],
        "score": 0.61,
        "confidence": 0.4,
        "newcomer": False,
        "addresses": ["/ip4/127.0.0.1/tcp/4001"],
    }
    return ProviderView(**(body | changes))


def shop(**changes: Any) -> ShopView:
    body: dict[str, Any] = {
        "open": True,
        "paused": False,
        "hindrances": [],
        "name": "shop",
        "region": "eu",
        "gpu_class": "RTX_4090",
        "price_qu_per_hour": 360_000,
        "storage_qu_per_tib_hour": 0,
        "suggested_low_qu_per_hour": 1,
        "suggested_high_qu_per_hour": 2,
    }
    return ShopView(**(body | changes))


HINDERED = shop(
    open=False,
    paused=True,
    hindrances=[
        HindranceView("provider.too_poor", f"cashing needs 100 QU; send the wallet {'A' * 60} some", True),
        HindranceView("provider.paused", "you paused it; `qubix provider resume` takes jobs again", True),
        HindranceView("gpu.ecc", "GPU 1 is not offered: its memory made errors", False),
    ],
)
_HOSTILE = HindranceView("x", HOSTILE, False)
HOSTILE_PROVIDER = provider(
    shop=shop(
        name=HOSTILE, region=HOSTILE, gpu_class=HOSTILE, hindrances=[HindranceView("x", HOSTILE, False)]
    ),
    runner=RunnerView(HOSTILE, False, HOSTILE, True, 3, 14_200),
    machine=MachineView(
        HOSTILE,
        HOSTILE,
        ShareView(64_000, 64_000, 4_000, 3_120),
        ShareView(257_000, 231_300, 16_384, 30_000),
        ShareView(1_900_000, 1_200_000, 10_240, 420_000),
        [gpu(model=HOSTILE, driver=HOSTILE, cuda=HOSTILE, pcie=HOSTILE, health=HOSTILE, sentence=HOSTILE)],
    ),
    jobs=[job(name=HOSTILE, image=HOSTILE, caller=HOSTILE, detail=HOSTILE, phase=HOSTILE)],
    ended=[ended(image=HOSTILE, detail=HOSTILE, phase=HOSTILE)],
)
"""Every word of it from somebody who means harm."""
