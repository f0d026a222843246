"""Looks for better ways while links use something worse than a direct one, ever more rarely; and at once when
this machine's network is another."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from typing import Final, Protocol

import trio

from protocol.errors import QubixError
from protocol.paths import PathKind
from protocol.units import PeerKey
from qubixd.link import LinkView

log = logging.getLogger("qubix.paths")

PAUSES_SECONDS: Final = (5.0, 30.0, 120.0, 600.0)
"""Between tries for one peer; the last again and again. The first is short: whoever waited for the first
carrier was not made to wait for a better one."""
JITTER: Final = 0.2
TRIES_AT_A_TIME: Final = 4
GOOD: Final = PathKind.PUNCHED
"""This, or better, is good enough."""


class Links(Protocol):
    """Of link.links."""

    on_change: list[Callable[[PeerKey], None]]

    def peers(self) -> tuple[PeerKey, ...]: ...
    def view(self, peer: PeerKey) -> LinkView | None: ...
    async def improve(self, peer: PeerKey) -> bool: ...


class Improver:
    """One timer for all peers; none while nothing could be better."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._due: dict[PeerKey, tuple[int, float]] = {}
        """How often it was tried, and when it is tried next, for those who could do better."""
        self._woken = trio.Event()

    def look(self, peer: PeerKey) -> None:
        """Something about the links with a peer has changed."""
        if self._could_be_better(peer) != (peer in self._due):
            self._woken.set()

    def again(self) -> None:
        """The network is another: try everything at once."""
        self._due = dict.fromkeys(self._due, (0, trio.current_time()))
        self._woken.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        self._links.on_change.append(self.look)
        task_status.started()
        while True:
            self._woken = trio.Event()
            self._note()
            await self._try_due()
            with trio.move_on_at(min((at for _, at in self._due.values()), default=math.inf)):
                await self._woken.wait()

    def _note(self) -> None:
        """Who could do better, and since when."""
        worse = [peer for peer in self._links.peers() if self._could_be_better(peer)]
        kept = {peer: self._due.get(peer) or (0, _after(0)) for peer in worse}
        self._due = kept

    def _could_be_better(self, peer: PeerKey) -> bool:
        """Also with no stream at this moment: a browser opens one for each page. Links that are not used any
        more have no carriers, and no view."""
        view = self._links.view(peer)
        return view is not None and view.kind.rank > GOOD.rank

    async def _try_due(self) -> None:
        now = trio.current_time()
        due = [peer for peer, (_, at) in self._due.items() if at <= now][:TRIES_AT_A_TIME]
        async with trio.open_nursery() as nursery:
            for peer in due:
                tries = self._due[peer][0] + 1
                self._due[peer] = (tries, _after(tries))
                nursery.start_soon(self._try, peer)

    async def _try(self, peer: PeerKey) -> None:
        try:
            if await self._links.improve(peer):
                log.info("found a better way to %s", peer.hex()[:16])
        except QubixError as error:
            log.debug("no better way to %s: %s", peer.hex()[:16], error)


def _after(tries: int) -> float:
    pause = PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)]
    return trio.current_time() + pause * random.uniform(1 - JITTER, 1 + JITTER)
