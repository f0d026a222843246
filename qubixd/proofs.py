"""What the chain still says about a receipt.

Strongest is the contract's own ticket: it says what the escrow paid, for one to two epochs, and only of
registered providers. Then the transactions in their ticks; included is not executed, so what rests on them
is bounded by the contract's counters (protocol/score.py), and by the deposit that the escrow was opened with:
what was added to it later only a ticket bears out. Nodes forget ticks, and then nobody can tell.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from escrow_bridge import layout, layout_registry
from escrow_bridge.chain import Chain, TickInfo
from escrow_bridge.layout import Function, Procedure
from escrow_bridge.layout_registry import TicketKind
from escrow_bridge.qubic import Transaction, contract_id, parse_transaction, transaction_digest
from protocol.messages import Settlement
from protocol.score import LEAST_PAID, Counters, Proof
from protocol.units import PeerKey, Qu, QubicId, Tick, UnixMs
from qubixd.receipt_door import Checked

KEPT_TICKS: Final = 256
"""Whose transactions are kept in memory: the leases of a page share few of them."""
YOUNG_TICKS: Final = 8
"""A node may not have the data of so young a tick yet."""
TICK_AT: Final = 4


@dataclass(frozen=True)
class Finding:
    proof: Proof
    paid: Qu
    """At most what the receipt says."""
    opened_ms: int
    """When the escrow opened, reckoned from its tick."""


class Prover:
    """Asks one chain. Raises ChainUnreachable, ChainDisagrees."""

    def __init__(self, chain: Chain, contract_index: int) -> None:
        self._chain = chain
        self._index = contract_index
        self._ticks: OrderedDict[Tick, dict[bytes, Transaction]] = OrderedDict()

    async def tick(self) -> Tick:
        """The chain's, now; that it says it is a sign that it can be asked."""
        return (await self._chain.tick_info()).tick

    async def look(self, checked: Checked, settlement: Settlement | None, now: UnixMs) -> Finding:
        """What is known of one receipt at this moment."""
        info = await self._chain.tick_info()
        receipt = checked.receipt
        opened_ms = now - max(0, info.tick - receipt.open_tick) * info.tick_duration_ms
        if receipt.cumulative >= LEAST_PAID:
            paid = await self._ticket(checked)
            if paid:
                return Finding(Proof.TICKET, min(paid, receipt.cumulative), opened_ms)
        proof, paid = await self._in_ticks(checked, settlement, info)
        return Finding(proof, min(paid, receipt.cumulative, checked.opened_with), opened_ms)

    async def counters(self, wallet: QubicId, provider: PeerKey) -> Counters | None:
        """What the contract has counted for a registered provider; None too if the wallet is registered
        for another node: anybody can name a famous wallet in its terms."""
        output = await self._chain.query(self._index, Function.GET_PROVIDER, wallet, tick_at=TICK_AT)
        view = layout_registry.decode_provider(output)
        if view is None or view.peer_key != provider:
            return None
        return Counters(view.volume, view.completed, view.failed)

    async def _ticket(self, checked: Checked) -> Qu:
        terms = checked.terms
        wanted = layout_registry.ticket_input(
            TicketKind.LEASE, checked.receipt.escrow_id, terms.caller_id, terms.provider_id
        )
        output = await self._chain.query(self._index, Function.GET_TICKET, wanted, tick_at=TICK_AT)
        ticket = layout_registry.decode_ticket(output)
        return ticket.amount if ticket else Qu(0)

    async def _in_ticks(
        self, checked: Checked, settlement: Settlement | None, info: TickInfo
    ) -> tuple[Proof, Qu]:
        receipt = checked.receipt
        if receipt.open_tick > info.tick:
            return Proof.REFUTED, Qu(0)
        opened = await self._transactions(receipt.open_tick, info)
        if opened is not None and not any(_opens(one, checked, self._index) for one in opened.values()):
            return Proof.REFUTED, Qu(0)
        if checked.failed or settlement is None or not receipt.cumulative:
            return (Proof.CLAIMED if opened is None else Proof.SEEN), receipt.cumulative
        if settlement.tick < receipt.open_tick or settlement.tick > info.tick:
            return Proof.REFUTED, Qu(0)
        settled = await self._transactions(settlement.tick, info)
        if settled is None:
            return Proof.CLAIMED, receipt.cumulative
        one = settled.get(settlement.transaction)
        paid = _pays(one, checked, self._index) if one else Qu(0)
        if not paid:
            return Proof.REFUTED, Qu(0)
        return (Proof.CLAIMED if opened is None else Proof.SEEN), paid

    async def _transactions(self, tick: Tick, info: TickInfo) -> dict[bytes, Transaction] | None:
        """By digest, of a past tick; None if this chain cannot say."""
        if tick in self._ticks:
            return self._ticks[tick]
        if tick >= info.tick - YOUNG_TICKS:
            return None
        raws = await self._chain.transactions(tick)
        if raws is None:
            return None
        self._ticks[tick] = {transaction_digest(raw): parse_transaction(raw) for raw in raws}
        if len(self._ticks) > KEPT_TICKS:
            self._ticks.popitem(last=False)
        return self._ticks[tick]


def _opens(one: Transaction, checked: Checked, index: int) -> bool:
    """Whether a transaction opens the escrow of a receipt with the deposit of its first terms."""
    terms = checked.terms
    if (one.source, one.destination) != (terms.caller_id, contract_id(index)):
        return False
    lease = terms.provider_id + checked.lease_id
    if one.input_type == Procedure.OPEN:
        return one.amount >= checked.opened_with and one.payload[: len(lease)] == lease
    return one.input_type == Procedure.OPEN_MANY and lease in one.payload


def _pays(one: Transaction, checked: Checked, index: int) -> Qu:
    """What a transaction takes out of the escrow of a receipt, cumulative; 0 if it does not."""
    if one.destination != contract_id(index):
        return Qu(0)
    vouchers: tuple[tuple[bytes, Qu, bytes], ...] = ()
    if one.input_type in (Procedure.REDEEM, Procedure.CLOSE):
        vouchers = (layout.parse_pay_input(one.payload),)
    elif one.input_type == Procedure.REDEEM_MANY:
        vouchers = layout.parse_redeem_many_input(one.payload)
    ours = [cumulative for escrow, cumulative, _ in vouchers if escrow == checked.receipt.escrow_id]
    return max(ours, default=Qu(0))
