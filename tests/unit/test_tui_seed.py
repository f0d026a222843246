"""Seeds and payments as people type them: what is wrong is said with its place, and nothing is repeated."""

from __future__ import annotations

import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st

from protocol.seeds import WALLET_SEED_LETTERS, mistake_in_seed
from tui.qr import GLYPHS, QUIET_MODULES, qr_code
from tui.screens.seed_steps import groups_of, place_of, seed_sheet, trouble_in
from tui.screens.wallet_move import amount_of, trouble_in_amount, trouble_in_identity
from tui.wallet_keys import trouble_in_passphrase

SEED = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabc"
IDENTITY = "ABCDEFGHIJ" * 6


def test_a_sheet_shows_every_letter_once_and_in_order() -> None:
    words = seed_sheet(SEED).plain.split()
    assert words[0::2] == [str(number) for number in range(1, 12)]
    assert "".join(words[1::2]) == SEED == "".join(groups_of(SEED))


@pytest.mark.parametrize(
    "typed", [SEED, f"  {SEED}\n", " ".join(groups_of(SEED)), "\n".join(groups_of(SEED))]
)
def test_gaps_and_lines_are_no_mistakes(typed: str) -> None:
    assert trouble_in(typed) == ""


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (SEED[:11] + "K" + SEED[12:], "At letter 12 (group 3, place 2) there is a capital letter"),
        (SEED[:-1] + "1", "At letter 55 (group 11, place 5) there is not a letter"),
        (" ".join(groups_of(SEED[:4] + "ü" + SEED[5:])), "At letter 5 (group 1, place 5)"),
        (SEED[:-1], "1 of 55 letters is missing: there are 54"),
        (SEED[:50], "5 of 55 letters are missing"),
        (SEED + "ab", "2 too many: there are 57"),
        ("", "Nothing was typed"),
    ],
)
def test_a_typo_is_named_by_its_place(typed: str, sentence: str) -> None:
    said = trouble_in(typed)
    assert said.startswith(sentence)
    assert not any(group in said for group in groups_of(SEED))


@given(st.text(max_size=120))
def test_whatever_is_typed_is_a_seed_or_has_a_place(text: str) -> None:
    seed = "".join(text.split())
    mistake = mistake_in_seed(seed)
    assert (mistake is None) == (trouble_in(text) == "")
    if mistake is None:
        assert len(seed) == WALLET_SEED_LETTERS
    else:
        assert 0 <= mistake.at <= len(seed)
    assert place_of(SEED, 6) == "letter 6 (group 2, place 1)"


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("", "Say who"),
        (IDENTITY[:10] + "k" + IDENTITY[11:], "At letter 11 of the identity there is a small letter"),
        (IDENTITY[:-1] + "\x1b", "At letter 60 of the identity there is something else"),
        (IDENTITY[:-1], "The identity has 59 letters"),
        (f"{IDENTITY[:30]} {IDENTITY[30:]}", ""),
    ],
)
def test_an_identity_is_looked_at_letter_by_letter(typed: str, sentence: str) -> None:
    assert trouble_in_identity(typed).startswith(sentence)
    assert bool(trouble_in_identity(typed)) == bool(sentence)


@pytest.mark.parametrize(
    ("typed", "amount"), [("1000", 1000), ("1_000", 1000), ("1,000", 1000), ("1 000", 1000)]
)
def test_digits_may_be_grouped(typed: str, amount: int) -> None:
    assert amount_of(typed) == amount and not trouble_in_amount(typed)


@pytest.mark.parametrize("typed", ["", "0", "-5", "1.5", "1e9", "٣", "9" * 24, "\x1b[2J", "ten"])
def test_what_is_no_amount_is_refused_without_control_characters(typed: str) -> None:
    said = trouble_in_amount(typed)
    assert said and said.isprintable()


@pytest.mark.parametrize(
    ("typed", "good"),
    [("horse", True), ("grün 木", True), ("", False), ("a\tb", False), (" a", False), ("a" * 1_025, False)],
)
def test_a_passphrase_is_one_visible_line(typed: str, good: bool) -> None:
    assert (trouble_in_passphrase(typed) == "") is good


def test_a_code_has_the_modules_of_the_identity() -> None:
    code = qr_code(IDENTITY)
    modules = [list(row) for row in segno.make_qr(IDENTITY, error="m").matrix_iter(border=QUIET_MODULES)]
    lines = code.plain.splitlines()
    assert len(lines) == (len(modules) + 1) // 2 and {len(line) for line in lines} == {len(modules[0])}
    halves = {glyph: pair for pair, glyph in GLYPHS.items()}
    drawn = [[halves[glyph][half] for glyph in line] for line in lines for half in (0, 1)]
    assert drawn[: len(modules)] == modules
