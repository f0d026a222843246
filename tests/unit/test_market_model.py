"""The market's table without a terminal: pages of offers, columns for a width, sentences, charts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from protocol.control_market import MarketView
from protocol.control_prices import PriceSpanView
from tests.support import market_views
from tests.support.market_views import HOSTILE, hostile_offer, offer
from tui.market_screens import unmet
from tui.screens.market_chart import BOTH, OWN, chart, prices_over
from tui.screens.market_model import (
    COLUMNS,
    GAP,
    MAX_FITTEST,
    PAGE,
    SORTS,
    Names,
    Offers,
    Search,
    cell,
    column_at,
    layout,
    next_sort,
    reversed_sort,
    sort_words,
    title,
    turned,
)
from tui.screens.market_words import facts, no_match, offer_line, summary


def filled(offers: Offers, first: int, last: int, count: int = 1_000) -> list[int]:
    """Ask for everything that is wanted, as the screen does; the pages asked for."""
    asked = []
    while (page := offers.wanted(first, last)) is not None:
        asked.append(page)
        offers.put(page, market_views.market(offers.search.args(page, brief=True), count))
        assert len(asked) < 100
    return asked


def test_only_the_pages_that_are_seen_are_asked_for_those_seen_first() -> None:
    offers = Offers(Search())
    assert filled(offers, 0, 20) == [0]
    assert offers.total == 1_000
    assert filled(offers, 190, 215) == [1, 2]
    assert filled(offers, 150, 215) == []
    assert offers.get(999) is None
    assert filled(offers, 960, 1_100) == [9]
    shown = market_views.found("", "price", 1_000)
    assert [offers.get(row) for row in (0, 99, 100, 215, 999)] == [shown[n] for n in (0, 99, 100, 215, 999)]
    assert offers.get(1_000) is offers.get(-1) is None


def test_old_pages_are_asked_for_again_once_they_are_seen() -> None:
    offers = Offers(Search())
    filled(offers, 0, 250)
    offers.grow_old()
    assert offers.get(0) is not None
    assert filled(offers, 0, 20) == [0]
    assert filled(offers, 110, 120) == [1]


def test_no_more_pages_are_kept_than_are_needed() -> None:
    offers = Offers(Search())
    for row in range(0, 10_000, PAGE):
        filled(offers, row, row + 30, 10_000)
    assert offers.get(0) is None and offers.get(9_990) is not None


def test_an_empty_market_is_asked_once() -> None:
    offers = Offers(Search("vram>=9000"))
    assert filled(offers, 0, 50) == [0] and offers.total == 0 and offers.heard


def test_the_fittest_come_at_once() -> None:
    offers = Offers(Search(use_case="sdxl"))
    assert filled(offers, 0, 50) == [0] and offers.total == 30
    assert offers.get(29) is not None
    offers.grow_old()
    assert filled(offers, 0, 50) == [0]


def test_the_fittest_are_read_page_by_page_too() -> None:
    offers = Offers(Search("gpus>=0", use_case="sdxl"))
    assert filled(offers, 0, 50, 5_000) == [0, 1]
    assert filled(offers, 240, 250, 5_000) == [2, 3]
    last = offers.get(250)
    assert last is not None and offers.row_of(last.peer_id) == 250
    assert offers.total == MAX_FITTEST and "the first 2,000 are listed" in summary(offers)


def test_an_offer_is_found_where_it_has_gone() -> None:
    offers = Offers(Search())
    filled(offers, 0, 150)
    one = offers.get(130)
    assert one is not None and offers.row_of(one.peer_id) == 130
    assert offers.row_of("nobody") is None


def test_names_are_learnt_up_to_a_bound() -> None:
    names = Names()
    names.learn([offer(number, name=f"n{number}") for number in range(3_000)])
    assert len(names.words["name"]) == 2_000 and names.words["region"] == ["asia", "eu", "us"]
    assert names.words["runner"] == ["docker"]


# --- columns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0, 1, 10, 40, 80, 100, 120, 160, 200, 500])
def test_columns_fit_any_width(width: int) -> None:
    shown = layout(width)
    assert sum(one.width + len(GAP) for one in shown) <= width
    names = [one.column.title for one in shown]
    if width >= 78:
        assert {"PROVIDER", "GPU", "VRAM", "QU/HOUR", "SCORE"} <= set(names)
    if width >= 220:
        assert names == [column.title for column in COLUMNS]


@given(st.integers(0, 300), st.text(max_size=40), st.booleans())
def test_a_cell_is_as_wide_as_its_column_whatever_is_in_it(width: int, text: str, hostile: bool) -> None:
    texts = dict.fromkeys(("name", "gpu_class", "region", "cuda", "runner"), text)
    one = hostile_offer() if hostile else offer(1, **texts)
    for placed in layout(width):
        shown = cell(placed, one)
        assert cell_len(shown) == placed.width + len(GAP)
        assert not set("\x1b\n\x07\u202e\x9b") & set(shown)
        assert cell_len(title(placed, "price")) == placed.width + len(GAP)


def test_a_click_finds_its_column_and_a_second_one_turns_the_order() -> None:
    shown = layout(120)
    assert column_at(shown, 0) is shown[0].column
    assert column_at(shown, shown[0].width + len(GAP)) is shown[1].column
    assert column_at(shown, 1_000) is None
    assert turned("price", "-score") == "-score" and turned("-score", "-score") == "score"
    assert reversed_sort("price") == "-price" and reversed_sort("-price") == "price"


def test_the_orders_go_round_and_have_words() -> None:
    seen, sort = [], SORTS[0]
    for _ in SORTS:
        seen.append(sort)
        sort = next_sort(sort)
    assert tuple(seen) == SORTS and sort == SORTS[0] and next_sort("-price") == SORTS[0]
    assert sort_words("price") == "cheapest first" and sort_words("-disk") == "most disk first"


# --- sentences --------------------------------------------------------------------------------


def test_what_the_list_says_of_itself() -> None:
    offers = Offers(Search("region=eu", "-score"))
    filled(offers, 0, 10)
    assert summary(offers) == "250 offers of 1,000, best score first"
    offers = Offers(Search(use_case="sdxl"))
    filled(offers, 0, 10)
    assert summary(offers).startswith(
        "For Stable Diffusion XL (12 GB of GPU memory or more): 30 offers of 1,000"
    )
    assert no_match(offers) == ""


def test_an_empty_list_says_what_to_do() -> None:
    for search, word in ((Search("vram>=9000"), "condition"), (Search(use_case="sdxl"), "8 GB")):
        offers = Offers(search)
        offers.put(0, MarketView([], 0, 7))
        assert "7 are known here" in no_match(offers) and word in no_match(offers)
        assert "By itself" not in no_match(offers)


def test_the_condition_that_shuts_everybody_out_is_named() -> None:
    offers = Offers(Search("runner=dokcer price<=4M"))
    offers.put(0, MarketView([], 0, 7, unmet=["runner=dokcer"]))
    assert "By itself no offer meets runner=dokcer." in no_match(offers)
    view = MarketView([], 0, 7, unmet=["a", "name=\x1b]0;x"])
    assert "no offer meets a or name=" in unmet(view) and "\x1b" not in unmet(view)


def test_sentences_of_a_hostile_offer_are_harmless() -> None:
    one = hostile_offer()
    said = offer_line(one).plain + "".join(value for name, value in facts(one) if name != "Region")
    assert "\x1b" not in offer_line(one).plain and HOSTILE not in offer_line(one).plain
    assert "GPU also offered by" in said


def test_facts_of_an_odd_machine() -> None:
    plain = dict(facts(offer(1, gpus=0, gpu_class="CPU", vram_mib=0, cuda="", rtt_ms=None, jitter_ms=None)))
    assert (
        plain["GPU"] == "none: the machine is rented by its processor"
        and "for the machine" in plain["Price"]
        and "not measured" in plain["Way"]
    )
    assert "differs by 3 ms" in dict(facts(offer(1, jitter_ms=3.2)))["Way"]
    assert isinstance(offer_line(offer(1, own=True, reasons=["cheap"])), Text)


# --- charts -----------------------------------------------------------------------------------


def span(start: int, price: int) -> PriceSpanView:
    return PriceSpanView(start, 3_600, price, price, price, price, price, 1, 1)


def test_a_price_holds_until_the_next() -> None:
    assert prices_over([span(0, 5), span(60, 7)], 0, 100, 5) == [5, 5, 7, 7, 7]
    assert prices_over([span(50, 5)], 0, 100, 4) == [None, 5, 5, 5]
    assert prices_over([], 0, 100, 2) == [None, None]


def test_a_chart_has_a_scale_and_both_lines() -> None:
    lines = chart([10, 10, 20], [None, 20, 20], 3, "a day ago")
    assert lines[0].startswith("20 │") and lines[2].startswith("10 │")
    assert lines[0].endswith(BOTH) and lines[2].endswith(f"{OWN}{OWN} ") and "now" in lines[3]
    assert chart([None], [None], 5, "a day ago") == ["No prices are known of this time yet."]
    flat = chart([5] * 4, [5] * 4, 5, "a day ago")
    assert sum(BOTH in line for line in flat) == 1


@given(st.lists(st.none() | st.integers(0, 10**15), min_size=1, max_size=30), st.integers(-5, 30))
def test_a_chart_draws_every_known_price_once(prices: list[int | None], height: int) -> None:
    lines = chart(prices, [None] * len(prices), height, "a week ago")
    known = sum(price is not None for price in prices)
    assert sum(line.count(OWN) for line in lines) == known
