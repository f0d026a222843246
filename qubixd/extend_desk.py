"""The control API's verb `extend`: more time for a running job that this node has rented."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import trio

from protocol import lease_model as m
from protocol.control_extend import ExtendArgs, ExtendView
from protocol.control_wallet import WaitingEvent
from protocol.errors import BalanceTooLow, FundingFailed, MessageInvalid, PriceAboveLimit, UsageError
from protocol.lease import max_loss
from protocol.lease_extension import extended
from protocol.lease_job import longest
from protocol.lease_state import TERMINAL, Lease, Role, locked
from protocol.messages import MAX_EXTENSION_BYTES, Extend, Extension, Terms
from protocol.signing import Signed
from protocol.units import LeaseId, Qu, Seconds, Tick, amount_due
from qubixd.extensions import check_extension
from qubixd.lease_desk import find_lease, own_running, shown
from qubixd.node import Node
from qubixd.talk import ask

Emit = Callable[[object], Awaitable[None]]


async def extend(node: Node, args: ExtendArgs, emit: Emit) -> ExtendView:
    lease = await find_lease(node, args.lease)
    if args.order in lease.orders and not args.check:  # asked again
        lease = await _paid(node, lease.lease_id, args.order, emit)
        return await _view(node, lease, lease.terms)
    lease = await own_running(node, args.lease, "extend")
    signed = await _asked(node, lease, args)
    checked = await _preview(node, lease, signed.message, args)
    if args.check:
        return checked
    if checked.locks_qu > checked.balance:
        raise BalanceTooLow(
            f"the time needs {checked.locks_qu:,} QU more in the escrow and your wallet "
            f"{node.parts.wallet.identity} holds {checked.balance:,}; send it some, or add less"
        )
    order = m.ActionExtend(signed.message, signed.raw, args.order, node.parts.now_ms())
    lease = await node.leases.feed(lease.lease_id, order)
    if args.order not in lease.orders:
        raise UsageError("the job is over, or other time is just being added to it; look at `qubix ps`")
    lease = await _paid(node, lease.lease_id, args.order, emit)
    done = await _view(node, lease, lease.terms)
    return replace(done, seconds=args.seconds, cost_qu=checked.cost_qu, locks_qu=checked.locks_qu)


async def _asked(node: Node, lease: Lease, args: ExtendArgs) -> Signed:
    """What the provider signs for. Refused, QuoteChanged, WireError."""
    if lease.extending is not None:
        raise UsageError("other time is just being added to this job; wait for it, then add more")
    parts = node.parts
    wanted = Extend(lease.lease_id, lease.extensions + 1, Seconds(longest(lease.terms) + args.seconds))
    addresses = node.connections.addresses_of(lease)
    signed = await ask(parts.wire, parts.key, lease.terms.provider, wanted, addresses)
    if not isinstance(signed.message, Extension) or len(signed.raw) > MAX_EXTENSION_BYTES:
        raise MessageInvalid("the provider answered with something other than an extension")
    tick = node.watchers.tick.tick if node.watchers.tick else Tick(0)
    check_extension(signed.message, wanted, lease, tick, node.watchers.tick_ms)
    return signed


async def _preview(node: Node, lease: Lease, more: Extension, args: ExtendArgs) -> ExtendView:
    """PriceAboveLimit if it costs more than it may."""
    price = lease.terms.price_qu_per_hour
    cost = Qu(amount_due(price, more.max_seconds) - amount_due(price, longest(lease.terms)))
    if args.max_cost_qu is not None and cost > args.max_cost_qu:
        raise PriceAboveLimit(f"the time costs {cost:,} QU, and at most {args.max_cost_qu:,} may be paid")
    view = await _view(node, lease, extended(lease.terms, more))
    added = more.deposit - locked(lease)
    return replace(view, state="checked", seconds=args.seconds, cost_qu=cost, locks_qu=added)


async def _paid(node: Node, lease_id: LeaseId, order: str, emit: Emit) -> Lease:
    """Once the money of the newest order is locked. FundingFailed if it is not and never will be."""
    lease = await _until_decided(node, lease_id, emit)
    if order != lease.orders[-1]:
        raise UsageError(f"the order {order!r} is over, and another has come after it; look at `qubix ps`")
    if lease.extension != lease.signed_extension:
        raise FundingFailed(f"no time was added: {lease.not_extended or lease.sentence}")
    return lease


async def _until_decided(node: Node, lease_id: LeaseId, emit: Emit) -> Lease:
    """Tells meanwhile why the chain has to be waited for."""
    told = ""
    while True:
        with node.leases.listen(lease_id) as changes, suppress(trio.EndOfChannel):
            lease = await node.leases.get(lease_id)
            while lease.extending is not None and lease.phase not in TERMINAL:
                if (why := node.waiting.why) != told:
                    told = why
                    await emit(WaitingEvent(why))
                lease = await changes.receive()
            return lease


async def _view(node: Node, lease: Lease, terms: Terms) -> ExtendView:
    """Of a lease with these terms; what is added is the caller's to say."""
    balance = await node.parts.chain.balance(node.parts.wallet.public_key)
    return ExtendView(
        state="extended",
        lease=shown(node, lease),
        seconds=0,
        cost_qu=0,
        max_seconds=longest(terms),
        ends_at_ms=node.parts.now_ms() + (longest(terms) - lease.seconds) * 1_000,
        deposit=terms.deposit,
        locks_qu=0,
        balance=balance.amount,
        max_loss_qu=max_loss(Role.CALLER, terms),
        closes_at_ms=terms.closes_at,
    )
