"""What a terminal shows as a small picture that is the same every time: SVG without fonts, ids or scripts.

A cell is 8 x 16; each row is one <text>, each run of one style a <tspan> of it, above a <rect> where its
ground differs from the screen's. `c0`, `c1`, ... are the styles in the order of their first use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from xml.sax.saxutils import escape

from rich.cells import cell_len
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.screen import Screen

CELL: Final = 8
ROW: Final = 16
BASE: Final = 12
"""From the top of a row to where letters stand."""
Look = tuple[str, str]
"""Text colour and more CSS of a run."""


def svg_of(screen: Screen[Any]) -> str:
    """The picture of a screen as it is now."""
    rows = [list(Segment.simplify(strip)) for strip in screen._compositor.render_strips()]
    looks: dict[Look, int] = {}
    ground = _commonest(rows)
    grounds: list[str] = []
    texts: list[str] = []
    for number, row in enumerate(rows):
        _draw(row, number, ground, looks, grounds, texts)
    width, height = screen.size.width * CELL, len(rows) * ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
        "<style>text{font:13px monospace;white-space:pre}",
        *(f".c{number}{{fill:{look[0]}{look[1]}}}" for look, number in looks.items()),
        f'</style><rect width="{width}" height="{height}" fill="{ground}"/>',
        *grounds,
        *texts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _draw(
    row: Iterable[Segment],
    number: int,
    ground: str,
    looks: dict[Look, int],
    grounds: list[str],
    texts: list[str],
) -> None:
    column, runs = 0, list[str]()
    for text, style, _ in row:
        width = cell_len(text)
        fore, back, more = _look(style)
        if back != ground:
            where = f'x="{column * CELL}" y="{number * ROW}"'
            grounds.append(f'<rect {where} width="{width * CELL}" height="{ROW}" fill="{back}"/>')
        if text.strip():
            kind = looks.setdefault((fore, more), len(looks))
            runs.append(f'<tspan x="{column * CELL}" class="c{kind}">{escape(text.rstrip())}</tspan>')
        column += width
    if runs:
        texts.append(f'<text y="{number * ROW + BASE}">{"".join(runs)}</text>')


def _look(style: Style | None) -> tuple[str, str, str]:
    """Text colour, ground, more CSS."""
    style = style or Style()
    fore, back = _hex(style.color, "#e0e0e0"), _hex(style.bgcolor, "#000000")
    if style.reverse:
        fore, back = back, fore
    more = ";font-weight:bold" if style.bold else ""
    more += ";text-decoration:underline" if style.underline else ""
    more += ";opacity:.6" if style.dim else ""
    return fore, back, more


def _hex(colour: Color | None, otherwise: str) -> str:
    return otherwise if colour is None or colour.is_default else colour.get_truecolor().hex


def _commonest(rows: Iterable[Iterable[Segment]]) -> str:
    """The ground of most cells."""
    counts: dict[str, int] = {}
    for row in rows:
        for text, style, _ in row:
            back = _look(style)[1]
            counts[back] = counts.get(back, 0) + len(text)
    return max(counts, key=lambda back: (counts[back], back), default="#000000")
