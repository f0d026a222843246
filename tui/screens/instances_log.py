"""A job's log as lines to look at and to search: harmless text of a bounded size, whatever a job writes.

Bytes become text as in tui/safe.py. A line that a progress bar writes again and again (carriage returns) is
shown as it ends up, as a terminal would; colours are left out. The oldest lines go when there are too many.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Final

from tui.safe import SafeStream, safe_text

MAX_LINES: Final = 20_000
MAX_CHARS: Final = 8_000_000
MAX_LINE_CHARS: Final = 2_000
"""A longer line goes on in the next."""
MAX_PENDING_CHARS: Final = 4 * MAX_LINE_CHARS
"""Of a line that has not ended yet, before anything is left out of it."""
TAB: Final = 8
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]{0,64}m")
_HALF_COLOUR: Final = re.compile(r"\x1b(\[[0-9;:]{0,64})?$")


class LogBuffer:
    """Lines are counted from the first that the job wrote; `dropped` of them are not here any more."""

    def __init__(self) -> None:
        self.dropped = 0
        self._lines: deque[str] = deque()
        self._chars = 0
        self._stream = SafeStream()
        self._pending = ""

    def __len__(self) -> int:
        """Lines that are here, one that has not ended included."""
        return len(self._lines) + bool(self._pending)

    def feed(self, data: bytes, *, final: bool = False) -> None:
        """More of the log; `final`: nothing comes after it."""
        *ended, rest = (self._pending + self._stream.decode(data, final=final)).split("\n")
        for line in ended:
            self._add(line)
        while len(rest) > MAX_PENDING_CHARS:
            rest = self._shortened(rest)
        self._pending = rest
        if final and rest:
            self._add(rest)
            self._pending = ""

    def line(self, index: int) -> str:
        """One of those that are here, 0 is the oldest."""
        if index < len(self._lines):
            return self._lines[index]
        return shown(self._pending)[-1]

    def tail(self, count: int) -> list[str]:
        """The last lines."""
        size = len(self)
        return [self.line(index) for index in range(max(0, size - count), size)]

    def text(self) -> str:
        """All that is here, for copying and saving."""
        return "\n".join([*self._lines, *([self.line(len(self._lines))] if self._pending else [])])

    def find(self, words: str) -> list[int]:
        """The indices of the lines that contain the words, in capital or small letters."""
        if not words:
            return []
        wanted = re.compile(re.escape(words), re.IGNORECASE)
        return [index for index in range(len(self)) if wanted.search(self.line(index))]

    def _shortened(self, rest: str) -> str:
        """Of a line without an end: what was overwritten goes, or else its beginning becomes lines."""
        last = rest.rfind("\r", 0, len(rest) - 1)
        if last >= 0:
            return rest[last + 1 :]
        self._add(rest[:MAX_LINE_CHARS])
        return rest[MAX_LINE_CHARS:]

    def _add(self, raw: str) -> None:
        for line in shown(raw):
            self._lines.append(line)
            self._chars += len(line)
        while len(self._lines) > MAX_LINES or self._chars > MAX_CHARS:
            self._chars -= len(self._lines.popleft())
            self.dropped += 1


def shown(raw: str) -> list[str]:
    """One line of a log as a terminal may be given it, in pieces of MAX_LINE_CHARS at most."""
    kept = raw.rstrip("\r").rpartition("\r")[2]
    plain = safe_text(_HALF_COLOUR.sub("", _COLOUR.sub("", kept))).expandtabs(TAB)
    return [plain[at : at + MAX_LINE_CHARS] for at in range(0, len(plain), MAX_LINE_CHARS)] or [""]


def places(line: str, words: str) -> Iterator[tuple[int, int]]:
    """Where the words stand in a line: (begin, end)."""
    if words:
        for match in re.finditer(re.escape(words), line, re.IGNORECASE):
            yield match.span()
