"""The languages of the pages: sentences, numbers, amounts and times, as each of them writes these.

English is what stands in the code; the others are catalogues beside this file, one folder for each language
and one file for each part of the pages, read at start.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from babel import Locale
from babel.dates import format_date, format_datetime
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import get_decimal_symbol, get_group_symbol
from babel.support import Translations

LANGUAGES: Final = {"en": "English", "pt": "Português"}
"""The first is for whoever wants none of them."""
DEFAULT: Final = next(iter(LANGUAGES))
FOLDER: Final = Path(__file__).parent
UNKNOWN: Final = "\u2013"

_LAST_MS: Final = 253_402_300_799_000
"""The end of the year 9999: a provider may sign later times than calendars have."""
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


class Words:
    """One language. `say` and `many` are what Babel finds sentences by."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._locale = Locale.parse(language)
        self._translations = _read(language)
        self._point = get_decimal_symbol(self._locale)
        self._group = get_group_symbol(self._locale)

    # --- sentences ----------------------------------------------------------------------------

    def say(self, text: str, **values: object) -> str:
        """`text` in this language, with `%(name)s` filled in."""
        said: str = self._translations.ugettext(text)
        return said % values if values else said

    def many(self, one: str, others: str, number: int, **values: object) -> str:
        """The form for `number`, which is `%(number)s` in it, written as here."""
        return self.form(one, others, number) % {"number": self.number(number), **values}

    def form(self, one: str, others: str, number: int) -> str:
        """The same, not filled in."""
        said: str = self._translations.ungettext(one, others, number)
        return said

    # --- numbers ------------------------------------------------------------------------------

    def number(self, value: float, digits: int = 0) -> str:
        """Rounded, grouped by thousands."""
        whole, _, part = f"{value:,.{digits}f}".partition(".")
        return whole.replace(",", self._group) + (self._point + part if part else "")

    def short(self, value: float) -> str:
        """Three figures and a letter from ten thousand on: 23.4 k, 1.25 M."""
        for factor, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
            if abs(value) >= max(factor, 10_000):
                scaled = value / factor
                return f"{self.number(scaled, max(0, 3 - len(str(int(abs(scaled))))))}\u202f{letter}"
        return self.number(value)

    def qu(self, amount: float) -> str:
        return f"{self.number(amount)}\u00a0QU"

    def share(self, part: float, digits: int = 0) -> str:
        """0 to 1, in percent."""
        return f"{self.number(100 * part, digits)}\u202f%"

    def change(self, part: float) -> str:
        """By how much something rose or fell, in percent and with its sign."""
        sign = "+" if part >= 0.0005 else "\u2212" if part <= -0.0005 else "±"
        return f"{sign}{self.share(abs(part), 1)}"

    def memory(self, gib: float) -> str:
        if gib >= 1024:
            return f"{self.number(gib / 1024, 1)}\u00a0TB"
        return f"{self.number(gib)}\u00a0GB"

    # --- times --------------------------------------------------------------------------------

    def day(self, at_ms: int) -> str:
        """Of UTC, as all times here."""
        return format_date(_utc(at_ms), "d MMM", locale=self._locale)

    def date(self, at_ms: int) -> str:
        return format_date(_utc(at_ms), "medium", locale=self._locale)

    def moment(self, at_ms: int) -> str:
        return format_datetime(_utc(at_ms), "d MMM, HH:mm", locale=self._locale)

    def clock(self, at_ms: int) -> str:
        return f"{_utc(at_ms):%H:%M}"

    def duration(self, seconds: float) -> str:
        """The two largest units that matter: 3 d 4 h."""
        left = max(0, round(seconds))
        units = ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s"))
        parts: list[str] = []
        for size, name in units:
            count, left = divmod(left, size)
            if count:
                parts.append(f"{count}\u00a0{name}")
            elif parts:
                break
        return " ".join(parts[:2]) or "0\u00a0s"

    def ago(self, at_ms: int, now_ms: int) -> str:
        seconds = max(0, (now_ms - at_ms) // 1_000)
        if seconds < 5:
            return self.say("just now")
        for size, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
            if seconds >= size:
                return self.say("%(time)s ago", time=f"{seconds // size}\u00a0{name}")
        return self.say("%(time)s ago", time=f"{seconds}\u00a0s")


def words_of(language: str) -> Words:
    return _ALL[language if language in _ALL else DEFAULT]


def wanted(accept: str) -> str:
    """The language that a browser's Accept-Language likes best of ours."""
    ranked: list[tuple[float, str]] = []
    for part in accept[:500].split(","):
        tag, _, quality = part.strip().partition(";q=")
        language = tag.split("-")[0].lower()
        if language in LANGUAGES:
            ranked.append((_quality(quality), language))
    return max(ranked, key=lambda one: one[0], default=(0.0, DEFAULT))[1]


def _quality(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return 0.0


def catalogues(language: str) -> Iterable[Catalog]:
    """All parts of a language."""
    for path in sorted((FOLDER / language).glob("*.po")):
        with path.open("rb") as file:
            yield read_po(file, locale=language, abort_invalid=True)


def _read(language: str) -> Translations:
    together = Catalog(locale=language)
    for part in catalogues(language):
        for message in part:
            if message.id:
                together[message.id] = message
    packed = io.BytesIO()
    write_mo(packed, together)
    packed.seek(0)
    return Translations(packed)


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(min(at_ms, _LAST_MS) / 1_000, UTC)


_ALL: Final = {language: Words(language) for language in LANGUAGES}
