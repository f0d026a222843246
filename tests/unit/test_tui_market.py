"""The market in the full-screen front end: found, sorted, looked into, saved; by keys and by mouse."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from protocol.control_market import MarketArgs, MarketView
from protocol.errors import QubixError
from tests.support import market_views
from tests.support.market_pilot import asked, drive, opened, shown, table, toasts, type_filter
from tests.support.market_views import hostile_offer, offer
from tests.support.tui_pilot import until
from tui import searches
from tui.screens.confirm import Confirm
from tui.screens.market_filter import FilterInput
from tui.screens.market_offer import OfferScreen
from tui.screens.market_table import OfferTable


def test_the_list_is_there_with_its_order_and_the_offer_under_the_cursor() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        first = market_views.found("", "price", 7)[0]
        await until(pilot, lambda: "7 offers, cheapest first" in shown(pilot))
        assert f"> {first.name}" in shown(pilot) and "↑QU/HOUR" in shown(pilot)
        assert f"{first.all_in_qu_per_hour:,} QU an hour all in" in shown(pilot)

    drive(flow, answers={"market": market_views.small_market})


def test_keys_go_through_ten_thousand_offers() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        everything = market_views.found("", "price", market_views.MANY)
        await pilot.press("end")
        await until(pilot, lambda: f"> {everything[-1].name}" in shown(pilot))
        await pilot.press("home", "pagedown", "down", "j", "k")
        await until(pilot, lambda: table(pilot).offer == everything[table(pilot).cursor])
        row = table(pilot).cursor
        assert row > 20 and f"> {everything[row].name}" in shown(pilot)
        assert len(asked(MarketArgs)) < 12
        assert all(one.limit <= 100 for one in asked(MarketArgs))

    drive(flow)


def test_a_filter_narrows_while_it_is_typed() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await type_filter(pilot, "vram>=80")
        await until(pilot, lambda: " offers of 10,000" in shown(pilot) and table(pilot).offers.total < 5_000)
        assert asked(MarketArgs)[-1].filter == "vram>=80"
        await pilot.press("enter")
        assert table(pilot).has_focus
        await type_filter(pilot, "", "enter")
        await until(pilot, lambda: "10,000 offers, cheapest first" in shown(pilot))

    drive(flow)


def test_a_mistake_is_shown_under_its_character_and_not_asked_for() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await type_filter(pilot, "vram>=24 colour=red", "enter")
        lines = shown(pilot).splitlines()
        row = next(n for n, line in enumerate(lines) if line.startswith("Filter "))
        assert lines[row].index("colour") == lines[row + 1].index("^")
        assert "no field is called 'colour'" in lines[row + 2]
        assert pilot.app.screen.query_one(FilterInput).has_focus
        assert not any("colour" in one.filter for one in asked(MarketArgs))

    drive(flow)


def test_candidates_come_below_the_line_and_tab_takes_them() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        line = pilot.app.screen.query_one(FilterInput)
        await pilot.press("slash", "v", "r", "tab")
        assert line.value == "vram>="
        await pilot.press("2", "4", "space", "r", "e", "g", "tab")
        assert line.value == "vram>=24 region="
        await until(pilot, lambda: "offered now" in shown(pilot))
        await pilot.press("down", "enter")
        assert line.value == "vram>=24 region=eu"
        await pilot.press("enter")
        await until(pilot, lambda: asked(MarketArgs)[-1].filter == "vram>=24 region=eu")
        await until(pilot, lambda: table(pilot).has_focus)

    drive(flow)


def test_escape_closes_the_candidates_then_leaves_the_line() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await pilot.press("slash", "v", "escape")
        assert pilot.app.screen.query_one(FilterInput).has_focus
        await pilot.press("escape")
        assert table(pilot).has_focus

    drive(flow)


def test_nothing_that_fits_says_what_to_do_and_stays_usable() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await type_filter(pilot, "vram>=9000", "enter")
        await until(pilot, lambda: "10,000 are known here" in shown(pilot))
        await pilot.press("enter", "down", "end", "pageup")
        assert not isinstance(pilot.app.screen, OfferScreen)

    drive(flow, size=(80, 24))


def test_orders_by_key_and_by_a_click_on_a_head() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await pilot.press("s")
        await until(pilot, lambda: "best score first" in shown(pilot))
        await pilot.press("S")
        await until(pilot, lambda: "lowest score first" in shown(pilot))
        x = shown(pilot).splitlines()[3].index("QU/HOUR")
        await pilot.click(OfferTable, offset=(x, 0))
        await until(pilot, lambda: "cheapest first" in shown(pilot))
        await pilot.click(OfferTable, offset=(x, 0))
        await until(pilot, lambda: "dearest first" in shown(pilot))
        await pilot.click(OfferTable, offset=(5, 6))
        assert table(pilot).cursor == 5

    drive(flow)


def test_a_use_puts_the_fittest_first_and_says_why() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await pilot.press("u")
        await until(pilot, lambda: "What do you need a machine for?" in shown(pilot))
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: "most speed for the price first" in shown(pilot))
        assert "fast memory; worth its price" in shown(pilot)
        assert asked(MarketArgs)[-1].use_case
        await pilot.press("s")
        await until(pilot, lambda: asked(MarketArgs)[-1].use_case == "")

    drive(flow)


def test_the_cursor_stays_with_its_offer_when_others_come_before_it() -> None:
    late = [offer(1, name="late", peer_id=market_views.peer(99_999), price_qu_per_hour=1)]
    arrived: list[bool] = []

    def answer(args: MarketArgs) -> MarketView:
        view = market_views.small_market(args)
        return MarketView([*(late if arrived else []), *view.offers], 7 + len(arrived), 7 + len(arrived), 1)

    async def flow(pilot: Pilot[int]) -> None:
        await pilot.press("down", "down")
        under = table(pilot).offer
        arrived.append(True)
        pilot.app.screen.reload()  # type: ignore[attr-defined]  # AreaScreen's
        await until(pilot, lambda: "8 offers" in shown(pilot))
        assert table(pilot).cursor == 3 and table(pilot).offer == under

    drive(flow, answers={"market": answer})


def test_searches_are_saved_chosen_and_deleted() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await pilot.press("f")
        await until(pilot, lambda: "No search is saved yet" in shown(pilot))
        await pilot.press("escape")
        await type_filter(pilot, "vram>=80", "enter")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "Save this search as" in shown(pilot))
        await pilot.press("enter")
        directory = pilot.app.directory  # type: ignore[attr-defined]  # QubixApp's
        await until(pilot, lambda: [one.name for one in searches.load(directory)] == ["vram>=80"])
        await type_filter(pilot, "", "enter")
        await until(pilot, lambda: "10,000 offers, cheapest" in shown(pilot))
        await pilot.press("f")
        await until(pilot, lambda: "Saved searches" in shown(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: asked(MarketArgs)[-1].filter == "vram>=80")
        assert pilot.app.screen.query_one(FilterInput).value == "vram>=80"
        await pilot.press("f")
        await until(pilot, lambda: "Saved searches" in shown(pilot))
        await pilot.press("d")
        assert searches.load(directory) == []

    drive(flow)


def test_a_broken_file_of_searches_is_said_and_nothing_lost() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        path = pilot.app.directory / searches.FILE_NAME  # type: ignore[attr-defined]  # QubixApp's
        path.write_text("{")
        await pilot.press("f")
        await until(pilot, lambda: toasts(pilot))
        assert "cannot be read" in toasts(pilot)[0]
        assert path.read_text() == "{"

    drive(flow)


# --- when there is nothing, or evil -----------------------------------------------------------


@pytest.mark.parametrize(("peers", "words"), [(3, "fills by itself"), (0, "--bootstrap"), (0, "(key 5)")])
def test_an_empty_market_is_designed(peers: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUBIX_CHAIN", "node://127.0.0.1:1")

    async def flow(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: "No machine is for rent here yet" in shown(pilot))
        assert words in " ".join(shown(pilot).split())
        assert "Practice provider" not in shown(pilot) and "Rent" not in shown(pilot).split()

    drive(flow, size=(80, 24), answers={"market": MarketView([], 0, 0, peers)})


def test_an_empty_market_of_the_private_network_offers_a_practice_provider() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: "Press p to start a practice provider" in " ".join(shown(pilot).split()))
        assert "p Practice provider" in shown(pilot)

    drive(flow, size=(80, 24), answers={"market": MarketView([], 0, 0, 0)})


def test_n_is_a_new_job_and_r_rents_the_marked_offer() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await pilot.press("n")
        await until(pilot, lambda: "[1 What for]" in shown(pilot))
        await pilot.press("escape", "r")
        await until(pilot, lambda: "[3 Settings]" in shown(pilot))
        await pilot.press("escape", "escape", "escape")
        await opened(pilot)
        await pilot.press("r")
        await until(pilot, lambda: "[3 Settings]" in shown(pilot))

    drive(flow, answers={"market": market_views.small_market})


def test_a_daemon_that_refuses_is_quoted() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: "the ledger is damaged" in shown(pilot))

    drive(flow, answers={"market": QubixError("the ledger is damaged")})


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
def test_a_hostile_offer_reaches_no_terminal_raw(size: tuple[int, int]) -> None:
    evil = hostile_offer()

    async def flow(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: "x1b" in shown(pilot))
        seen = [shown(pilot)]
        await pilot.press("slash", "n", "a", "m", "e", "equals_sign")
        seen.append(shown(pilot))
        await pilot.press("escape", "escape")
        await opened(pilot)
        seen.append(shown(pilot))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        seen.append(shown(pilot))
        for screen in seen:
            assert not set("\x1b\x07\x9b\u202e\r") & set(screen)

    drive(flow, size=size, answers={"market": MarketView([evil], 1, 1, 1)})


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_terminal_shrunk_to_nothing_and_back(theme: str) -> None:
    async def flow(pilot: Pilot[int]) -> None:
        before = shown(pilot)
        for size in ((1, 1), (3, 2), (40, 10), (80, 24), (300, 90), (120, 40)):
            await pilot.resize_terminal(*size)
            await pilot.press("down", "up")
        await until(pilot, lambda: shown(pilot) == before)
        await opened(pilot)
        for size in ((1, 1), (40, 10), (120, 40)):
            await pilot.resize_terminal(*size)
            await pilot.press("p")
        await until(pilot, lambda: "this provider" in shown(pilot))

    drive(flow, theme=theme)
