"""The filter line while it is typed: what may come next, and the character that is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.query import parse_filter
from tests.support.views import HOSTILE
from tui.filter_line import Candidate, accepted, complete, problem, quoted

WORDS = {"gpu": ["RTX_4090", "Odd Card"], "region": ["eu", "us"], "name": ["it's mine", HOSTILE, "\"'"]}


def at(marked: str) -> tuple[str, int]:
    """The text and the place of the cursor, which is written `|`."""
    return marked.replace("|", ""), marked.index("|")


def offered(marked: str) -> list[str]:
    return [one.text for one in complete(*at(marked), WORDS).candidates]


@pytest.mark.parametrize(
    ("marked", "first"),
    [
        ("|", ["gpu=", "gpus>=", "vram>="]),
        ("vr|", ["vram>="]),
        ("VR|", ["vram>="]),
        ("vram>=24 pri|", ["price<="]),
        ("vram>=24 and reg|", ["region="]),
        ("core|", ["score>="]),
        ("vram |", [">=", "=", "!="]),
        ("region |", ["=", "!=", "in ("]),
        ("region i|", ["in ("]),
        ("region in|", ["in ("]),
        ("region in |", ["("]),
        ("region in (|", ["eu", "us"]),
        ("region in (e|", ["eu"]),
        ("region in (eu |", [", ", ") "]),
        ("region in (eu, |", ["eu", "us"]),
        ("region in (eu) pri|", ["price<="]),
        ("gpu=|", ["RTX_4090", '"Odd Card"']),
        ("gpu=409|", ["RTX_4090"]),
        ("gpu=rtx4090|", ["RTX_4090"]),
        ('gpu="od|', ['"Odd Card"']),
        ("name=it|", ['"it\'s mine"']),
        ("vram>=|", ["24"]),
        ("vram>=24|", []),
        ("vram>=24g|", ["24GB", "24GiB"]),
        ("vram>=24T|", ["24TB", "24TiB"]),
        ("rtt<1m|", ["1ms"]),
        ("internet=|", ["yes", "no"]),
        ("internet=yes|", []),
        ("colour=|", []),
        ("region in (eu x|", []),
        ("price<=5m| vram>=24", ["5M"]),
        ("pri|ce<=5", []),
        ("pri|<=5", ["price"]),
    ],
)
def test_what_is_offered(marked: str, first: list[str]) -> None:
    assert offered(marked)[: max(1, len(first))] == first


def test_a_candidate_takes_the_place_of_the_word_at_the_cursor() -> None:
    for marked, wanted in (
        ("vr|", "vram>=|"),
        ("vram>=24 regi|on", "vram>=24 region=|"),
        ("gpu=40| price<=5", "gpu=RTX_4090| price<=5"),
        ("region in (eu | price<=5", "region in (eu , |price<=5"),
    ):
        text, cursor = at(marked)
        found = complete(text, cursor, WORDS)
        assert accepted(text, found, found.candidates[0]) == at(wanted)


def test_names_from_strangers_are_only_offered_if_harmless() -> None:
    assert offered("name=|") == ['"it\'s mine"']
    assert quoted(HOSTILE) == quoted("\"'") == quoted("") == quoted("...") == ""


def test_what_is_offered_now_says_so() -> None:
    found = complete("gpu=", 4, WORDS).candidates
    assert found[0] == Candidate("RTX_4090", "offered now")
    assert {one.meaning for one in found[2:]} == {"nobody offers it now"}


@pytest.mark.parametrize(
    ("text", "position", "unfinished"),
    [
        ("colour=red", 0, False),
        ("vram>=24 price<=abc", 16, False),
        ("vram>=24 price<=", 16, True),
        ("vram", 4, True),
        ("vram>=24 and", 12, True),
        ("region>eu", 6, False),
        ("region in eu", 10, False),
        ("region in (eu", 13, True),
        ("vram>=24parsec", 8, False),
        ("a" * 2_000, 1_000, False),
    ],
)
def test_the_wrong_character(text: str, position: int, unfinished: bool) -> None:
    found = problem(text)
    assert found is not None and "\n" not in found.sentence
    assert (found.position, found.unfinished) == (position, unfinished)


def test_nothing_is_wrong_with_what_is_right() -> None:
    assert problem("") is None
    assert problem("gpu=RTX_4090 vram>=24 region in (eu, us)") is None


@given(st.data())
def test_whatever_is_offered_leads_to_a_filter(data: st.DataObject) -> None:
    """Going on with candidates alone never makes a mistake, and ends in a filter that is right."""
    text, cursor = "", 0
    for _ in range(data.draw(st.integers(1, 12))):
        found = complete(text, cursor, WORDS)
        if not found.candidates:
            text, cursor = text + " ", cursor + 1
            continue
        text, cursor = accepted(text, found, data.draw(st.sampled_from(found.candidates)))
        wrong = problem(text)
        assert wrong is None or wrong.unfinished
        if wrong is None:
            parse_filter(text)
            text, cursor = text.rstrip() + " ", len(text.rstrip()) + 1


@given(st.text(alphabet="vram>=24 GB,()\"'in region!<.eu\x1b", max_size=40), st.integers(0, 40))
def test_no_text_breaks_it(text: str, cursor: int) -> None:
    found = complete(text, min(cursor, len(text)), WORDS)
    assert 0 <= found.start <= found.end <= len(text)
    wrong = problem(text)
    assert wrong is None or 0 <= wrong.position <= len(text)
