"""The full-screen market driven by a test: what it shows, what it has asked for, an offer looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from textual.pilot import Pilot

from tests.support.tui_pilot import running_app, settled, text_of, until
from tui.screens.market_filter import FilterInput
from tui.screens.market_offer import OfferScreen
from tui.screens.market_table import OfferTable

Flow = Callable[[Pilot[int]], Awaitable[None]]


ASKED: list[Any] = []
"""What the app has asked the daemon for in the present test."""


def drive(flow: Flow, size: tuple[int, int] = (120, 40), **options: Any) -> None:
    async def go() -> None:
        ASKED.clear()
        async with running_app(size=size, area="market", asked=ASKED, **options) as pilot:
            await flow(pilot)

    asyncio.run(go())


def shown(pilot: Pilot[int]) -> str:
    return text_of(pilot.app.screen)


def toasts(pilot: Pilot[int]) -> list[str]:
    return [one.message for one in pilot.app._notifications]


def says(pilot: Pilot[int], words: str) -> bool:
    return words in shown(pilot)


def table(pilot: Pilot[int]) -> OfferTable:
    return pilot.app.screen.query_one(OfferTable)


def asked(kind: type) -> list[Any]:
    return [one for one in ASKED if isinstance(one, kind)]


async def type_filter(pilot: Pilot[int], text: str, *keys: str) -> None:
    await pilot.press("slash")
    pilot.app.screen.query_one(FilterInput).value = text
    await pilot.press(*keys)


async def opened(pilot: Pilot[int]) -> None:
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, OfferScreen))
    await settled(pilot)
