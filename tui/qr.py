"""A QR code for a terminal: two modules a character, dark on light whatever the theme is."""

from __future__ import annotations

from typing import Final

import segno
from rich.style import Style
from rich.text import Text

QUIET_MODULES: Final = 2
PAPER_ON_INK: Final = Style(color="#ffffff", bgcolor="#000000")
GLYPHS: Final = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
"""(upper, lower) module, 1 is ink. The paper is drawn, so that it can be read without colours, too."""


def qr_code(text: str) -> Text:
    """Rows of half blocks, as wide as the code has modules, its quiet zone included."""
    rows = [list(row) for row in segno.make_qr(text, error="m").matrix_iter(border=QUIET_MODULES)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    pairs = zip(rows[::2], rows[1::2], strict=True)
    lines = ("".join(GLYPHS[two] for two in zip(upper, lower, strict=True)) for upper, lower in pairs)
    return Text("\n".join(lines), PAPER_ON_INK, no_wrap=True)
