"""A week of opening hours as seven lines of signs, and the signs in words. Pure.

Each sign is a part of an hour: `·` closed, `o` the usual price, letters other prices, the dearest first.
Colours say the same again, for those who see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from protocol.control_schedule import SpanView
from tui import show

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES: Final = 1_440
LABEL: Final = 4
CLOSED: Final = "·"
USUAL: Final = "o"
LETTERS: Final = "abcdefghijklmnpqrstuvwxyz"


def signs(spans: Sequence[SpanView], usual: int) -> dict[int, str]:
    """Price -> its letter; those without one share the last."""
    prices = sorted({one.price_qu_per_hour for one in spans if one.open} - {usual}, reverse=True)
    letters = {price: LETTERS[min(place, len(LETTERS) - 1)] for place, price in enumerate(prices)}
    return letters | {usual: USUAL}


def grid(spans: Sequence[SpanView], usual: int, width: int, colours: dict[str, str]) -> Text:
    """Hours above, then a line a day: one, two or four signs an hour, as there is room."""
    an_hour = next((count for count in (4, 2) if LABEL + 24 * count <= width), 1)
    letters = signs(spans, usual)
    lines = [Text(" " * LABEL + _hours(an_hour), "dim")]
    for day, name in enumerate(DAYS):
        line = Text(f"{name:{LABEL}}", "bold")
        for part in range(24 * an_hour):
            minute = day * DAY_MINUTES + part * 60 // an_hour
            line.append(*_sign(_at(spans, minute), usual, letters, colours))
        lines.append(line)
    return Text("\n").join(lines)


def _hours(an_hour: int) -> str:
    every = 6 if an_hour == 1 else 3
    return "".join(f"{hour:<{every * an_hour}}" for hour in range(0, 24, every))


def _at(spans: Sequence[SpanView], minute: int) -> SpanView | None:
    return next((one for one in spans if one.begin <= minute < one.end), None)


def _sign(
    span: SpanView | None, usual: int, letters: dict[int, str], colours: dict[str, str]
) -> tuple[str, str]:
    if span is None or (span.open and span.price_qu_per_hour == usual):
        return USUAL, colours["success"]
    if not span.open:
        return CLOSED, "dim"
    dearer = span.price_qu_per_hour > usual
    return letters[span.price_qu_per_hour], colours["accent" if dearer else "primary"]


def legend(spans: Sequence[SpanView], usual: int) -> str:
    """The signs that are there, in words."""
    letters = signs(spans, usual)
    words = [
        f"{letters[price]} {show.qu(price)}{' (usual)' if price == usual else ''}"
        for price in sorted({one.price_qu_per_hour for one in spans if one.open}, reverse=True)
    ]
    closed = [f"{CLOSED} closed"] if any(not one.open for one in spans) else []
    return "   ".join([*words, *closed]) + "   QU an hour and GPU"
