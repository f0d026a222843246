"""Every area, with control characters, markup and reordered text in every string that a daemon tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import tui_views
from tests.support.tui_pilot import running_app, settled, text_of
from tui.areas import AREAS

POISON = "\x1b]0;owned\x07\x9b31m\u202e[bold red]x[/]\r"
WORDS = frozenset(
    (
        "name",
        "region",
        "sentence",
        "detail",
        "title",
        "why",
        "model",
        "cpu_model",
        "driver",
        "image",
        "job",
        "day",
    )
)
"""Fields that hold what somebody has written; others are words that the front end knows."""


def poisoned(value: Any, field: str = "") -> Any:
    """The same answer, or function that gives it, with something bad at the end of each text."""
    if isinstance(value, str):
        return value + POISON if field in WORDS else value
    if isinstance(value, list | tuple):
        return type(value)(poisoned(one, field) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in fields(value)]
        return replace(value, **{name: poisoned(getattr(value, name), name) for name in names})
    return _after(value) if callable(value) else value


def _after(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda args: poisoned(answer(args))


@pytest.mark.parametrize("area", [area.mode for area in AREAS])
def test_nothing_that_others_wrote_reaches_the_terminal_raw(
    area: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # one of the keys writes a file where it is

    async def go() -> None:
        answers, events = poisoned(tui_views.ANSWERS), poisoned(tui_views.EVENTS)
        async with running_app((160, 50), answers=answers, events=events, area=area) as pilot:
            await settled(pilot)
            seen = [text_of(pilot.app.screen)]
            for key in ("enter", "d", "g", "l", "b", "e"):
                await pilot.press(key)
                await settled(pilot)
                seen.append(text_of(pilot.app.screen))
            assert not set("\x1b\x07\x9b\u202e\r") & set("".join(seen))

    asyncio.run(go())
