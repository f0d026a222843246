"""The door for receipts: each thing that must hang together, broken once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from protocol.errors import MessageInvalid, MessageTooLarge, QubixError, SignatureInvalid, VoucherInvalid
from protocol.messages import MAX_RECEIPT_BYTES, Ack, Extension
from protocol.units import Qu, Seconds, Tick, UnixMs
from qubixd.receipt_door import CLOCKS_APART_MS, MAX_AGE_MS, Market, check_receipt, opened, verify
from tests.support.receipt_deals import MARKET, Deal, Party, Town, voucher

TOWN = Town()
ALICE, BOB, EVE = (TOWN.party(name) for name in ("alice", "bob", "eve"))
DEAL = TOWN.deal(ALICE, BOB, paid=50_000)


def check(raw: bytes, market: Market = MARKET, now: int = TOWN.now) -> None:
    check_receipt(verify(raw), market, UnixMs(now))


def refused(raw: bytes, kind: type[QubixError], words: str, **how: Any) -> None:
    with pytest.raises(kind, match=words):
        check(raw, **how)


def test_a_good_receipt_passes() -> None:
    checked = check_receipt(verify(DEAL.receipt), MARKET, TOWN.now)
    assert checked.lease_id == DEAL.lease_id
    assert not checked.failed


def test_the_envelope_is_the_callers() -> None:
    refused(EVE.key.sign(DEAL.said), SignatureInvalid, "not signed by the caller")
    refused(ALICE.key.sign(DEAL.said), SignatureInvalid, "not signed by the caller")
    refused(DEAL.receipt[:-1] + bytes([DEAL.receipt[-1] ^ 1]), SignatureInvalid, "does not match")


def test_the_terms_are_the_providers() -> None:
    terms = TOWN.terms(ALICE, BOB, Qu(50_005))
    by_eve = DEAL.saying(signed_terms=EVE.key.sign(terms))
    refused(by_eve.receipt, SignatureInvalid, "not signed by the provider")
    refused(
        DEAL.saying(signed_terms=ALICE.key.sign(Ack())).receipt,
        SignatureInvalid,
        "not signed by the provider",
    )
    refused(DEAL.saying(signed_terms=b"nonsense").receipt, QubixError, "envelope")


def test_nobody_praises_himself() -> None:
    own = TOWN.deal(ALICE, ALICE, paid=50_000, opens=False, closes=False)
    refused(own.receipt, MessageInvalid, "by the provider itself")
    second_node = TOWN.deal(
        ALICE, BOB, paid=50_000, opens=False, closes=False, caller_id=ALICE.wallet.public_key
    )
    refused(second_node.receipt, MessageInvalid, "by the provider itself")


def test_another_network_or_contract() -> None:
    refused(DEAL.receipt, MessageInvalid, "another network", market=replace(MARKET, network="mainnet"))
    refused(DEAL.receipt, MessageInvalid, "another network", market=replace(MARKET, contract_index=7))
    elsewhere = TOWN.deal(ALICE, BOB, paid=50_000, opens=False, closes=False, network="testnet")
    refused(elsewhere.receipt, MessageInvalid, "another network")


def test_copied_under_another_lease() -> None:
    """A paid lease's escrow and voucher beside terms that were never paid."""
    unpaid = TOWN.deal(ALICE, BOB, paid=50_000, opens=False, closes=False)
    copied = DEAL.saying(signed_terms=unpaid.signed_terms)
    refused(copied.receipt, MessageInvalid, "not the one of these terms")
    refused(
        DEAL.saying(open_tick=Tick(DEAL.said.open_tick + 1)).receipt,
        MessageInvalid,
        "not the one of these terms",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"cumulative": Qu(49_999)},
        {"voucher": b""},
        {"voucher": bytes(64)},
        {"voucher": bytes(63)},
        {"voucher": voucher(EVE, DEAL.said.escrow_id, 50_000)},
        {"cumulative": Qu(0)},
        {
            "cumulative": Qu(50_006),
            "seconds": Seconds(60),
            "voucher": voucher(BOB, DEAL.said.escrow_id, 50_006),
        },
        {"seconds": Seconds(49)},
    ],
)
def test_the_voucher_is_the_callers_for_this_escrow_and_amount(changes: dict[str, Any]) -> None:
    refused(DEAL.saying(**changes).receipt, VoucherInvalid, "voucher|paid than was due")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ended_at": UnixMs(TOWN.now + CLOCKS_APART_MS + 1)}, "in the future"),
        ({"ended_at": UnixMs(TOWN.now - MAX_AGE_MS - 1)}, "too old"),
        ({"ready_ms": 100_000_000}, "do not fit"),
        ({"outcome": "splendid"}, "one of"),
    ],
)
def test_times_and_words_are_sane(changes: dict[str, Any], words: str) -> None:
    refused(DEAL.saying(**changes).receipt, MessageInvalid, words)


def test_size_and_kind() -> None:
    with pytest.raises(MessageTooLarge):
        verify(bytes(MAX_RECEIPT_BYTES + 1))
    with pytest.raises(MessageInvalid):
        verify(BOB.key.sign(Ack()))
    with pytest.raises(MessageInvalid):
        check_receipt(verify(DEAL.settlement), MARKET, TOWN.now)


def test_a_lease_that_paid_nothing_may_be_complained_of() -> None:
    nothing: Deal = TOWN.deal(ALICE, BOB, paid=0, outcome="failed", closes=False)
    assert check_receipt(verify(nothing.receipt), MARKET, TOWN.now).failed


def extended(signer: Party = ALICE, **changes: Any) -> Deal:
    """A lease whose second half was added while it ran."""
    values = {"lease_id": DEAL.lease_id, "number": 1, "max_seconds": 90_000, "deposit": 100_000}
    more = Extension(**{**values, "deadline_ticks": 5_000, "valid_until": TOWN.now, **changes})
    escrow = DEAL.said.escrow_id
    return DEAL.saying(
        cumulative=Qu(100_000),
        seconds=Seconds(100),
        voucher=voucher(BOB, escrow, 100_000),
        extension=signer.key.sign(more),
    )


def test_what_was_added_and_paid_counts_with_the_extension_and_not_without() -> None:
    checked = check_receipt(verify(extended().receipt), MARKET, TOWN.now)
    assert (checked.terms.deposit, checked.terms.max_seconds, checked.opened_with) == (
        100_000,
        90_000,
        50_005,
    )
    assert opened(extended().receipt) == checked
    refused(extended().saying(extension=b"").receipt, VoucherInvalid, "more was paid than was due or locked")
    refused(extended(deposit=99_999).receipt, VoucherInvalid, "more was paid than was due or locked")
    refused(extended(max_seconds=99).receipt, MessageInvalid, "do not fit its terms")


def test_the_extension_is_the_providers_for_this_lease() -> None:
    for wrong in (extended(EVE), extended(BOB), extended(lease_id=bytes(32))):
        refused(wrong.receipt, SignatureInvalid, "for this lease")
    refused(DEAL.saying(extension=ALICE.key.sign(Ack())).receipt, SignatureInvalid, "for this lease")
    refused(DEAL.saying(extension=b"nonsense").receipt, QubixError, "envelope")
