"""The full-screen front end's frame: the link, an area's states, help, banner, sizes, colours."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest
from textual.app import ComposeResult
from textual.color import Color
from textual.widgets import Static

from protocol.control import Done, StatusArgs, StatusView
from protocol.control_watch import NoticeView, WatchEvent
from protocol.errors import ConfigInvalid
from tests.support import tui_views
from tests.support.control_server import control_server
from tests.support.tui_pilot import Answers, canned, running_app, settled, short_folder, text_of, until
from tests.support.views import HOSTILE
from tui.app import QubixApp
from tui.messages import Ticked
from tui.screens.area import AreaScreen
from tui.screens.first_run import FirstRunScreen
from tui.themes import THEMES


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


@pytest.mark.parametrize("keys", [["ctrl+p"], ["slash"]])
def test_a_list_of_choices_in_a_terminal_resized_to_nothing(keys: list[str]) -> None:
    async def go() -> None:
        async with running_app(area="market") as pilot:
            await pilot.press(*keys)
            for size in ((4, 4), (1, 1), (80, 24)):
                await pilot.resize_terminal(*size)
                await settled(pilot)
            assert "1 Market" in text_of(pilot.app.screen)

    asyncio.run(go())


def test_a_daemon_that_ends_the_subscription_is_asked_again() -> None:
    async def go() -> None:
        async with running_app(answers={"watch": Done()}) as pilot:
            link = cast(QubixApp, pilot.app).link
            await until(pilot, lambda: link.state == "down")
            await until(pilot, lambda: link.state == "up")

    asyncio.run(go())


def test_what_is_told_of_a_bug_holds_no_seed_and_nothing_raw(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        typed = "".join(["seedletters"] * 5)
        raise ValueError("\x1b]0;owned\x07" if typed else "")

    async def go() -> None:
        async with running_app() as pilot:
            pilot.app.call_later(fail)
            await pilot.pause()

    with pytest.raises(ValueError, match="owned"):
        asyncio.run(go())
    told = "".join(capsys.readouterr())
    assert "in fail" in told and "owned" in told
    assert "seedlettersseed" not in told and not set("\x1b\x07") & set(told)


def test_a_message_while_there_is_no_screen_yet_is_no_trouble(tmp_path: Path) -> None:
    QubixApp(tmp_path).tell(Ticked())


def test_what_happens_elsewhere_comes_as_a_toast() -> None:
    notice = NoticeView("lease.ready", "good", f"{HOSTILE} is ready", "", 1)

    async def go() -> None:
        async with running_app(events={"watch": [WatchEvent("notice", 1, notice=notice)]}) as pilot:
            await until(pilot, lambda: "is ready" in text_of(pilot.app.screen))
            assert "[bold]" in text_of(pilot.app.screen) and "\x1b" not in text_of(pilot.app.screen)

    asyncio.run(go())


def test_colours_change_and_are_remembered(tmp_path: Path) -> None:
    async def go() -> None:
        app = QubixApp(tmp_path)
        async with app.run_test() as pilot:
            assert app.current_theme.dark
            await pilot.press("f3")
            assert not app.current_theme.dark

    asyncio.run(go())
    assert not QubixApp(tmp_path).current_theme.dark


@pytest.mark.parametrize("name", THEMES)
def test_every_text_can_be_read_on_every_ground(name: str) -> None:
    colours = THEMES[name].to_color_system().generate()
    grounds = [Color.parse(colours[ground]) for ground in ("background", "surface", "panel")]
    for text in ("foreground", "primary", "accent", "success", "warning", "error"):
        assert min(contrast(Color.parse(colours[text]), ground) for ground in grounds) >= 4.5, text


def contrast(one: Color, other: Color) -> float:
    """As WCAG 2 has it: 1 to 21."""
    darker, lighter = sorted(_luminance(colour) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Color) -> float:
    parts = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized
    )
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def test_where_nothing_is_set_up_the_first_run_comes(tmp_path: Path) -> None:
    async def go() -> None:
        async with QubixApp(tmp_path).run_test() as pilot:
            await until(pilot, lambda: isinstance(pilot.app.screen, FirstRunScreen))

    asyncio.run(go())


def test_a_daemon_that_goes_leaves_a_banner_and_what_was_there_and_comes_back() -> None:
    with short_folder() as root:

        async def go() -> None:
            app = QubixApp(root)
            (root / "keystore").touch()
            async with app.run_test() as pilot:
                await until(pilot, lambda: "No qubix daemon answers" in text_of(app.screen))
                assert "F2" in text_of(app.screen)
                with control_server(root / "control.sock", canned(tui_views.ANSWERS, tui_views.EVENTS)):
                    app.link.try_now()
                    await until(pilot, lambda: app.link.state == "up")
                    await app.push_screen(StatusScreen())
                    await until(pilot, lambda: "tick 12345" in text_of(app.screen))
                await until(pilot, lambda: "The daemon is away" in text_of(app.screen))
                assert "tick 12345" in text_of(app.screen)
                (root / "control.sock").unlink(missing_ok=True)
                with control_server(root / "control.sock", canned(tui_views.ANSWERS, tui_views.EVENTS)):
                    app.link.try_now()
                    await until(pilot, lambda: "connected" in text_of(app.screen))
                    assert "away" not in text_of(app.screen)

        asyncio.run(go())


def test_the_palette_knows_what_the_screen_can_do() -> None:
    async def go() -> None:
        async with running_app() as pilot:
            commands = {command.title for command in pilot.app.get_system_commands(pilot.app.screen)}
            assert {"Market", "Wallet", "New job", "Light or dark colours", "Quit", "Sort"} <= commands

    asyncio.run(go())
