"""The punch through routers as they are: network namespaces with nftables between two ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.support.netlab import Host, Lab, netlab
from tests.support.path_child import address_of

pytestmark = [pytest.mark.usefixtures("netns"), pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
PORT = 443
"""The campus lets nothing else out."""
PROVIDER = 3


class Child:
    """An end on a machine of the lab."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._lines = b""

    async def line(self) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._lines:
            chunk = await self.process.stdout.receive_some()
            assert chunk, "the end has died"
            self._lines += chunk
        line, _, self._lines = self._lines.partition(b"\n")
        return line.decode()

    async def ask(self, question: str) -> str:
        assert self.process.stdin is not None
        with trio.fail_after(40):
            await self.process.stdin.send_all(f"{question}\n".encode())
            return await self.line()


async def child(
    host: Host,
    number: int,
    *arguments: str,
    port: int = PORT,
    task_status: trio.TaskStatus[Child] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs one until cancelled."""
    command = [*host.space.enter, sys.executable, "-m", "tests.support.path_child", str(number), str(port)]
    process = await trio.lowlevel.open_process(
        [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    made = Child(process)
    try:
        assert await made.line() == "ready"
        task_status.started(made)
        await trio.sleep_forever()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@dataclass
class Places:
    """A provider behind a cone router and a caller in each sort of place. The wire between them is there by a
    forwarded port, which the provider's offer does not name."""

    provider: Child
    callers: dict[str, Child]
    hosts: dict[str, Host]


@asynccontextmanager
async def places(lab: Lab, nursery: trio.Nursery) -> AsyncIterator[Places]:
    first, second = lab.public("first"), lab.public("second")
    echoes = (address_of(1, first.ip, PORT), address_of(2, second.ip, PORT))
    home = lab.home("provider", nat="cone")
    assert home.router is not None
    home.router.forward(PORT, home)
    way = address_of(PROVIDER, home.public_ip, PORT)
    callers: dict[str, Child] = {}
    hosts: dict[str, Host] = {}

    async def call(name: str, host: Host, number: int) -> None:
        hosts[name] = host
        callers[name] = await nursery.start(child, host, number, "hidden", *echoes, way)

    await nursery.start(child, first, 1)
    await nursery.start(child, second, 2, echoes[0])
    provider = await nursery.start(child, home, PROVIDER, "hidden", *echoes)
    async with trio.open_nursery() as starting:
        starting.start_soon(call, "symmetric", lab.home("symmetric", nat="symmetric"), 4)
        starting.start_soon(call, "campus", lab.campus("campus"), 5)
    yield Places(provider, callers, hosts)
    nursery.cancel_scope.cancel()


LOOKS = {"symmetric": "symmetric all", "campus": "cone 443"}
BEST = {"symmetric": "wire", "campus": "punched"}
"""There is no relay, so the wire is last."""


async def test_each_place_knows_itself_and_the_best_way(tmp_path: Path) -> None:
    async with (
        netlab(tmp_path, people=1) as lab,
        trio.open_nursery() as nursery,
        places(lab, nursery) as there,
    ):
        found: dict[str, str] = {}
        ways: dict[str, str] = {}

        async def try_all(name: str, one: Child) -> None:
            found[name] = await one.ask("look")
            ways[name] = await one.ask(f"reach {PROVIDER}")

        async with trio.open_nursery() as trying:
            for name, one in there.callers.items():
                trying.start_soon(try_all, name, one)
        assert found == LOOKS
        assert ways == BEST
        assert await there.provider.ask("reach 1") == "direct"
        await _moves(lab, there.callers["symmetric"], there.hosts["symmetric"])


async def _moves(lab: Lab, one: Child, host: Host) -> None:
    """Carried to another home, it finds a better way than it had, with the same daemon."""
    assert await one.ask("move") == "waiting"
    host.unplug()
    host.plug_in(lab.home_router("elsewhere", nat="cone"))
    assert await one.line() == "moved"
    with trio.fail_after(60):
        while await one.ask(f"reach {PROVIDER}") != "punched":
            await trio.sleep(0.2)
    assert await one.ask("look") == "cone all"
