"""Charts as SVG, drawn where the page is made: they need no script and are there at once. Pure.

A drawing fills the width that it is given (`preserveAspectRatio="none"`, lines that do not scale), so what
stands beside its axes is text of the page, in the page's size: see templates/charts.html. Colours are classes
of the style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from web.views import Candle

WIDTH: Final = 1_000
HEIGHT: Final = 300
"""Of the coordinates, not of the screen."""
TICKS: Final = 4
SPARK: Final = (100, 30)
HOURS: Final = 24
DAYS: Final = 60

Point = tuple[int, float]
"""(when, how much)."""


@dataclass(frozen=True)
class Plot:
    """A drawing with what stands beside it: values from the top down, times from left to right."""

    svg: Markup
    values: tuple[float, ...]
    times: tuple[int, ...]


@dataclass(frozen=True)
class Frame:
    """Which part of the world a drawing shows."""

    first: int
    last: int
    low: float
    high: float

    def x(self, at: float) -> float:
        return WIDTH * (at - self.first) / max(1, self.last - self.first)

    def y(self, value: float) -> float:
        return HEIGHT * (self.high - value) / (self.high - self.low)

    @property
    def values(self) -> tuple[float, ...]:
        step = (self.high - self.low) / TICKS
        return tuple(self.high - step * number for number in range(TICKS + 1))

    def times(self, number: int = TICKS) -> tuple[int, ...]:
        return tuple(self.first + (self.last - self.first) * tick // number for tick in range(number + 1))


def area(points: Sequence[Point], hints: Sequence[str], title: str, told: str, zero: bool = False) -> Plot:
    """A line with the ground below it. `hints`: what is shown above each point;
    `zero`: the axis begins there."""
    frame = _frame([at for at, _ in points], [value for _, value in points], zero)
    line = _path((frame.x(at), frame.y(value)) for at, value in points)
    ground = f"{line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z" if points else ""
    body = Markup('<path class="ground" d="{}"/><path class="line" d="{}"/>').format(ground, line)
    return _plot(frame, body + _hints([at for at, _ in points], frame, hints), title, told)


def candles(found: Sequence[Candle], hints: Sequence[str], title: str, told: str) -> Plot:
    """One for each span: its body from open to close, its wick from low to high."""
    extremes = [value for one in found for value in (one.low, one.high)]
    span = found[0].span_ms if found else 1
    frame = _frame([one.start_ms for one in found], extremes, False, span)
    body = Markup("").join(_candle(one, frame) for one in found)
    return _plot(frame, body + _hints([one.start_ms for one in found], frame, hints, span), title, told)


def spark(values: Sequence[float]) -> Markup:
    """A line of the size of a word; what it says stands beside it in words."""
    if len(values) < 2:
        return Markup("")
    (width, height), low, high = SPARK, min(values), max(values)
    way = "rises" if values[-1] >= values[0] else "falls"
    scale = (height - 4) / ((high - low) or 1)
    line = _path(
        (width * number / (len(values) - 1), height - 2 - (value - low) * scale)
        for number, value in enumerate(values)
    )
    return Markup(
        '<svg class="spark {}" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true"'
        ' focusable="false"><path class="line" d="{}"/></svg>'
    ).format(way, width, height, line)


def strip(days: Sequence[tuple[int, int]], today: int, hints: Sequence[str], told: str) -> Markup:
    """Uptime: a bar for each of the last DAYS days, as high as the part of it in which the provider was
    there. `hints` has one for each bar, the oldest first."""
    hours = {day: mask.bit_count() for day, mask in days}
    bars = Markup("").join(
        _bar(number, hours.get(today - DAYS + 1 + number), hints[number]) for number in range(DAYS)
    )
    return Markup(
        '<svg class="strip" role="img" viewBox="0 0 {} 32" preserveAspectRatio="none"'
        ' aria-label="{}">{}</svg>'
    ).format(DAYS * 10, told, bars)


def shares(days: Sequence[tuple[int, int]]) -> float:
    """Part of the hours of these days in which the provider was there, 0 to 1."""
    return sum(mask.bit_count() for _, mask in days) / (HOURS * len(days)) if days else 0.0


# --- parts ----------------------------------------------------------------------------------------


def _frame(times: Sequence[int], values: Sequence[float], zero: bool, span: int = 0) -> Frame:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    step = _round_up(((high - (0 if zero else low)) or abs(high) or 1) / TICKS)
    bottom = 0.0 if zero else math.floor(low / step) * step
    while bottom + TICKS * step < high:
        step = _round_up(step * 1.01)
        bottom = 0.0 if zero else math.floor(low / step) * step
    first, last = (times[0], times[-1] + span) if times else (0, 1)
    return Frame(first, last, bottom, bottom + TICKS * step)


def _round_up(step: float) -> float:
    """To 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def _plot(frame: Frame, body: Markup, title: str, told: str) -> Plot:
    lines = Markup("").join(
        Markup('<path class="grid" d="M0 {0}H{1}"/>').format(HEIGHT * tick // TICKS, WIDTH)
        for tick in range(TICKS + 1)
    )
    svg = Markup(
        '<svg class="plot" role="img" viewBox="0 0 {} {}" preserveAspectRatio="none"'
        ' aria-label="{}">{}{}</svg>'
    ).format(WIDTH, HEIGHT, f"{title}. {told}", lines, body)
    return Plot(svg, frame.values, frame.times())


def _hints(times: Sequence[int], frame: Frame, hints: Sequence[str], span: int = 0) -> Markup:
    """Invisible columns; whoever points at one reads its hint."""
    edges = [
        frame.first,
        *((one + other) / 2 for one, other in pairwise(times)),
        frame.last,
    ]
    if span:
        edges = [*times, frame.last]
    return Markup("").join(
        Markup('<rect class="hint" x="{}" y="0" width="{}" height="{}"><title>{}</title></rect>').format(
            _short(frame.x(left)), _short(frame.x(right) - frame.x(left)), HEIGHT, hint
        )
        for left, right, hint in zip(edges, edges[1:], hints, strict=False)
    )


def _candle(one: Candle, frame: Frame) -> Markup:
    left, width = frame.x(one.start_ms), frame.x(one.start_ms + one.span_ms) - frame.x(one.start_ms)
    top, bottom = frame.y(max(one.open, one.close)), frame.y(min(one.open, one.close))
    middle = _short(left + width / 2)
    return Markup(
        '<path class="wick {0}" d="M{1} {2}V{3}"/>'
        '<rect class="body {0}" x="{4}" y="{5}" width="{6}" height="{7}"/>'
    ).format(
        "rises" if one.close >= one.open else "falls", middle, _short(frame.y(one.high)),
        _short(frame.y(one.low)), _short(left + width / 5), _short(top), _short(width * 3 / 5),
        _short(max(1.5, bottom - top)),
    )  # fmt: skip


def _bar(number: int, hours: int | None, hint: str) -> Markup:
    kind = "none" if not hours else "full" if hours >= HOURS - 1 else "part"
    height = 32 if not hours else 8 + hours
    return Markup(
        '<rect class="day {}" x="{}" y="{}" width="8" height="{}" rx="1.5"><title>{}</title></rect>'
    ).format(kind, number * 10 + 1, 32 - height, height, hint)


def _path(points: Iterable[tuple[float, float]]) -> str:
    steps = [f"{_short(x)} {_short(y)}" for x, y in points]
    return "M" + "L".join(steps) if steps else ""


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
