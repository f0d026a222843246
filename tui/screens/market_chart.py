"""A price over time as lines of text: what one provider asked against the middle of its GPU's class. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protocol.control_prices import PriceSpanView
from tui import show

OWN: Final = "━"
OTHERS: Final = "┈"
BOTH: Final = "┿"
LEAST_HEIGHT: Final = 3


def prices_over(spans: Sequence[PriceSpanView], since_ms: int, now_ms: int, cells: int) -> list[int | None]:
    """What was asked at the end of each of so many equal parts of the time; None before anything is known."""
    found: list[int | None] = []
    place, price = 0, None
    for cell in range(1, cells + 1):
        end = since_ms + (now_ms - since_ms) * cell // cells
        while place < len(spans) and spans[place].start_ms <= end:
            price = spans[place].close_qu
            place += 1
        found.append(price)
    return found


def chart(own: Sequence[int | None], others: Sequence[int | None], height: int, since: str) -> list[str]:
    """`height` lines and one with the times. The scale is at the left, over both lines together."""
    known = [price for price in (*own, *others) if price is not None]
    if not known:
        return ["No prices are known of this time yet."]
    low, high = min(known), max(known)
    height = max(LEAST_HEIGHT, height)
    labels = {0: show.qu(high), height - 1: show.qu(low)} if low < high else {height // 2: show.qu(low)}
    margin = max(map(len, labels.values()))
    lines = []
    for line in range(height):
        cells = "".join(
            _cell(_is_on(a, line, low, high, height), _is_on(b, line, low, high, height))
            for a, b in zip(own, others, strict=True)
        )
        lines.append(f"{labels.get(line, ''):>{margin}} │{cells}")
    ends = f"{since}{'now':>{max(4, len(own) - len(since))}}"
    return [*lines, f"{'':>{margin}}  {ends}"]


def _is_on(price: int | None, line: int, low: int, high: int, height: int) -> bool:
    if price is None:
        return False
    if low == high:
        return line == height // 2
    return line == height - 1 - (price - low) * (height - 1) // (high - low)


def _cell(own: bool, others: bool) -> str:
    return BOTH if own and others else OWN if own else OTHERS if others else " "
