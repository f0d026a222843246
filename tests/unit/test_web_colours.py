"""The colours of the pages, light and dark, can be told apart (WCAG 2.1, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from web.assets import FOLDER

SHEET = (FOLDER / "site.css").read_text()
TEXTS = {
    "text": ("ground", "surface", "raised", "tint"),
    "muted": ("ground", "surface", "raised"),
    "link": ("ground", "surface", "tint", "raised"),
    "on-accent": ("accent",),
    "good": ("surface", "good-tint", "ground"),
    "warn": ("surface", "warn-tint", "ground"),
    "bad": ("surface", "bad-tint", "ground"),
}
"""Each with what it is written on."""
SHAPES = {"edge": ("surface", "ground"), "accent": ("surface", "raised"), "focus": ("ground", "surface")}
"""Lines and marks that mean something."""


def colours(name: str) -> tuple[str, ...]:
    """(light, dark)."""
    found = re.search(rf"--{name}: light-dark\(#(\w{{6}}), #(\w{{6}})\);", SHEET)
    assert found is not None, name
    return found.groups()


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG21/#dfn-relative-luminance"""
    shares = (int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4))
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def pairs() -> Iterator[tuple[str, str, float]]:
    yield from ((front, back, 4.5) for front, backs in TEXTS.items() for back in backs)
    yield from ((front, back, 3.0) for front, backs in SHAPES.items() for back in backs)


@pytest.mark.parametrize(("front", "back", "least"), list(pairs()))
def test_colours_can_be_told_apart(front: str, back: str, least: float) -> None:
    for one, other in zip(colours(front), colours(back), strict=True):
        assert contrast(one, other) >= least


def test_contrast_is_computed_as_the_standard_says() -> None:
    assert contrast("000000", "ffffff") == pytest.approx(21)
    assert contrast("777777", "ffffff") == pytest.approx(4.48, abs=0.01)


def test_motion_and_print_are_thought_of() -> None:
    assert "prefers-reduced-motion: reduce" in SHEET and "@media print" in SHEET and "forced-colors" in SHEET
