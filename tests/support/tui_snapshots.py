"""Pictures of every screen in three sizes and two themes, in tests/snapshots.

`python -m tests.support.tui_snapshots` draws them all anew (after a change that is meant); look at
them in a browser before you commit them. `... NAME` draws those of one group.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from tests.support.tui_pilot import running_app, short_folder, until
from tests.support.tui_svg import svg_of
from tests.support.tui_views import NOW_MS
from tui.app import QubixApp
from tui.screens.area import AreaScreen
from tui.themes import THEMES

FOLDER: Final = Path(__file__).parents[1] / "snapshots"
STILL: Final = 5
"""For so many looks nothing may be drawn."""
LOADING: Final = "Asking the daemon"
SIZES: Final = ((80, 24), (120, 40), (200, 60))


@dataclass(frozen=True)
class Scene:
    """A picture of what is shown after these keys, and how to go back from there."""

    name: str
    keys: tuple[str, ...] = ()
    back: tuple[str, ...] = ()


GROUPS: Final[dict[str, tuple[Scene, ...]]] = {
    "market": (
        Scene("market"),
        Scene("offer", ("enter",), ("escape",)),
        Scene("market-help", ("question_mark",), ("escape",)),
    ),
    "instances": (
        Scene("instances"),
        Scene("instance", ("enter",), ("escape",)),
        Scene("instance-logs", ("l",), ("escape",)),
        Scene("instance-more", ("down", "e"), ("escape",)),
    ),
    "wallet": (
        Scene("wallet"),
        Scene("deposit", ("d",), ("escape",)),
        Scene("send", ("s",), ("escape",)),
    ),
    "provider": (Scene("provider"), Scene("provider-edit", ("e",), ("escape",))),
    "network": (Scene("network"),),
}
"""By area; the scenes of one follow each other in the same app."""
APART: Final = ("launch", "first-run", "away")
"""Groups that begin elsewhere than in an area."""


@contextmanager
def frozen_clock() -> Iterator[None]:
    """The moment of the canned views, in UTC."""
    zone = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        with patch("time.time", lambda: NOW_MS / 1_000):
            yield
    finally:
        os.environ.pop("TZ")
        os.environ.update({"TZ": zone} if zone else {})
        time.tzset()


def pictures(group: str) -> dict[str, str]:
    """File name -> SVG of all scenes of a group."""
    with frozen_clock():
        return asyncio.run(_pictures(group))


async def _pictures(group: str) -> dict[str, str]:
    made: dict[str, str] = {}
    if group == "first-run" or group == "away":
        with short_folder() as root:
            if group == "away":
                (root / "keystore").touch()
            app = QubixApp(root)
            async with app.run_test(size=SIZES[0]) as pilot:
                await until(pilot, lambda: app.link.state == "down")
                await _take(pilot, group, made)
        made = {name: svg.replace(str(root), "/home/someone/q") for name, svg in made.items()}
    elif group == "launch":
        async with running_app(SIZES[0]) as pilot:
            await _scenes(pilot, LAUNCH, made)
    else:
        async with running_app(SIZES[0], area=group) as pilot:
            await _scenes(pilot, GROUPS[group], made)
    return made


LAUNCH: Final = (Scene("launch-1", ("2", "n")),)


async def _scenes(pilot: Pilot[int], scenes: tuple[Scene, ...], made: dict[str, str]) -> None:
    for scene in scenes:
        await _press(pilot, scene.keys)
        await _take(pilot, scene.name, made)
        await _press(pilot, scene.back)


async def _press(pilot: Pilot[int], keys: tuple[str, ...]) -> None:
    for key in keys:
        await pilot.press(key)
        await _still(pilot)


async def _take(pilot: Pilot[int], name: str, made: dict[str, str]) -> None:
    """Every size, every theme, and back to the first size."""
    app = pilot.app
    for width, height in SIZES:
        await pilot.resize_terminal(width, height)
        for theme in sorted(
            THEMES, key=lambda one: THEMES[one].name != app.theme
        ):  # the one that is shown first
            app.theme = THEMES[theme].name
            made[f"{name}-{width}x{height}-{theme}.svg"] = await _still(pilot)
    await pilot.resize_terminal(*SIZES[0])


async def _still(pilot: Pilot[Any]) -> str:
    """The picture, once nothing is loaded and nothing else has been drawn for a while."""
    for field in (*pilot.app.screen.query(Input), *pilot.app.screen.query(TextArea)):
        field.cursor_blink = False
    quiet, last = 0, ""
    with drawings(pilot.app) as drawn:
        while quiet < STILL:
            drawn.clear()
            await asyncio.sleep(0.03)  # some screens follow a new theme a moment later
            if quiet == STILL - 1:
                await pilot.pause(0)
            now = svg_of(pilot.app.screen) if drawn else last
            quiet = 0 if now != last or _loads(pilot) else quiet + 1
            last = now
        pilot.app.screen.refresh()  # what a modal screen shows from below it may be old
        await pilot.pause(0)
    picture = svg_of(pilot.app.screen)
    return await _still(pilot) if LOADING in picture else picture


@contextmanager
def drawings(app: App[Any]) -> Iterator[list[object]]:
    """What a terminal would have been sent meanwhile: looking at the screen again and again is dear."""
    seen: list[object] = []
    with patch.object(app, "_display", lambda _, drawing: seen.append(drawing) if drawing else None):
        yield seen


def _loads(pilot: Pilot[Any]) -> bool:
    """Whether it, or what shines through from below it, is being asked for."""
    return any(isinstance(screen, AreaScreen) and screen.is_asking for screen in pilot.app.screen_stack)


def main(groups: list[str]) -> None:
    """Draw the pictures of these groups anew, or of all."""
    FOLDER.mkdir(exist_ok=True)
    for group in groups or [*GROUPS, *APART]:
        for name, svg in pictures(group).items():
            (FOLDER / name).write_text(svg)
        sys.stdout.write(f"{group}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
