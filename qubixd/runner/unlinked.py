"""Disk that a job holds without a name: files it has deleted and keeps open or mapped. No walk of its
workspace meets them, and they take room until the last process lets go.

Read from /proc of the container's processes, which root may, and whoever runs jobs as himself. Where that is
not possible (an engine on another machine) nothing is found.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from qubixd.runner.workspace import UNMEASURABLE

MAX_LOOKS: Final = 200_000
"""Open files looked at of one job; with more it counts as too large."""
BLOCK_BYTES: Final = 512

Files = dict[int, int]
"""Bytes on disk by inode."""


def unlinked_bytes(
    container_id: str,
    pid: int,
    workspace: Path,
    proc: Path = Path("/proc"),
    groups: Path = Path("/sys/fs/cgroup"),
) -> int:
    """Bytes of deleted files that the container's processes hold on the disk of `workspace`. Blocks.

    `pid` is one of the processes, 0 if there is none any more.
    """
    if not workspace.exists():
        return 0
    found: Files = {}
    looks, device = 0, workspace.stat().st_dev
    for process in _processes(container_id, pid, proc, groups):
        for path in (*_descriptors(proc / process), *_mappings(proc / process)):
            looks += 1
            if looks > MAX_LOOKS:
                return UNMEASURABLE
            with suppress(OSError):
                _count(os.stat(path), device, found)
    return sum(found.values())


def _count(info: os.stat_result, device: int, found: Files) -> None:
    if stat.S_ISREG(info.st_mode) and not info.st_nlink and info.st_dev == device:
        found[info.st_ino] = info.st_blocks * BLOCK_BYTES


def _processes(container_id: str, pid: int, proc: Path, groups: Path) -> list[str]:
    """Process ids of the container, from its control group; none if `pid` is not the container's any more."""
    with suppress(OSError):
        for line in (proc / str(pid) / "cgroup").read_text(errors="replace").splitlines():
            _, names, path = line.split(":", 2)
            listed = groups / names / path.lstrip("/") / "cgroup.procs"
            if container_id in path and ".." not in path and listed.exists():
                return listed.read_text().split()
    return []


def _descriptors(process: Path) -> Iterator[str]:
    with suppress(OSError), os.scandir(process / "fd") as entries:
        yield from (entry.path for entry in entries)


def _mappings(process: Path) -> Iterator[str]:
    """Of deleted files alone: a program maps hundreds of others."""
    with suppress(OSError):
        for line in (process / "maps").read_text(errors="replace").splitlines():
            if line.endswith(" (deleted)"):
                yield str(process / "map_files" / line.split(maxsplit=1)[0])
