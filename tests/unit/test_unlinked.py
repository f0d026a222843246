"""Deleted files that a process holds, found through a made /proc that leads to files of this very process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qubixd.runner import unlinked
from qubixd.runner.unlinked import unlinked_bytes
from qubixd.runner.workspace import UNMEASURABLE

CONTAINER = "c0ffee" * 10
SIZE = 100_000


@pytest.fixture
def held(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a deleted file of SIZE bytes."""
    path = tmp_path / "gone"
    with path.open("wb") as file:
        file.write(os.urandom(SIZE))
        file.flush()
        os.fsync(file.fileno())
        path.unlink()
        yield file.fileno()


def processes(tmp_path: Path, group: str, **descriptors: int) -> None:
    """A process 7 of the container in a control group, with these descriptors of ours."""
    process, listed = tmp_path / "proc" / "7", tmp_path / "groups" / group / "docker" / CONTAINER
    (process / "fd").mkdir(parents=True)
    listed.mkdir(parents=True)
    (listed / "cgroup.procs").write_text("7\n")
    (process / "cgroup").write_text(f"1:name=systemd:/elsewhere\n0:{group}:/docker/{CONTAINER}\n")
    (process / "maps").write_text("00400000-00401000 r-xp 00000000 08:01 1  /bin/busybox\n")
    for name, descriptor in descriptors.items():
        (process / "fd" / name).symlink_to(f"/proc/self/fd/{descriptor}")


def found(tmp_path: Path, pid: int = 7, container: str = CONTAINER) -> int:
    return unlinked_bytes(container, pid, tmp_path, tmp_path / "proc", tmp_path / "groups")


@pytest.mark.parametrize("group", ["", "memory"])
def test_each_deleted_file_counts_once(tmp_path: Path, held: int, group: str) -> None:
    with (tmp_path / "named").open("wb") as named:
        named.write(bytes(SIZE))
        processes(tmp_path, group, first=held, again=held, named=named.fileno())
        assert SIZE <= found(tmp_path) < 2 * SIZE


def test_a_number_that_is_another_s_by_now_counts_nothing(tmp_path: Path, held: int) -> None:
    processes(tmp_path, "", first=held)
    assert found(tmp_path, container="decade" * 10) == found(tmp_path, pid=8) == 0


def test_too_many_to_look_at_is_too_much(tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(tmp_path, "", first=held, second=held)
    monkeypatch.setattr(unlinked, "MAX_LOOKS", 1)
    assert found(tmp_path) == UNMEASURABLE


def test_no_workspace_no_disk(tmp_path: Path) -> None:
    assert unlinked_bytes(CONTAINER, 7, tmp_path / "gone") == 0
