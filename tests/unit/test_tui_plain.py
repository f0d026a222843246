"""The line-by-line front end: a menu of numbers, sentences as answers, nothing raw and nothing drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from protocol.control import PsView
from protocol.control_market import MarketView
from tests.support import tui_views, tui_wallet, views
from tests.support.control_server import control_server
from tests.support.tui_pilot import Answers, canned, short_folder
from tui.plain import Plain


def said_after(lines: Iterable[str], answers: Answers) -> str:
    """All that it says when these lines are typed."""
    waiting, said = iter(lines), list[str]()

    async def read() -> str | None:
        return next(waiting, None)

    replies = canned(tui_views.ANSWERS | answers, tui_views.EVENTS)
    with short_folder() as root, control_server(root / "control.sock", replies):
        assert asyncio.run(Plain(root, read, said.append).run()) == 0
    return "\n".join(said)


def test_it_ends_with_its_input_and_with_a_zero() -> None:
    assert "1. Market" in said_after([], {})
    assert said_after(["0", "1"], {}).count("1. Market") == 1


def test_offers_are_sentences_and_a_hostile_one_is_harmless() -> None:
    said = said_after(["1", ""], {"market": MarketView([views.offer(), views.MARKED], 2, 2)})
    assert "alice: rtx4090, 24 GB, 361,000 QU an hour, score 0.61" in said
    assert "\x1b" not in said and "\u202e" not in said


def test_a_lease_and_what_can_be_done_with_it() -> None:
    running = views.lease(phase="running", ended_at_ms=0, settled=False)
    said = said_after(["2", "1"], {"ps": PsView([running])})
    assert "wordcount: running, CPU, " in said and "Stop it" in said and "Pause it" in said


def test_what_is_no_number_of_the_menu_is_asked_again() -> None:
    said = said_after(["99", "\x1b[2J", "0"], {})
    assert said.count("is none of the numbers") == 2 and "\x1b" not in said


def test_an_answer_that_is_a_word_of_the_command_line_does_not_end_it() -> None:
    said = said_after(["3", "2", "--help", "5", "yes", "9" * 5_000, "0"], {"wallet": tui_wallet.WALLET})
    assert said.count("Where to?") == 3 and "is none of the numbers" in said


def test_without_a_daemon_it_says_what_to_choose(tmp_path: Path) -> None:
    waiting, said = iter(["3", "0"]), list[str]()

    async def read() -> str | None:
        return next(waiting, None)

    asyncio.run(Plain(tmp_path, read, said.append).run())
    assert any("Start the daemon" in line and "Error" in line for line in said)
