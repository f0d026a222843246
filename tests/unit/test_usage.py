"""What the kernel counts for a container, from trees as kernels show them, and what is no answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.units import LeaseId
from qubixd.runner import Usage
from qubixd.runner.usage import of_stats
from tests.support import cgroups
from tests.support.cgroups import CONTAINER, PID, PLACE

EXPECTED = Usage(cpu_ns=1_500_123_000, memory_bytes=10_506_240, received_bytes=1_240, sent_bytes=5_680)


def test_version_1(tmp_path: Path) -> None:
    assert cgroups.v1(tmp_path).read(PLACE) == EXPECTED


def test_version_1_with_processor_and_its_account_as_one(tmp_path: Path) -> None:
    assert cgroups.v1(tmp_path, together=True).read(PLACE) == EXPECTED


def test_version_2(tmp_path: Path) -> None:
    assert cgroups.v2(tmp_path).read(PLACE) == EXPECTED


def test_memory_that_shrank_between_two_looks_is_not_negative(tmp_path: Path) -> None:
    kernel = cgroups.v2(tmp_path)
    (tmp_path / f"groups/system.slice/docker-{CONTAINER}.scope/memory.current").write_text("4096\n")
    usage = kernel.read(PLACE)
    assert usage is not None and usage.memory_bytes == 0


@pytest.mark.parametrize("make", [cgroups.v1, cgroups.v2])
@pytest.mark.parametrize(
    "listed",
    [
        "0::/\n",
        "0::/system.slice/ssh.service\n",
        f"0::/../{CONTAINER}\n",
        f"2:memory:/docker/{CONTAINER}\n",
        "",
        "nonsense\n",
    ],
)
def test_a_process_id_that_is_another_s_by_now_tells_nothing(make: Any, listed: str, tmp_path: Path) -> None:
    kernel = make(tmp_path)
    (tmp_path / f"proc/{PID}/cgroup").write_text(listed)
    assert kernel.read(PLACE) is None


def test_files_that_are_missing_or_say_something_else_tell_nothing(tmp_path: Path) -> None:
    kernel = cgroups.v2(tmp_path)
    assert kernel.read(replace(PLACE, pid=1)) is None
    memory = tmp_path / f"groups/system.slice/docker-{CONTAINER}.scope/memory.stat"
    memory.write_text("anon 5\n")
    assert kernel.read(PLACE) is None
    memory.unlink()
    assert kernel.read(PLACE) is None


def test_one_that_cannot_be_read_leaves_the_others(tmp_path: Path) -> None:
    kernel = cgroups.v2(tmp_path)
    here, gone = LeaseId(bytes(32)), LeaseId(b"g" * 32)
    assert kernel.read_all({here: PLACE, gone: replace(PLACE, pid=1)}) == {here: EXPECTED}


STATS: dict[str, Any] = {
    "cpu_stats": {"cpu_usage": {"total_usage": 1_500_123_000}},
    "memory_stats": {"usage": 14_704_640, "stats": {"inactive_file": 4_198_400}},
    "networks": {"eth0": {"rx_bytes": 1_240, "tx_bytes": 5_680}},
}


def test_the_engine_s_own_figures_mean_the_same() -> None:
    assert of_stats(STATS) == EXPECTED
    first = STATS | {"memory_stats": {"usage": 14_704_640, "stats": {"total_inactive_file": 4_198_400}}}
    assert of_stats(first) == EXPECTED


def test_traffic_of_a_shared_network_is_asked_of_its_owner() -> None:
    own = {name: value for name, value in STATS.items() if name != "networks"}
    without = of_stats(own)
    assert without is not None and (without.received_bytes, without.sent_bytes) == (0, 0)
    assert of_stats(own, STATS) == EXPECTED


@pytest.mark.parametrize("part", ["cpu_stats", "memory_stats"])
def test_figures_of_a_container_that_has_ended_are_none(part: str) -> None:
    assert of_stats({**STATS, part: {}}) is None
    assert of_stats({**STATS, part: None}) is None
