"""A job on a real provider, watched, paused and stopped from the area Instances alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from protocol.control import RunArgs
from tests.support.tui_pilot import RealTown, app_on, real_town, text_of, until
from tui.app import QubixApp
from tui.screens.instances_actions import LeaseActions

JOB = """\
name: watched
resources: {image: "process:any", cpus: 1, memory: 256MB, disk: 64MB}
max_hours: 1
run: |
  trap 'exit 0' TERM
  n=0
  while true; do n=$((n+1)); echo "line $n"; sleep 0.2; done
"""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTown]:
    with real_town(tmp_path_factory.mktemp("t")) as town:
        yield town


@pytest.mark.slow
def test_a_job_is_watched_paused_and_stopped(town: RealTown, tmp_path: Path) -> None:
    async def go() -> None:
        async with app_on(town.caller, (120, 40), area="instances") as pilot:
            await shows(pilot, "No instance yet")
            await rent(pilot, tmp_path)
            await shows(pilot, "watched", "▶ running", "1 active")
            await look_into(pilot)
            await pause_and_go_on(pilot)
            await more_time(pilot)
            await stop(pilot)

    asyncio.run(go())


async def shows(pilot: Pilot[Any], *words: str) -> None:
    await until(pilot, lambda: all(word in text_of(pilot.app.screen) for word in words))


async def rent(pilot: Pilot[Any], folder: Path) -> None:
    """As the wizard does; that has tests of its own."""
    app = pilot.app
    assert isinstance(app, QubixApp)
    await app.link.call("run", RunArgs(JOB, str(folder), str(folder / "out"), detach=True))


async def look_into(pilot: Pilot[Any]) -> None:
    await pilot.press("enter")
    await shows(pilot, "watched", "provider", "of 1h00m used")
    await pilot.press("l")
    await shows(pilot, "line 3", "follows")
    await pilot.press("slash", *"line 2", "enter")
    await shows(pilot, "'line 2'")
    await pilot.press("escape", "g")
    await shows(pilot, "processor", "cores", "10 min ago")
    await pilot.press("c")
    await shows(pilot, "qubix attach", "opens here")
    await pilot.press("b")
    await shows(pilot, "QU in all")
    await pilot.press("escape")


async def pause_and_go_on(pilot: Pilot[Any]) -> None:
    await shows(pilot, "1 active")
    await pilot.press("p")
    await shows(pilot, "‖ paused")
    await pilot.press("p")
    await shows(pilot, "▶ running")


async def more_time(pilot: Pilot[Any]) -> None:
    await pilot.press("e")
    await shows(pilot, "How much longer?", "of 1h00m")
    await pilot.press("enter")
    await shows(pilot, "Add it?", "2h00m", "The provider agrees")
    await pilot.click("#add")
    await shows(pilot, "Added.", "2h00m in all")
    await pilot.click("#close")
    await shows(pilot, "▶ running")


async def stop(pilot: Pilot[Any]) -> None:
    await pilot.press("s")
    await shows(pilot, "Stop watched?")
    await pilot.press("y")
    await until(pilot, lambda: ended(pilot))
    await shows(pilot, "0 active")


def ended(pilot: Pilot[Any]) -> bool:
    screen = pilot.app.screen
    lease = screen.lease_chosen() if isinstance(screen, LeaseActions) else None
    return lease is not None and lease.settled and lease.paid + lease.refunded == lease.deposit
