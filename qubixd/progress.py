"""How far a job's preparation has come: told to its caller as far as that is easy, and never stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from protocol.errors import QubixError
from protocol.lease_state import Lease
from protocol.messages import Progress

EVERY_S: Final = 1.0
PATIENCE_S: Final = 5.0

Tell = Callable[[Lease, Progress], Awaitable[object]]


class ProgressTeller:
    """`say` never waits; `run` tells the newest of each lease, once a second at most."""

    def __init__(self) -> None:
        self._newest: dict[bytes, tuple[Lease, Progress]] = {}
        self._telling: set[bytes] = set()
        self._news = trio.Event()

    def say(self, lease: Lease, phase: str, share: float, sentence: str = "") -> None:
        """`share` of the phase is done, 0..1."""
        permille = round(1_000 * min(1.0, max(0.0, share)))
        told = Progress(lease.lease_id, phase[:64], permille, (sentence or phase)[:512])
        self._newest[lease.lease_id] = lease, told
        self._news.set()

    async def run(self, tell: Tell) -> None:
        """Until cancelled. Whoever cannot be reached within a moment hears the next."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                for lease_id in [one for one in self._newest if one not in self._telling]:
                    nursery.start_soon(self._tell, tell, *self._newest.pop(lease_id))
                await trio.sleep(EVERY_S)

    async def _tell(self, tell: Tell, lease: Lease, told: Progress) -> None:
        self._telling.add(lease.lease_id)
        try:
            with trio.move_on_after(PATIENCE_S):
                await tell(lease, told)
        except (QubixError, trio.BrokenResourceError, trio.TooSlowError):
            pass
        finally:
            self._telling.discard(lease.lease_id)
            if self._newest:
                self._news.set()
