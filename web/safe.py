"""Makes text from strangers harmless before a page shows it. Pure.

A provider chooses its name, region and more. Jinja escapes markup; what remains are characters that hide,
reorder or pile up: they are written out, so that whoever reads sees that something is there.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from markupsafe import Markup

MOST: Final = 60
"""Characters of a name that are shown."""
MARKS: Final = 3
"""Combining marks upon one letter; more only reach into the lines above and below."""
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2400\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\ue000-\uf8ff"
    "\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
"""C0, DEL, C1, what is empty or invisible, what reorders, lone surrogates, private use, tags."""


def shown(text: str, most: int = MOST) -> str:
    """On one line, every odd character as its code (`\\u202e`), cut with an ellipsis."""
    cut = text[: most + 1]  # so that a long one is not worked through to its end
    line = _UNSAFE.sub(_visible, _unpiled(cut))
    return line if len(line) <= most and len(text) <= most else line[: most - 1] + "…"


def theirs(text: str, most: int = MOST) -> Markup:
    """The same for a page, apart from the text around it: letters written from right to left stay there."""
    return Markup('<bdi class="theirs">{}</bdi>').format(shown(text, most))


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unpiled(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if marks <= MARKS:
            kept.append(char)
    return "".join(kept)
