"""Both runners for tests of what they have in common, and a job that changes one thing at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
import trio

from protocol.units import LeaseId, UnixMs
from qubixd.runner import JobExit, Runner, RunSpec
from qubixd.runner.docker import DockerRunner
from qubixd.runner.process import ProcessRunner

MIB: Final = 1 << 20
LIMIT_SECONDS: Final = 90
"""A real step of a runner that takes longer than this is stuck."""
CHECK_SECONDS: Final = 0.2
"""Between two looks at a workspace."""


@dataclass
class Bench:
    """One runner at work on one workspace. `reopen` makes the runner a restarted daemon would make."""

    open: Callable[[], Runner]
    image: str
    workspace: Path
    runner: Runner

    @classmethod
    def make(cls, open_runner: Callable[[], Runner], image: str, workspace: Path) -> Bench:
        workspace.mkdir()
        return cls(open_runner, image, workspace, open_runner())

    def spec(self, script: str, **changes: Any) -> RunSpec:
        spec = RunSpec(
            lease_id=LeaseId(os.urandom(32)),
            image=self.image,
            script=script,
            env={},
            workspace=self.workspace,
            gpu_uuids=(),
            cpu_millis=1000,
            memory_bytes=64 * MIB,
            disk_bytes=16 * MIB,
            pids_max=32,
        )
        return replace(spec, **changes)

    async def begin(self, spec: RunSpec, secrets: dict[str, str] | None = None) -> UnixMs:
        """Start a job and let it go; when it was."""
        with trio.fail_after(LIMIT_SECONDS):
            await self.runner.start(spec)
            return await self.runner.release(spec.lease_id, secrets or {})

    async def run(
        self, script: str, secrets: dict[str, str] | None = None, **changes: Any
    ) -> tuple[JobExit, str]:
        """Run a job to its end: how it ended and all it said."""
        spec = self.spec(script, **changes)
        with trio.fail_after(LIMIT_SECONDS):
            await self.begin(spec, secrets)
            return await self.runner.wait(spec.lease_id), await self.said(spec.lease_id)

    async def said(self, lease_id: LeaseId, *, follow: bool = False, offset: int = 0) -> str:
        parts = []
        async with aclosing(self.runner.logs(lease_id, follow=follow, offset=offset)) as chunks:
            async for chunk in chunks:
                parts.append(chunk)
        return b"".join(parts).decode()

    async def until_said(self, lease_id: LeaseId, text: str) -> None:
        """Return when the job's output contains `text`."""
        seen = b""
        with trio.fail_after(LIMIT_SECONDS):
            async with aclosing(self.runner.logs(lease_id, follow=True)) as chunks:
                async for chunk in chunks:
                    seen += chunk
                    if text.encode() in seen:
                        return
        raise AssertionError(f"the job ended without saying {text!r}: {seen!r}")

    def reopen(self) -> None:
        self.runner = self.open()

    async def remove_all(self) -> None:
        for lease_id in await self.runner.leases():
            await self.runner.remove(lease_id)


@asynccontextmanager
async def both_runners(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Bench]:
    """A bench for the fixture's parameter, "docker" or "process", with every job of it removed at the end."""
    state, pace = folder / "state", CHECK_SECONDS
    if request.param == "docker":
        image = request.getfixturevalue("busybox_image")
        made = Bench.make(lambda: DockerRunner(state, disk_check_seconds=pace), image, folder / "workspace")
    else:
        made = Bench.make(lambda: ProcessRunner(state, disk_check_seconds=pace), "none", folder / "workspace")
    try:
        yield made
    finally:
        await made.remove_all()


async def until_gone(pid: int) -> None:
    """Return when that process has ended, also if nobody has collected it yet."""
    with trio.fail_after(LIMIT_SECONDS), suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await trio.sleep(0.02)


@asynccontextmanager
async def unix_door(path: Path, to: str) -> AsyncIterator[None]:
    """Passes connections at `path` on to the unix socket `to`; leaving cuts them all."""

    async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()

    async def serve(inner: trio.SocketStream) -> None:
        try:
            async with inner, await trio.open_unix_socket(to) as outer, trio.open_nursery() as nursery:
                nursery.start_soon(copy, inner, outer)
                nursery.start_soon(copy, outer, inner)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one side hung up, as the sides of a door may

    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listening)])
        yield
        nursery.cancel_scope.cancel()
    path.unlink()
