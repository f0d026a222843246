"""One offer in the full-screen front end: its prices, its score, never hired, ended meanwhile."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from protocol.control_market import DeniedView, DenyArgs, DenyView, MarketArgs, MarketView, ScoreArgs
from protocol.control_prices import PricesArgs, PricesView
from protocol.errors import NotFound, QubixError
from tests.support import market_views
from tests.support.market_pilot import asked, drive, opened, says, shown, toasts
from tests.support.tui_pilot import until
from tui.screens.confirm import Confirm
from tui.screens.market_offer import OfferScreen


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_an_offer_shows_its_price_history_and_its_score_with_reasons(size: tuple[int, int]) -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await opened(pilot)
        for widget, words in (
            ("#offer-facts", "QU an hour for each GPU"),
            ("#offer-chart", "this provider"),
            ("#offer-score", "callers have paid it"),
        ):
            pilot.app.screen.query_one(widget, Static).scroll_visible(animate=False)
            await until(pilot, partial(says, pilot, words))
        assert asked(PricesArgs)[-1].since_s == 7 * 86_400
        await pilot.press("p")
        await until(pilot, lambda: asked(PricesArgs)[-1].since_s == 31 * 86_400)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(pilot.app.screen, OfferScreen))

    drive(flow, size=size)


def test_evidence_goes_into_a_file_of_ones_own(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def flow(pilot: Pilot[int]) -> None:
        await opened(pilot)
        await pilot.press("e")
        await until(pilot, lambda: [one.read_text() for one in tmp_path.iterdir()] == ['{"version": 1}'])
        await pilot.press("e")
        await until(pilot, lambda: "is there already" in toasts(pilot)[-1])
        assert asked(ScoreArgs)[-1].evidence

    drive(flow)


def test_a_provider_is_never_hired_after_a_second_look_and_hired_again() -> None:
    denied: list[str] = []

    def answer(args: DenyArgs) -> DenyView:
        if args.add:
            denied.append(args.add)
        if args.remove:
            denied.remove(args.remove)
        return DenyView([DeniedView(one, "", "denied", "", 0) for one in denied])

    async def flow(pilot: Pilot[int]) -> None:
        await opened(pilot)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("n")
        assert not denied
        await pilot.press("x")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: len(denied) == 1)
        await until(pilot, lambda: "You never hire it" in shown(pilot))
        await pilot.press("x")
        await until(pilot, lambda: not denied)

    drive(flow, answers={"deny": answer})


def test_an_offer_that_ends_while_it_is_looked_at_stays_with_a_word() -> None:
    gone: list[bool] = []

    def market(args: MarketArgs) -> MarketView:
        return (
            MarketView([], 0, 6, 1) if gone and "provider=" in args.filter else market_views.market(args, 7)
        )

    def prices(args: PricesArgs) -> PricesView | QubixError:
        return NotFound("no provider known here is called that") if gone else market_views.prices(args)

    async def flow(pilot: Pilot[int]) -> None:
        gone.append(True)
        await opened(pilot)
        await until(pilot, lambda: "This offer has ended" in shown(pilot))

    drive(flow, answers={"market": market, "prices": prices})
