"""What moving bulk costs this thread, which is no sign that there is anything else to do."""

from __future__ import annotations

import time
from typing import Final

clock: Final = time.perf_counter
"""Around each visit to the kernel with bytes: `spent[0] += clock() - begun`. The processor time of the thread
would be exact, and is itself a system call: two for each visit cost more than a tenth of the speed."""
spent: Final = [0.0]
"""Seconds, of all sockets together."""


def other_seconds() -> float:
    """Processor time of this thread for all but that; less where it had to wait for the processor."""
    return time.thread_time() - spent[0]
