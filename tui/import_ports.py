"""Ports of an imported container as those of a job. Pure."""

from __future__ import annotations

import re
from typing import Final

from protocol.ports import MAX_PORTS
from tui.import_file import Notes

_RANGE: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


class Ports:
    """`found` is as a draft has them: 8888, 47998/udp."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.found: list[str] = []

    def take(self, numbers: str, protocol: str, where: str) -> None:
        """A port or a range of them, inside the container."""
        match, protocol = _RANGE.fullmatch(numbers), protocol.lower()
        if not match or protocol not in ("tcp", "udp"):
            self._notes.left_out(where, f"{f'{numbers}/{protocol}'[:40]!r} is no port of TCP or UDP")
            return
        first, last = int(match[1]), int(match[2] or match[1])
        for number in range(first, min(last, first + MAX_PORTS) + 1):
            text = f"{number}/udp" if protocol == "udp" else str(number)
            if not 1 <= number <= 65_535 or len(self.found) == MAX_PORTS:
                self._notes.left_out(where, f"{number} and what follows: a job names {MAX_PORTS} ports")
                return
            if text not in self.found:
                self.found.append(text)
