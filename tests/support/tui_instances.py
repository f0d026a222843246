"""Canned leases, meters, logs and ways for the area Instances: fixed times, fixed ids."""

from __future__ import annotations

import math
from typing import Any, Final

from protocol.control import LeaseView, LogChunk, PsArgs, PsView
from protocol.control_access import AccessView, PortView
from protocol.control_meters import (
    GpuSampleView,
    GpuSpanView,
    LevelView,
    MetricsArgs,
    MetricsView,
    SampleView,
    SpanView,
)
from protocol.control_tunnels import PathView
from tests.support import views

NOW_MS: Final = 1_788_000_000_000
CARD: Final = "a1b2c3d4e5f6"
_LIVE: Final[dict[str, Any]] = {"settled": False, "paid": 0, "refunded": 0, "ended_at_ms": 0, "sentence": "",
                                "reason": "", "exit_code": None}  # fmt: skip


def running(**changes: Any) -> LeaseView:
    """A job on an RTX 4090, 40 % through its rented time."""
    body: dict[str, Any] = {
        **_LIVE, "lease_id": "3fa9c1d2" + "1" * 56, "phase": "running", "name": "train-llama",
        "gpu": "1 x RTX4090", "image": "pytorch/pytorch:2.8.0-cuda12.8", "detail": "the job is running",
        "max_seconds": 7_200,
        "seconds": 2_880, "price_qu_per_hour": 360_000, "deposit": 720_000, "promised": 288_000,
        "opened_at_ms": NOW_MS - 3_000_000, "started_at_ms": NOW_MS - 2_880_000,
        "path": PathView("punched", rtt_ms=23.4),
    }  # fmt: skip
    return views.lease(**(body | changes))


def preparing(**changes: Any) -> LeaseView:
    body: dict[str, Any] = {
        **_LIVE, "lease_id": "7be01122" + "2" * 56, "phase": "provisioning", "name": "render",
        "gpu": "2 x RTX4080", "detail": "the image is pulled 42 %", "max_seconds": 3_600, "seconds": 0,
        "promised": 0, "deposit": 180_000, "price_qu_per_hour": 180_000, "opened_at_ms": NOW_MS - 60_000,
    }  # fmt: skip
    return views.lease(**(body | changes))


def completed(**changes: Any) -> LeaseView:
    body: dict[str, Any] = {"lease_id": "c0ffee00" + "3" * 56, "max_seconds": 300, "seconds": 9,
                            "opened_at_ms": NOW_MS - 9_000_000, "started_at_ms": NOW_MS - 8_990_000,
                            "ended_at_ms": NOW_MS - 8_981_000}  # fmt: skip
    return views.lease(**(body | changes))


def failed(**changes: Any) -> LeaseView:
    body: dict[str, Any] = {
        "lease_id": "dead0000" + "4" * 56, "phase": "failed", "name": views.HOSTILE, "exit_code": 1,
        "reason": "job.failed", "sentence": "the job ended with exit code 1", "gpu": views.HOSTILE,
        "opened_at_ms": NOW_MS - 90_000_000, "started_at_ms": NOW_MS - 89_990_000, "max_seconds": 600,
    }  # fmt: skip
    return completed(**(body | changes))


LEASES: Final = [running(), preparing(), completed(), failed(), running(role="provider", lease_id="e" * 64)]


def ps(args: PsArgs) -> PsView:
    return PsView([one for one in LEASES if args.all or one.phase not in ("done", "failed", "cancelled")])


def sample(seconds_ago: int) -> SampleView:
    """A wave, so that there is something to see."""
    wave = math.sin(seconds_ago / 40)
    gpu = GpuSampleView(
        CARD, round(820 + 150 * wave), round(14_000 + 2_000 * wave), round(74 + 8 * wave), 330_000
    )
    return SampleView(NOW_MS - seconds_ago * 1_000, round(3_000 + 900 * wave), 9_000, 4_000,
                      (600 - seconds_ago) * 250_000, (600 - seconds_ago) * 1_000, [gpu])  # fmt: skip


def span(hours_ago: int) -> SpanView:
    def level(mean: float) -> LevelView:
        return LevelView(mean, round(mean * 1.2))

    gpu = GpuSpanView(CARD, level(700), level(12_000), level(70), level(300_000))
    return SpanView(NOW_MS - hours_ago * 3_600_000, 3_600, 3_600, level(2_000), level(8_000), level(3_900),
                    1_000_000, 2_000, [gpu])  # fmt: skip


def metrics(args: MetricsArgs) -> MetricsView:
    samples = [sample(ago) for ago in range(599, -1, -2)]
    history = [span(ago) for ago in range(6, 0, -1)] if args.since_s > 3_600 else []
    return MetricsView(args.lease, "caller", "running", 4_000, 16_384, 20_480, samples, history)


LOG: Final = b"".join(b"epoch %d: loss %.3f\n" % (n, 2 / (1 + n)) for n in range(1, 200))
HOSTILE_LOG: Final = b"\x1b]0;owned\x07\x1b[2J[bold]\xe2\x80\xaeevil\xff\x9b31m\n"
ACCESS: Final = AccessView(
    "3fa9c1d2" + "1" * 56,
    "train-llama",
    "running",
    [
        PortView("jupyter", 8_888, "tcp", "http", "/lab?token=t0p"),
        PortView("ssh", 2_222, "tcp", "ssh"),
        PortView("desktop", 5_900, "tcp", "vnc"),
    ],
    "ssh-ed25519 AAAA someone",
    "",
)
ANSWERS: Final[dict[str, Any]] = {"ps": ps, "metrics": metrics, "access": ACCESS}
LOG_EVENTS: Final = [LogChunk(LOG), LogChunk(HOSTILE_LOG)]
"""Without an answer: the log of a job that goes on."""
