"""Keys: those that come together each go where the one before it led; the last line shows what fits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.events import Key, Paste
from textual.keys import _character_to_key
from textual.pilot import Pilot
from textual.widgets import Input

from tests.support import market_views
from tests.support.tui_pilot import running_app, settled, text_of, until
from tui.screens.help import HelpScreen
from tui.screens.launch import LaunchScreen
from tui.screens.market_filter import FilterInput
from tui.screens.wallet_move import SendScreen

Flow = Callable[[Pilot[int]], Awaitable[None]]


def drive(flow: Flow, area: str, size: tuple[int, int] = (120, 40), **answers: Any) -> None:
    async def go() -> None:
        async with running_app(size=size, area=area, answers=answers) as pilot:
            await flow(pilot)

    asyncio.run(go())


def at_once(pilot: Pilot[int], *typed: str) -> None:
    """Names of keys, and words that are typed letter by letter."""
    for word in typed:
        names = [word] if word in ("tab", "enter", "escape") else [_character_to_key(one) for one in word]
        for name, letter in zip(names, word, strict=False):
            pilot.app.post_message(Key(name, letter if len(names) == len(word) else None))


def value(pilot: Pilot[int], selector: str) -> str:
    found = pilot.app.screen.query(selector).results(Input)
    return next((one.value for one in found), "")


def test_a_filter_typed_at_once_with_its_key() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        at_once(pilot, "/vram>=24", "enter", "?")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        await pilot.press("escape")
        assert pilot.app.screen.query_one(FilterInput).value == "vram>=24"

    drive(flow, "market", market=market_views.small_market)


def test_a_command_typed_at_once_with_the_key_that_opens_its_form() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        at_once(pilot, "recho q1", "tab")
        await until(pilot, lambda: value(pilot, "#set-command") == "echo q1")
        assert isinstance(pilot.app.screen, LaunchScreen)

    drive(flow, "market", market=market_views.small_market)


def test_a_form_filled_in_at_once() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        at_once(pilot, "sABC", "tab", "500")
        await until(pilot, lambda: value(pilot, "#amount") == "500")
        assert isinstance(pilot.app.screen, SendScreen) and value(pilot, "#to") == "ABC"

    drive(flow, "wallet")


def test_what_is_pasted_behind_a_key_goes_into_the_field_it_leads_to() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        pilot.app.post_message(Key("slash", "/"))
        pilot.app.post_message(Paste("cpus>=2"))
        await until(pilot, lambda: value(pilot, "#filter") == "cpus>=2")
        await settled(pilot)

    drive(flow, "market", market=market_views.small_market)


# --- the last line ------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 60, 120])
def test_the_last_line_has_whole_keys_and_always_help(width: int) -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: "? Help" in last_line(pilot))
        assert len(last_line(pilot)) <= width
        assert ("q Quit" in last_line(pilot)) == (width >= 120), "the same everywhere goes first"
        await pilot.resize_terminal(200, 24)
        await until(pilot, lambda: "q Quit" in last_line(pilot))

    drive(flow, "instances", (width, 24))


def last_line(pilot: Pilot[int]) -> str:
    return text_of(pilot.app.screen).splitlines()[-1]
