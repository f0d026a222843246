"""The market against a real daemon and provider: found, looked into, denied and forgiven, then rented."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from textual.pilot import Pilot

from tests.support.tui_pilot import RealTown, app_on, real_town, settled, text_of, until
from tui.screens.confirm import Confirm
from tui.screens.launch import LaunchScreen
from tui.screens.market_filter import FilterInput
from tui.screens.market_offer import OfferScreen
from tui.screens.market_table import OfferTable


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTown]:
    with real_town(tmp_path_factory.mktemp("m")) as town:
        yield town


def shown(pilot: Pilot[int]) -> str:
    return " ".join(text_of(pilot.app.screen).split())


async def looked_into(pilot: Pilot[int]) -> None:
    """From the list by a filter to all about alice's offer."""
    await until(pilot, lambda: "1 offer, cheapest first" in shown(pilot))
    await pilot.press("slash")
    pilot.app.screen.query_one(FilterInput).value = "cpus>=1 runner=docker"
    await until(pilot, lambda: "By itself no offer meets runner=docker." in shown(pilot))
    pilot.app.screen.query_one(FilterInput).value = "runner=process price<=4M"
    table = pilot.app.screen.query_one(OfferTable)
    await until(
        pilot, lambda: table.offers.search.filter == "runner=process price<=4M" and table.offers.total == 1
    )
    await pilot.press("enter", "enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, OfferScreen))
    await until(pilot, lambda: "3,600,000 QU an hour for the machine" in shown(pilot))
    await until(pilot, lambda: "nobody has rented here yet" in shown(pilot))
    await until(pilot, lambda: "this provider, at least 3,600,000" in shown(pilot))


async def denied_and_forgiven(pilot: Pilot[int]) -> None:
    await pilot.press("x")
    await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
    await pilot.press("y")
    await until(pilot, lambda: "You never hire it" in shown(pilot))
    await pilot.press("x")
    await until(pilot, lambda: "You never hire it" not in shown(pilot))


def test_from_the_list_to_renting(town: RealTown) -> None:
    async def go() -> None:
        async with app_on(town.caller, (140, 45), area="market") as pilot:
            await looked_into(pilot)
            await pilot.press("m")
            await until(pilot, lambda: "ms round trip" in shown(pilot))
            await denied_and_forgiven(pilot)
            await pilot.press("r")
            await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
            await settled(pilot)
            assert "3,600,000" in shown(pilot)

    asyncio.run(go())
