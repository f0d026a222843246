"""Payments: a person's transfers, carried on after a crash until they are final."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from escrow_bridge.bridge import Bridge
from escrow_bridge.layout import Procedure
from escrow_bridge.sending import saved_transaction
from escrow_bridge.transfer import PLAIN, TransferOrder
from ledger import payments, transactions
from ledger.payments import PENDING, PaymentRow
from ledger.store import Store
from protocol.errors import BalanceTooLow, FundingFailed, UsageError
from protocol.units import Qu, QubicId
from qubixd.escrows import signed_transaction
from qubixd.leases import Clock

log = logging.getLogger("qubix.payments")

SENT: Final = "sent"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"
RETRY_S: Final = 2.0
Report = Callable[[str], Awaitable[None]]
"""Takes why something waits, in a sentence; "" when it goes on."""


class Payments:
    def __init__(self, store: Store, bridge: Bridge, now_ms: Clock) -> None:
        self._store = store
        self._bridge = bridge
        self._now_ms = now_ms
        self._under_way: set[str] = set()
        self._news = trio.lowlevel.ParkingLot()
        """Unparked when a payment is final, and when the reason to wait is another."""
        bridge.waiting.on_change.append(self._news.unpark_all)
        self._nursery: trio.Nursery

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take up what was not final, then serve `send` until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for row in await payments.pending(self._store):
                self._begin(row)
            task_status.started()
            await trio.sleep_forever()

    async def send(
        self,
        payment_id: str,
        to: QubicId,
        amount: Qu,
        report: Report,
        procedure: int = PLAIN,
        payload: bytes = b"",
    ) -> PaymentRow:
        """Pay (or call the contract) once, however often this is called with that id; the payment once it
        is final. That a call is in its tick does not say that the contract took it. Meanwhile `report` is
        told why it waits, if it does so unusually long.

        UsageError if the id belongs to another payment.
        """
        call = (procedure, payload)
        row = await payments.begin(self._store, payment_id, to, amount, self._now_ms(), *call)
        if (row.destination, row.amount, row.procedure, row.payload) != (to, amount, *call):
            raise UsageError(f"the id {payment_id} belongs to another payment; choose a new one")
        if row.state != PENDING:
            return row
        self._begin(row)
        told = ""
        while payment_id in self._under_way:
            if (why := self._bridge.waiting.why) != told:
                await report(told := why)
            else:
                await self._news.park()
        done = await payments.get(self._store, payment_id)
        assert done is not None, "payments are never deleted"
        return done

    def _begin(self, row: PaymentRow) -> None:
        if row.payment_id not in self._under_way:
            self._under_way.add(row.payment_id)
            self._nursery.start_soon(self._carry_out, row)

    async def _carry_out(self, row: PaymentRow) -> None:
        state, sentence = await self._bridge.waiting.patiently(lambda: self._try(row), RETRY_S)
        await payments.finish(self._store, row.payment_id, state, sentence, self._now_ms())
        log.info("payment %s of %d QU: %s", row.payment_id, row.amount, sentence)
        self._under_way.remove(row.payment_id)
        self._news.unpark_all()

    async def _try(self, row: PaymentRow) -> tuple[str, str]:
        async def save(scratch: bytes) -> None:
            about, now = row.payment_id.encode(), self._now_ms()
            one = signed_transaction(saved_transaction(scratch), about, action_of(row), now)
            await transactions.note(self._store, one)
            await payments.save_scratch(self._store, row.payment_id, scratch)

        latest = await payments.get(self._store, row.payment_id)
        scratch = latest.scratch if latest else row.scratch
        order = TransferOrder(QubicId(row.destination), Qu(row.amount), row.procedure, row.payload)
        try:
            done = await self._bridge.transfer(order, scratch, save)
        except (BalanceTooLow, FundingFailed) as error:
            return FAILED, str(error)
        if not done.certain:
            return UNKNOWN, f"whether it was carried out in tick {done.tick} cannot be told any more"
        return SENT, f"carried out in tick {done.tick}"


def action_of(row: PaymentRow) -> str:
    """What a payment's transactions are called in the ledger."""
    return Procedure(row.procedure).name.lower() if row.procedure else "transfer"
