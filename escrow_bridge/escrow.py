"""Reads the escrow contract, and works out how a channel ended from the ticks it ended in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from escrow_bridge import layout
from escrow_bridge.chain import Chain
from escrow_bridge.layout import ContractInfo, EscrowReading, EscrowView, Function, Procedure
from escrow_bridge.qubic import Transaction, contract_id, parse_transaction, verify
from protocol.errors import ChainDisagrees
from protocol.units import EscrowId, Qu, QubicId, Tick

TICK_AT: Final = 4
"""Where in the contract's answers the tick lies in which they were given."""
LOOK_BACK_TICKS: Final = 600
"""How far back an opening is searched for, as far as nodes remember it."""
Transactions = Callable[[Tick], Awaitable[tuple[bytes, ...] | None]]
"""Those of a past tick; see Sender.transactions."""


@dataclass(frozen=True)
class Settled:
    """How the money of an ended channel was divided; deposit = paid + refunded."""

    paid: Qu
    """Gross: the provider received this less the fee."""
    refunded: Qu
    certain: bool
    """False: the ticks in which it ended can no longer be read, or do not tell it; this is what should have
    happened."""


async def read_reading(chain: Chain, contract_index: int, escrow_id: EscrowId) -> EscrowReading:
    """GetEscrow with the tick it was answered in. Raises ChainUnreachable, ChainDisagrees."""
    output = await chain.query(
        contract_index, Function.GET_ESCROW, layout.escrow_input(escrow_id), tick_at=TICK_AT
    )
    reading = layout.decode_reading(escrow_id, output)
    if reading is None:
        raise _wrong_contract(contract_index)
    return reading


async def read_info(chain: Chain, contract_index: int) -> ContractInfo:
    """The contract's constants and totals. Raises ChainUnreachable, ChainDisagrees."""
    info = layout.decode_info(await chain.query(contract_index, Function.GET_INFO, b"", tick_at=TICK_AT))
    if info is None or info.contract_index != contract_index:
        raise _wrong_contract(contract_index)
    return info


def _wrong_contract(contract_index: int) -> ChainDisagrees:
    return ChainDisagrees(
        f"contract {contract_index} of this network does not answer as the qubix escrow does; "
        "check the contract index and the network"
    )


async def how_it_ended(
    transactions: Transactions, contract_index: int, seen: EscrowView, gone_by: Tick
) -> Settled | None:
    """How a channel ended that was last `seen` open and that all ticks before `gone_by` have removed.

    Reads the transactions since then; None if some of those ticks are already forgotten. Not certain if a
    top-up was among them: one without cover is in its tick as well, and moves nothing.
    """
    view, tick = seen, seen.as_of
    while tick < gone_by and tick <= view.last_tick:
        raws = await transactions(tick)
        if raws is None:
            return None
        view, closed = follow(view, contract_index, map(parse_transaction, raws))
        if closed:
            break
        tick = Tick(tick + 1)
    return Settled(view.paid, Qu(view.deposit - view.paid), certain=view.deposit == seen.deposit)


async def find_opening(
    transactions: Transactions,
    now: Tick,
    contract_index: int,
    source: QubicId,
    payload_in: Callable[[Tick], bytes],
) -> bytes | None:
    """The newest raw transaction of `source` that opened an escrow with the payload of its tick, in the
    ticks before `now` that are still remembered; None if there is none."""
    for tick in range(now - 1, max(0, now - LOOK_BACK_TICKS), -1):
        raws = await transactions(Tick(tick))
        if raws is None:
            return None
        for raw in raws:
            one = parse_transaction(raw)
            ours = (one.source, one.destination) == (source, contract_id(contract_index))
            if ours and one.input_type == Procedure.OPEN and one.payload == payload_in(Tick(tick)):
                return raw
    return None


def follow(
    view: EscrowView, contract_index: int, transactions: Iterable[Transaction]
) -> tuple[EscrowView, bool]:
    """What transactions of one tick, in their order, do to a channel; whether one closed it.

    Counts what the contract would take. Repeating a tick changes nothing.
    """
    for transaction in transactions:
        if transaction.destination != contract_id(contract_index):
            continue
        if transaction.input_type in (Procedure.REDEEM, Procedure.CLOSE):
            view, taken = _follow_payment(view, transaction)
            if taken and transaction.input_type == Procedure.CLOSE:
                return view, True
        elif transaction.input_type == Procedure.REDEEM_MANY:
            view = _follow_batch(view, transaction)
        elif transaction.input_type == Procedure.REQUEST_CLOSE:
            view = _follow_request(view, transaction)
        elif transaction.input_type == Procedure.TOP_UP:
            view = _follow_top_up(view, transaction)
    return view, False


def _follow_payment(view: EscrowView, transaction: Transaction) -> tuple[EscrowView, bool]:
    voucher = layout.parse_pay_input(transaction.payload)
    closing = transaction.input_type == Procedure.CLOSE
    if voucher[0] != view.escrow_id or (closing and transaction.source != view.provider):
        return view, False
    if closing and voucher[1] == view.paid:
        return view, True
    bonded = transaction.amount >= layout.SIGNATURE_BOND
    after = _pay(view, transaction.tick, *voucher) if bonded else view
    return after, after.paid > view.paid


def _follow_batch(view: EscrowView, transaction: Transaction) -> EscrowView:
    vouchers = layout.parse_redeem_many_input(transaction.payload)
    if transaction.amount < layout.SIGNATURE_BOND * len(vouchers):
        return view
    for voucher in vouchers:
        view = _pay(view, transaction.tick, *voucher)
    return view


def _pay(view: EscrowView, tick: Tick, escrow_id: EscrowId, cumulative: Qu, signature: bytes) -> EscrowView:
    """The channel after a voucher with its bond; unchanged if the contract refuses the voucher."""
    in_range = tick < view.last_tick and view.paid < cumulative <= view.deposit
    if escrow_id != view.escrow_id or not in_range:
        return view
    signed = verify(view.caller, layout.voucher_digest(escrow_id, cumulative), signature)
    return replace(view, paid=cumulative) if signed else view


def _follow_request(view: EscrowView, transaction: Transaction) -> EscrowView:
    asked = transaction.payload[: layout.ID_BYTES] == view.escrow_id and transaction.source == view.caller
    if not asked or view.close_tick or transaction.tick >= view.deadline_tick:
        return view
    return replace(view, close_tick=Tick(min(transaction.tick + view.challenge_ticks, view.deadline_tick)))


def _follow_top_up(view: EscrowView, transaction: Transaction) -> EscrowView:
    escrow_id, before, deadline = layout.parse_top_up_input(transaction.payload)
    if escrow_id != view.escrow_id or transaction.source != view.caller:
        return view
    running = not view.close_tick and transaction.tick < view.deadline_tick
    fits = before == view.deposit and 0 < transaction.amount <= layout.MAX_DEPOSIT - before
    in_range = view.deadline_tick <= deadline <= transaction.tick + layout.MAX_DEADLINE_TICKS
    if not (running and fits and in_range):
        return view
    return replace(view, deposit=Qu(before + transaction.amount), deadline_tick=deadline)
