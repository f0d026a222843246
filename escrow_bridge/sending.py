"""Gets one signed transaction into its tick, and remembers enough to go on after a crash.

A transaction names its tick, so it runs there or never: only when its tick is known to have passed
without it may another be sent in its place.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import msgspec
import trio

from escrow_bridge.chain import Balance, Chain, Outcome, TickInfo
from escrow_bridge.pace import Pace, offset_for
from escrow_bridge.qubic import Wallet, contract_id, parse_transaction, sign_transaction
from escrow_bridge.waiting import Waiting
from protocol.errors import BalanceTooLow, LedgerBroken
from protocol.units import Qu, QubicId, Tick

Save = Callable[[bytes], Awaitable[None]]
"""Keeps the scratch of an order where a crash does not reach it; returns when it is safe."""
YOUNG_TICKS: Final = 5
"""Up to that age a node may not have a tick's transactions yet."""
T = TypeVar("T")


@dataclass(frozen=True)
class Scratch:
    """What an order must remember. Saved before each broadcast."""

    ticks: tuple[int, ...] = ()
    """Target tick of every attempt so far; the last is that of `transaction`."""
    transaction: bytes = b""
    seen: bytes = b""
    """The contract's last GetEscrow answer before the attempt."""
    cumulative: int = 0
    """What the attempt redeems; 0 for orders that redeem nothing."""
    settled: tuple[int, int, bool] | None = None
    """Paid, refunded, certain: the order is finished."""

    @property
    def tick(self) -> Tick:
        return Tick(self.ticks[-1])


def load_scratch(data: bytes) -> Scratch:
    """Raises LedgerBroken if the bytes are not what an earlier `save` was given."""
    if not data:
        return Scratch()
    try:
        scratch = msgspec.msgpack.decode(data, type=Scratch)
        if scratch.ticks:
            parse_transaction(scratch.transaction)
    except ValueError as error:
        raise LedgerBroken("the saved state of a chain transaction cannot be read") from error
    return scratch


def dump_scratch(scratch: Scratch) -> bytes:
    return msgspec.msgpack.encode(scratch)


def saved_transaction(scratch: bytes) -> bytes:
    """The raw transaction that is on its way according to a scratch, b"" if there is none."""
    return load_scratch(scratch).transaction


class Sender:
    """Signs, sends and follows the transactions of one wallet."""

    def __init__(
        self,
        chain: Chain,
        wallet: Wallet,
        contract_index: int,
        *,
        tick_offset: int | None,
        one_pending: bool,
        poll_seconds: float,
        signed_until: Tick,
        waiting: Waiting,
    ) -> None:
        """`tick_offset`: always aim so many ticks ahead; None: as the ticks come. `one_pending`: one
        transaction after the other, for networks where a newer one takes the older one's place.
        `signed_until`: the newest tick that a transaction was signed for before this process began."""
        self.waiting = waiting
        self._chain = chain
        self._wallet = wallet
        self._contract_index = contract_index
        self._tick_offset = tick_offset
        self._poll_seconds = poll_seconds
        self._pace = Pace()
        self._transferring = trio.Lock()
        self._reserved = Qu(0)
        self._ran_until = signed_until
        """The newest tick that has a transaction of ours, or may have: nobody can say any more."""
        self._turns = trio.CapacityLimiter(1 if one_pending else math.inf)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """To be held from the choice of a transaction's tick until its outcome is known."""
        token = object()
        await self._turns.acquire_on_behalf_of(token)
        try:
            yield
        finally:
            self._turns.release_on_behalf_of(token)

    @asynccontextmanager
    async def reserved(self, amount: Qu) -> AsyncIterator[None]:
        """While a deposit of `amount` is under way: not beside a transfer, so that a transfer that is in
        its tick has also been carried out."""
        async with self._transferring:
            self._reserved = Qu(self._reserved + amount)
        try:
            yield
        finally:
            self._reserved = Qu(self._reserved - amount)

    @asynccontextmanager
    async def transferring(self) -> AsyncIterator[Qu]:
        """While a transfer is under way: the only one, and no new deposit beside it. Gives what deposits
        that are under way may still take."""
        async with self._transferring:
            yield self._reserved

    async def tick_info(self) -> TickInfo:
        """The chain's, noticed for the pace. Raises ChainUnreachable."""
        info = await self._chain.tick_info()
        self._pace.saw(info, trio.current_time())
        return info

    @property
    def tick_seconds(self) -> float:
        """How long a tick lasts, as seen."""
        return self._pace.tick_ms / 1_000

    async def next_tick(self) -> Tick:
        """The tick that a transaction signed now should name."""
        tick = (await self.tick_info()).tick
        return Tick(tick + (self._tick_offset or offset_for(self._pace.tick_ms)))

    async def check_balance(self, needed: Qu) -> None:
        """Raises BalanceTooLow unless the wallet holds `needed`, and at least 1: the network drops
        whatever an empty wallet sends. Raises ChainUnreachable, ChainDisagrees."""
        balance = await self._balance()
        if balance.amount < max(needed, 1):
            raise BalanceTooLow(
                f"this needs {max(needed, 1)} QU and the wallet {self._wallet.identity} holds "
                f"{balance.amount} QU; send it at least {max(needed, 1) - balance.amount} QU"
            )

    async def _balance(self) -> Balance:
        """The wallet's, after all of ours that has run: a node may be a little behind, and what was
        already spent would cover a second transaction."""
        with self.waiting.reasons() as because:
            while True:
                balance = await self._chain.balance(self._wallet.public_key)
                if balance.as_of > self._ran_until:
                    return balance
                because(
                    f"the wallet is shown as of tick {balance.as_of} at {self._chain.name}, and its last "
                    f"transaction is for tick {self._ran_until}"
                )
                await trio.sleep(self._poll_seconds)

    async def prepare(
        self,
        scratch: Scratch,
        tick: Tick,
        amount: Qu,
        procedure: int,
        payload: bytes,
        save: Save,
        *,
        to: QubicId | None = None,
    ) -> Scratch:
        """Sign the next attempt, to the contract if no other account is named, and save it; `follow` sends
        it."""
        raw = self.sign(tick, amount, procedure, payload, to=to)
        scratch = replace(scratch, ticks=(*scratch.ticks, tick), transaction=raw)
        await save(dump_scratch(scratch))
        return scratch

    def sign(
        self, tick: Tick, amount: Qu, procedure: int, payload: bytes, *, to: QubicId | None = None
    ) -> bytes:
        """A transaction that is neither saved nor sent. `to` as for `prepare`."""
        destination = contract_id(self._contract_index) if to is None else to
        return sign_transaction(self._wallet, destination, amount, tick, procedure, payload)

    async def follow(self, scratch: Scratch) -> Outcome:
        """Send the last attempt, again in every tick until its own, and wait for what became of it:
        INCLUDED, MISSED or UNKNOWN. An unreachable chain is waited for: the money may be on its way."""
        told_in = Tick(0)
        while True:
            info = await self.patiently(self.tick_info)
            if info.tick > scratch.tick:
                return await self._what_became_of(scratch)
            if info.tick != told_in:
                told_in = info.tick
                await self.patiently(lambda: self._chain.broadcast(scratch.transaction))
            await self._next_after(info.tick, scratch)

    async def _next_after(self, tick: Tick, scratch: Scratch) -> None:
        """Return as soon as a later tick is seen."""
        with self.waiting.reasons() as because:
            while (await self.patiently(self.tick_info)).tick <= tick:
                because(
                    f"tick {tick} is the newest at {self._chain.name}; the transaction is for tick "
                    f"{scratch.tick}"
                )
                await trio.sleep(self._poll_seconds)

    async def _what_became_of(self, scratch: Scratch) -> Outcome:
        with self.waiting.reasons() as because:
            while True:
                outcome = await self.patiently(lambda: self._chain.outcome(scratch.transaction))
                if outcome in (Outcome.INCLUDED, Outcome.UNKNOWN):
                    self._ran_until = max(self._ran_until, scratch.tick)
                if outcome is not Outcome.PENDING:
                    return outcome
                because(f"what was in tick {scratch.tick} is not known yet at {self._chain.name}")
                await trio.sleep(self._poll_seconds)

    async def transactions(self, tick: Tick) -> tuple[bytes, ...] | None:
        """The raw transactions of a past tick; None if it is too old to be read any more. A chain that
        does not know them yet is waited for: what it will say decides about money."""
        while True:
            # Asked before: while it was young, an answer without them says nothing.
            young = (await self.patiently(self.tick_info)).tick <= tick + YOUNG_TICKS
            raws = await self.patiently(lambda: self._chain.transactions(tick))
            if raws is not None or not young:
                return raws
            await trio.sleep(self._poll_seconds)

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """See Waiting.patiently."""
        return await self.waiting.patiently(call, self._poll_seconds)
