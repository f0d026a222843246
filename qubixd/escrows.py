"""What a lease means for the escrow contract. Pure."""

from __future__ import annotations

from escrow_bridge import layout
from escrow_bridge.bridge import OpenOrder
from escrow_bridge.layout import EscrowView
from escrow_bridge.qubic import parse_transaction, transaction_digest
from ledger.transactions import SignedTransaction
from protocol import lease_model as m
from protocol.lease_state import Lease, locked
from protocol.units import Qu, Tick, UnixMs


def objection_to(view: EscrowView | None, claim: m.ChainVerify, lease: Lease) -> str:
    """Why an escrow is not the one the terms speak of; "" if it is."""
    terms = lease.terms
    if view is None:
        return "the contract has no such escrow"
    expected = layout.escrow_id(
        terms.caller_id, terms.provider_id, lease.lease_id, terms.contract_index, claim.open_tick
    )
    if claim.escrow_id != expected or view.open_tick != claim.open_tick:
        return "the escrow was opened for something else"
    if view.deposit < terms.deposit or view.paid:
        return f"the escrow holds {view.deposit - view.paid} QU and the terms ask for {terms.deposit} QU"
    if view.deadline_tick < view.open_tick + terms.deadline_ticks or view.close_tick:
        return "the escrow ends too early"
    if view.burn_basis_points:
        return "the escrow burns a part of what it pays, and the terms do not say so"
    if view.challenge_ticks < terms.challenge_ticks:
        return "the escrow's challenge window is too short"
    return ""


def open_order(lease: Lease, *, look_back: bool = False) -> OpenOrder:
    """What the caller of this lease has to lock."""
    terms = lease.terms
    return OpenOrder(
        terms.provider_id,
        lease.lease_id,
        terms.deposit,
        terms.deadline_ticks,
        terms.challenge_ticks,
        look_back=look_back,
    )


def signed_transaction(raw: bytes, about: bytes, action: str, now: UnixMs) -> SignedTransaction:
    """A transaction of ours as the ledger keeps it."""
    one = parse_transaction(raw)
    return SignedTransaction(
        transaction_digest(raw), about, action, one.tick, one.amount, one.destination, now
    )


def seen_by(lease: Lease) -> EscrowView:
    """The channel as this lease knows it, for a node that missed the rest."""
    return EscrowView(
        escrow_id=lease.escrow_id,
        caller=lease.terms.caller_id,
        provider=lease.terms.provider_id,
        deposit=locked(lease),
        paid=Qu(0),
        deadline_tick=lease.deadline_tick,
        close_tick=Tick(0),
        challenge_ticks=lease.terms.challenge_ticks,
        open_tick=lease.open_tick,
        as_of=lease.open_tick,
    )
