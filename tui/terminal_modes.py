"""What a program far away may leave a terminal in, and keys that are meant for qubix itself. Pure."""

from __future__ import annotations

import re
from typing import Final

_MODES: Final = re.compile(rb"\x1b\[\?([0-9;]{1,32})([hl])")
SCREENS: Final = frozenset({47, 1047, 1049})
"""The alternate screen, which full-screen programs use."""
OFF_AT_REST: Final = SCREENS | {1, 9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 2004}
"""Cursor keys of applications, mice, focus, pasted text in brackets: what a shell's line does not know."""
CURSOR: Final = 25
"""The one that is on at rest."""
_TAIL_BYTES: Final = 40


class Modes:
    """Follows a terminal's output to know what must be put right if nobody else does."""

    def __init__(self) -> None:
        self._on: set[int] = set()
        self._cursor = True
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """What the terminal is sent; an order may be cut anywhere."""
        if b"\x1b" not in data and not self._tail:
            return
        text = self._tail + data
        for found in _MODES.finditer(text):
            for mode in map(int, filter(None, found[1].split(b";"))):
                self._set(mode, found[2] == b"h")
        at = text.rfind(b"\x1b", max(0, len(text) - _TAIL_BYTES))
        self._tail = text[at:] if at >= 0 and not _MODES.match(text, at) else b""

    def _set(self, mode: int, on: bool) -> None:
        if mode == CURSOR:
            self._cursor = on
        elif mode in OFF_AT_REST:
            (self._on.add if on else self._on.discard)(mode)

    @property
    def full_screen(self) -> bool:
        return bool(self._on & SCREENS)

    def rest(self) -> bytes:
        """What brings the terminal back to where a shell expects it; nothing if it is there."""
        if not self._on and self._cursor:
            return b""
        screens = sorted(self._on & SCREENS)
        off = b"".join(b"\x1b[?%dl" % mode for mode in sorted(self._on - SCREENS) + screens)
        return off + b"\x1b[?25h\x1b[0m\x1b>"


class Escapes:
    """Finds `~.` and its like at the beginning of a line of what is typed."""

    LEAVE, SUSPEND, HELP = b".", b"\x1a", b"?"

    def __init__(self) -> None:
        self._at_start = True
        self._held = False

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Pairs of (what goes to the program, the order after it: LEAVE, SUSPEND, HELP or b"")."""
        found: list[tuple[bytes, bytes]] = []
        kept = bytearray()
        for key in data:
            char = bytes((key,))
            if self._held:
                self._held = False
                if char in (self.LEAVE, self.SUSPEND, self.HELP):
                    found.append((bytes(kept), char))
                    kept.clear()
                    self._at_start = True
                    continue
                kept += b"" if char == b"~" else b"~"
            elif self._at_start and char == b"~":
                self._held = True
                continue
            kept += char
            self._at_start = char in b"\r\n"
        found.append((bytes(kept), b""))
        return found
