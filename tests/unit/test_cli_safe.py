"""Nothing that a stranger wrote reaches a terminal as anything but visible text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.safe import SafeStream, safe_line, safe_text


@given(st.text())
def test_text_keeps_no_control_or_direction_character(text: str) -> None:
    kept = safe_text(text)
    assert not [c for c in kept if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not set(kept) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


@given(st.text(st.characters(categories=["L", "N", "P", "Sc", "Sm"])))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert safe_text(text) == text


@given(st.text(), st.integers(2, 50))
def test_a_line_is_one_line_of_bounded_length(text: str, limit: int) -> None:
    line = safe_line(text, limit)
    assert len(line) <= limit and len(line.splitlines()) <= 1 and "\t" not in line


@given(st.binary(), st.integers(0, 40))
def test_bytes_cut_anywhere_give_the_same_text(data: bytes, cut: int) -> None:
    whole, parts = SafeStream(), SafeStream()
    assert whole.decode(data, final=True) == parts.decode(data[:cut]) + parts.decode(data[cut:], final=True)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        (b"\xc2\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
        (b"a\r\nb\tc\n", "a\nb\tc\n"),
        (b"50%\r100%\n", "50%\\x0d100%\n"),
        (b"\xff", "\ufffd"),
        ("al\u00adice".encode(), "al\\xadice"),
        ("bob\U000e0041".encode(), "bob\\U000e0041"),
        (("e" + "\u0301" * 5).encode(), "e\u0301\u0301\u0301\\u0301\\u0301"),
    ],
)
def test_escapes_become_visible(data: bytes, shown: str) -> None:
    assert SafeStream().feed(data, final=True) == shown
