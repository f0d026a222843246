"""The full-screen front end's frame: the link, an area's states, help, banner, sizes, colours."""

from __future__ import annotations

import asyncio

from textual.app import ComposeResult
from textual.widgets import Static

from protocol.control import StatusArgs, StatusView
from protocol.control_watch import NoticeView, WatchEvent
from protocol.errors import ConfigInvalid
from tests.support.tui_pilot import Answers, running_app, settled, text_of, until
from tests.support.views import HOSTILE
from tui.screens.area import AreaScreen


class StatusScreen(AreaScreen):
    """An area as small as can be."""

    HELP = "Shows the tick."

    def compose_body(self) -> ComposeResult:
        yield Static("", id="tick", markup=False)

    async def load(self) -> None:
        view: StatusView = await self.link.call("status", StatusArgs())
        if not view.tick:
            self.show_state("empty", "No tick yet.", "Wait a moment.")
        self.query_one("#tick", Static).update(f"tick {view.tick}")


def text_with(answers: Answers, size: tuple[int, int] = (80, 24)) -> str:
    async def go() -> str:
        async with running_app(size, answers) as pilot:
            await pilot.app.push_screen(StatusScreen())
            await settled(pilot)
            return text_of(pilot.app.screen)

    return asyncio.run(go())


def test_an_area_shows_what_it_loaded() -> None:
    assert "tick 12345" in text_with({})


def test_an_error_is_shown_with_its_sentence_and_never_raw() -> None:
    text = text_with({"status": ConfigInvalid(f"no {HOSTILE}")})
    assert "\\x1b]0;owned" in text and "\x1b" not in text


def test_help_tells_the_purpose_and_the_keys() -> None:
    async def go() -> None:
        async with running_app() as pilot:
            await pilot.app.push_screen(StatusScreen())
            await pilot.press("question_mark")
            await until(pilot, lambda: "Shows the tick." in text_of(pilot.app.screen))
            assert "Quit" in text_of(pilot.app.screen)
            await pilot.press("escape")
            await until(pilot, lambda: "tick 12345" in text_of(pilot.app.screen))

    asyncio.run(go())


def test_a_terminal_resized_to_nothing_comes_back() -> None:
    async def go() -> None:
        async with running_app() as pilot:
            await pilot.app.push_screen(StatusScreen())
            for size in ((1, 1), (200, 60), (2, 50), (80, 24)):
                await pilot.resize_terminal(*size)
                await settled(pilot)
            assert "tick 12345" in text_of(pilot.app.screen)

    asyncio.run(go())


def test_what_happens_elsewhere_comes_as_a_toast() -> None:
    notice = NoticeView("lease.ready", "good", f"{HOSTILE} is ready", "", 1)

    async def go() -> None:
        async with running_app(events={"watch": [WatchEvent("notice", 1, notice=notice)]}) as pilot:
            await until(pilot, lambda: "is ready" in text_of(pilot.app.screen))
            assert "[bold]" in text_of(pilot.app.screen) and "\x1b" not in text_of(pilot.app.screen)

    asyncio.run(go())
