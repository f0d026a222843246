"""Turns money orders into transactions until they are final, and the contract into news.

Every order takes the scratch that its `save` was last given (b"" at first) and may be called again at
any time, after a crash as well: what was already sent is followed, never sent a second time beside
itself. Whether an order is done is read from the contract, not from the transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

import trio

from escrow_bridge import layout
from escrow_bridge.chain import Chain, Outcome
from escrow_bridge.escrow import Settled, find_opening, read_info
from escrow_bridge.layout import ContractInfo, EscrowReading, EscrowView, Procedure
from escrow_bridge.orders import CloseOrder as CloseOrder
from escrow_bridge.orders import FinalizeOrder as FinalizeOrder
from escrow_bridge.orders import OpenOrder as OpenOrder
from escrow_bridge.orders import RedeemOrder as RedeemOrder
from escrow_bridge.orders import RequestCloseOrder as RequestCloseOrder
from escrow_bridge.orders import TopUpOrder as TopUpOrder
from escrow_bridge.pace import ALLOWED_TICK_OFFSETS
from escrow_bridge.qubic import Wallet, parse_transaction
from escrow_bridge.reader import Reader
from escrow_bridge.redeeming import Redeemer, check_voucher, refused
from escrow_bridge.sending import Save, Scratch, Sender, dump_scratch, load_scratch
from escrow_bridge.topping_up import top_up
from escrow_bridge.transfer import TransferOrder, Transferred, transfer
from escrow_bridge.waiting import Waiting
from protocol.errors import ChainDisagrees, FundingFailed, VoucherInvalid
from protocol.units import EscrowId, Qu, Tick

_LOG: Final = logging.getLogger(__name__)
DEFAULT_POLL_SECONDS: Final = 0.25
MAX_ATTEMPTS: Final = 20


@dataclass(frozen=True)
class _Plan:
    """How an order that moves no money of the sender's is carried out."""

    escrow_id: EscrowId
    opened: Tick
    procedure: Procedure
    is_done: Callable[[EscrowView | None], bool]
    prepare: Callable[[EscrowView, Tick], tuple[Qu, bytes]]
    """(channel, target tick) -> (cumulative it redeems, input). May raise before anything is sent."""
    held: Qu = Qu(0)


class Bridge:
    def __init__(
        self,
        chain: Chain,
        wallet: Wallet,
        contract_index: int,
        *,
        tick_offset: int | None = None,
        one_pending: bool = False,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
        signed_until: Tick = Tick(0),
    ) -> None:
        """`tick_offset`: how many ticks ahead transactions aim, 3 to 31; None: so many that a few seconds
        remain. `one_pending`: have at most one transaction of this wallet under way. `signed_until`: the
        newest tick that one was ever signed for; an older balance of the wallet is not believed."""
        if tick_offset is not None and tick_offset not in ALLOWED_TICK_OFFSETS:
            raise ValueError(f"transactions can aim {ALLOWED_TICK_OFFSETS} ticks ahead, not {tick_offset}")
        self._chain = chain
        self._wallet = wallet
        self._index = contract_index
        self._poll_seconds = poll_seconds
        self.waiting = Waiting()
        self._sender = Sender(
            chain,
            wallet,
            contract_index,
            tick_offset=tick_offset,
            one_pending=one_pending,
            poll_seconds=poll_seconds,
            signed_until=signed_until,
            waiting=self.waiting,
        )
        self.reader = Reader(chain, contract_index, self._sender, poll_seconds)
        self._redeemer = Redeemer(self._sender, self.reader)

    # --- opening ------------------------------------------------------------------------------

    async def open_escrow(self, order: OpenOrder, scratch: bytes, save: Save) -> EscrowView:
        """Lock the deposit; returns the channel as the contract holds it.

        Raises BalanceTooLow (nothing was sent), FundingFailed (nothing is locked), ChainUnreachable
        (only while nothing is on its way; call again).
        """
        state = load_scratch(scratch)
        if order.look_back and not state.ticks:
            state = await self._found(order, state, save)
        on_its_way = bool(state.ticks)
        while True:
            if len(state.ticks) >= MAX_ATTEMPTS and not on_its_way:
                raise FundingFailed(f"the network lost all {MAX_ATTEMPTS} attempts to lock the deposit")
            async with self._sender.reserved(order.deposit), self._sender.turn():
                if not on_its_way:
                    state = await self._attempt_open(order, state, save)
                outcome = await self._sender.follow(state)
            view = await self._what_opened(order, state, outcome)
            if view is not None:
                return view
            on_its_way = False

    async def opened_in(self, order: OpenOrder, ticks: Iterable[int]) -> EscrowView | None:
        """The open channel of this order if it was opened in one of these ticks. Raises like `read`."""
        for tick in ticks:
            view = await self.reader.read(self._id_of(order, Tick(tick)))
            if view is not None:
                return view
        return None

    async def _found(self, order: OpenOrder, state: Scratch, save: Save) -> Scratch:
        """An opening of this very order that this node has forgotten, as if it had just sent it."""
        network = (await read_info(self._chain, self._index)).network
        raw = await find_opening(
            self._sender.transactions,
            (await self._sender.tick_info()).tick,
            self._index,
            self._wallet.public_key,
            lambda tick: self._open_input(order, tick, network),
        )
        if raw is None:
            return state
        tick = parse_transaction(raw).tick
        _LOG.warning("the deposit was locked before, in tick %d; the ledger did not know it", tick)
        state = replace(state, ticks=(tick,), transaction=raw)
        await save(dump_scratch(state))
        return state

    def _open_input(self, order: OpenOrder, tick: Tick, network: int) -> bytes:
        deadline = Tick(tick + order.deadline_ticks)
        return layout.open_input(order.provider, order.terms, deadline, order.challenge_ticks, network)

    async def _attempt_open(self, order: OpenOrder, state: Scratch, save: Save) -> Scratch:
        network = await self._check_open(order)
        tick = await self._sender.next_tick()
        payload = self._open_input(order, tick, network)
        return await self._sender.prepare(state, tick, order.deposit, Procedure.OPEN, payload, save)

    async def _check_open(self, order: OpenOrder) -> int:
        """The network's word, which the contract wants to hear with each opening."""
        await self._sender.check_balance(order.deposit)
        info = await read_info(self._chain, self._index)
        for name, ticks, least, most in (
            ("deadline", order.deadline_ticks, info.min_deadline_ticks, info.max_deadline_ticks),
            ("challenge window", order.challenge_ticks, info.min_challenge_ticks, info.max_challenge_ticks),
        ):
            if not least <= ticks <= most:
                raise FundingFailed(f"the contract takes a {name} of {least} to {most} ticks, not {ticks}")
        if info.taken >= info.capacity or order.deposit < info.least_deposit:
            raise FundingFailed(_no_room(order.deposit, info))
        return info.network

    async def _what_opened(self, order: OpenOrder, state: Scratch, outcome: Outcome) -> EscrowView | None:
        """The channel that one of the attempts opened; None if all of them have been missed."""
        # Whatever the outcome says, no second deposit is sent before the contract was asked.
        for tick in reversed(state.ticks):
            reading = await self.reader.reading_for_sure(self._id_of(order, Tick(tick)), after=state.tick)
            if reading.view is not None:
                return reading.view
        if outcome is Outcome.MISSED:
            return None
        if outcome is Outcome.UNKNOWN:
            raise FundingFailed(
                "no escrow is open for this lease; whether one was opened and has already ended cannot "
                "be told any more, but no money of it is locked"
            )
        raise FundingFailed(await self._why_without_effect(order))

    async def _why_without_effect(self, order: OpenOrder) -> str:
        balance = await self._sender.patiently(lambda: self._chain.balance(self._wallet.public_key))
        if balance.amount < order.deposit:
            return (
                f"the deposit of {order.deposit} QU was not locked: the wallet {self._wallet.identity} "
                f"holds only {balance.amount} QU"
            )
        return (
            f"the deposit of {order.deposit} QU is not locked: the contract gave it back, because it is "
            "full, too full for so little, or out of fuel, or the escrow has already been closed"
        )

    def _id_of(self, order: OpenOrder, tick: Tick) -> EscrowId:
        return layout.escrow_id(self._wallet.public_key, order.provider, order.terms, self._index, tick)

    async def transfer(self, order: TransferOrder, scratch: bytes, save: Save) -> Transferred:
        """See escrow_bridge.transfer."""
        return await transfer(self._sender, order, scratch, save)

    async def top_up(self, order: TopUpOrder, scratch: bytes, save: Save) -> EscrowView:
        """See escrow_bridge.topping_up."""
        return await top_up(self._chain, self._index, self._sender, self.reader, order, scratch, save)

    # --- redeeming and closing ----------------------------------------------------------------

    async def redeem(self, order: RedeemOrder, scratch: bytes, save: Save) -> EscrowView | None:
        """Cash a voucher; returns the channel with at least that much paid, None if it is gone.

        Raises VoucherInvalid (wrong, above the deposit or too late), BalanceTooLow (an empty wallet
        can send nothing), ChainUnreachable (while nothing is on its way). See escrow_bridge.redeeming.
        """
        return await self._redeemer.redeem(order, scratch, save)

    async def close(self, order: CloseOrder, scratch: bytes, save: Save) -> Settled | None:
        """Provider: take the last voucher and refund the rest at once; how the money was divided.

        When the voucher comes too late, closes with what was paid before. None: the channel was gone
        before anything was sent; `Reader.how_it_ended` may know more. Raises like `redeem`.
        """

        def prepare(view: EscrowView, tick: Tick) -> tuple[Qu, bytes]:
            if order.cumulative <= view.paid or tick >= view.last_tick:
                return view.paid, layout.pay_input(order.escrow_id, view.paid, layout.NO_SIGNATURE)
            check_voucher(order, view, tick)
            return order.cumulative, layout.pay_input(order.escrow_id, order.cumulative, order.signature)

        plan = _Plan(
            order.escrow_id,
            order.opened,
            Procedure.CLOSE,
            lambda view: view is None,
            prepare,
            order.held,
        )
        state = load_scratch(scratch)
        if state.settled is not None:
            return _settled(state.settled)
        state, _, outcome = await self._carry_out(plan, state, save)
        if not state.ticks:
            return None
        settled = await self._settlement(order.escrow_id, state, outcome)
        await save(dump_scratch(replace(state, settled=(settled.paid, settled.refunded, settled.certain))))
        return settled

    async def _settlement(self, escrow_id: EscrowId, state: Scratch, outcome: Outcome | None) -> Settled:
        reading = layout.decode_reading(escrow_id, state.seen)
        assert reading is not None and reading.view is not None
        seen = reading.view
        # The caller may have topped up since, so that more came back than was seen.
        ended = await self._sender.patiently(lambda: self.reader.how_it_ended(seen))
        # Where those ticks are forgotten: until its last, nobody but the provider could have removed it. That
        # the caller topped up in just those ticks is left out.
        sure = outcome is Outcome.INCLUDED and state.tick < seen.last_tick
        expected = Settled(Qu(state.cumulative), Qu(seen.deposit - state.cumulative), certain=sure)
        return ended or expected

    async def request_close(self, order: RequestCloseOrder, scratch: bytes, save: Save) -> EscrowView | None:
        """Caller: open the challenge window; the channel with its close tick, None if it is gone."""
        plan = _Plan(
            order.escrow_id,
            order.opened,
            Procedure.REQUEST_CLOSE,
            lambda view: view is None or view.close_tick > 0,
            lambda view, tick: (Qu(0), layout.escrow_input(order.escrow_id)),
        )
        return (await self._carry_out(plan, load_scratch(scratch), save))[1].view

    async def finalize(self, order: FinalizeOrder, scratch: bytes, save: Save) -> None:
        """Refund what is left once nothing can be redeemed any more; waits until then."""
        while True:
            view = await self.reader.read(order.escrow_id, opened=order.opened)
            if view is None or await self._sender.next_tick() >= view.last_tick:
                break
            await trio.sleep(self._poll_seconds)
        plan = _Plan(
            order.escrow_id,
            order.opened,
            Procedure.FINALIZE,
            lambda view: view is None,
            lambda view, tick: (Qu(0), layout.escrow_input(order.escrow_id)),
        )
        await self._carry_out(plan, load_scratch(scratch), save)

    async def _carry_out(
        self, plan: _Plan, state: Scratch, save: Save
    ) -> tuple[Scratch, EscrowReading, Outcome | None]:
        """Send until the contract shows it done. Nothing of the sender's moves: repeating is harmless."""
        outcome: Outcome | None = None
        if state.ticks:
            async with self._sender.turn():
                outcome = await self._sender.follow(state)
        while True:
            # What is read while waiting for a turn is old by the time it comes.
            async with self._sender.turn():
                reading = await self._reading_for(plan, state)
                if reading.view is None or plan.is_done(reading.view):
                    return state, reading, outcome
                if outcome is Outcome.INCLUDED:
                    # Forgotten, so that calling again tries again: the contract may have fuel by then.
                    await save(dump_scratch(Scratch()))
                    raise self._refused(plan, reading.view)
                state = await self._attempt(plan, state, reading.view, save)
                outcome = await self._sender.follow(state)

    async def _reading_for(self, plan: _Plan, state: Scratch) -> EscrowReading:
        if state.ticks:
            after = max(state.tick, plan.opened)
            return await self.reader.reading_for_sure(plan.escrow_id, after=after, held=plan.held)
        return await self.reader.reading(plan.escrow_id, after=plan.opened, held=plan.held)

    async def _attempt(self, plan: _Plan, state: Scratch, view: EscrowView, save: Save) -> Scratch:
        # A signature to check needs a bond, which comes back.
        bond = layout.SIGNATURE_BOND if plan.procedure is Procedure.CLOSE else Qu(0)
        await self._sender.check_balance(bond)
        tick = await self._sender.next_tick()
        cumulative, payload = plan.prepare(view, tick)
        state = replace(state, ticks=(), seen=layout.encode_reading(view), cumulative=cumulative)
        return await self._sender.prepare(state, tick, bond, plan.procedure, payload, save)

    def _refused(self, plan: _Plan, view: EscrowView) -> VoucherInvalid | ChainDisagrees:
        error = refused(plan.procedure, view)
        return error if plan.procedure is Procedure.CLOSE else ChainDisagrees(str(error))


def _no_room(deposit: Qu, info: ContractInfo) -> str:
    """The contract would give it back; known before anything is sent."""
    taken = f"{info.taken:,} of the contract's {info.capacity:,} places are taken"
    if info.taken >= info.capacity:
        return f"the deposit of {deposit} QU is not locked: {taken}; try again when other leases have ended"
    return (
        f"the deposit of {deposit} QU is not locked: while {taken}, it must be at least {info.least_deposit} "
        "QU; rent for longer, or later"
    )


def _settled(saved: tuple[int, int, bool]) -> Settled:
    paid, refunded, certain = saved
    return Settled(Qu(paid), Qu(refunded), certain)
