"""The colours, dark and light. Every pair of text and ground has a contrast of at least 4.5 (WCAG AA)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from textual.theme import Theme

REMEMBERED_IN: Final = "colours"
"""File of the data directory with the name of the theme."""

DARK = Theme(
    name="qubix-dark",
    dark=True,
    primary="#5aa9e6",
    secondary="#3f6f8f",
    accent="#f4b860",
    success="#7bd389",
    warning="#f4b860",
    error="#ff7b7b",
    foreground="#e6edf3",
    background="#0f1720",
    surface="#16212c",
    panel="#1f2d3a",
    variables={
        "scrollbar-background": "#16212c",
        "scrollbar": "#3f6f8f",
        "scrollbar-corner-color": "#16212c",
    },
)
LIGHT = Theme(
    name="qubix-light",
    dark=False,
    primary="#0b5c9e",
    secondary="#33607f",
    accent="#8a4b00",
    success="#17662b",
    warning="#8a4b00",
    error="#b3261e",
    foreground="#14202b",
    background="#f7f9fb",
    surface="#ffffff",
    panel="#e3eaf0",
    variables={
        "scrollbar-background": "#e3eaf0",
        "scrollbar": "#7d9cb5",
        "scrollbar-corner-color": "#e3eaf0",
    },
)
THEMES = {"dark": DARK, "light": LIGHT}


def remembered(directory: Path) -> str:
    """The theme chosen last; dark where nobody has chosen."""
    try:
        name = (directory / REMEMBERED_IN).read_text("ascii")[:16].strip()
    except (OSError, UnicodeDecodeError):
        return "dark"
    return name if name in THEMES else "dark"


def remember(directory: Path, name: str) -> None:
    """For the next start; where it cannot be written that start is as ever."""
    with suppress(OSError):
        (directory / REMEMBERED_IN).write_text(name, "ascii")
