"""Candles of a GPU class as what pages show of them: a drawing, a line of a word's size, a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from web import draw
from web.views import DAY_MS, HOUR_MS, Candle
from web.words import Words

MOST_POINTS: Final = 90
SPARK_POINTS: Final = 28

T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """How far back a chart looks."""

    name: str
    candle_ms: int
    ms: int


WEEK: Final = Span("week", HOUR_MS, 7 * DAY_MS)
QUARTER: Final = Span("quarter", DAY_MS, 90 * DAY_MS)
SPANS: Final = {span.name: span for span in (WEEK, QUARTER)}


@dataclass(frozen=True)
class Prices:
    """Of one GPU class over a span; empty where nobody has offered it."""

    candles: tuple[Candle, ...]

    @property
    def last(self) -> int | None:
        return self.candles[-1].close if self.candles else None

    @property
    def change(self) -> float:
        """From the beginning to now."""
        return change_of(self.candles)

    @property
    def closes(self) -> list[float]:
        """Few enough for a line of a word's size."""
        return [one.close for one in thinned(self.candles, SPARK_POINTS)]


def change_of(candles: Sequence[Candle]) -> float:
    """From the first price to the last, as a part of the first: 0.05 is five percent more. 0 where there is
    none, or it was nothing."""
    before = candles[0].open if candles else 0
    return (candles[-1].close - before) / before if before else 0.0


def thinned(values: Sequence[T], most: int = MOST_POINTS) -> list[T]:
    """At most so many, evenly taken; the last always."""
    step = -(-len(values) // most) or 1
    return list(values[::-1][::step][::-1])


def drawn(prices: Prices, title: str, words: Words) -> draw.Plot:
    """The line of the closing prices, with a hint for each."""
    found = thinned(prices.candles)
    hints = [f"{words.moment(one.start_ms)}: {words.qu(one.close)}" for one in found]
    told = ""
    if found:
        told = words.say(
            "From %(low)s to %(high)s, now %(now)s.",
            low=words.qu(min(one.low for one in found)),
            high=words.qu(max(one.high for one in found)),
            now=words.qu(found[-1].close),
        )
    return draw.area([(one.start_ms, one.close) for one in found], hints, title, told)
