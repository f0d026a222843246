"""What running jobs have used, as the kernel counts it: control groups of both versions, network devices.

These are small files of the host that anyone may read, found through /proc/PID/cgroup. Where they are not
(Docker Desktop, an engine on another machine) the engine is asked for its own figures, which takes it up to
a second each time: so only some jobs are asked about in each round. See docs/meters.md.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import trio
from docker.errors import APIError

from protocol.errors import EngineUnreachable
from protocol.units import LeaseId
from qubixd.runner import Usage
from qubixd.runner.docker_engine import Client, DockerEngine

MAX_FILE_BYTES: Final = 65_536
LOOK_AGAIN_SECONDS: Final = 5.0
"""A job that could not be found is looked for again no sooner."""
ASKED_AT_ONCE: Final = 10
"""Jobs whose figures only the engine has: so many of them are asked about in one round."""
NOT_THE_JOBS: Final = ("lo", "tap", "veth", "br-", "docker")
"""Beginnings of the names of devices that are no way out of a job; taps are the inner end of a virtual
machine's own, and would count everything twice."""


@dataclass(frozen=True)
class Place:
    """A container on its machine. `pid` is its first process; a number that may be another's by now."""

    container_id: str
    pid: int
    network: str = ""
    """The container whose network it shares, if it does."""


@dataclass(frozen=True)
class _Files:
    cpu: str
    memory: str
    memory_stat: str
    cached: bytes
    """How the line of `memory_stat` with the unused files in memory begins."""
    v1: bool


class Kernel:
    """Reads the files. Stateless, so that a process id that has come to be another's is noticed at once."""

    def __init__(self, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc = str(proc)
        self._groups = str(groups)

    def read(self, place: Place) -> Usage | None:
        """None if this machine's kernel does not count for that container (any more)."""
        try:
            listed = _content(f"{self._proc}/{place.pid}/cgroup")
            files = _files(listed, place.container_id, self._groups)
            if files is None:
                return None
            cpu, held = _content(files.cpu), int(_content(files.memory))
            cpu_ns = int(cpu) if files.v1 else _value(cpu, b"usage_usec ") * 1_000
            unused = _value(_content(files.memory_stat), files.cached)
            received, sent = _traffic(_content(f"{self._proc}/{place.pid}/net/dev"))
        except (OSError, ValueError):
            return None
        return Usage(cpu_ns, max(0, held - unused), received, sent)

    def read_all(self, places: Mapping[LeaseId, Place]) -> dict[LeaseId, Usage]:
        """Those that could be read. Blocks for some hundred microseconds a job."""
        return {lease: usage for lease, place in places.items() if (usage := self.read(place))}


def _content(path: str) -> bytes:
    """A small file, with as few calls as can be: this is done for every job each second."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, MAX_FILE_BYTES)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=1_024)
def _files(listed: bytes, container_id: str, groups: str) -> _Files | None:
    """Where the figures of a container are, from its /proc/PID/cgroup; None if that is not the container's.

    A line is `number:controllers:path`; version 2 has number 0 and no controllers. Where both are mounted,
    the controllers that are listed by name are in version 1.
    """
    paths: dict[str, str] = {}
    for line in listed.decode(errors="replace").splitlines():
        _, names, path = line.split(":", 2)
        if container_id in path and ".." not in path:
            paths |= {name: f"{groups}/{names}{path}" for name in names.split(",") if name}
            if not names:
                paths[""] = f"{groups}{path}"
    if "memory" in paths and "cpuacct" in paths:
        memory = paths["memory"]
        return _Files(
            f"{paths['cpuacct']}/cpuacct.usage",
            f"{memory}/memory.usage_in_bytes",
            f"{memory}/memory.stat",
            b"total_inactive_file ",
            True,
        )
    if (only := paths.get("")) is None:
        return None
    return _Files(
        f"{only}/cpu.stat", f"{only}/memory.current", f"{only}/memory.stat", b"inactive_file ", False
    )


def _value(lines: bytes, name: bytes) -> int:
    """The number behind a name at the beginning of a line. ValueError if there is none."""
    start = 0 if lines.startswith(name) else lines.index(b"\n" + name) + 1
    start += len(name)
    end = lines.find(b"\n", start)
    return int(lines[start : None if end < 0 else end])


def _traffic(devices: bytes) -> tuple[int, int]:
    """(received, sent) bytes of all ways out, from /proc/PID/net/dev."""
    received = sent = 0
    for line in devices.decode(errors="replace").splitlines()[2:]:
        name, _, numbers = line.partition(":")
        if not name.strip().startswith(NOT_THE_JOBS):
            fields = numbers.split()
            received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent


def of_stats(stats: Mapping[str, Any], of_network: Mapping[str, Any] | None = None) -> Usage | None:
    """The same from the engine's own figures, the answer to its `stats`; None if they are not complete."""
    try:
        memory, details = stats["memory_stats"], stats["memory_stats"].get("stats", {})
        unused = details.get("total_inactive_file", details.get("inactive_file", 0))
        devices = (of_network or stats).get("networks") or {}
        return Usage(
            int(stats["cpu_stats"]["cpu_usage"]["total_usage"]),
            max(0, int(memory["usage"]) - int(unused)),
            sum(int(device["rx_bytes"]) for device in devices.values()),
            sum(int(device["tx_bytes"]) for device in devices.values()),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


class Usages:
    """Usage of a Docker engine's jobs, from the kernel if it is this machine's, else from the engine."""

    def __init__(self, engine: DockerEngine, kernel: Kernel | None = None) -> None:
        self._engine = engine
        self._kernel = kernel or Kernel()
        self._places: dict[LeaseId, Place] = {}
        self._far: dict[LeaseId, Place] = {}
        """Containers that run, but not under this kernel; the next to be asked about first."""
        self._looked: dict[LeaseId, float] = {}

    async def read(self, names: Mapping[LeaseId, str], disk: Mapping[LeaseId, int]) -> dict[LeaseId, Usage]:
        """`names`: the containers of the leases wanted. What is not known just now is left out."""
        self._forget_all_but(names)
        with suppress(EngineUnreachable):  # those that were found before can be read without it
            await self._look_for({lease: names[lease] for lease in names if self._shall_look(lease)})
        places = self._places
        found = await trio.to_thread.run_sync(lambda: self._kernel.read_all(places))
        self._places = {lease: place for lease, place in places.items() if lease in found}
        found |= await self._ask_engine()
        return {lease: replace(usage, disk_bytes=disk.get(lease)) for lease, usage in found.items()}

    def _forget_all_but(self, wanted: Collection[LeaseId]) -> None:
        for known in (self._places, self._far, self._looked):
            for lease in known.keys() - wanted:
                known.pop(lease, None)

    def _shall_look(self, lease: LeaseId) -> bool:
        if lease in self._places or lease in self._far:
            return False
        return trio.current_time() - self._looked.get(lease, -LOOK_AGAIN_SECONDS) >= LOOK_AGAIN_SECONDS

    async def _look_for(self, names: Mapping[LeaseId, str]) -> None:
        if not names:
            return
        self._looked |= dict.fromkeys(names, trio.current_time())
        places = await self._engine.call(lambda client: _places(client, names))
        for lease, place in places.items():
            here = self._kernel.read(place) is not None
            (self._places if here else self._far)[lease] = place

    async def _ask_engine(self) -> dict[LeaseId, Usage]:
        asked = dict(list(self._far.items())[:ASKED_AT_ONCE])
        if not asked:
            return {}
        for lease in asked:
            self._far[lease] = self._far.pop(lease)  # to the end of the queue
        answers: dict[LeaseId, Usage] = {}

        async def ask(lease: LeaseId, place: Place) -> None:
            with suppress(EngineUnreachable):
                if usage := await self._engine.call_blocking(lambda client: _stats(client, place)):
                    answers[lease] = usage

        async with trio.open_nursery() as nursery:
            for lease, place in asked.items():
                nursery.start_soon(ask, lease, place)
        for lease in asked.keys() - answers:
            self._far.pop(lease, None)
        return answers


def _places(client: Client, names: Mapping[LeaseId, str]) -> dict[LeaseId, Place]:
    """Of the containers that run."""
    found: dict[LeaseId, Place] = {}
    for lease, name in names.items():
        with suppress(APIError):
            info = client.inspect_container(name)
            mode = str((info.get("HostConfig") or {}).get("NetworkMode", ""))
            shared = mode.removeprefix("container:") if mode.startswith("container:") else ""
            if info["State"]["Running"]:
                found[lease] = Place(info["Id"], int(info["State"]["Pid"]), shared)
    return found


def _stats(client: Client, place: Place) -> Usage | None:
    """The engine's figures. Without `one_shot` it would wait for two seconds to compare two; some engines
    still take one."""
    containers = [place.container_id, *([place.network] if place.network else [])]
    with suppress(APIError):
        answers = [client.stats(name, stream=False, one_shot=True) for name in containers]
        return of_stats(answers[0], answers[-1])
    return None
