"""What strangers write is shown, and does nothing else."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.safe import MARKS, MOST, shown, theirs

HIDES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rig-7", "rig-7"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("\x1b[2Jx\r\n\tz", "\\x1b[2Jx\\x0d\\x0a\\x09z"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("caf\u0065\u0301 \u05d0\u05d1", "caf\u0065\u0301 \u05d0\u05d1"),
        ("", ""),
    ],
)
def test_what_hides_or_reorders_is_written_out(text: str, said: str) -> None:
    assert shown(text) == said


def test_long_names_are_cut_and_piles_taken_down() -> None:
    assert shown("x" * 4_096) == "x" * (MOST - 1) + "…"
    assert shown("x" * MOST) == "x" * MOST
    assert shown("a" + "\u0301" * 50, 200) == "a" + "\u0301" * MARKS


def test_markup_is_text_and_stands_apart() -> None:
    assert theirs("<script>alert('x')</script>") == (
        '<bdi class="theirs">&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</bdi>'
    )


@given(st.text(max_size=200))
def test_nothing_invisible_ever_comes_through(text: str) -> None:
    said = shown(text)
    assert len(said) <= MOST
    assert not {unicodedata.category(char) for char in said} & HIDES - {"Cf"}
    assert not set(said) & set(
        "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b"
    )
