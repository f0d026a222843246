"""Blocking file work off the event loop, on worker threads of its own number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import trio

from ledger.store import RunSync

T = TypeVar("T")
FILE_THREADS: Final = 8


def in_threads() -> RunSync:
    """RunSync on up to FILE_THREADS threads at once; what has begun is never abandoned."""
    limiter = trio.CapacityLimiter(FILE_THREADS)

    async def run(fn: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(fn, limiter=limiter)

    return run


def in_turn(run: RunSync) -> RunSync:
    """The same threads, one call at a time."""
    one = trio.Lock()

    async def go(fn: Callable[[], T]) -> T:
        async with one:
            return await run(fn)

    return go
