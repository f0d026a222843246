"""The pages in two languages: every sentence is there, and numbers are written as each writes them."""

from __future__ import annotations

import re

import pytest

from tests.support.web_words import missing, sentences
from web import words
from web.words import LANGUAGES, wanted, words_of

EN, PT = words_of("en"), words_of("pt")
HOUR_MS = 3_600_000
NOON = 1_790_856_000_000
"""2026-10-01 12:00 UTC."""


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one != "en"])
def test_every_sentence_is_translated(language: str) -> None:
    assert len(sentences()) > 100
    assert missing(language) == {}, "run: python -m tests.support.web_words"


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one != "en"])
def test_translations_have_the_same_places_to_fill_in(language: str) -> None:
    wrong = {}
    for message in (message for part in words.catalogues(language) for message in part if message.id):
        originals = [message.id] if isinstance(message.id, str) else list(message.id)
        translated = [message.string] if isinstance(message.string, str) else list(message.string or ())
        places = [
            {*re.findall(r"%\(\w+\)s|\{\w+\}|%%", text)} for text in (*originals[-1:], *translated[-1:])
        ]
        if places[0] != places[1]:
            wrong[originals[0]] = translated
    assert not wrong


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one != "en"])
def test_no_sentence_is_translated_in_two_ways(language: str) -> None:
    known: dict[object, object] = {}
    for message in (message for part in words.catalogues(language) for message in part if message.id):
        assert known.setdefault(message.id, message.string) == message.string


def test_numbers_are_grouped_as_in_the_language() -> None:
    assert (EN.number(1_234_567.5, 1), PT.number(1_234_567.5, 1)) == ("1,234,567.5", "1.234.567,5")
    assert (EN.number(999), EN.number(-1_000), EN.number(0)) == ("999", "-1,000", "0")
    assert (EN.qu(12_345), PT.qu(12_345)) == ("12,345\u00a0QU", "12.345\u00a0QU")
    assert (EN.share(0.9876, 1), PT.share(0.9876, 1)) == ("98.8\u202f%", "98,8\u202f%")


def test_large_numbers_are_said_short() -> None:
    said = [EN.short(number) for number in (9_999, 10_000, 12_345, 999_999, 1_250_000, 3_400_000_000)]
    assert said == ["9,999", "10.0\u202fk", "12.3\u202fk", "1,000\u202fk", "1.25\u202fM", "3.40\u202fG"]
    assert PT.short(12_345) == "12,3\u202fk"


def test_changes_have_a_sign() -> None:
    assert [EN.change(part) for part in (0.123, -0.5, 0, 0.0001)] == [
        "+12.3\u202f%", "\u221250.0\u202f%", "±0.0\u202f%", "±0.0\u202f%",
    ]  # fmt: skip


def test_sizes_and_times() -> None:
    assert (EN.memory(24), EN.memory(1536), PT.memory(1536)) == ("24\u00a0GB", "1.5\u00a0TB", "1,5\u00a0TB")
    assert [EN.duration(seconds) for seconds in (0, 59, 3_600, 3_661, 90_000, 86_405)] == [
        "0\u00a0s", "59\u00a0s", "1\u00a0h", "1\u00a0h 1\u00a0min", "1\u00a0d 1\u00a0h", "1\u00a0d",
    ]  # fmt: skip
    assert (EN.moment(NOON), PT.day(NOON)) == ("1 Oct, 12:00", "1 out.")
    assert (EN.ago(NOON, NOON + 1_000), EN.ago(NOON, NOON + 2 * HOUR_MS)) == ("just now", "2\u00a0h ago")
    assert PT.ago(NOON, NOON + 90_000) == "há 1\u00a0min"
    assert EN.ago(NOON + HOUR_MS, NOON) == "just now"  # a clock that is ahead


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_time_that_can_be_signed_is_too_late(language: str) -> None:
    said = words_of(language)
    for write in (said.day, said.date, said.moment, said.clock):
        assert write(2**53) == write(253_402_300_799_000)


def test_plurals() -> None:
    assert [EN.many("%(number)s offer", "%(number)s offers", n) for n in (0, 1, 1_234)] == [
        "0 offers", "1 offer", "1,234 offers",
    ]  # fmt: skip
    assert [PT.many("%(number)s offer", "%(number)s offers", n) for n in (1, 2_000)] == [
        "1 oferta", "2.000 ofertas",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"), ("pt-BR,pt;q=0.9,en;q=0.8", "pt"), ("de, en;q=0.5, pt;q=0.9", "pt"), ("de", "en"),
        ("en;q=0.1, pt;q=broken", "en"), ("*" * 9_999, "en"), ("PT", "pt"),
    ],
)  # fmt: skip
def test_the_browser_says_which_language_it_wants(accept: str, language: str) -> None:
    assert wanted(accept) == language
