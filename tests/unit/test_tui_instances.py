"""The area Instances as a person sees it: the table, one instance's pages, what can be done, bad input."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input

from protocol.control import LogsArgs, PauseArgs, PsArgs, PsView, ResumeArgs, RunEvent, StopArgs
from protocol.control_meters import MetricsView
from protocol.errors import PeerUnreachable, QubixError
from tests.support import tui_instances as canned
from tests.support.tui_pilot import running_app, settled, text_of, until
from tests.support.views import HOSTILE
from tui.safe import safe_text
from tui.screens.instances_actions import LeaseActions
from tui.screens.instances_log_view import LogView

RECEIVED: list[Any] = []
"""Arguments that the server was asked with in this test."""
SIZES = [(80, 24), (120, 40), (200, 60)]


def shown(pilot: Pilot[Any]) -> str:
    return text_of(pilot.app.screen)


def play(act: Callable[[Pilot[Any]], Awaitable[None]], size: tuple[int, int] = (80, 24), **how: Any) -> None:
    """Within the area, at the first row."""
    RECEIVED.clear()

    async def go() -> None:
        async with running_app(size, area="instances", asked=RECEIVED, **how) as pilot:
            await act(pilot)

    asyncio.run(go())


def asked(kind: type) -> list[Any]:
    return [one for one in RECEIVED if isinstance(one, kind)]


# --- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "theme"), list(zip(SIZES, ("dark", "light", "dark"), strict=True)))
def test_every_instance_is_in_the_table_in_words(size: tuple[int, int], theme: str) -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "completed" in shown(pilot))
        for words in ("preparing", "running", "✗ failed", "train-llama", "288,000", "40 %", "2 active",
                      "0.8 hours used"):  # fmt: skip
            assert words in shown(pilot)
        assert all(len(line) <= size[0] for line in shown(pilot).splitlines())

    play(act, size, theme=theme)


def test_what_this_node_serves_is_not_among_them() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "completed" in shown(pilot))
        assert pilot.app.screen.query_one(DataTable).row_count == 4

    play(act)


def test_nothing_yet_says_what_to_do() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "No instance yet" in shown(pilot))
        assert "Press n" in shown(pilot)

    play(act, answers={"ps": PsView([])})


def test_the_mark_stays_on_its_instance_when_others_come_and_change() -> None:
    views = [canned.running(), canned.completed()]

    async def act(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "completed" in shown(pilot))
        await pilot.press("down")
        await until(pilot, lambda: chosen(pilot).name == "wordcount")
        views.insert(0, canned.preparing())
        screen(pilot).reload()
        await until(pilot, lambda: "preparing" in shown(pilot))
        assert chosen(pilot).name == "wordcount"
        views[1] = canned.running(promised=300_000)
        screen(pilot).reload()
        await until(pilot, lambda: "300,000" in shown(pilot))
        assert chosen(pilot).name == "wordcount"

    play(act, answers={"ps": lambda args: PsView(views)})


def screen(pilot: Pilot[Any]) -> LeaseActions:
    found = pilot.app.screen
    assert isinstance(found, LeaseActions)
    return found


def chosen(pilot: Pilot[Any]) -> Any:
    return screen(pilot).lease_chosen()


def test_ended_ones_can_be_left_out() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "completed" in shown(pilot))
        await pilot.press("a")
        await until(pilot, lambda: "completed" not in shown(pilot) and "2 ended hidden" in shown(pilot))

    play(act)


def test_a_resize_to_nothing_and_back_changes_nothing() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "completed" in shown(pilot))
        await pilot.press("down", "enter")
        for key in "gl":
            await pilot.press(key)
            for size in ((1, 1), (80, 24)):
                await pilot.resize_terminal(*size)
                await pilot.pause()
        await pilot.press("escape")
        await until(pilot, lambda: "wordcount" in shown(pilot))

    play(act)


def test_no_name_of_a_stranger_reaches_the_terminal_raw() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "completed" in shown(pilot))
        await pilot.press("down", "down", "down")
        await until(pilot, lambda: chosen(pilot).name == HOSTILE)
        for keys in (["enter"], ["g"], ["l"], ["c"], ["b"], ["escape"], ["escape"]):
            await pilot.press(*keys)
            await pilot.pause()
            assert safe_text(shown(pilot)) == shown(pilot)

    play(act)


# --- what can be done -------------------------------------------------------------------------


async def on_running(pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: "completed" in shown(pilot))
    await pilot.press("down")
    await until(pilot, lambda: chosen(pilot).phase == "running")


def test_stop_asks_first_and_no_means_no() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("s")
        await until(pilot, lambda: "Stop train-llama?" in shown(pilot))
        assert "432,000 QU, comes" in shown(pilot)
        await pilot.press("enter")  # what is marked first changes nothing
        await until(pilot, lambda: "Stop train-llama?" not in shown(pilot))
        assert not asked(StopArgs)
        await pilot.press("s")
        await until(pilot, lambda: "Stop train-llama?" in shown(pilot))
        await pilot.press("y")
        await until(pilot, lambda: asked(StopArgs) == [StopArgs(canned.running().lease_id)])
        await until(pilot, lambda: "ending" in shown(pilot))

    ending = canned.running(phase="stopping")

    def ps(args: PsArgs) -> PsView:
        return PsView([ending]) if asked(StopArgs) else canned.ps(args)

    play(act, answers={"ps": ps, "stop": RunEvent("stopping", "", ending)})


def test_pause_and_resume_are_one_key() -> None:
    frozen = canned.running(frozen=True)

    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("p")
        await until(pilot, lambda: asked(PauseArgs) and "‖ paused" in shown(pilot))
        await pilot.press("p")
        await until(pilot, lambda: asked(ResumeArgs) and "▶ running" in shown(pilot))

    play(
        act,
        answers={
            "pause": RunEvent("running", "", frozen),
            "resume": RunEvent("running", "", canned.running()),
        },
    )


def test_what_cannot_be_is_said_and_nothing_breaks() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("p")
        await until(pilot, lambda: "the provider is away" in shown(pilot))

    play(act, answers={"pause": PeerUnreachable("the provider is away")})


def test_keys_that_make_no_sense_are_not_offered() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        assert "Shell" in shown(pilot)
        await pilot.press("down")
        await until(pilot, lambda: chosen(pilot).phase == "done" and "Shell" not in shown(pilot))
        await pilot.press("s", "p", "r", "t")
        assert "wordcount?" not in shown(pilot)

    play(act, (120, 40))


# --- one instance -----------------------------------------------------------------------------


def test_details_say_where_and_for_how_much() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "pytorch/pytorch" in shown(pilot))
        for words in ("12D3KooWAbcdEfgh", "48m00s of 2h00m used, 1h12m left", "through both routers, 23 ms"):
            assert words in shown(pilot)

    play(act)


@pytest.mark.parametrize("size", [SIZES[0], SIZES[2]])
def test_graphs_have_units_and_words(size: tuple[int, int]) -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("enter", "g")
        await until(pilot, lambda: "GPU temperature  74 °C, mean 75.0 °C, most 82 °C" in shown(pilot))
        assert "100 %│" in shown(pilot) and "10 min ago" in shown(pilot) and "⣿" in shown(pilot)
        await pilot.press(*["right_square_bracket"] * 3)
        await until(pilot, lambda: "1 d ago" in shown(pilot))

    play(act, size)


def test_nothing_measured_is_said() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("enter", "g")
        await until(pilot, lambda: "the provider is asleep" in shown(pilot))

    empty = MetricsView("l", "caller", "running", 1_000, 1_000, 1_000, [], [], "the provider is asleep")
    play(act, answers={"metrics": empty})


def test_the_log_is_followed_and_searched() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("l")
        await until(pilot, lambda: "200 lines · follows" in shown(pilot) and "evil" in shown(pilot))
        assert asked(LogsArgs) == [LogsArgs(canned.running().lease_id, follow=True)]
        await pilot.press("slash", *"EPOCH 12")
        await until(pilot, lambda: "'EPOCH 12' 11 of 11" in shown(pilot))
        await pilot.press("enter", "n")
        await until(pilot, lambda: "1 of 11" in shown(pilot) and "epoch 12:" in shown(pilot))
        await pilot.press("N")
        await until(pilot, lambda: "11 of 11" in shown(pilot) and "epoch 129" in shown(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "EPOCH" not in shown(pilot) and "Search" in shown(pilot))
        assert "stands still" in shown(pilot)
        await pilot.press("f")
        await until(pilot, lambda: "follows" in shown(pilot) and "epoch 199" in shown(pilot))

    play(act)


def test_who_scrolls_up_is_left_there() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("l")
        await until(pilot, lambda: "epoch 199" in shown(pilot))
        await pilot.press("pageup")
        await until(pilot, lambda: "stands still" in shown(pilot))
        view = pilot.app.screen.query_one(LogView)
        view.buffer.feed(b"more\n" * 50)
        before = view.scroll_offset.y
        view.changed()
        assert view.scroll_offset.y == before
        await pilot.press("end")
        await until(pilot, lambda: "follows" in shown(pilot) and "more" in shown(pilot))

    play(act)


def test_long_and_wide_lines_wrap_without_loss() -> None:
    line = "日本語" * 30 + "x" * 100

    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("l")
        await until(pilot, lambda: "epoch 199" in shown(pilot))
        view = pilot.app.screen.query_one(LogView)
        view.buffer.feed(line.encode() + b"\n")
        number = view.buffer.dropped + len(view.buffer) - 1
        for width in (33, 1):
            await pilot.resize_terminal(width, 24)
            view.changed()
            pieces = [(begin, end) for at, begin, end in view._rows if at == number]
            assert len(pieces) > 1 and "".join(line[begin:end] for begin, end in pieces) == line
        await pilot.press("w")
        await until(pilot, lambda: sum(at == number for at, _, _ in view._rows) == 1)

    play(act)


def test_the_ways_in_are_offered_and_copied() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("enter", "c")
        await until(pilot, lambda: "qubix open 3fa9c1d2 jupyter" in shown(pilot))
        assert "t0p" not in shown(pilot), "the token is shown to nobody who has not asked for it"
        await pilot.press("down", "y")
        await until(pilot, lambda: pilot.app.clipboard == "qubix attach 3fa9c1d2")

    play(act)


def test_the_calculator_answers_and_refuses() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await on_running(pilot)
        await pilot.press("enter", "b")
        await until(pilot, lambda: "648,000 QU in all" in shown(pilot))
        field = pilot.app.screen.query_one("#bill-time", Input)
        await pilot.press("g", "b")  # letters are keys of the page until somebody goes into a field
        assert field.value == "1h"
        await pilot.press("tab")
        assert field.has_focus
        answers = {"30m": "468,000 QU in all", "9d": "720,000 QU in all", "soon": "! 'soon' is no time"}
        for typed, answer in answers.items():
            field.value = typed
            await until(pilot, partial(lambda words: words in shown(pilot), answer))
        pilot.app.screen.query_one("#bill-money", Input).value = "90,000"
        await until(pilot, lambda: "90,000 QU last 15m00s" in shown(pilot))

    play(act, (120, 40))


def test_an_instance_that_is_no_more_keeps_its_page() -> None:
    views = [canned.running()]

    async def act(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "train-llama" in shown(pilot))
        await pilot.press("enter")
        views.clear()
        screen(pilot).reload()
        await until(pilot, lambda: "does not know this lease" in shown(pilot))
        assert "train-llama" in shown(pilot)

    play(act, answers={"ps": lambda args: PsView(views)})


# --- keys -------------------------------------------------------------------------------------


def test_ssh_keys_are_made_chosen_and_removed() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "completed" in shown(pilot))
        await pilot.press("k")
        await until(pilot, lambda: "No SSH keys yet" in shown(pilot))
        await pilot.press("m")
        await until(pilot, lambda: "What shall the new key be called?" in shown(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "SHA256:" in shown(pilot) and "made here" in shown(pilot))
        await pilot.press("m")
        await until(pilot, lambda: "What shall the new key be called?" in shown(pilot))
        await pilot.press(*"../evil", "enter")
        await until(pilot, lambda: "cannot be a key's name" in shown(pilot))
        await pilot.press("y")
        await until(pilot, lambda: pilot.app.clipboard.startswith("ssh-ed25519 "))
        await pilot.press("x")
        await until(pilot, lambda: "gone for good" in shown(pilot))
        await pilot.press("y")
        await until(pilot, lambda: "No SSH keys yet" in shown(pilot))

    play(act, (120, 40))


def test_errors_of_the_daemon_are_shown_in_the_page_and_tried_again() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "the ledger is locked" in shown(pilot))
        await settled(pilot)
        answers.clear()
        screen(pilot).reload()
        await until(pilot, lambda: "completed" in shown(pilot))

    answers: list[QubixError] = [PeerUnreachable("the ledger is locked")]
    play(act, answers={"ps": lambda args: answers[0] if answers else canned.ps(args)})
