"""The devnet as its own process, for tests over real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from escrow_bridge.qubic import identity_of
from protocol.units import Qu, QubicId

READY_SECONDS = 90.0
"""The first start on a machine compiles the contract."""


@dataclass(frozen=True)
class DevnetProcess:
    node: str
    contract_index: int
    process: trio.Process
    ready: dict[str, Any]
    """What it said when it was ready."""

    @property
    def chains(self) -> dict[str, str]:
        """`--chain` URLs for it: over one node, over all its nodes, over the RPC."""
        nodes = ",".join(self.ready["nodes"])
        return {"node": f"node://{self.node}", "nodes": f"node://{nodes}", "rpc": f"rpc+{self.ready['rpc']}"}

    @property
    def port(self) -> int:
        return int(self.node.rpartition(":")[2])


@asynccontextmanager
async def devnet_process(
    funds: Sequence[tuple[QubicId, Qu]],
    *,
    tick_seconds: float = 0.05,
    port: int = 0,
    options: Sequence[str] = (),
    enter: Sequence[str] = (),
) -> AsyncIterator[DevnetProcess]:
    """A running devnet; stopped at the end, which must go without an error. `enter` before its command
    brings it to another network namespace."""
    command = [*enter, sys.executable, "-m", "escrow_bridge.devnet", "--json", "--port", str(port)]
    command += ["--tick-seconds", str(tick_seconds)]
    command += options
    for owner, amount in funds:
        command += ["--fund", f"{identity_of(owner)}={amount}"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        with trio.fail_after(READY_SECONDS):
            ready = json.loads(await _first_line(process))
        yield DevnetProcess(ready["nodes"][0], ready["contract_index"], process, ready)
        if process.returncode is None:
            process.terminate()
        with trio.fail_after(READY_SECONDS):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _first_line(process: trio.Process) -> bytes:
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        chunk = await process.stdout.receive_some()
        assert chunk, f"the devnet ended before it was ready (exit code {await process.wait()})"
        line += chunk
    return line
