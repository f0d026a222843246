"""Bridges that die at any step of an order, and the chain that the next life finds: maybe by a late node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from escrow_bridge.bridge import Bridge
from escrow_bridge.chain import Balance, Outcome, TickInfo
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, build_engine
from escrow_bridge.devnet.engine import Rules
from escrow_bridge.devnet.local import LocalChain
from escrow_bridge.qubic import Wallet, parse_transaction
from escrow_bridge.sending import saved_transaction
from protocol.units import QubicId, Tick
from tests.support.chains import FUNDS, TICK_SECONDS, Crash, World, wallet_of

T = TypeVar("T")


class Twins(LocalChain):
    """A chain, and a node of it that is `lag` ticks late."""

    def __init__(self, lag: int = 0) -> None:
        funds = [(wallet_of(number).public_key, FUNDS) for number in (0, 1)]
        super().__init__(build_engine(Rules(), funds))
        self.late = LocalChain(build_engine(Rules(), funds))
        self.lag = lag

    async def advance(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            await super().advance()
            while self.engine.tick_info().tick - self.late.engine.tick_info().tick > self.lag:
                self.late.engine.advance()

    async def broadcast(self, transaction: bytes) -> None:
        await self._reach()
        self.broadcasts.append(transaction)
        # What the network took, the late node hears of as well.
        if not self.loses(parse_transaction(transaction)) and self.engine.submit(transaction) is None:
            self.late.engine.submit(transaction)


class Mortal:
    """A chain whose user dies at a step: just before or just after a call that matters."""

    def __init__(self, chain: LocalChain, twins: Twins, life: Life) -> None:
        self.name = "the devnet"
        self._chain = chain
        self._twins = twins
        self._life = life

    async def tick_info(self) -> TickInfo:
        return await self._chain.tick_info()

    async def balance(self, owner: QubicId) -> Balance:
        return await self._life.step(lambda: self._chain.balance(owner))

    async def broadcast(self, transaction: bytes) -> None:
        await self._life.step(lambda: self._twins.broadcast(transaction))

    async def outcome(self, transaction: bytes) -> Outcome:
        return await self._life.step(lambda: self._chain.outcome(transaction))

    async def query(
        self, contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
    ) -> bytes:
        return await self._life.step(lambda: self._chain.query(contract_index, input_type, payload))

    async def transactions(self, tick: Tick) -> tuple[bytes, ...] | None:
        return await self._life.step(lambda: self._chain.transactions(tick))


@dataclass
class Disk:
    """What survives: an order's scratch, and the newest tick that was ever signed for."""

    scratch: bytes = b""
    signed_until: Tick = Tick(0)


@dataclass
class Life:
    """One life of a daemon. `dies_at` 0: it does not die."""

    dies_at: int = 0
    steps: int = 0

    def _may_die(self) -> None:
        self.steps += 1
        if self.steps == self.dies_at:
            raise Crash

    async def step(self, call: Callable[[], Awaitable[T]]) -> T:
        self._may_die()
        result = await call()
        self._may_die()
        return result

    def saver(self, disk: Disk, whole: Disk) -> Callable[[bytes], Awaitable[None]]:
        """Saves an order's scratch on `disk`; what was signed is noted first, for all orders, in `whole`."""

        async def save(scratch: bytes) -> None:
            self._may_die()
            raw = saved_transaction(scratch)
            if raw:
                whole.signed_until = max(whole.signed_until, parse_transaction(raw).tick)
            self._may_die()
            disk.scratch = scratch
            self._may_die()

        return save

    def bridge(self, world: World, wallet: Wallet, disk: Disk, *, late: bool) -> Bridge:
        twins = world.chain
        assert isinstance(twins, Twins)
        chain = Mortal(twins.late if late else twins, twins, self)
        return Bridge(
            chain,
            wallet,
            CONTRACT_INDEX,
            tick_offset=4,
            poll_seconds=TICK_SECONDS / 4,
            signed_until=disk.signed_until,
        )


async def heal(twins: Twins, after_ticks: int) -> None:
    """The late node catches up."""
    await trio.sleep(after_ticks * TICK_SECONDS)
    twins.lag = 0
