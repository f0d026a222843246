"""What the engine is told of a job, for the parts that need a GPU, a full disk or an odd clock to see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from docker.errors import APIError

from protocol.errors import DiskFull, ImageUnavailable, StartFailed
from protocol.units import LeaseId
from qubixd.runner import ExitReason, RunSpec
from qubixd.runner.docker_config import (
    environment,
    exit_reason,
    host_options,
    lease_of,
    unix_ms,
)
from qubixd.runner.docker_engine import LayerShares, image_unavailable, start_failed

UUIDS = ("GPU-5f0c0d3e-0000-1111-2222-333344445555", "GPU-6f0c0d3e-0000-1111-2222-333344445555")


def spec(**changes: object) -> RunSpec:
    basics: dict[str, object] = {
        "lease_id": LeaseId(os.urandom(32)),
        "image": "busybox",
        "script": "true",
        "env": {},
        "workspace": Path("/tmp"),
        "gpu_uuids": (),
        "cpu_millis": 1500,
        "memory_bytes": 1 << 30,
        "disk_bytes": 1 << 30,
    }
    return RunSpec(**{**basics, **changes})  # type: ignore[arg-type]  # checked by the tests themselves


def test_gpus_are_given_by_uuid_and_only_those() -> None:
    requests = host_options(spec(gpu_uuids=UUIDS), ())["device_requests"]
    assert [(r["DeviceIDs"], r["Count"]) for r in requests] == [(list(UUIDS), 0)]
    assert host_options(spec(), ())["device_requests"] == []
    assert f"NVIDIA_VISIBLE_DEVICES={','.join(UUIDS)}" in environment(spec(gpu_uuids=UUIDS), ())


def test_image_variables_that_hosts_obey_are_taken_away() -> None:
    image = [
        "PATH=/bin",
        "LD_PRELOAD=/x",
        "LD_LIBRARY_PATH",
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_MIG_X=all",
        "GLIBC_TUNABLES=glibc.malloc.check=1",
        "GCONV_PATH=/x",
    ]
    given = environment(spec(env={"PATH": "/mine"}), image)
    taken = {"LD_PRELOAD", "LD_LIBRARY_PATH", "NVIDIA_MIG_X", "GLIBC_TUNABLES", "GCONV_PATH"}
    assert taken == {entry for entry in given if "=" not in entry}
    assert [entry for entry in given if entry.startswith("NVIDIA_VIS")] == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert "PATH=/mine" in given


def test_engine_s_words_for_a_full_disk() -> None:
    full = "write /var/lib/docker/tmp/x: no space left on device"
    assert isinstance(image_unavailable("busybox", full), DiskFull)
    assert isinstance(start_failed(APIError("x", explanation=full)), DiskFull)
    assert isinstance(image_unavailable("busybox", "denied"), ImageUnavailable)
    assert isinstance(start_failed(APIError("x", explanation="no such runtime")), StartFailed)


def test_share_done_of_a_pull() -> None:
    shares = LayerShares()
    assert shares.add({"status": "Pulling from library/busybox", "id": "latest"}) == 0
    half = {"status": "Downloading", "id": "a", "progressDetail": {"current": 50, "total": 100}}
    assert shares.add(half) == 0.5
    assert shares.add({**half, "id": "b", "progressDetail": {"current": 0, "total": 100}}) == 0.25
    assert shares.add({"status": "Download complete", "id": "a"}) == 0.5
    assert shares.add({"status": "Already exists", "id": "c"}) == 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01.5Z", 1500),
        ("2026-01-31T12:00:00.123456789Z", 1_769_860_800_123),
        ("2026-01-31T13:00:00.123456789+01:00", 1_769_860_800_123),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
    ],
)
def test_engine_time(text: str, expected: int) -> None:
    assert unix_ms(text) == expected
    assert unix_ms("0001-01-01T00:00:00Z") < 0


@pytest.mark.parametrize("label", ["", "xyz", "00", "00" * 33])
def test_label_that_is_no_lease(label: str) -> None:
    assert lease_of({"qubix.lease": label}) is None
    assert lease_of({}) is None


@pytest.mark.parametrize(
    ("oom", "code", "finished", "expected"),
    [
        (False, 0, "2026-01-31T12:00:01Z", ExitReason.EXITED),
        (False, 0, "2026-01-31T11:59:59.9Z", ExitReason.EXITED),
        (True, 137, "2026-01-31T12:00:01Z", ExitReason.OUT_OF_MEMORY),
        (True, 0, "2026-01-31T12:00:01Z", ExitReason.EXITED),  # a child was killed and the script coped
        (False, 255, "0001-01-01T00:00:00Z", ExitReason.LOST),
    ],
)
def test_why_a_container_ended(oom: bool, code: int, finished: str, expected: ExitReason) -> None:
    state = {"OOMKilled": oom, "ExitCode": code, "FinishedAt": finished, "StartedAt": "2026-01-31T12:00:00Z"}
    assert exit_reason(state) is expected
