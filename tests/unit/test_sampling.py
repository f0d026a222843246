"""One look after the other makes samples, whatever the job, its network or the runner did in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from protocol.messages import GpuUse
from protocol.units import UnixMs
from qubixd.hardware import GpuSample
from qubixd.metering import uses_of
from qubixd.runner import Usage
from qubixd.sampling import Counted, next_count, sample_of
from tests.support.meter_values import CARD

MIB = 1 << 20
SECOND_NS = 1_000_000_000
FIRST = Usage(
    cpu_ns=5 * SECOND_NS, memory_bytes=8 * MIB, received_bytes=100, sent_bytes=50, disk_bytes=MIB + 1
)
NOW = UnixMs(1_800_000_000_000)


def counted(*usages: Usage) -> list[Counted]:
    """Looks a second apart."""
    found: list[Counted] = []
    for number, usage in enumerate(usages):
        found.append(next_count(found[-1] if found else None, usage, number * SECOND_NS))
    return found


def later(**changes: Any) -> Usage:
    return replace(FIRST, **changes)


def test_the_processor_counts_over_the_time_that_passed() -> None:
    before, now = counted(FIRST, later(cpu_ns=FIRST.cpu_ns + 1_500_000_000))
    sample = sample_of(before, now, NOW, (CARD,))
    assert sample is not None
    assert (sample.at, sample.cpu_millis, sample.gpus) == (NOW, 1_500, (CARD,))
    slower = replace(now, at_ns=3 * SECOND_NS)
    sample = sample_of(before, slower, NOW, ())
    assert sample is not None and sample.cpu_millis == 500


def test_sizes_are_rounded_up() -> None:
    before, now = counted(FIRST, later(memory_bytes=8 * MIB + 1))
    sample = sample_of(before, now, NOW, ())
    assert sample is not None and (sample.memory_mib, sample.disk_mib) == (9, 2)


def test_a_job_that_began_anew_has_no_sample_until_it_was_seen_twice() -> None:
    before, now = counted(FIRST, later(cpu_ns=7))
    assert sample_of(before, now, NOW, ()) is None
    assert sample_of(now, now, NOW, ()) is None


def test_traffic_goes_on_where_a_network_is_made_anew() -> None:
    looks = counted(
        FIRST,
        later(received_bytes=300),
        later(received_bytes=10, sent_bytes=0),
        later(received_bytes=20, sent_bytes=5),
        later(received_bytes=0, sent_bytes=1),
    )
    samples = [sample_of(looks[0], look, NOW, ()) for look in looks[1:]]
    assert [(one.received_bytes, one.sent_bytes) for one in samples if one] == [
        (300, 50), (310, 50), (320, 55), (320, 56),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "ratio, permille", [(0.0, 0), (0.4567, 457), (1.0, 1_000), (1.2, 1_000), (None, None)]
)
def test_a_card_s_figures_as_callers_are_told(ratio: float | None, permille: int | None) -> None:
    told = GpuSample("GPU-1", ratio, 1_000 * MIB, 24_000 * MIB, 60, 200_000, None)
    assert uses_of({"GPU-1": told}, {CARD.digest: "GPU-1", b"h" * 32: "GPU-2"}) == {
        CARD.digest: GpuUse(CARD.digest, permille, 1_000, 60, 200_000)
    }
