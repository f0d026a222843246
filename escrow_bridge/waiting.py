"""Why the bridge waits for the chain: a sentence for the people who wait with it, at times for the log."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import trio

from protocol.errors import ChainDisagrees, ChainUnreachable

_LOG: Final = logging.getLogger(__name__)
GRACE_SECONDS: Final = 10.0
"""Every transaction takes some seconds: no reason to tell of them."""
LOG_EVERY_SECONDS: Final = 60.0
T = TypeVar("T")


class Waiting:
    """What waits for the chain at present, and why. Whatever waits has a key of its own."""

    def __init__(self) -> None:
        self.on_change: list[Callable[[], object]] = []
        """Called at once whenever `why` is another; must not block."""
        self._since: dict[Hashable, float] = {}
        self._told: dict[Hashable, str] = {}
        self._logged_at = -math.inf

    @property
    def why(self) -> str:
        """Why the one that has waited the longest does, in a sentence; "" if nothing waits unusually long."""
        return next(iter(self._told.values()), "")

    def because(self, key: Hashable, sentence: str) -> None:
        """It has to wait, still."""
        now, before = trio.current_time(), self.why
        if now - self._since.setdefault(key, now) < GRACE_SECONDS:
            return
        self._told[key] = sentence
        if now - self._logged_at >= LOG_EVERY_SECONDS:
            self._logged_at = now
            _LOG.warning("waiting for the chain: %s", sentence)
        self._changed(before)

    def over(self, key: Hashable) -> None:
        """It waits no more. No error if it never did."""
        before = self.why
        self._since.pop(key, None)
        self._told.pop(key, None)
        self._changed(before)

    def _changed(self, before: str) -> None:
        if self.why != before:
            for notice in self.on_change:
                notice()

    @contextmanager
    def reasons(self) -> Iterator[Callable[[str], None]]:
        """For something that waits inside the block: tells why it does, each time it looks."""
        key = object()
        self._since[key] = trio.current_time()
        try:
            yield lambda sentence: self.because(key, sentence)
        finally:
            self.over(key)

    async def patiently(self, call: Callable[[], Awaitable[T]], poll_seconds: float) -> T:
        """Repeat a read or a broadcast until the chain answers, and answers sensibly: once something was
        sent, a node that is down or confused must not decide what became of the money."""
        with self.reasons() as because:
            while True:
                try:
                    return await call()
                except (ChainUnreachable, ChainDisagrees) as error:
                    because(str(error))
                    await trio.sleep(poll_seconds)
