"""Keeps answers that are dear to compute for a few seconds, and lets all who ask meanwhile have the same."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MOST: Final = 64
"""Different questions at a time; those asked longest ago go first."""
AT_ONCE: Final = 2
"""What is dear must not take all readers of the mirror, nor the event loop, from what is not."""


@dataclass(eq=False)
class _Answer(Generic[T]):
    task: asyncio.Task[T]
    since: float
    """When the mirror was asked for it."""


class Remembered(Generic[T]):
    """Of one process."""

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, at_once: int = AT_ONCE
    ) -> None:
        """At most `at_once` different questions are worked on at a time; others wait for their turn."""
        self._seconds = seconds
        self._clock = clock
        self._turns = asyncio.Semaphore(at_once)
        self._answers: OrderedDict[str, _Answer[T]] = OrderedDict()

    def have(self, question: str) -> T | None:
        """What is known already."""
        answer = self._answers.get(question)
        return answer.task.result() if answer and answer.task.done() and self._stands(answer) else None

    async def get(self, question: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` answers, or has answered no more than `seconds` ago. Trouble is not remembered."""
        answer = self._answers.get(question)
        if answer is None or not self._stands(answer):
            answer = self._answers[question] = self._asked(ask)
            self._answers.move_to_end(question)
            if len(self._answers) > MOST:
                self._answers.popitem(last=False)
        return await asyncio.shield(answer.task)  # who goes away takes nobody's answer along

    def _stands(self, answer: _Answer[T]) -> bool:
        """Or is awaited."""
        task = answer.task
        if not task.done():
            return True
        failed = task.cancelled() or task.exception() is not None
        return not failed and self._clock() - answer.since < self._seconds

    def _asked(self, ask: Callable[[], Awaitable[T]]) -> _Answer[T]:
        async def work() -> T:
            async with self._turns:
                answer.since = self._clock()
                return await ask()

        answer = _Answer(asyncio.ensure_future(work()), self._clock())
        return answer
