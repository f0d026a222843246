"""From what this node knows to the rows of its public mirror. Pure.

Nothing of a caller gets in: of a lease only who provided it, on what, for how long, and what was paid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from ledger.mirror import OfferRow, Seen
from ledger.mirror_history import ScoreRow, SettledRow
from ledger.receipts import ReceiptRow
from protocol import signing
from protocol.messages import Offer, Settlement
from protocol.score import Counters, Proof, Score
from protocol.units import PeerKey
from qubixd import book_facts
from qubixd.book_record import Sight
from qubixd.receipt_door import opened
from qubixd.wire_libp2p import peer_id_of

_RTT: Final = book_facts.NUMBERS.index("rtt")
"""Another one for everybody who looks."""
PROVEN: Final = (Proof.TICKET, Proof.SEEN)
LEASES: Final = 50
"""In the evidence of one provider."""

Told = tuple[ReceiptRow, bytes]
"""A receipt and its settlement's record, b"" without one."""


def seen_of(sight: Sight) -> Seen:
    score, reliability, _ = sight.measured
    return Seen(sight.provider, sight.raw, sight.seen, score, reliability)


def offer_row(seen: Seen) -> OfferRow:
    """Takes the envelope apart; its signature was checked when it came into the book."""
    offer: Offer = signing.opened(seen.record).message
    numbers = book_facts.steps_of(offer, (None, None, None))
    return OfferRow(
        peer_id=peer_id_of(PeerKey(seen.peer)),
        expires_ms=offer.expires_at,
        closes_ms=offer.closes_at,
        sequence=offer.sequence,
        label=text(offer.name),
        region_label=text(offer.region),
        gpu_label=text(offer.gpu_class),
        provider_id=offer.qubic_id,
        numbers=(*numbers[:_RTT], *numbers[_RTT + 1 :]),
        names=book_facts.names_of(offer),
    )


def settled_row(told: Told) -> SettledRow:
    row, record = told
    checked = opened(row.record)
    settled: Settlement | None = signing.opened(record).message if record else None
    return SettledRow(
        lease_id=row.lease_id,
        provider=row.provider,
        gpu=text(checked.terms.wish.gpu_model),
        paid_qu=_paid(row),
        seconds=checked.receipt.seconds,
        outcome=checked.receipt.outcome,
        proof=row.proof,
        open_tick=checked.receipt.open_tick,
        close_tick=settled.tick if settled else 0,
        transaction_digest=settled.transaction if settled else b"",
        ended_ms=row.ended_ms,
    )


def score_row(
    provider: PeerKey, found: Score, leases: Sequence[Told], counters: Counters | None, now: int
) -> ScoreRow:
    """With what it was made of, as far as everybody may know it."""
    evidence = {
        "leases": [_evidence(told) for told in leases[:LEASES]],
        "counters": asdict(counters) if counters else None,
    }
    return ScoreRow(
        peer=provider,
        score=found.g,
        performance=found.performance,
        reliability=found.reliability,
        efficiency=found.efficiency,
        confidence=found.confidence,
        newcomer=found.confidence == 0,
        reasons=json.dumps(found.reasons),
        evidence=json.dumps(evidence, separators=(",", ":")),
        at_ms=now,
    )


def _evidence(told: Told) -> dict[str, object]:
    row, settlement = told
    receipt = opened(row.record).receipt
    return {
        "lease_id": row.lease_id.hex(),
        "outcome": receipt.outcome,
        "seconds": receipt.seconds,
        "paid_qu": _paid(row),
        "proof": row.proof,
        "settled": bool(settlement),
        "ended_ms": row.ended_ms,
    }


def _paid(row: ReceiptRow) -> int:
    """What the chain confirms, or what the caller says while it has not been asked."""
    return row.paid if row.proof in PROVEN else row.cumulative


def text(said: str) -> str:
    """Not every database takes NUL."""
    return said.replace("\0", "\u2400")
