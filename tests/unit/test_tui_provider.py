"""The areas Provider and Network, and the page for price and hours, against canned answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input

from protocol.control import Done, StopArgs
from protocol.control_market import OfferAnswer, OfferArgs
from protocol.control_network import NetworkArgs
from protocol.control_provider import ProviderArgs
from protocol.control_schedule import PreviewArgs
from protocol.errors import ConfigInvalid, ScheduleInvalid
from tests.support import network_views as networks
from tests.support import provider_views as providers
from tests.support.tui_pilot import Answers, running_app, settled, text_of, until
from tui.screens import network_view, provider_view, week_grid
from tui.screens.confirm import Confirm
from tui.screens.provider_hours import ProviderHoursScreen

Flow = Callable[[Pilot[int], list[Any]], Awaitable[None]]
SIZES = ((80, 24), (120, 40), (200, 60))
ESCAPE = "\x1b"


def run(
    flow: Flow, area: str = "provider", answers: Answers | None = None, size: tuple[int, int] = (80, 24)
) -> None:
    async def go() -> None:
        asked: list[Any] = []
        async with running_app(area=area, answers=answers, asked=asked, size=size) as pilot:
            await flow(pilot, asked)

    asyncio.run(go())


def screen(pilot: Pilot[int]) -> str:
    return text_of(pilot.app.screen)


def of_kind(asked: list[Any], kind: type) -> list[Any]:
    return [one for one in asked if isinstance(one, kind)]


# --- the area Provider --------------------------------------------------------------------------


def test_a_provider_sees_what_it_earns_and_whether_jobs_come() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        for size in SIZES:
            await pilot.resize_terminal(*size)
            await settled(pilot)
            shown = screen(pilot)
            assert "● takes jobs" in shown
            assert "in all 12,345,678" in shown
            assert "open until Sat 12:00, then closed" in shown
            assert "the best was 2027-01-14 with 1,200,000 QU" in shown.replace("\n ", " ")
        await pilot.press("g")
        await settled(pilot)
        assert "GeForce RTX 4090" in screen(pilot)
        await pilot.press("j")
        await settled(pilot)
        assert "running" in screen(pilot)
        await pilot.press("i")
        await settled(pilot)
        assert "AMD EPYC" in screen(pilot)

    jobs = [providers.job()]
    ended = [providers.ended(lease_id=f"{place:02}" * 32) for place in range(3)]
    run(flow, answers={"provider": replace(shop_at(360_000), jobs=jobs, ended=ended)})


def test_who_offers_nothing_is_told_how_to() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        assert "This machine offers nothing yet." in screen(pilot)
        assert "qubix up --provider --detach" in screen(pilot)
        await pilot.press("e", "p", "x", "j")
        assert not isinstance(pilot.app.screen, ProviderHoursScreen)
        assert {one.pause for one in of_kind(asked, ProviderArgs)} == {None}

    run(flow, answers={"provider": ConfigInvalid("this daemon offers nothing")})


def test_what_keeps_jobs_away_is_said_in_words() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        shown = screen(pilot)
        assert "○ paused" in shown
        assert "! cashing needs 100 QU" in shown
        assert "- GPU 1 is not offered: its memory made errors" in shown

    run(flow, answers={"provider": providers.provider(shop=providers.HINDERED)})


def test_p_pauses_and_takes_jobs_again() -> None:
    state = {"paused": False}

    def answer(args: ProviderArgs) -> Any:
        if args.pause is not None:
            state["paused"] = args.pause
        return providers.provider(shop=providers.shop(paused=state["paused"], open=not state["paused"]))

    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        await pilot.press("p")
        await until(pilot, lambda: "○ paused" in screen(pilot))
        await pilot.press("p")
        await until(pilot, lambda: "● takes jobs" in screen(pilot))
        assert [one.pause for one in of_kind(asked, ProviderArgs) if one.pause is not None] == [True, False]

    run(flow, answers={"provider": answer})


def test_a_job_is_ended_only_after_yes() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        await pilot.press("j", "x")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        assert "Its caller pays for the time up to now" in screen(pilot)
        await pilot.press("n")
        await settled(pilot)
        assert not of_kind(asked, StopArgs)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: of_kind(asked, StopArgs))

    run(flow, answers={"stop": Done()})


def test_an_ended_job_cannot_be_ended() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        await pilot.press("j", "x")
        await settled(pilot)
        assert not isinstance(pilot.app.screen, Confirm)

    run(flow, answers={"provider": providers.provider(jobs=[], ended=[providers.ended()])})


def test_a_machine_without_cards_and_jobs_says_so() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        await pilot.press("g")
        await settled(pilot)
        assert "rented by its processor" in screen(pilot)
        await pilot.press("j")
        await settled(pilot)
        assert "No job has come yet" in screen(pilot)

    bare = providers.provider()
    answer = replace(bare, jobs=[], ended=[], machine=replace(bare.machine, gpus=[]))
    run(flow, answers={"provider": answer})


def test_a_terminal_of_no_size_and_back() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        for key in ("4", "5", "4e"):
            await pilot.press(*key)
            await settled(pilot)
            before = screen(pilot)
            for size in ((1, 1), (20, 5), (80, 24)):
                await pilot.resize_terminal(*size)
                await settled(pilot)
            assert screen(pilot).splitlines()[:3] == before.splitlines()[:3]

    run(flow)


def test_nothing_of_a_stranger_reaches_the_terminal_raw() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        for keys in ("d", "g", "j", "i", "e", "5", "d", "g", "i"):
            await pilot.press(*keys)
            await settled(pilot)
            assert ESCAPE not in screen(pilot)
            assert "\u202e" not in screen(pilot)
            if keys == "e":
                await pilot.press("escape")

    hostile = {"provider": providers.HOSTILE_PROVIDER, "network": networks.HOSTILE_NETWORK}
    run(flow, answers=hostile, size=(200, 60))


# --- price and hours ----------------------------------------------------------------------------


def hours(pilot: Pilot[int]) -> ProviderHoursScreen:
    assert isinstance(pilot.app.screen, ProviderHoursScreen)
    return pilot.app.screen


async def open_hours(pilot: Pilot[int]) -> ProviderHoursScreen:
    await pilot.press("e")
    await until(pilot, lambda: isinstance(pilot.app.screen, ProviderHoursScreen))
    await until(pilot, lambda: "A week would bring" in screen(pilot))
    return hours(pilot)


def test_a_week_is_tried_before_anything_changes() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        page = await open_hours(pilot)
        for size in SIZES:
            await pilot.resize_terminal(*size)
            await settled(pilot)
            assert "Mon aa" in screen(pilot)
            assert "a 400,000   o 360,000 (usual)   b 300,000   · closed" in screen(pilot)
            assert "21,600,000 QU, now 20,000,000 (+8 %)" in screen(pilot)
        page.query_one("#hours-schedule", Input).value = "sat closed"
        await until(pilot, lambda: of_kind(asked, PreviewArgs)[-1] == PreviewArgs(360_000, "sat closed"))
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is not page)
        assert not of_kind(asked, OfferArgs)

    run(flow, answers={"provider": shop_at(360_000)})


def shop_at(price: int) -> Any:
    shop = providers.shop(schedule=networks.NIGHTS, usual_price_qu_per_hour=price)
    return providers.provider(shop=shop)


def test_only_what_was_changed_is_saved() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        page = await open_hours(pilot)
        page.query_one("#hours-price", Input).value = "500000"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: of_kind(asked, OfferArgs))
        assert of_kind(asked, OfferArgs) == [OfferArgs(500_000, None, None)]
        await until(pilot, lambda: pilot.app.screen is not page)
        page = await open_hours(pilot)
        await pilot.click("#hours-nights")
        await pilot.press("enter")
        await until(pilot, lambda: len(of_kind(asked, OfferArgs)) > 1)
        assert of_kind(asked, OfferArgs)[1] == OfferArgs(None, None, "mon-fri 08:00-18:00 closed")

    run(flow, answers={"provider": shop_at(360_000), "offer": OfferAnswer(None)})


def test_a_mistake_is_marked_and_cannot_be_saved() -> None:
    def answer(args: PreviewArgs) -> Any:
        if "mun" in str(args.schedule):
            return ScheduleInvalid("this is no day", "mun closed", 0)
        return networks.preview()

    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        page = await open_hours(pilot)
        page.query_one("#hours-schedule", Input).value = "mun closed"
        await until(pilot, lambda: "this is no day" in screen(pilot))
        assert "   ^" in screen(pilot)
        await pilot.press("ctrl+s")
        await settled(pilot)
        page.query_one("#hours-price", Input).value = ""
        await until(pilot, lambda: "The price is a whole number" in screen(pilot))
        await pilot.press("ctrl+s")
        await settled(pilot)
        assert pilot.app.screen is page
        assert not of_kind(asked, OfferArgs)
        page.query_one("#hours-price", Input).value = "1"
        page.query_one("#hours-schedule", Input).value = "mon closed"
        await until(pilot, lambda: "A week would bring" in screen(pilot) and page._good)

    run(flow, answers={"preview": answer})


def test_a_machine_that_has_run_nothing_is_told_so() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        await pilot.press("e")
        await until(pilot, lambda: "nothing is known of what a week would bring" in screen(pilot))
        assert "at every hour" in screen(pilot)

    run(flow, answers={"preview": networks.preview(weeks=0, schedule=None)})


# --- the area Network ---------------------------------------------------------------------------


def test_peers_gossip_and_chain_each_have_a_word() -> None:
    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        for size in SIZES:
            await pilot.resize_terminal(*size)
            await settled(pilot)
            shown = screen(pilot)
            assert "peers   ok      3 connected, 1 by a relay; can be reached from outside" in shown
            assert "market  ok      127 offers, brought by directories" in shown
            assert "chain   ok      tick 12,345 of epoch 180, one every 0.5 s" in shown
            assert "alice" in shown and "3.4 MB/s" in shown and "by a relay" in shown
        await pilot.press("d")
        await settled(pilot)
        assert "signs of life" in screen(pilot) and "no answer" in screen(pilot)
        await pilot.press("g")
        await settled(pilot)
        assert "offer.forged" in screen(pilot)
        await pilot.press("i")
        await settled(pilot)
        assert "/ip4/203.0.113.7/tcp/4001" in screen(pilot)

    run(flow, "network")


def test_m_measures_now_and_what_was_measured_stays() -> None:
    def answer(args: Any) -> Any:
        rtt = 8.4 if args.measure else None
        return networks.network(peers=[networks.peer(rtt_ms=rtt)], total=1)

    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        assert "8.4 ms" in screen(pilot)
        before = sum(one.measure for one in of_kind(asked, NetworkArgs))
        await pilot.press("m")
        await settled(pilot)
        assert [before, sum(one.measure for one in of_kind(asked, NetworkArgs))] == [1, 2]
        pilot.app.screen.reload()  # type: ignore[attr-defined]  # an AreaScreen
        await settled(pilot)
        assert "8.4 ms" in screen(pilot)

    run(flow, "network", answers={"network": answer})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"total": 0, "peers": []}, "peers   alone   no peer is connected"),
        ({"reachable": False, "relays": []}, "peers   hidden  3 connected, 1 by a relay; cannot be reached"),
        ({"reachable": False}, "cannot be reached from outside, but by 1 relay"),
        ({"chain": replace(networks.CHAIN, state="slow", sentence="no new tick for 60 s")}, "chain   slow"),
        ({"chain": replace(networks.CHAIN, state="silent", sentence="is it running?")}, "chain   silent"),
    ],
)
def test_trouble_is_said_in_words(changes: dict[str, Any], words: str) -> None:
    colours = {"success": "", "warning": "", "error": ""}
    assert words in network_view.head(networks.network(**changes), colours).plain


def test_a_marked_peer_stays_marked_when_others_come() -> None:
    views = iter([3, 5, 5, 5, 5, 5])

    def answer(args: Any) -> Any:
        count = next(views)
        peers = [networks.peer(place) for place in range(10 - count, 10)]
        return networks.network(peers=peers, total=count)

    async def flow(pilot: Pilot[int], asked: list[Any]) -> None:
        table = pilot.app.screen.query_one("#network-peers", DataTable)
        table.move_cursor(row=1)
        await pilot.press("m")
        await until(pilot, lambda: table.row_count == 5)
        assert table.cursor_row == 3

    run(flow, "network", answers={"network": answer})


# --- drawing ------------------------------------------------------------------------------------


def test_days_are_bars_with_their_names() -> None:
    chart = provider_view.day_chart(providers.days(8, 4, 0, 1), 80, 5, "green").plain.splitlines()
    assert len(chart) == 5
    assert chart[-1].split()[-4:] == ["12", "13", "14", "15"]
    assert chart[0].endswith("████ ") and chart[0].count("████") == 1
    assert chart[2].count("████") == 2
    assert chart[3].count("████") == 2 and "▄▄▄▄" in chart[3]


def test_a_narrow_chart_shows_the_last_days() -> None:
    chart = provider_view.day_chart(providers.days(8, 4), 16, 3, "green").plain.splitlines()
    assert chart[-1].split() == ["day", "14", "15"]
    assert provider_view.day_chart(providers.days(), 1, 1, "green").plain


def test_a_week_in_signs() -> None:
    colours = {"success": "", "accent": "", "primary": ""}
    lines = week_grid.grid(networks.NIGHTS.spans, 360_000, 40, colours).plain.splitlines()
    assert lines[1] == "Mon " + "a" * 8 + "o" * 4 + "·" + "o" * 5 + "a" * 6
    assert lines[6] == "Sat " + "b" * 12 + "·" + "b" * 11
    always = week_grid.grid([], 5, 120, colours).plain.splitlines()
    assert always[7] == "Sun " + "o" * 96
