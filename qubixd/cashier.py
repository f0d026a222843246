"""The lease machine's effects on the chain; see effects.py. What can never succeed comes back as an event."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from escrow_bridge.bridge import CloseOrder, RedeemOrder, RequestCloseOrder, TopUpOrder
from escrow_bridge.layout import EscrowView
from escrow_bridge.sending import Save, saved_transaction
from ledger import transactions
from protocol import lease_model as m
from protocol.errors import BalanceTooLow, ChainDisagrees, FundingFailed, VoucherInvalid
from protocol.lease_model import Event
from protocol.lease_state import LIVE
from qubixd.escrows import objection_to, open_order, signed_transaction
from qubixd.leases import Task

if TYPE_CHECKING:
    from qubixd.effects import Performer

log = logging.getLogger("qubix.effects")

LATE_OPENING_MS: Final = 60_000
"""A deposit that is to be locked so long after the lease was made: the ledger may have been put back."""
USUAL_LEAD_TICKS: Final = range(-10, 61)
"""How far the tick of an announced escrow may be ahead of the one our own node is at."""


async def chain_open(performer: Performer, task: Task, effect: m.ChainOpen) -> Event | None:
    late = performer.now_ms() - task.lease.opened_at > LATE_OPENING_MS
    try:
        order = open_order(task.lease, look_back=late)
        view = await performer.bridge.open_escrow(order, task.scratch, _saving(performer, task, "open"))
    except (BalanceTooLow, FundingFailed, ChainDisagrees) as error:
        return m.ChainOpenFailed(error.code, str(error), performer.now_ms())
    return m.ChainOpened(view.escrow_id, view.open_tick, view.deadline_tick, performer.now_ms())


async def chain_top_up(performer: Performer, task: Task, effect: m.ChainTopUp) -> Event | None:
    """Not begun when the job is over meanwhile; what has been sent is followed to its end."""
    lease = task.lease
    if lease.phase not in LIVE and not task.scratch:
        return m.ChainTopUpFailed(effect.number, "the job is over", performer.now_ms())
    order = TopUpOrder(lease.escrow_id, lease.open_tick, effect.before, effect.deposit, effect.deadline_tick)
    try:
        view = await performer.bridge.top_up(order, task.scratch, _saving(performer, task, "top_up"))
    except (BalanceTooLow, FundingFailed) as error:
        return m.ChainTopUpFailed(effect.number, str(error), performer.now_ms())
    return m.ChainToppedUp(view.deposit, view.deadline_tick, performer.now_ms())


async def chain_verify(performer: Performer, task: Task, effect: m.ChainVerify) -> Event | None:
    view = await _read_patiently(performer, effect)
    objection = objection_to(view, effect, task.lease)
    if objection or view is None:
        return m.ChainOpenFailed("lease.escrow_wrong", objection, performer.now_ms())
    return m.ChainOpened(view.escrow_id, view.open_tick, view.deadline_tick, performer.now_ms())


async def _read_patiently(performer: Performer, claim: m.ChainVerify) -> EscrowView | None:
    """The caller's node may be ahead of ours. A claim of a far tick is a lie, and waiting for it would
    keep the vouchers, whose turn in this lane comes after, from being cashed."""
    async with aclosing(performer.bridge.reader.ticks()) as ticks:
        async for info in ticks:
            view = await performer.bridge.reader.read(claim.escrow_id)
            if view is not None or claim.open_tick - info.tick not in USUAL_LEAD_TICKS:
                return view
    raise AssertionError("ticks never end")


async def chain_close(performer: Performer, task: Task, effect: m.ChainClose) -> Event | None:
    known = (task.lease.open_tick, task.lease.held)
    order = CloseOrder(effect.escrow_id, effect.cumulative, effect.signature, *known)
    settled = await performer.bridge.close(order, task.scratch, _saving(performer, task, "close"))
    if settled is None:
        return None  # it was gone before; the escrow's watcher tells how it ended
    return m.ChainClosed(settled.paid, settled.refunded, performer.now_ms())


async def chain_redeem(performer: Performer, task: Task, effect: m.ChainRedeem) -> Event | None:
    known = (task.lease.open_tick, task.lease.held)
    order = RedeemOrder(effect.escrow_id, effect.cumulative, effect.signature, *known)
    try:
        await performer.bridge.redeem(order, task.scratch, _saving(performer, task, "redeem"))
    except (VoucherInvalid, BalanceTooLow) as error:
        # Nothing is lost: the end of the lease, for which this must not be in the way, cashes it too.
        log.warning("lease %s: voucher not cashed yet: %s", task.lease.lease_id.hex()[:12], error)
    return None


async def chain_request_close(performer: Performer, task: Task, effect: m.ChainRequestClose) -> Event | None:
    save = _saving(performer, task, "request_close")
    order = RequestCloseOrder(effect.escrow_id, task.lease.open_tick)
    await performer.bridge.request_close(order, task.scratch, save)
    return None


def _saving(performer: Performer, task: Task, action: str) -> Save:
    """Before a transaction is saved with its effect, and so before it is sent, the ledger has it for
    good: effects are forgotten once they are done."""
    noted = saved_transaction(task.scratch)

    async def save(scratch: bytes) -> None:
        nonlocal noted
        raw = saved_transaction(scratch)
        if raw and raw != noted:
            await transactions.note(
                performer.store, signed_transaction(raw, task.lease.lease_id, action, performer.now_ms())
            )
        noted = raw
        await task.save(scratch)

    return save
