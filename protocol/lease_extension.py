"""More time for a running lease, in both halves of the lease machine.

The caller pays into the escrow what the provider has signed for; each side takes the new terms when it has
seen that the contract holds the money so long. News of the money and of the agreement may come in any
order, and each twice. Money that comes when the job is over is only money: it goes back with the rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from protocol import lease_model as m
from protocol.extension_messages import Extension
from protocol.lease_job import longest
from protocol.lease_model import Effect
from protocol.lease_state import LIVE, Lease, Role, locked
from protocol.messages import Terms
from protocol.units import Tick, amount_due

Step = tuple[Lease, tuple[Effect, ...]]
REMEMBERED_ORDERS: Final = 16


def extend(lease: Lease, event: m.ActionExtend) -> Step:
    """Caller: pay for one more extension, one at a time, and for each order once."""
    more = event.extension
    if lease.extending or event.order in lease.orders or not _adds(lease, more):
        return lease, ()
    orders = (*lease.orders, event.order)[-REMEMBERED_ORDERS:]
    lease = replace(lease, extending=more, extensions=more.number, orders=orders, not_extended="")
    order = m.ChainTopUp(more.number, locked(lease), more.deposit, _deadline(lease, more))
    return replace(lease, signed_extension=event.signed), (order,)


def not_topped_up(lease: Lease, event: m.ChainTopUpFailed) -> Step:
    """Caller: the lease goes on as it was."""
    if lease.extending is None or event.number != lease.extending.number:
        return lease, ()
    return replace(lease, extending=None, not_extended=event.sentence), ()


def told_extended(lease: Lease, event: m.ReceiveExtended) -> Step:
    """Provider: the caller says that it has paid for what we had signed. The newest counts."""
    more = event.extension
    if (lease.extending and more.number <= lease.extending.number) or not _adds(lease, more):
        return lease, ()
    return _conclude(replace(lease, extending=more))


def topped_up(lease: Lease, event: m.ChainToppedUp) -> Step:
    """The contract holds so much for so long. It never holds less, nor for shorter."""
    if not lease.escrow_id or lease.settled:
        return lease, ()
    if event.deposit > locked(lease):
        lease = replace(lease, held=event.deposit)
    return _conclude(replace(lease, deadline_tick=max(lease.deadline_tick, event.deadline_tick)))


def _conclude(lease: Lease) -> Step:
    """Take the new terms once they are paid for."""
    more = lease.extending
    if more is None or locked(lease) < more.deposit or lease.deadline_tick < _deadline(lease, more):
        return lease, ()
    lease = replace(lease, extending=None)
    if lease.phase not in LIVE:
        return replace(lease, not_extended="the job was over before the money came; it goes back"), ()
    lease = replace(lease, terms=extended(lease.terms, more), extensions=more.number)
    if lease.role is Role.PROVIDER:
        return lease, ()
    lease = replace(lease, extension=lease.signed_extension)
    return lease, (m.SendExtended(lease.extension),)


def extended(terms: Terms, more: Extension) -> Terms:
    """The terms with more time. A budget was for the time before; now it is all that the new time costs."""
    return replace(
        terms,
        max_seconds=more.max_seconds,
        deposit=more.deposit,
        deadline_ticks=more.deadline_ticks,
        budget=more.deposit if terms.budget else terms.budget,
    )


def _adds(lease: Lease, more: Extension) -> bool:
    """Whether an extension is a new one, longer than what was agreed and with its money for all of it."""
    return (
        more.lease_id == lease.lease_id
        and more.number > lease.extensions
        and more.max_seconds > longest(lease.terms)
        and more.deposit > lease.terms.deposit
        and more.deposit >= amount_due(lease.terms.price_qu_per_hour, more.max_seconds)
        and more.deadline_ticks >= lease.terms.deadline_ticks
    )


def _deadline(lease: Lease, more: Extension) -> Tick:
    return Tick(lease.open_tick + more.deadline_ticks)
