"""docs/hiring.md: its tables name every field and code there is, and its numbers are those of the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from protocol import control_market
from protocol.control_market import MAX_REASONS, MarketView, OfferView, ScoreView, WhyView
from qubixd import choosing, demand, hiring, market_desk, standing, why

PAGE = (Path(__file__).parents[2] / "docs" / "hiring.md").read_text()


def described(head: str) -> set[str]:
    """Names in the first column of the table that begins so."""
    table = PAGE.partition(f"| {head} |")[2].partition("\n\n")[0]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}


TABLES = [
    ("Field of `market`", MarketView),
    ("Field of an offer", OfferView),
    ("Field of `why`", WhyView),
    ("Field of `score`", ScoreView),
]
SMALLER = ["UseCaseView", "DirectoryView", "ReasonGroup", "ReasonView", "ChangeView", "DeniedView"]


@pytest.mark.parametrize(("head", "kind"), TABLES)
def test_every_field_is_described(head: str, kind: type) -> None:
    assert described(head) == {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    "kind", ["UseCaseView", "DirectoryView", "ReasonGroup", "ReasonView", "ChangeView", "DeniedView"]
)
def test_every_field_of_the_smaller_things_is_named(kind: str) -> None:
    for field in dataclasses.fields(getattr(control_market, kind)):
        assert f"`{field.name}`" in PAGE


def test_every_code_of_a_group_is_named() -> None:
    for code in {*why.TITLES, *why.REFUSALS} - {code for code in why.REFUSALS if "." in code}:
        assert f"`{code}`" in PAGE
    assert f"`{demand.FILTER}`" in PAGE


def test_the_numbers() -> None:
    said = PAGE.replace("\n", " ").replace("   ", " ")
    words = {8: "eight", 5: "five", 3: "three", 2: "two", 6: "six", 50: "fifty"}
    assert f"The first {words[hiring.MAX_ASKED]} are asked for quotes, {words[hiring.WAVE]} at a time" in said
    assert f"the first {market_desk.MAX_SCORED} offers shown" in said
    assert f"within {words[int(market_desk.SCORE_SECONDS)]} seconds" in said
    assert (
        f"asks the first {market_desk.MAX_MEASURED} for {words[market_desk.PINGS_EACH]} round trips, "
        f"{choosing.MEASURED_AT_ONCE} at" in said
    )
    assert f"of the {choosing.MAX_LEARNT} cheapest that else match" in said
    assert f"asks the first {market_desk.MAX_QUOTES} that fit" in said
    assert f"Of more than {choosing.MAX_LOOKED:,} offers so many are looked at" in said
    assert f"the least that {words[why.ENOUGH]} providers would meet; {words[why.MAX_CHANGES]} in all" in said
    assert f"nearest {words[MAX_REASONS]} `providers`" in said
    assert choosing.WAIT_SECONDS_PER_PRICE == 100 * 60, "a minute is one percent"
    assert (demand.OTHER_COST, demand.DROPPED_COST, demand.WAIT_SECONDS_PER_COST) == (0.5, 1.0, 600)
    assert (standing.FIRST_WAIT_MS, standing.LONGEST_WAIT_MS) == (60_000, 6 * 3_600_000)
