"""The wizard: its four steps by keyboard and mouse, what it refuses, and a daemon that dies in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Select

from protocol import jobspec
from protocol.control import RunEvent
from protocol.control_again import JobFileView
from protocol.control_market import MarketArgs, MarketView
from protocol.errors import NoOffer
from tests.support import views
from tests.support.tui_launch import ACCESS, ASKING, LEASE, OFFERS, QUOTED, FakeDaemon, wizard
from tests.support.tui_pilot import settled, text_of, until
from tests.support.views import HOSTILE
from tui.screens import launch

Play = Callable[[Pilot[int]], Awaitable[None]]
JOB_FILE = "name: train\nresources: {image: a}\nrun: ./train  # kept to the letter\n"
RENTED = RunEvent("quoted", "the provider writes the acceptance down", LEASE)


def play(daemon: FakeDaemon, steps: Play, size: tuple[int, int] = (80, 24), **how: object) -> None:
    async def go() -> None:
        async with wizard(daemon, size, **how) as pilot:
            await steps(pilot)

    asyncio.run(go())


async def shows(pilot: Pilot[int], *words: str) -> str:
    """Wait until the screen says all of it."""
    await until(pilot, lambda: all(one in text_of(pilot.app.screen) for one in words))
    return text_of(pilot.app.screen)


async def gone(pilot: Pilot[int], words: str) -> None:
    await until(pilot, lambda: words not in text_of(pilot.app.screen))


async def to_settings(pilot: Pilot[int], use: str = "llama-8b") -> None:
    await settled(pilot)
    options = pilot.app.screen.query_one("#use-list")
    options.highlighted = options.get_option_index(f"use:{use}")  # type: ignore[attr-defined]  # an OptionList
    await pilot.press("enter")
    await shows(pilot, "GeForce RTX 4090")
    await pilot.press("enter")
    await shows(pilot, "[3 Settings]", "Ask for a price")


async def to_price(pilot: Pilot[int], use: str = "llama-8b") -> None:
    await to_settings(pilot, use)
    await pilot.press("ctrl+n")


def test_the_same_again_is_a_new_price_for_the_kept_file_and_nothing_before_a_yes(tmp_path: Path) -> None:
    kept = JobFileView("ab" * 32, "train", JOB_FILE, str(tmp_path), "region=eu", "price", "12D3KooWx", 9)
    daemon = FakeDaemon([list(QUOTED), list(QUOTED), [*QUOTED, RENTED]])

    async def steps(pilot: Pilot[int]) -> None:
        await shows(pilot, "What do you want to do?")
        await pilot.press("escape")
        for answer in ("n", "escape"):
            pilot.app.open_page("launch", again=kept)  # type: ignore[attr-defined]  # QubixApp's
            await shows(pilot, "signed offer", "You can lose at most 6,667 QU")
            await pilot.press(answer)
            await gone(pilot, "signed offer")
        assert daemon.answered == [], "nothing is signed without a yes"
        pilot.app.open_page("launch", again=kept)  # type: ignore[attr-defined]  # QubixApp's
        await shows(pilot, "llama-8b")

    play(daemon, steps)
    first, second, third = daemon.wishes
    assert {one.job_yaml for one in daemon.wishes} == {JOB_FILE}
    assert (first.base_dir, first.where, first.order_by) == (str(tmp_path), "region=eu", "price")
    assert (first.provider, first.max_price_qu_per_hour) == ("12D3KooWx", 9)
    assert first.ask and first.once and "train-" in first.output_dir
    assert third.output_dir and second.ask


def test_four_steps_to_a_price_by_keyboard_alone_and_back() -> None:
    """Going back signs nothing and keeps what was chosen."""
    daemon = FakeDaemon([list(QUOTED), list(QUOTED)])

    async def steps(pilot: Pilot[int]) -> None:
        await to_settings(pilot)
        pilot.app.screen.query_one("#set-hours", Input).value = "3.5"
        await shows(pilot, "About 3.5 h x 1,200,000 QU = 4,200,000 QU at most.")
        await pilot.press("ctrl+n")
        text = await shows(pilot, "signed offer", "You can lose at most 6,667 QU")
        assert "1,200,000  QU per hour, all in" in text and "60,000" in text
        await pilot.press("n")
        await shows(pilot, "[3 Settings]", "3.5")
        await pilot.press("ctrl+n")
        await shows(pilot, "signed offer")

    play(daemon, steps)
    wish, _ = daemon.wishes
    job = jobspec.parse(wish.job_yaml)
    assert (job.template, job.wish.gpu_model, job.wish.gpu_count) == ("pytorch", "RTX_4090", 1)
    assert wish.ask and wish.once and wish.detach and not wish.provider
    assert daemon.answered == [], "nothing is signed without a yes"


def test_recommendations_come_with_reasons_and_without_what_cannot_be_hired() -> None:
    daemon = FakeDaemon([list(QUOTED)])

    async def steps(pilot: Pilot[int]) -> None:
        await settled(pilot)
        await pilot.press("down", "down", "enter")
        text = await shows(pilot, "* GeForce RTX 4090", "memory bandwidth decide")
        assert "3080" not in text
        assert "31 ms away" in text
        await pilot.press("p", "ctrl+n")
        await shows(pilot, "signed offer")

    play(daemon, steps)
    assert daemon.wishes[0].provider == OFFERS[0].peer_id, "p: only this provider"
    assert "gta-v" in [one.use_case for one in daemon.asked(MarketArgs)]


def test_an_offer_picked_in_the_market_begins_with_the_settings() -> None:
    daemon = FakeDaemon([list(QUOTED)])

    async def steps(pilot: Pilot[int]) -> None:
        await pilot.press(*"nvtop", "ctrl+n")
        await shows(pilot, "signed offer")

    play(daemon, steps, offer=OFFERS[2])
    assert daemon.wishes[0].provider == OFFERS[2].peer_id
    job = jobspec.parse(daemon.wishes[0].job_yaml)
    assert (job.script, job.wish.gpu_model, job.wish.gpu_vram_mib) == ("nvtop", "A100", 81_920)


def test_nobody_offers_it() -> None:
    daemon = FakeDaemon([], answers={"market": MarketView([], 0, 12, 3)})

    async def steps(pilot: Pilot[int]) -> None:
        await settled(pilot)
        await pilot.press("down", "down", "enter")
        await shows(pilot, "Nobody offers 4 GB of GPU memory", "12 offers are known")
        await pilot.press("enter", "p")
        assert "[2 GPU]" in text_of(pilot.app.screen), "there is nothing to choose"
        await pilot.press("escape")
        await shows(pilot, "[1 What for]")

    play(daemon, steps)


WRONG = (
    ("hours", "two", "must be a number"),
    ("hours", "nan", "must be between"),
    ("budget", "-5", "must be between"),
    ("gpu", "RTX4090:99", "count outside"),
    ("files", "nowhere.py", "is not in this folder"),
    ("files", "/etc/hosts", "lies elsewhere"),
    ("envs", '1A="', "is not a variable name"),
    ("cpus", "\x1b[2J", "must be a number"),
)


def test_a_wrong_field_says_so_and_holds_the_wizard() -> None:
    daemon = FakeDaemon([])

    async def steps(pilot: Pilot[int]) -> None:
        await to_settings(pilot)
        for field, typed, words in WRONG:
            entry = pilot.app.screen.query_one(f"#set-{field}", Input)
            before, entry.value = entry.value, typed
            await pilot.pause()
            await pilot.press("ctrl+n")
            text = await shows(pilot, words)
            assert "[3 Settings]" in text and "\x1b" not in text
            assert pilot.app.focused is entry
            entry.value = before
            await gone(pilot, words)

    play(daemon, steps)
    assert daemon.wishes == []


def test_an_image_of_ones_own_needs_a_command_and_its_ports_are_ways_in() -> None:
    daemon = FakeDaemon([])

    async def steps(pilot: Pilot[int]) -> None:
        await to_settings(pilot, use="")
        await pilot.press("ctrl+n")
        await shows(pilot, "is missing; it says what the job does")
        assert pilot.app.focused and pilot.app.focused.id == "set-command"
        await pilot.press(*"ls")
        await gone(pilot, "is missing")
        pilot.app.screen.query_one("#set-ports", Input).value = "6006/http"
        await shows(pilot, "port 6006 in the browser")
        environment: Select[str] = pilot.app.screen.query_one("#set-template", Select)
        environment.value = "jupyter"
        text = await shows(pilot, "Jupyter Lab in the browser")
        assert "python:3.12" not in text and "Ports" not in text

    play(daemon, steps)


def test_a_refusal_is_told_with_what_would_help() -> None:
    refusal = NoOffer(f"none of the offers known here (40) fits: price {HOSTILE}")
    daemon = FakeDaemon([[*ASKING, refusal], list(QUOTED)])

    async def steps(pilot: Pilot[int]) -> None:
        await to_price(pilot)
        text = await shows(pilot, "That did not work", "raise max_price to 12,500: 3 providers")
        assert "\x1b" not in text and "Nothing was signed" in text
        await pilot.press("enter")
        await shows(pilot, "signed offer")

    play(daemon, steps)
    assert jobspec.parse(daemon.wishes[1].job_yaml).max_price_qu_per_hour == 12_500


def test_yes_leads_to_the_lease_and_the_command() -> None:
    """The daemon dies at the yes, after it has written the lease down: asked again it knows the lease."""
    running = views.lease(**{**vars(LEASE), "phase": "running", "detail": "the job is running"})
    waits = [
        RunEvent("funding", "", LEASE, waiting="the chain stands still"),
        RunEvent("running", "", running),
    ]
    daemon = FakeDaemon([list(QUOTED), [RENTED]], dies_at_yes=True, waits=waits, answers={"access": ACCESS})

    async def steps(pilot: Pilot[int]) -> None:
        await to_price(pilot)
        await shows(pilot, "signed offer")
        await pilot.press("y")
        text = await shows(pilot, "Connected: llama-8b", f"qubix open {LEASE.lease_id[:8]} 8888")
        assert "secret" not in text, "the token goes to the browser alone"

    play(daemon, steps)
    first, second = daemon.wishes
    assert first == second and first.once, "asked again for the very same"
    assert len(daemon.answered) == 1


def test_a_daemon_that_dies_before_it_signed_asks_again() -> None:
    daemon = FakeDaemon([list(QUOTED), list(QUOTED)], dies_at_yes=True)

    async def steps(pilot: Pilot[int]) -> None:
        await to_price(pilot)
        await shows(pilot, "signed offer")
        await pilot.press("y")
        await until(pilot, lambda: len(daemon.wishes) == 2)
        await shows(pilot, "signed offer")

    play(daemon, steps)
    assert daemon.wishes[0] == daemon.wishes[1]
    assert len(daemon.answered) == 1, "the second offer waits for a yes of its own"


def test_a_daemon_that_dies_while_asking() -> None:
    daemon = FakeDaemon([[*ASKING, None], [None], list(QUOTED)])

    async def steps(pilot: Pilot[int]) -> None:
        await to_price(pilot)
        await shows(pilot, "The daemon went away", "Nothing was signed")
        await shows(pilot, "signed offer")

    play(daemon, steps)
    assert len(daemon.wishes) == 3 and daemon.answered == []


def test_yes_is_said_once_however_often_the_key_is_pressed() -> None:
    daemon = FakeDaemon([list(QUOTED)])

    async def steps(pilot: Pilot[int]) -> None:
        await to_price(pilot)
        await shows(pilot, "signed offer")
        await pilot.press("y", "enter", "y", "y")
        await until(pilot, lambda: daemon.answered)
        await shows(pilot, "Renting it")

    play(daemon, steps)
    assert len(daemon.answered) == 1


def test_enter_that_was_meant_for_the_page_before_rents_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = FakeDaemon([list(QUOTED)])

    async def steps(pilot: Pilot[int]) -> None:
        monkeypatch.setattr("tui.screens.launch_price.GLANCE_SECONDS", 1e6)
        await to_price(pilot)
        await shows(pilot, "signed offer")
        await pilot.press("enter")
        yes = pilot.app.screen.query_one("#price-yes")
        await until(pilot, lambda: not yes.has_class("-active"))  # it has been pressed, and may be again
        assert daemon.answered == []
        monkeypatch.setattr("tui.screens.launch_price.GLANCE_SECONDS", 0)
        await pilot.press("enter")
        await until(pilot, lambda: daemon.answered)

    play(daemon, steps)


def test_what_strangers_say_never_reaches_the_terminal_raw() -> None:
    hostile = views.offer(gpu_class=HOSTILE, name=HOSTILE, region=HOSTILE, reasons=[HOSTILE])
    quote = RunEvent(HOSTILE, HOSTILE, None)
    daemon = FakeDaemon([[quote]], answers={"market": MarketView([hostile], 1, 1, 1)})

    async def steps(pilot: Pilot[int]) -> None:
        await settled(pilot)
        await pilot.press("enter")
        text = await shows(pilot, "Which machine", "\\x1b]0;owned")
        await pilot.press("enter")
        text += await shows(pilot, "[3 Settings]")
        assert not set(text) & set("\x1b\x07\x9b\u202e")

    play(daemon, steps)


def test_the_mouse_and_every_size() -> None:
    sizes = ((200, 60), (80, 24))
    daemon = FakeDaemon([list(QUOTED) for _ in sizes])

    async def steps(pilot: Pilot[int]) -> None:
        await to_settings(pilot)
        for size in sizes:
            await pilot.resize_terminal(1, 1)
            await pilot.resize_terminal(*size)
            await pilot.pause()
            await pilot.click("#settings-go")
            await shows(pilot, "signed offer", "whatever the provider")
            await pilot.click("#price-back")
            await shows(pilot, "[3 Settings]")

    play(daemon, steps)


def test_results_never_go_into_a_folder_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.chdir(tmp_path)
    first = launch.results_folder("a", "20260101")
    first.mkdir()
    assert launch.results_folder("a", "20260101") == tmp_path / "a-20260101-2"
