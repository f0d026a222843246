"""Looks for money that came to the wallet by itself, so that its history tells of it.

A chain says a balance, not what made it. So whenever the balance is another one than at the last look, the
ticks between are read for transfers to this wallet. Where nothing of this node's own moved money meanwhile,
what came must add up: a transfer that does is certain, a rest without a transfer came from a contract or lies
in ticks that can no longer be read. Where own jobs or payments did move money, a transfer is told of and the
balance cannot confirm it; a rest then is theirs and is not told of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

import ledger.arrivals
from escrow_bridge.chain import Balance, Chain
from escrow_bridge.qubic import parse_transaction, transaction_digest
from ledger import journal, transactions
from ledger.arrivals import Arrival, Mark
from ledger.store import Store
from protocol.errors import ChainDisagrees, ChainUnreachable, DiskFull, LedgerBroken
from protocol.lease_state import TERMINAL
from protocol.units import QubicId, Tick, UnixMs
from qubixd.leases import decode_state

log = logging.getLogger("qubix.arrivals")

LOOK_SECONDS: Final = 20.0
FIRST_LOOK_SECONDS: Final = 5.0
"""After the start, when the chain has been heard."""
MAX_TICKS: Final = 100
"""That are read for one look, the last ones: a public node is asked for each."""
KEEP_MARK_MS: Final = 600_000
"""A mark is written down at least so often, so that a restart has few ticks to read."""
NEW_CHAIN_TICKS: Final = 1_000
"""A chain that is so far behind the mark has begun anew."""


@dataclass
class Arrivals:
    store: Store
    chain: Chain
    wallet: QubicId
    now_ms: Callable[[], UnixMs]
    on_arrival: list[Callable[[Arrival], None]] = field(default_factory=list)
    _mark: Mark | None = None
    _doubt: bool = False
    """The last look found a rest that nothing explains; it counts if the next one finds it, too."""

    async def run(self) -> None:
        """Look until cancelled."""
        self._mark = await ledger.arrivals.mark(self.store)
        await trio.sleep(FIRST_LOOK_SECONDS)
        while True:
            try:
                await self.look()
            except (ChainUnreachable, ChainDisagrees, DiskFull, LedgerBroken) as error:
                log.debug("the wallet was not looked at: %s", error)
            await trio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        now, before = await self.chain.balance(self.wallet), self._mark
        if before is None or now.as_of < before.tick - NEW_CHAIN_TICKS:
            await self._note(opening(now, self.now_ms()), now)
        elif now.as_of <= before.tick:
            return
        elif now.amount == before.balance:
            await self._stand_still(now, before)
        else:
            found = await self._transfers(Tick(max(before.tick, now.as_of - MAX_TICKS)), now.as_of)
            news = explain(before, now, found, self.now_ms(), busy=await self._busy(before))
            self._doubt = not self._doubt and any(one.kind == "unexplained" for one in news)
            if not self._doubt:
                await self._note(news, now)

    async def _note(self, news: Sequence[Arrival], now: Balance) -> None:
        mark = Mark(now.as_of, now.amount, self.now_ms())
        await ledger.arrivals.note(self.store, news, mark)
        self._mark = mark
        for one in news:
            log.info("%s: %d QU until tick %d", one.kind, one.amount, one.tick)
            for told in self.on_arrival:
                told(one)

    async def _stand_still(self, now: Balance, before: Mark) -> None:
        self._doubt = False
        if self.now_ms() - before.at_ms >= KEEP_MARK_MS:
            await self._note((), now)
        else:
            self._mark = Mark(now.as_of, now.amount, before.at_ms)

    async def _transfers(self, first: Tick, end: Tick) -> list[Arrival]:
        """To this wallet, by others, in the ticks from `first` to before `end` that can be read."""
        found = []
        for tick in range(first, end):
            for raw in await self.chain.transactions(Tick(tick)) or ():
                one = parse_transaction(raw)
                if one.destination == self.wallet != one.source and one.amount:
                    digest, now = transaction_digest(raw), self.now_ms()
                    found.append(Arrival(digest, "received", one.amount, one.source, tick, tick, now))
        return found

    async def _busy(self, since: Mark) -> bool:
        """Whether anything of this node's own may have moved money since then."""
        if await transactions.last_tick(self.store) >= since.tick:
            return True
        rows = [
            row
            for row in await journal.leases(self.store)
            if row.updated_ms >= since.at_ms or row.phase not in TERMINAL
        ]
        return any(decode_state(row.state).escrow_id for row in rows)


def opening(now: Balance, at_ms: UnixMs) -> tuple[Arrival, ...]:
    """What was there at the first look."""
    if not now.amount:
        return ()
    return (Arrival(_between(0, now.as_of), "opening", now.amount, b"", 0, now.as_of, at_ms),)


def explain(
    before: Mark, now: Balance, found: Sequence[Arrival], at_ms: UnixMs, *, busy: bool
) -> tuple[Arrival, ...]:
    """What has come between two looks, given the transfers that were found there."""
    if busy:
        return tuple(
            Arrival(o.arrival_id, "unchecked", o.amount, o.source, o.tick, o.tick, o.at_ms) for o in found
        )
    rest = now.amount - before.balance
    if sum(one.amount for one in found) > rest:
        found = ()  # not all of them had the money they promised, and nobody says which
    rest -= sum(one.amount for one in found)
    if not rest:
        return tuple(found)
    name = _between(before.tick, now.as_of)
    return (*found, Arrival(name, "unexplained", rest, b"", before.tick, now.as_of - 1, at_ms))


def _between(first: int, end: int) -> bytes:
    return first.to_bytes(4, "big") + end.to_bytes(4, "big")
