"""Lines a person types, without a thread that would wait for one more after the end."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

CHUNK: Final = 4_096
MAX_LINE: Final = 100_000


class Lines:
    """`read` waits for a line of standard input; None at its end."""

    def __init__(self) -> None:
        self._rest = b""

    async def read(self) -> str | None:
        while b"\n" not in self._rest and len(self._rest) < MAX_LINE:
            await _readable(sys.stdin.fileno())
            data = os.read(sys.stdin.fileno(), CHUNK)
            if not data:
                break
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace") if line or self._rest or data else None


async def _readable(descriptor: int) -> None:
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:
        return  # a file, which never makes anyone wait
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
