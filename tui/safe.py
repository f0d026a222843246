"""Makes text from strangers harmless before a terminal sees it.

Job logs and names of peers may hold escape sequences that move the cursor, change the title, fill the
clipboard or reverse the reading direction. Whatever could be one is shown as a visible escape.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""C0 but newline and tab, DEL, C1, what hides or reorders text or takes no room itself, lone surrogates."""
_MARKS: Final = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_PILED: Final = re.compile(f"(?<={_MARKS}{{3}}){_MARKS}")
"""No language writes more than three on a letter; many cover the lines above."""
_BREAKS: Final = re.compile("[\n\t]")


def safe_text(text: str) -> str:
    """`text` with every dangerous character written out (`\\x1b`); newlines and tabs stay."""
    safe = _UNSAFE.sub(_visible, text)
    return safe if safe.isascii() else _PILED.sub(_visible, safe)


def safe_line(text: str, max_chars: int = 500) -> str:
    """As `safe_text`, on one line and cut to a length."""
    line = _BREAKS.sub(_visible, safe_text(text))
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"


class SafeStream:
    """Bytes of a log -> harmless text, chunk by chunk; a character may be split between chunks."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, data: bytes, *, final: bool = False) -> str:
        """Text as it is, for a place where it is quoted anyway (JSON)."""
        return self._decoder.decode(data, final)

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """Text that a terminal may be given."""
        return safe_text(self.decode(data, final=final).replace("\r\n", "\n"))


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
