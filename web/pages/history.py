"""Prices over time: what pages of GPUs and of providers draw as candles, by hours, days or weeks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from web import draw
from web.pages.prices import change_of
from web.store import Store
from web.views import DAY_MS, HOUR_MS, Candle, Kind
from web.words import Words

WEEK_MS: Final = 7 * DAY_MS
MONDAY: Final = 3
"""1970-01-01 was a Thursday: so many days earlier a week had begun."""


@dataclass(frozen=True)
class Span:
    """One way to look at prices: candles of `kept_ms` in the mirror, put together to those of `shown_ms`."""

    name: str
    kept_ms: int
    shown_ms: int
    back: int
    """How many candles are shown."""


SPANS: Final = {
    span.name: span
    for span in (
        Span("hours", HOUR_MS, HOUR_MS, 72),
        Span("days", DAY_MS, DAY_MS, 60),
        Span("weeks", DAY_MS, WEEK_MS, 52),
    )
}


@dataclass(frozen=True)
class History:
    """A drawing of candles, with the figures that it is made of."""

    plot: draw.Plot
    candles: tuple[Candle, ...]

    @property
    def change(self) -> float:
        """From the first to the last."""
        return change_of(self.candles)


def span_of(name: str) -> Span:
    return SPANS.get(name, SPANS["days"])


async def history_of(
    store: Store, kind: Kind, subject: bytes, span: Span, now_ms: int, words: Words
) -> History | None:
    """None where nothing is known."""
    since = now_ms - span.back * span.shown_ms
    found = together(await store.candles(kind, subject, span.kept_ms, since), span.shown_ms)
    if not found:
        return None
    hints = [f"{when(one, words)}: {words.qu(one.low)} \u2013 {words.qu(one.high)}" for one in found]
    told = words.say(
        "From %(low)s to %(high)s QU an hour, at last %(last)s.",
        low=words.number(min(one.low for one in found)),
        high=words.number(max(one.high for one in found)),
        last=words.number(found[-1].close),
    )
    return History(draw.candles(found, hints, words.say("Price history"), told), found)


def when(one: Candle, words: Words) -> str:
    return words.moment(one.start_ms) if one.span_ms == HOUR_MS else words.day(one.start_ms)


def together(candles: Sequence[Candle], span_ms: int) -> tuple[Candle, ...]:
    """Fewer, longer ones. Weeks begin on Monday, UTC."""
    if not candles or candles[0].span_ms == span_ms:
        return tuple(candles)

    def start(one: Candle) -> int:
        return (one.start_ms + MONDAY * DAY_MS) // span_ms * span_ms - MONDAY * DAY_MS

    return tuple(_one(at, span_ms, list(parts)) for at, parts in groupby(candles, start))


def _one(start_ms: int, span_ms: int, parts: Sequence[Candle]) -> Candle:
    return replace(
        parts[-1],
        span_ms=span_ms,
        start_ms=start_ms,
        open=parts[0].open,
        high=max(part.high for part in parts),
        low=min(part.low for part in parts),
        cheapest=min(part.cheapest for part in parts),
        offers=max(part.offers for part in parts),
        gpus=max(part.gpus for part in parts),
    )
