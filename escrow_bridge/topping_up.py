"""Adds to the deposit of an open channel and moves its deadline: once, whatever is lost, repeated or cut.

The contract takes a top-up only while the deposit is what it was before, and a deposit never falls. So not
even a copy that nobody remembers can add a second time, and the channel alone says whether it is done.
"""

from __future__ import annotations

from typing import Final

from escrow_bridge import layout
from escrow_bridge.chain import Chain, Outcome
from escrow_bridge.escrow import read_info
from escrow_bridge.layout import EscrowView, Procedure
from escrow_bridge.orders import TopUpOrder
from escrow_bridge.reader import Reader
from escrow_bridge.sending import Save, Scratch, Sender, load_scratch
from protocol.errors import FundingFailed
from protocol.units import Tick

MAX_ATTEMPTS: Final = 20


async def top_up(
    chain: Chain,
    contract_index: int,
    sender: Sender,
    reader: Reader,
    order: TopUpOrder,
    scratch: bytes,
    save: Save,
) -> EscrowView:
    """Lock more; returns the channel with at least the deposit and the deadline of the order.

    Raises BalanceTooLow and FundingFailed (nothing of it is locked, nor can be any more), ChainUnreachable
    (only while nothing is on its way; call again with what `save` was last given).
    """
    state = load_scratch(scratch)
    async with sender.reserved(order.added), sender.turn():
        while True:
            outcome = await sender.follow(state) if state.ticks else None
            view = await _read(reader, order, state)
            if view and view.deposit >= order.deposit and view.deadline_tick >= order.deadline_tick:
                return view
            view = _still_open(order, view)
            if outcome is Outcome.INCLUDED:
                raise FundingFailed(
                    f"the {order.added} QU more are not locked: the wallet did not hold them any more, or "
                    "the contract gave them back, because they came too late or it is out of fuel"
                )
            if len(state.ticks) >= MAX_ATTEMPTS:
                raise FundingFailed(f"the network lost all {MAX_ATTEMPTS} attempts to lock more")
            latest = (await read_info(chain, contract_index)).max_deadline_ticks
            await sender.check_balance(order.added)
            tick = await sender.next_tick()
            _check(order, view, tick, Tick(tick + latest))
            payload = layout.top_up_input(order.escrow_id, order.before, order.deadline_tick)
            state = await sender.prepare(state, tick, order.added, Procedure.TOP_UP, payload, save)


async def _read(reader: Reader, order: TopUpOrder, state: Scratch) -> EscrowView | None:
    """The channel after all attempts, by a node that knows of all earlier top-ups too."""
    if not state.ticks:
        return await reader.read(order.escrow_id, opened=order.opened, held=order.before)
    after = max(state.tick, order.opened)
    return (await reader.reading_for_sure(order.escrow_id, after=after, held=order.before)).view


def _still_open(order: TopUpOrder, view: EscrowView | None) -> EscrowView:
    """Raises FundingFailed if the contract cannot take the top-up any more, whenever it comes."""
    if view is None:
        raise FundingFailed("the escrow has ended, and nothing more can be locked in it")
    if view.close_tick:
        raise FundingFailed(f"the escrow closes in tick {view.close_tick}; nothing more can be locked in it")
    if view.deposit != order.before:
        raise FundingFailed(
            f"the escrow was topped up to {view.deposit} QU by another order, so this one can add nothing"
        )
    return view


def _check(order: TopUpOrder, view: EscrowView, tick: Tick, latest: Tick) -> None:
    """Raises FundingFailed if the contract would give the money back in that tick."""
    if tick >= view.deadline_tick:
        raise FundingFailed(
            f"more time comes too late: the escrow ends in tick {view.deadline_tick}, and a transaction "
            f"sent now would run in tick {tick}"
        )
    if not view.deadline_tick <= order.deadline_tick <= latest:
        raise FundingFailed(
            f"the contract takes a new deadline of tick {view.deadline_tick} to {latest}, "
            f"not {order.deadline_tick}"
        )
    if not 0 < order.added <= layout.MAX_DEPOSIT - order.before:
        raise FundingFailed(
            f"an escrow of {order.before} QU takes 1 to {layout.MAX_DEPOSIT - order.before} QU more, "
            f"not {order.added}"
        )
