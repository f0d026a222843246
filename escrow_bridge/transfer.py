"""A transfer from this wallet to an account, or a call that carries money to the contract: sent until it is
in a tick, never carried out twice.

A transaction without cover is in its tick and moves nothing. So a transfer is signed only when the wallet
covers it and everything else of ours that is under way, and nothing new is signed beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from escrow_bridge.chain import Outcome
from escrow_bridge.sending import Save, Sender, load_scratch
from protocol.errors import FundingFailed
from protocol.units import Qu, QubicId, Tick

MAX_ATTEMPTS: Final = 20
PLAIN: Final = 0
"""The input type of a transaction that only carries money."""


@dataclass(frozen=True)
class TransferOrder:
    to: QubicId
    amount: Qu
    procedure: int = PLAIN
    payload: bytes = b""


@dataclass(frozen=True)
class Transferred:
    tick: Tick
    certain: bool
    """False: nobody can say any more whether the transaction was in its tick."""


async def transfer(sender: Sender, order: TransferOrder, scratch: bytes, save: Save) -> Transferred:
    """Send money and follow it until it is final.

    BalanceTooLow (nothing was sent), FundingFailed (lost for good, nothing was sent), ChainUnreachable
    (only while nothing is on its way; call again with what `save` was last given).
    """
    state = load_scratch(scratch)
    async with sender.transferring() as reserved, sender.turn():
        while True:
            if state.ticks:
                outcome = await sender.follow(state)
                if outcome is not Outcome.MISSED:
                    return Transferred(state.tick, certain=outcome is Outcome.INCLUDED)
            if len(state.ticks) >= MAX_ATTEMPTS:
                raise FundingFailed(f"the network lost all {MAX_ATTEMPTS} attempts to send {order.amount} QU")
            await sender.check_balance(Qu(order.amount + reserved))
            tick = await sender.next_tick()
            call = (order.amount, order.procedure, order.payload)
            state = await sender.prepare(state, tick, *call, save, to=order.to)
