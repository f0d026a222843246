"""More time for a running job, from the table to the end of the order, and all that can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from protocol.control_extend import ExtendArgs, ExtendView
from protocol.errors import FundingFailed, PeerUnreachable, QubixError, ShopCloses
from tests.support import tui_instances as canned
from tests.support.tui_pilot import running_app, text_of, until

RECEIVED: list[Any] = []
VIEW = ExtendView(
    state="checked",
    lease=canned.running(),
    seconds=3_600,
    cost_qu=360_000,
    max_seconds=10_800,
    ends_at_ms=canned.NOW_MS + 7_920_000,
    deposit=1_080_000,
    locks_qu=360_000,
    balance=2_000_000,
    max_loss_qu=1_500,
    closes_at_ms=canned.NOW_MS + 20_000_000,
)


def answers(args: ExtendArgs) -> ExtendView:
    return replace(VIEW, state="checked" if args.check else "extended")


def shown(pilot: Pilot[Any]) -> str:
    return text_of(pilot.app.screen)


def play(
    act: Callable[[Pilot[Any]], Awaitable[None]], extend: Any = answers, size: tuple[int, int] = (80, 24)
) -> list[ExtendArgs]:
    """From the table, with the running job marked and e pressed; what the daemon was asked."""
    RECEIVED.clear()

    async def go() -> None:
        async with running_app(size, {"extend": extend}, area="instances", asked=RECEIVED) as pilot:
            await until(pilot, lambda: "train-llama" in shown(pilot))
            await pilot.press("down", "e")
            await until(pilot, lambda: "How much longer" in shown(pilot))
            await act(pilot)

    asyncio.run(go())
    return [one for one in RECEIVED if isinstance(one, ExtendArgs)]


async def ask(pilot: Pilot[Any], typed: str = "1h") -> None:
    field = pilot.app.screen.query_one("#more", Input)
    field.value = typed
    field.focus()
    await pilot.press("enter")


async def agree(pilot: Pilot[Any]) -> None:
    await ask(pilot)
    await until(pilot, lambda: "Add it?" in shown(pilot))
    await pilot.click("#add")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_time_is_added_after_the_price_was_seen(size: tuple[int, int]) -> None:
    async def act(pilot: Pilot[Any]) -> None:
        assert "1h12m left of 2h00m" in shown(pilot) and "about 360,000 QU more" in shown(pilot)
        await ask(pilot)
        await until(pilot, lambda: "Add it?" in shown(pilot))
        for words in ("360,000 QU", "3h00m", "1,080,000 QU", "at most 1,500 QU", "it closes", "2,000,000"):
            assert words in shown(pilot)
        await pilot.click("#add")
        await until(pilot, lambda: "Added." in shown(pilot))
        assert "3h00m in all" in shown(pilot)

    look, order = play(act, size=size)
    assert look.check and not order.check and order.max_cost_qu == 360_000
    assert (look.seconds, look.order, look.lease) == (order.seconds, order.order, order.lease)


def test_what_is_no_time_is_said_and_nobody_is_asked() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        for typed in ("", "0", "x", "1h-", "9999h"):
            await ask(pilot, typed)
            await until(pilot, lambda: "! " in shown(pilot))
            pilot.app.screen.query_one("#more", Input).value = "2h"
            await until(pilot, lambda: "! " not in shown(pilot))

    assert play(act) == []


def test_a_refusal_is_said_in_words() -> None:
    error = ShopCloses("this provider closes in 2 h 0 min; at most 10 min can be added")

    async def act(pilot: Pilot[Any]) -> None:
        await ask(pilot)
        await until(pilot, lambda: f"! {str(error)[:30]}" in shown(pilot))
        assert "How much longer" in shown(pilot)

    assert len(play(act, error)) == 1


def test_a_wallet_that_holds_too_little_cannot_say_yes() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await ask(pilot)
        await until(pilot, lambda: "lacks 300,000 QU" in shown(pilot))
        assert not pilot.app.screen.query_one("#add").display

    assert len(play(act, replace(VIEW, balance=60_000))) == 1


def test_that_nothing_was_added_is_said() -> None:
    lost = FundingFailed("no time was added: lost")

    async def act(pilot: Pilot[Any]) -> None:
        await agree(pilot)
        await until(pilot, lambda: "Nothing was added" in shown(pilot))
        assert not pilot.app.screen.query_one("#again").display

    play(act, lambda args: VIEW if args.check else lost)


def test_an_order_that_was_cut_off_is_asked_for_again_under_its_name() -> None:
    tries: list[ExtendArgs] = []

    def cut(args: ExtendArgs) -> ExtendView | QubixError:
        if args.check:
            return VIEW
        tries.append(args)
        return PeerUnreachable("it did not answer") if len(tries) == 1 else answers(args)

    async def act(pilot: Pilot[Any]) -> None:
        await agree(pilot)
        await until(pilot, lambda: "never paid twice" in shown(pilot))
        await pilot.click("#again")
        await until(pilot, lambda: "Added." in shown(pilot))

    play(act, cut)
    assert len(tries) == 2 and tries[0] == tries[1]


def test_escape_leads_back_and_pays_nothing() -> None:
    async def act(pilot: Pilot[Any]) -> None:
        await ask(pilot)
        await until(pilot, lambda: "Add it?" in shown(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "How much longer" in shown(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "train-llama" in shown(pilot) and "How much" not in shown(pilot))

    assert [one.check for one in play(act)] == [True]
