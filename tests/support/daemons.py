"""Real daemons as real processes on loopback, and a control client for them (trio).

async with daemons(tmp_path) as town:
    provider = await town.start("alice", "--provider", "--price", "3600000", "--runner", "process")
    caller = await town.start("bob", "--bootstrap", provider.address)
    async for event in caller.stream("run", job_yaml=..., base_dir=..., output_dir=...): ...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from escrow_bridge.qubic import Wallet, generate_seed
from protocol import control
from protocol.units import Qu
from qubixd.wire import receive_frame
from tests.support.devnet_process import DevnetProcess, devnet_process

PATIENCE_SECONDS: Final = 100.0
"""What takes longer hangs: a machine may be slow and shared."""
FUNDS: Final = Qu(1_000_000_000)


class Refused(Exception):
    """The daemon answered with an error; `code` is its stable code."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: str = error["code"]


@dataclass
class Daemon:
    """One node: its files stay when its process is killed."""

    name: str
    root: Path
    log_file: Path
    arguments: tuple[str, ...]
    environment: dict[str, str]
    enter: tuple[str, ...] = ()
    """Before its command: brings it to another network namespace."""
    process: trio.Process | None = None
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(self.ready["addresses"][0])

    async def start(self) -> None:
        """Start (again) and wait until it is ready. AssertionError with its log if it is not."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            command = [
                *self.enter,
                sys.executable,
                "-m",
                "qubixd",
                "--data-dir",
                str(self.root),
                "--json",
                *self.arguments,
            ]
            opened = partial(trio.lowlevel.open_process, stdout=subprocess.PIPE, stderr=log)
            self.process = await opened(command, env=os.environ | self.environment)
        with trio.fail_after(PATIENCE_SECONDS):
            self.ready = json.loads(await _first_line(self.process, self.log))

    def log(self) -> str:
        return self.log_file.read_text()

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        with trio.fail_after(PATIENCE_SECONDS):
            return await self.process.wait()

    async def stream(self, verb: str, **args: object) -> AsyncGenerator[dict[str, Any], None]:
        """Every event, then the answer. Refused for an error."""
        stream = await trio.open_unix_socket(str(self.root / "control.sock"))
        async with stream:
            await stream.send_all(control.pack({"id": 1, "verb": verb, "args": args}))
            while True:
                data = await receive_frame(stream, control.MAX_FRAME_BYTES)
                assert data is not None, f"{self.name} closed the connection"
                frame = control.read_answer(data)
                if "error" in frame:
                    raise Refused(frame["error"])
                yield frame.get("event") or frame["ok"]
                if "ok" in frame:
                    return

    async def call(self, verb: str, **args: object) -> dict[str, Any]:
        """The answer, without the events before it."""
        async with aclosing(self.stream(verb, **args)) as events:
            return [event async for event in events][-1]

    async def until_offered(self) -> None:
        """Wait for somebody's offer; AssertionError with what this node knows if none comes."""
        with trio.move_on_after(PATIENCE_SECONDS):
            while not (await self.call("market"))["offers"]:
                await trio.sleep(0.1)
            return
        raise AssertionError(f"no offer reached {self.name}: {await self.call('status')}\n{self.log()}")


class Town:
    def __init__(self, root: Path, devnet: DevnetProcess, seeds: list[Path]) -> None:
        self.root = root
        self.devnet = devnet
        self.chain = devnet.chains["node"]
        """How whoever starts from now on reaches the devnet; see DevnetProcess.chains."""
        self.daemons: list[Daemon] = []
        self.roots: dict[str, Path] = {}
        """Where somebody's data directory lies, if not beside the others'."""
        self._seeds = seeds

    async def start(self, name: str, *arguments: str, environment: dict[str, str] | None = None) -> Daemon:
        """Somebody's daemon with a funded wallet."""
        chain = ("--chain", self.chain, "--contract-index", str(self.devnet.contract_index))
        seed = ("--wallet-seed-file", str(self._seeds.pop()))
        root = self.roots.get(name, self.root / name)
        log = self.root / f"{name}.log"
        daemon = Daemon(name, root, log, (*chain, *seed, *arguments), environment or {})
        self.daemons.append(daemon)
        await daemon.start()
        return daemon


@asynccontextmanager
async def daemons(root: Path, *, tick_seconds: float = 0.2, people: int = 2) -> AsyncIterator[Town]:
    """A devnet and room for some daemons; whatever still runs at the end is ended."""
    seeds = [generate_seed() for _ in range(people)]
    paths = [root / f"seed-{number}" for number in range(people)]
    for path, seed in zip(paths, seeds, strict=True):
        path.touch(mode=0o600)
        path.write_text(seed)
    funds = [(Wallet(seed).public_key, FUNDS) for seed in seeds]
    options = ("--nodes", "3")
    async with devnet_process(funds, tick_seconds=tick_seconds, options=options) as devnet:
        town = Town(root, devnet, paths)
        try:
            yield town
        finally:
            with trio.CancelScope(shield=True):
                for daemon in town.daemons:
                    if daemon.process is not None and daemon.process.returncode is None:
                        await daemon.kill()


async def _first_line(process: trio.Process, log: Any) -> bytes:
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        chunk = await process.stdout.receive_some()
        assert chunk, f"the daemon ended before it was ready ({await process.wait()}):\n{log()}"
        line += chunk
    return line
