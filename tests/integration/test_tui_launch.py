"""The wizard against real daemons on a devnet: to "connected", also when the daemon dies in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from protocol.control import LeaseView, PsArgs, PsView, StopArgs
from protocol.lease_state import TERMINAL
from tests.support.tui_pilot import RealTown, app_on, real_town, settled, text_of, until
from tui.app import QubixApp


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTown]:
    with real_town(tmp_path_factory.mktemp("t")) as town:
        yield town


async def shows(pilot: Pilot[int], *words: str) -> None:
    await until(pilot, lambda: all(one in text_of(pilot.app.screen) for one in words))


async def to_quote(pilot: Pilot[int]) -> None:
    """A job of one's own on the only machine there is."""
    assert isinstance(pilot.app, QubixApp)
    pilot.app.open_page("launch")
    await shows(pilot, "What do you want to do?")
    await pilot.press("enter")
    await shows(pilot, "no GPU")
    await pilot.press("enter")
    await shows(pilot, "Ask for a price")
    pilot.app.screen.query_one("#set-command", Input).value = "echo hello; sleep 600"
    pilot.app.screen.query_one("#set-hours", Input).value = "0.2"
    await settled(pilot)
    await pilot.press("ctrl+n")
    await shows(pilot, "signed offer", "You can lose at most")


async def leases(pilot: Pilot[int]) -> list[LeaseView]:
    app = pilot.app
    assert isinstance(app, QubixApp)
    await until(pilot, lambda: app.link.state == "up")
    view: PsView = await app.link.call("ps", PsArgs(all=True))
    return view.leases


async def stopped(pilot: Pilot[int], lease_id: str) -> None:
    """End a lease and wait until it is over."""
    assert isinstance(pilot.app, QubixApp)
    await pilot.app.link.call("stop", StopArgs(lease_id))
    while [one for one in await leases(pilot) if one.phase not in TERMINAL]:
        await pilot.pause(0.1)


@pytest.fixture(autouse=True)
def results_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_from_a_use_to_connected(town: RealTown) -> None:
    async def go() -> None:
        async with app_on(town.caller) as pilot:
            await to_quote(pilot)
            assert await leases(pilot) == []
            await pilot.press("y")
            await shows(pilot, "Connected: job", "qubix attach")
            (lease,) = await leases(pilot)
            await stopped(pilot, lease.lease_id)
            await shows(pilot, "came back")

    asyncio.run(go())


def test_the_daemon_is_killed_before_and_after_the_yes(town: RealTown) -> None:
    """Whatever is lost, one lease comes of one wish."""
    bob = town.people["bob"]

    async def again(pilot: Pilot[int]) -> None:
        await asyncio.to_thread(town.do, bob.kill)
        await until(pilot, lambda: "daemon away" in text_of(pilot.app.screen))
        await asyncio.to_thread(town.do, bob.start)

    async def go() -> None:
        async with app_on(town.caller) as pilot:
            before = len(await leases(pilot))
            await to_quote(pilot)
            await again(pilot)
            await until(pilot, lambda: "went away" not in text_of(pilot.app.screen))
            await shows(pilot, "signed offer")
            assert len(await leases(pilot)) == before, "nothing was signed"
            await pilot.press("y")
            await until(pilot, lambda: "Renting it" in text_of(pilot.app.screen) or on_its_way(pilot))
            await again(pilot)
            if not await rented(pilot, before):  # killed before it had written the lease down: asked anew
                await shows(pilot, "signed offer")
                await pilot.press("y")
            await shows(pilot, "Connected: job")
            found = await leases(pilot)
            assert len(found) == before + 1
            await stopped(pilot, next(one.lease_id for one in found if one.phase not in TERMINAL))

    asyncio.run(go())


def on_its_way(pilot: Pilot[int]) -> bool:
    return any(words in text_of(pilot.app.screen) for words in ("On its way", "Connected"))


async def rented(pilot: Pilot[int], before: int) -> bool:
    await until(pilot, lambda: on_its_way(pilot) or "signed offer" in text_of(pilot.app.screen))
    return len(await leases(pilot)) > before
