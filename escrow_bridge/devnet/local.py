"""The devnet's engine as a Chain in this process, ticked by hand: for tests on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable

import trio

from escrow_bridge.chain import Balance, Outcome, TickInfo
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.qubic import Transaction, parse_transaction, transaction_digest
from protocol.errors import ChainUnreachable
from protocol.units import QubicId, Tick


class LocalChain:
    """A Chain that can be cut off (`reachable`) and that can lose transactions (`loses`)."""

    name = "the devnet"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.reachable = True
        self.loses: Callable[[Transaction], bool] = lambda transaction: False
        self.broadcasts: list[bytes] = []
        """Every transaction handed in while reachable, lost ones and repeats included."""

    async def advance(self, ticks: int = 1) -> None:
        """Let `ticks` ticks pass, giving other tasks a turn after each."""
        for _ in range(ticks):
            self.engine.advance()
            await trio.lowlevel.checkpoint()

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.reachable:
            raise ChainUnreachable("the chain was cut off")

    async def tick_info(self) -> TickInfo:
        await self._reach()
        return self.engine.tick_info()

    async def balance(self, owner: QubicId) -> Balance:
        await self._reach()
        return Balance(self.engine.balance(owner), self.engine.tick_info().tick)

    async def broadcast(self, transaction: bytes) -> None:
        await self._reach()
        self.broadcasts.append(transaction)
        if not self.loses(parse_transaction(transaction)):
            self.engine.submit(transaction)

    async def outcome(self, transaction: bytes) -> Outcome:
        await self._reach()
        return self.engine.outcome(transaction_digest(transaction), parse_transaction(transaction).tick)

    async def query(
        self, contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
    ) -> bytes:
        await self._reach()
        return self.engine.host.query(contract_index, input_type, payload)

    async def transactions(self, tick: Tick) -> tuple[bytes, ...] | None:
        await self._reach()
        past = self.engine.past(tick)
        return None if past is None else tuple(past.values())
