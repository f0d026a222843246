"""A QR code for a terminal: two modules a character, dark on light whatever the theme is."""

from __future__ import annotations

from typing import Final

import segno
from rich.style import Style
from rich.text import Text

QUIET_MODULES: Final = 2
INK: Final = "#000000"
PAPER: Final = "#ffffff"


def qr_code(text: str) -> Text:
    """Rows of half blocks, as wide as the code has modules, its quiet zone included."""
    rows = [list(row) for row in segno.make_qr(text, error="m").matrix_iter(border=QUIET_MODULES)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    drawn = Text(no_wrap=True)
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            drawn.append("▀", Style(color=INK if above else PAPER, bgcolor=INK if below else PAPER))
        drawn.append("\n")
    return drawn
