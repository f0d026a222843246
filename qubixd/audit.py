"""Is this provider seen at all? A look at itself through other people's eyes.

A provider that trusts its heartbeats to directories that pass none of them on is in nobody's book. So it
asks, now and then, some nodes that it did not choose as directories; if most of those that read the market
do not see it, gossip does the directories' work for a while.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import trio

from protocol.errors import QubixError
from protocol.units import PeerKey
from qubixd.sync import sees
from qubixd.wire import Wire

log = logging.getLogger("qubix.audit")

FIRST_SECONDS: Final = 60.0
AUDIT_SECONDS: Final = 300.0
ASKED: Final = 4
ANSWERS: Final = 2
"""Fewer say nothing."""
UNSEEN_SECONDS: Final = 1_800.0
"""So long gossip helps after that; being seen meanwhile may be gossip's doing."""


class Audit:
    """`strangers` gives nodes to ask, in random order; `unseen` is called when they do not see us."""

    def __init__(
        self,
        wire: Wire,
        strangers: Callable[[], Sequence[tuple[PeerKey, Sequence[str]]]],
        settled: Callable[[], bool],
        unseen: Callable[[], None],
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._wire, self._strangers, self._settled, self._unseen = wire, strangers, settled, unseen

    async def run(self) -> None:
        pause = FIRST_SECONDS
        while True:
            await trio.sleep(random.uniform(0.8, 1.2) * pause)
            # Twice in a row: a heartbeat and a report may just have been due.
            if self._settled() and await self._nobody_sees():
                await trio.sleep(FIRST_SECONDS / 2)
                if self._settled() and await self._nobody_sees():
                    self.counters["offer.unseen"] += 1
                    log.warning("no other node sees this machine's offer; it is gossiped from now on")
                    self._unseen()
            pause = AUDIT_SECONDS if self._settled() else FIRST_SECONDS

    async def _nobody_sees(self) -> bool:
        votes: list[bool] = []
        for peer, addresses in self._strangers()[: 3 * ASKED]:
            vote = await self._ask(peer, addresses)
            votes += [vote] if vote is not None else []
            if len(votes) == ASKED:
                break
        return len(votes) >= ANSWERS and 2 * sum(votes) < len(votes)

    async def _ask(self, peer: PeerKey, addresses: Sequence[str]) -> bool | None:
        try:
            return await sees(self._wire, peer, addresses, self._wire.peer_key)
        except (QubixError, trio.BrokenResourceError) as error:
            log.debug("%s cannot say whether it sees us: %s", peer.hex()[:16], error)
            return None
