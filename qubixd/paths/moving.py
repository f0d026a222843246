"""Tells those with whom links run that this machine is elsewhere now, as soon as they can be reached: else
they would take the silence for a pause, and wait."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import trio

from protocol.errors import QubixError
from protocol.units import PeerKey

log = logging.getLogger("qubix.paths")

PAUSES_SECONDS: Final = (1.0, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0)
"""Before each try: the wire has to notice first, and to find its relays again."""


class Herald:
    """`tell` says to one peer where this node is."""

    def __init__(self, tell: Callable[[PeerKey], Awaitable[object]]) -> None:
        self._tell = tell
        self._peers: dict[PeerKey, None] = {}
        """Whom to tell yet."""
        self._moved = trio.Event()

    def moved(self, peers: Iterable[PeerKey]) -> None:
        """From now on it is another place, and these are to know it."""
        self._peers.update(dict.fromkeys(peers))
        self._moved.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        task_status.started()
        while True:
            await self._moved.wait()
            self._moved = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_moved, nursery.cancel_scope)
                await self._tell_all()
                nursery.cancel_scope.cancel()

    async def _until_moved(self, scope: trio.CancelScope) -> None:
        await self._moved.wait()
        scope.cancel()

    async def _tell_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for peer in self._peers:
                nursery.start_soon(self._tell_one, peer)

    async def _tell_one(self, peer: PeerKey) -> None:
        for pause in PAUSES_SECONDS:
            await trio.sleep(pause)
            try:
                await self._tell(peer)
                break
            except QubixError as error:
                log.debug("%s does not know yet that this node moved: %s", peer.hex()[:16], error)
        self._peers.pop(peer, None)
