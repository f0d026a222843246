"""Graphs of lines of dots for any width: a plot with axes and units, and the same in words. Pure.

A character of braille holds 2 x 4 dots, so a plot of w x h characters shows 2w moments at 4h levels. The
area below the line is filled. Where nothing was measured nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from tui.show import rate_words

BRAILLE: Final = 0x2800
DOTS: Final = ((0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08))
"""Of the left and the right column, from the lowest up."""
DOTS_PER_CHAR: Final = 4
GAPS: Final = 3.0
"""A value holds so many usual steps; after that nothing is known."""
MIN_PLOT: Final = 4
"""Columns; narrower there are only words."""
ROWS_FOR_MIDDLE: Final = 5

Point = tuple[int, float | None]
"""Instant in ms and value."""


@dataclass(frozen=True)
class Series:
    """One curve. `top` is the highest value the axis shows at least; 0 = by the values."""

    name: str
    unit: str
    points: Sequence[Point]
    top: float = 0
    hot: float | None = None
    """From here on it is too much (a temperature); shown in words and in another colour."""


@dataclass(frozen=True)
class Row:
    """One line of a plot: what stands left of the axis, and the dots."""

    label: str
    dots: str
    hot: tuple[bool, ...] = ()
    """Of each character of the dots."""


@dataclass(frozen=True)
class Plot:
    rows: tuple[Row, ...]
    below: str
    """The time axis, as wide as the rows."""


def plot(series: Series, start_ms: int, end_ms: int, width: int, height: int) -> Plot:
    """As wide and as high as that in all, axes included; without rows where there is no room."""
    rows = height - 1
    top = top_of(series, start_ms, end_ms)
    label_width = len(number(top, series.unit))
    columns = width - label_width - 1
    if rows < 1 or columns < MIN_PLOT or end_ms <= start_ms:
        return Plot((), "")
    values = resampled(series.points, start_ms, end_ms, columns * 2)
    levels = [
        None if one is None else round(max(0.0, min(one, top)) / top * rows * DOTS_PER_CHAR) for one in values
    ]
    made = tuple(
        Row(
            _label(row, rows, top, series.unit).rjust(label_width) + "│",
            _dots(levels, row),
            _hot(series, values) if series.hot is not None and top * (row + 1) / rows > series.hot else (),
        )
        for row in reversed(range(rows))
    )
    return Plot(made, " " * label_width + "└" + _time_axis(end_ms - start_ms, columns))


def _hot(series: Series, values: Sequence[float | None]) -> tuple[bool, ...]:
    """Which characters stand for a moment at which it was too much."""
    pairs = zip(values[::2], values[1::2], strict=True)
    return tuple(any(one is not None and one >= (series.hot or 0) for one in pair) for pair in pairs)


def top_of(series: Series, start_ms: int, end_ms: int) -> float:
    """Of the axis: `series.top`, or a round number above the highest value."""
    highest = max((value for at, value in series.points if value is not None and start_ms <= at <= end_ms),
                  default=0.0)  # fmt: skip
    if series.top and highest <= series.top:
        return series.top
    if series.unit == "MB" and highest > 1_024:
        return _round_above(highest / 1_024) * 1_024
    return _round_above(highest)


def _round_above(value: float) -> float:
    """1, 2, 3, 4, 5, 6 or 8 times a power of ten that is not less."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(step * power for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * power >= value)


def resampled(points: Sequence[Point], start_ms: int, end_ms: int, columns: int) -> list[float | None]:
    """The mean of each of so many equal spans of time. A span without a value has that of the value before
    it, unless that is too old."""
    sums, counts = [0.0] * columns, [0] * columns
    span = (end_ms - start_ms) / columns
    ordered = sorted(one for one in points if one[0] <= end_ms)
    for at, value in ordered:
        if at > start_ms and value is not None:
            index = min(columns - 1, int((at - start_ms) / span))
            sums[index] += value
            counts[index] += 1
    hold_ms = max(span, GAPS * _step(ordered))
    found: list[float | None] = []
    known = [(at, value) for at, value in ordered if at <= start_ms][-1:]
    last: Point = known[0] if known else (start_ms - round(hold_ms) - 1, None)
    for index in range(columns):
        end = start_ms + (index + 1) * span
        if counts[index]:
            last = (round(end), sums[index] / counts[index])
        found.append(last[1] if end - last[0] <= hold_ms else None)
    return found


def _step(ordered: Sequence[Point]) -> float:
    """The usual time between two values, ms."""
    return median(after[0] - before[0] for before, after in pairwise(ordered)) if len(ordered) > 1 else 0.0


def _dots(levels: Sequence[int | None], row: int) -> str:
    """The characters of one row; row 0 is the lowest. What is measured is at least one dot high."""
    chars = []
    for left, right in zip(levels[::2], levels[1::2], strict=True):
        code = 0
        for level, dots in zip((left, right), DOTS, strict=True):
            height = 0 if level is None else max(1, level) - row * DOTS_PER_CHAR
            code |= sum(dots[: max(0, height)])
        chars.append(chr(BRAILLE + code) if code else " ")
    return "".join(chars)


def _label(row: int, rows: int, top: float, unit: str) -> str:
    if row == rows - 1:
        return number(top, unit)
    if row == 0:
        return "0"
    middle = rows % 2 and row == rows // 2 and rows >= ROWS_FOR_MIDDLE
    return number(top / 2, unit) if middle and len(number(top / 2, unit)) <= len(number(top, unit)) else ""


def _time_axis(span_ms: int, columns: int) -> str:
    """ "10 min ago ─────── now", or as much of it as there is room for."""
    ago, now = f"{span_words(span_ms // 1_000)} ago", "now"
    lines = columns - len(ago) - len(now) - 2
    if lines >= 1:
        return f"{ago} {'─' * lines} {now}"
    return "─" * max(0, columns - len(now) - 1) + " now" if columns > len(now) else "─" * columns


def span_words(seconds: int) -> str:
    """ "10 min", "6 h", "3 d"."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit or seconds == unit:
            return f"{seconds / unit:.{0 if seconds % unit == 0 else 1}f} {name}"
    return f"{seconds} s"


def number(value: float, unit: str) -> str:
    """ "87 %", "23.5 GB": short, with its unit. Values in MB become GB, rates kB/s and so on."""
    if unit == "B/s":
        return rate_words(round(value))
    if unit == "MB" and abs(value) >= 1_024:
        value, unit = value / 1_024, "GB"
    digits = 0 if value == round(value) or abs(value) >= 100 else 1 if abs(value) >= 1 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()


def summary(series: Series, start_ms: int, end_ms: int) -> str:
    """The curve in words: the newest value, the mean and the highest."""
    within = [value for at, value in sorted(series.points) if start_ms <= at <= end_ms and value is not None]
    if not within:
        return "not told"
    newest, mean, most = within[-1], sum(within) / len(within), max(within)
    words = (
        f"{number(newest, series.unit)}, mean {number(mean, series.unit)}, most {number(most, series.unit)}"
    )
    return f"{words}, HOT" if series.hot is not None and newest >= series.hot else words
