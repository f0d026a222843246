"""Keeps answers that are dear to compute for a few seconds, and lets all who ask meanwhile have the same."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MOST: Final = 64
"""Different questions at a time; those asked longest ago go first."""


class Remembered(Generic[T]):
    """Of one process."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._answers: OrderedDict[str, tuple[float, asyncio.Task[T]]] = OrderedDict()

    def have(self, question: str) -> T | None:
        """What is known already."""
        since, task = self._answers.get(question, (0.0, None))
        known = task is not None and task.done() and not _failed(task)
        return task.result() if task and known and self._clock() - since < self._seconds else None

    async def get(self, question: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` answers, or has answered no more than `seconds` ago. Trouble is not remembered."""
        now = self._clock()
        since, task = self._answers.get(question, (0.0, None))
        if task is None or now - since >= self._seconds or (task.done() and _failed(task)):
            task = asyncio.ensure_future(_asked(ask))
            self._answers[question] = (now, task)
            self._answers.move_to_end(question)
            if len(self._answers) > MOST:
                self._answers.popitem(last=False)
        return await asyncio.shield(task)  # who goes away takes nobody's answer along


async def _asked(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()


def _failed(task: asyncio.Task[T]) -> bool:
    return task.cancelled() or task.exception() is not None
