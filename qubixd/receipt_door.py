"""The door for receipts and settlements: what is refused whoever brings it. Pure.

Inside a receipt everything hangs together: the provider's signature on the terms, the caller's on the
receipt, the escrow's id as the contract computes it from both wallets, the terms and the tick, and the
voucher by the caller's wallet. What the chain says beside that is in qubixd/proofs.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from escrow_bridge import layout, qubic
from protocol import signing
from protocol.errors import MessageInvalid, SignatureInvalid, VoucherInvalid
from protocol.faults import Outcome
from protocol.lease_extension import extended
from protocol.messages import (
    MAX_EXTENSION_BYTES,
    MAX_OFFER_BYTES,
    MAX_RECEIPT_BYTES,
    Extension,
    Receipt,
    Settlement,
    Terms,
)
from protocol.signing import Signed
from protocol.units import LeaseId, Qu, UnixMs, amount_due
from qubixd.desk import lease_id_of

CLOCKS_APART_MS: Final = 600_000
MAX_AGE_MS: Final = 400 * 86_400_000
"""Older receipts weigh next to nothing and are not taken."""


@dataclass(frozen=True)
class Market:
    """Whose receipts these are: one network and one contract."""

    network: str
    contract_index: int


@dataclass(frozen=True)
class Checked:
    """A receipt that has passed the door."""

    lease_id: LeaseId
    receipt: Receipt
    terms: Terms
    """With the time that was added."""
    raw: bytes
    opened_with: Qu
    """The deposit that the escrow was opened with; what is above was added later, if at all."""

    @property
    def failed(self) -> bool:
        return self.receipt.outcome == Outcome.FAILED


def verify(raw: bytes) -> Signed:
    """The envelope of a Receipt or Settlement. MessageTooLarge, MessageInvalid, SignatureInvalid."""
    signed = signing.verify(raw, MAX_RECEIPT_BYTES)
    if not isinstance(signed.message, Receipt | Settlement):
        raise MessageInvalid("this is neither a receipt nor a settlement")
    return signed


def check_receipt(signed: Signed, market: Market, now: UnixMs) -> Checked:
    """MessageInvalid, SignatureInvalid or VoucherInvalid with what is wrong with a receipt."""
    receipt = signed.message
    if not isinstance(receipt, Receipt):
        raise MessageInvalid("this is not a receipt")
    first = _terms_of(receipt)
    lease_id = lease_id_of(receipt.signed_terms)
    terms = _with_extension(receipt, first, lease_id)
    if signed.signer != terms.caller:
        raise SignatureInvalid("the receipt is not signed by the caller of the lease")
    if terms.caller == terms.provider or terms.caller_id == terms.provider_id:
        raise MessageInvalid("the receipt is by the provider itself")
    if (terms.network, terms.contract_index) != (market.network, market.contract_index):
        raise MessageInvalid("the receipt is of another network or contract")
    _check_escrow(receipt, terms, lease_id)
    _check_money(receipt, terms)
    _check_time(receipt, terms, now)
    return Checked(lease_id, receipt, terms, signed.raw, first.deposit)


def opened(record: bytes) -> Checked:
    """A receipt that has passed the door before."""
    receipt: Receipt = signing.opened(record).message
    first: Terms = signing.opened(receipt.signed_terms).message
    more = signing.opened(receipt.extension).message if receipt.extension else None
    terms = extended(first, more) if more else first
    return Checked(lease_id_of(receipt.signed_terms), receipt, terms, record, first.deposit)


def _terms_of(receipt: Receipt) -> Terms:
    signed = signing.verify(receipt.signed_terms, MAX_OFFER_BYTES)
    terms = signed.message
    if not isinstance(terms, Terms) or signed.signer != terms.provider:
        raise SignatureInvalid("the terms in the receipt are not signed by the provider")
    return terms


def _with_extension(receipt: Receipt, terms: Terms, lease_id: LeaseId) -> Terms:
    if not receipt.extension:
        return terms
    signed = signing.verify(receipt.extension, MAX_EXTENSION_BYTES)
    more = signed.message
    if not isinstance(more, Extension) or signed.signer != terms.provider or more.lease_id != lease_id:
        raise SignatureInvalid("the extension in the receipt is not signed by the provider for this lease")
    return extended(terms, more)


def _check_escrow(receipt: Receipt, terms: Terms, lease_id: LeaseId) -> None:
    if receipt.outcome not in tuple(Outcome):
        raise MessageInvalid(f"a receipt says one of {', '.join(Outcome)}")
    expected = layout.escrow_id(
        terms.caller_id, terms.provider_id, lease_id, terms.contract_index, receipt.open_tick
    )
    if receipt.escrow_id != expected:
        raise MessageInvalid("the receipt's escrow is not the one of these terms and this tick")


def _check_money(receipt: Receipt, terms: Terms) -> None:
    due = amount_due(terms.price_qu_per_hour, receipt.seconds)
    if receipt.cumulative > min(due, terms.deposit):
        raise VoucherInvalid("the receipt says that more was paid than was due or locked")
    if not receipt.cumulative:
        if receipt.voucher:
            raise VoucherInvalid("a receipt for nothing has no voucher")
        return
    digest = layout.voucher_digest(receipt.escrow_id, receipt.cumulative)
    if len(receipt.voucher) != qubic.SIGNATURE_BYTES or not qubic.verify(
        terms.caller_id, digest, receipt.voucher
    ):
        raise VoucherInvalid("the receipt's voucher is not signed by the caller for this escrow and amount")


def _check_time(receipt: Receipt, terms: Terms, now: UnixMs) -> None:
    lasted_ms = receipt.ended_at - terms.quoted_at + CLOCKS_APART_MS
    if receipt.ended_at > now + CLOCKS_APART_MS:
        raise MessageInvalid("the receipt is of a lease that ends in the future")
    if now - receipt.ended_at > MAX_AGE_MS:
        raise MessageInvalid("the receipt is too old")
    if receipt.seconds > terms.max_seconds or receipt.ready_ms + receipt.seconds * 1_000 > lasted_ms:
        raise MessageInvalid("the receipt's times do not fit its terms")
