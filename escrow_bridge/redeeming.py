"""Cashes vouchers. Those that are due within a moment of each other share one transaction.

Each order keeps its own scratch, saved before the shared transaction is sent, and is done when the contract
shows it; so each may be called again by itself. A voucher that is sent twice pays once: the contract judges
each alone and pays what is above the last.
"""

from __future__ import annotations

from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

import trio

from escrow_bridge import layout
from escrow_bridge.chain import Outcome
from escrow_bridge.layout import EscrowView, Procedure
from escrow_bridge.orders import CloseOrder, RedeemOrder
from escrow_bridge.qubic import verify
from escrow_bridge.reader import Reader
from escrow_bridge.sending import Save, Scratch, Sender, dump_scratch, load_scratch
from protocol.errors import BalanceTooLow, QubixError, VoucherInvalid
from protocol.units import Qu, Tick

GATHER_TICKS: Final = 2
GATHER_SECONDS: Final = 2.0
"""How long the first voucher waits for others, at most. A provider cashes every twenty minutes."""


@dataclass(eq=False)
class _Wish:
    order: RedeemOrder
    state: Scratch
    save: Save
    leads: bool = False
    called: trio.Event = field(default_factory=trio.Event)
    """It is to lead, or its batch is over."""
    seen: bytes = b""
    """The channel before it is sent."""
    outcome: Outcome | None = None
    """Of the transaction with it; None: there was none."""
    error: QubixError | None = None


class Redeemer:
    """One per Bridge. The first who wants to redeem leads: it waits for more, and sends for all."""

    def __init__(self, sender: Sender, reader: Reader) -> None:
        self._sender = sender
        self._reader = reader
        self._queue: deque[_Wish] = deque()
        self._led = False
        """Somebody will take what is in the queue."""

    async def redeem(self, order: RedeemOrder, scratch: bytes, save: Save) -> EscrowView | None:
        """See Bridge.redeem."""
        state, outcome = load_scratch(scratch), None
        if state.ticks:
            async with self._sender.turn():
                outcome = await self._sender.follow(state)
        while True:
            view = await self._read(order, state)
            if view is None or view.paid >= order.cumulative:
                return view
            if outcome is Outcome.INCLUDED:
                # Forgotten, so that calling again tries again: the contract may have fuel by then.
                await save(dump_scratch(Scratch()))
                raise refused(Procedure.REDEEM, view)
            wish = _Wish(order, state, save)
            await self._join(wish)
            if wish.error is not None:
                raise type(wish.error)(str(wish.error))
            state, outcome = wish.state, wish.outcome

    async def _join(self, wish: _Wish) -> None:
        """Return when a batch with this wish is over; what came of it is in the wish."""
        self._queue.append(wish)
        if self._led:
            try:
                await wish.called.wait()
            except BaseException:
                self._leave(wish)
                raise
            if not wish.leads:
                return
        self._led = True
        await self._lead(wish)

    async def _lead(self, wish: _Wish) -> None:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._sender.turn())
                await self._sender.patiently(self._sender.tick_info)
                await trio.sleep(min(GATHER_SECONDS, GATHER_TICKS * self._sender.tick_seconds))
            except BaseException:
                wish.leads = True
                self._leave(wish)
                raise
            batch = [self._queue.popleft() for _ in range(min(layout.MAX_REDEEM_BATCH, len(self._queue)))]
            self._pass_on()
            try:
                await self._cash(batch)
            finally:
                # Whoever has no result by now, because the leader was cancelled, tries again.
                for one in batch:
                    one.called.set()

    def _leave(self, wish: _Wish) -> None:
        """It was cancelled before its batch was made."""
        if wish in self._queue:
            self._queue.remove(wish)
        if wish.leads:
            self._pass_on()

    def _pass_on(self) -> None:
        """Whoever is the first in the queue leads the next batch."""
        self._led = bool(self._queue)
        if self._queue:
            self._queue[0].leads = True
            self._queue[0].called.set()

    async def _cash(self, batch: list[_Wish]) -> None:
        wishes = [wish for wish in batch if await self._is_to_be_sent(wish)]
        if not wishes:
            return
        try:
            await self._send(wishes)
        except QubixError as error:
            for wish in wishes:
                wish.error = error

    async def _is_to_be_sent(self, wish: _Wish) -> bool:
        """What was read before waiting for a turn is old by the time it comes."""
        try:
            view = await self._read(wish.order, wish.state)
            if view is None or view.paid >= wish.order.cumulative:
                return False
            check_voucher(wish.order, view, await self._sender.next_tick())
        except QubixError as error:
            wish.error = error
            return False
        wish.seen = layout.encode_reading(view)
        return True

    async def _read(self, order: RedeemOrder, state: Scratch) -> EscrowView | None:
        if not state.ticks:
            return await self._reader.read(order.escrow_id, opened=order.opened, held=order.held)
        after = max(state.tick, order.opened)
        return (await self._reader.reading_for_sure(order.escrow_id, after=after, held=order.held)).view

    async def _send(self, wishes: list[_Wish]) -> None:
        """One transaction for all of them, or for the first if the wallet does not hold all their bonds."""
        try:
            await self._sender.check_balance(Qu(layout.SIGNATURE_BOND * len(wishes)))
        except BalanceTooLow:
            del wishes[1:]
            await self._sender.check_balance(layout.SIGNATURE_BOND)
        tick = await self._sender.next_tick()
        raw = self._signed(wishes, tick)
        for wish in wishes:
            wish.state = Scratch((tick,), raw, wish.seen, wish.order.cumulative)
            await wish.save(dump_scratch(wish.state))
        outcome = await self._sender.follow(wishes[0].state)
        for wish in wishes:
            wish.outcome = outcome

    def _signed(self, wishes: list[_Wish], tick: Tick) -> bytes:
        orders = [wish.order for wish in wishes]
        vouchers = [layout.pay_input(one.escrow_id, one.cumulative, one.signature) for one in orders]
        bonds = Qu(layout.SIGNATURE_BOND * len(vouchers))
        if len(vouchers) == 1:
            return self._sender.sign(tick, bonds, Procedure.REDEEM, vouchers[0])
        return self._sender.sign(tick, bonds, Procedure.REDEEM_MANY, layout.redeem_many_input(vouchers))


def check_voucher(order: RedeemOrder | CloseOrder, view: EscrowView, tick: Tick) -> None:
    """Raises VoucherInvalid unless the contract would take it in that tick."""
    if tick >= view.last_tick:
        raise VoucherInvalid(
            f"the voucher comes too late: the escrow takes none from tick {view.last_tick} on"
        )
    if order.cumulative > view.deposit:
        raise VoucherInvalid(
            f"the voucher is for {order.cumulative} QU and the escrow holds {view.deposit} QU"
        )
    digest = layout.voucher_digest(order.escrow_id, order.cumulative)
    if not verify(view.caller, digest, order.signature):
        raise VoucherInvalid("the voucher is not signed by the caller of this escrow")


def refused(procedure: Procedure, view: EscrowView) -> VoucherInvalid:
    """A transaction was in its tick and changed nothing."""
    action = procedure.name.lower().replace("_", " ")
    return VoucherInvalid(
        f"the contract did not {action} escrow {view.escrow_id.hex()}: it came too late, the wallet "
        "did not hold the bond any more, or the contract is out of fuel"
    )
