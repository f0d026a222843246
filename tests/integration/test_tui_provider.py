"""The provider's day in full screen, against real daemons: hours, a pause, the network."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.widgets import Input

from protocol.control_market import MarketArgs, MarketView
from tests.support.tui_pilot import RealTown, app_on, real_town, text_of, until
from tui.client import connect
from tui.places import control_socket
from tui.screens.provider_hours import ProviderHoursScreen


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTown]:
    with real_town(tmp_path_factory.mktemp("t")) as town:
        yield town


async def offers_open(directory: Path) -> int:
    """As the caller sees the market."""
    async with connect(control_socket(directory)) as client:
        view: MarketView = await client.call("market", MarketArgs())
        return sum(not one.withdrawn for one in view.offers)


async def until_open(directory: Path, count: int) -> None:
    async with asyncio.timeout(60):
        while await offers_open(directory) != count:
            await asyncio.sleep(0.2)


def test_a_provider_sets_its_hours_pauses_and_looks_around(town: RealTown) -> None:
    async def go() -> None:
        async with app_on(town.provider, (120, 40), area="provider") as pilot:
            await until(pilot, lambda: "● takes jobs" in text_of(pilot.app.screen))
            await pilot.press("e")
            await until(pilot, lambda: isinstance(pilot.app.screen, ProviderHoursScreen))
            field = pilot.app.screen.query_one("#hours-schedule", Input)
            field.value = "zone UTC; closd"
            await until(pilot, lambda: "this is no day" in text_of(pilot.app.screen))
            field.value = "zone UTC; closed; 00:00-00:01 price 5"
            await until(pilot, lambda: "a 5" in text_of(pilot.app.screen))
            await pilot.press("ctrl+s")
            await until(pilot, lambda: "its schedule says closed; it opens" in text_of(pilot.app.screen))
            await until_open(town.caller, 0)
            await pilot.press("e")
            await until(pilot, lambda: isinstance(pilot.app.screen, ProviderHoursScreen))
            await pilot.click("#hours-always")
            await until(pilot, lambda: "at every hour" in text_of(pilot.app.screen))
            await pilot.press("ctrl+s")
            await until(pilot, lambda: "● takes jobs" in text_of(pilot.app.screen))
            await until_open(town.caller, 1)
            await pilot.press("p")
            await until(pilot, lambda: "○ paused" in text_of(pilot.app.screen))
            await until_open(town.caller, 0)
            await pilot.press("p")
            await until_open(town.caller, 1)
            await pilot.press("5")
            await until(pilot, lambda: "1 connected" in text_of(pilot.app.screen))
            shown = text_of(pilot.app.screen)
            assert "direct (libp2p)" in shown and " ms " in shown
            assert "chain   ok" in shown

    asyncio.run(go())
