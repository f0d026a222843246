"""Reads the escrows of one contract, and follows them tick by tick. A node that is behind is waited for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio

from escrow_bridge.chain import Chain, TickInfo
from escrow_bridge.escrow import Settled, how_it_ended, read_reading
from escrow_bridge.layout import EscrowReading, EscrowView
from escrow_bridge.sending import Sender
from protocol.units import EscrowId, Qu, Tick


class Reader:
    """One per Bridge, as its `reader`: what one task has seen, no other is told to be otherwise."""

    def __init__(self, chain: Chain, contract_index: int, sender: Sender, poll_seconds: float) -> None:
        self._chain = chain
        self._index = contract_index
        self._sender = sender
        self._poll_seconds = poll_seconds
        self._newest = Tick(0)

    async def read(
        self, escrow_id: EscrowId, *, opened: Tick = Tick(0), held: Qu = Qu(0)
    ) -> EscrowView | None:
        """The open channel now, None if there is none. Raises ChainUnreachable, ChainDisagrees.

        `opened`: the tick it is known to have opened in, `held`: the deposit it is known to hold; a node
        that is not past that yet is waited for.
        """
        return (await self.reading(escrow_id, after=opened, held=held)).view

    async def reading(self, escrow_id: EscrowId, *, after: Tick = Tick(0), held: Qu = Qu(0)) -> EscrowReading:
        """The same with its tick: one past `after`, and no older than any before it: a lagging node must
        not undo what was seen. Raises ChainUnreachable, ChainDisagrees."""
        with self._sender.waiting.reasons() as because:
            while True:
                reading = await read_reading(self._chain, self._index, escrow_id)
                behind = reading.tick < self._newest or reading.tick <= after
                less = reading.view is not None and reading.view.deposit < held
                if not behind and not less:
                    self._newest = reading.tick
                    return reading
                seen = max(self._newest, after + 1)
                needed = f"an escrow of {held} QU" if less else f"tick {seen}"
                because(f"tick {reading.tick} is the newest at {self._chain.name}, and {needed} is needed")
                await trio.sleep(self._poll_seconds)

    async def reading_for_sure(self, escrow_id: EscrowId, *, after: Tick, held: Qu = Qu(0)) -> EscrowReading:
        """The same, however long the chain does not answer."""
        return await self._sender.patiently(lambda: self.reading(escrow_id, after=after, held=held))

    async def how_it_ended(self, seen: EscrowView) -> Settled | None:
        """How a channel ended that was last seen so; None if it has not, or if that can no longer be
        read. Raises ChainUnreachable, ChainDisagrees."""
        reading = await self.reading(seen.escrow_id, after=seen.as_of)
        if reading.view is not None:
            return None
        return await how_it_ended(self._sender.transactions, self._index, seen, reading.tick)

    async def ticks(self) -> AsyncGenerator[TickInfo, None]:
        """Each tick seen, once, rising; waits while the chain cannot be reached."""
        last = Tick(0)
        while True:
            info = await self._sender.patiently(self._sender.tick_info)
            if info.tick > last:
                last = info.tick
                yield info
            await trio.sleep(self._poll_seconds)

    async def watch(self, escrow_id: EscrowId, opened: Tick) -> AsyncGenerator[EscrowView | None, None]:
        """The channel as it is now and in every later tick; None: it is not in the contract any more.
        The last one seen is where `how_it_ended` has to begin, and nodes soon forget their ticks.
        `opened`: its tick, so that a node that is behind does not pass for its end.

        Never ends by itself; like `ticks`, to be used with `contextlib.aclosing`.
        """
        async with aclosing(self.ticks()) as ticks:
            async for _ in ticks:
                yield (await self.reading_for_sure(escrow_id, after=opened)).view
