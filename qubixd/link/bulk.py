"""What moving bytes costs this thread, which is no sign that there is anything else to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_moving = [0.0]
"""Seconds of processor time, of all sockets together."""


@contextmanager
def moving() -> Iterator[None]:
    """Around a visit to the kernel with bytes; nothing may be awaited in it."""
    begun = time.thread_time()
    try:
        yield
    finally:
        _moving[0] += time.thread_time() - begun


def other_seconds() -> float:
    """Processor time of this thread for all but that."""
    return time.thread_time() - _moving[0]
