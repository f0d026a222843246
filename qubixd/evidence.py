"""Evidence files: everything a score was made of, so that anybody can make it again.

`python -m qubixd.evidence FILE` checks every signature in a file and computes the score anew, without a
daemon, a network or a chain. The raw bytes count; the readable fields beside them are for people. What the
chain said (`proof`, `paid_qu`, `opened_ms`, `counters`) is the word of who wrote the file.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from protocol import catalogue, signing
from protocol.errors import MessageInvalid, QubixError, UsageError
from protocol.messages import MAX_OFFER_BYTES, MAX_RECEIPT_BYTES, Offer, Settlement
from protocol.score import Counters, Deed, Evidence, Proof, Score, score
from protocol.units import MAX_QU, LeaseId, PeerKey, Qu, QubicId, UnixMs
from qubixd.receipt_door import Checked, Market, check_receipt, verify
from qubixd.wire_libp2p import peer_id_of

FORMAT: Final = "qubix-evidence/1"
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
MAX_LEASES: Final = 500

Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Money = Annotated[int, Meta(ge=0, le=MAX_QU)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Instant = Annotated[int, Meta(ge=0, le=2**53)]


class LeaseEntry(msgspec.Struct, frozen=True):
    """One lease of a file."""

    receipt: Annotated[str, Meta(max_length=2 * MAX_RECEIPT_BYTES)]
    """The caller's envelope, hex; the provider's terms are inside."""
    settlement: Annotated[str, Meta(max_length=2 * MAX_RECEIPT_BYTES)]
    """The provider's, or empty."""
    proof: Proof
    paid_qu: Money
    opened_ms: Instant
    readable: dict[str, Any] = {}


class CountersEntry(msgspec.Struct, frozen=True):
    volume: Count
    completed: Count
    disputes_lost: Count


class EvidenceFile(msgspec.Struct, frozen=True):
    format: str
    provider: Hex32
    viewer: Hex32
    """The node that wrote it: its own leases count more."""
    network: Annotated[str, Meta(max_length=64)]
    contract_index: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    at_ms: Instant
    offer: Annotated[str, Meta(max_length=2 * MAX_OFFER_BYTES)]
    """The provider's newest, hex, or empty."""
    qu_per_credit: Annotated[int, Meta(ge=1, le=MAX_QU)]
    counters: CountersEntry | None
    benchmark: Annotated[float, Meta(ge=0, le=1)] | None
    leases: Annotated[tuple[LeaseEntry, ...], Meta(max_length=MAX_LEASES)]
    score: dict[str, Any] = {}
    peer_id: str = ""


@dataclass(frozen=True, slots=True)
class Gist:
    """What a score needs to know of one receipt."""

    lease_id: LeaseId
    caller: PeerKey
    caller_id: QubicId
    provider_id: QubicId
    failed: bool
    cumulative: Qu
    ready_ms: int
    allowed_ms: int
    began_at: int
    """As its caller says."""
    ended_at: int


def gist_of(checked: Checked) -> Gist:
    receipt, terms = checked.receipt, checked.terms
    return Gist(
        checked.lease_id,
        terms.caller,
        terms.caller_id,
        terms.provider_id,
        checked.failed,
        receipt.cumulative,
        receipt.ready_ms,
        (terms.pull_seconds + terms.start_seconds) * 1_000,
        receipt.ended_at - receipt.seconds * 1_000 - receipt.ready_ms,
        receipt.ended_at,
    )


@dataclass(frozen=True, slots=True)
class Known:
    """One lease: its receipt, whether the provider has signed its settlement, what the chain said."""

    gist: Gist
    agreed: bool
    proof: Proof
    paid: int
    opened_ms: int


def deed_of(known: Known, *, viewer: PeerKey, at_ms: int) -> Deed:
    """A receipt and what is known about it, as the score counts it."""
    gist = known.gist
    own = gist.caller == viewer
    unproven = own or known.proof is Proof.CLAIMED
    return Deed(
        lease_id=gist.lease_id,
        counterparty=gist.caller_id,
        own=own,
        failed=gist.failed,
        paid=gist.cumulative if unproven else Qu(min(known.paid, gist.cumulative)),
        age_ms=max(0, at_ms - (known.opened_ms or gist.began_at)),
        ready_ms=gist.ready_ms,
        allowed_ms=gist.allowed_ms,
        proof=known.proof,
        agreed=known.agreed,
    )


def worth_of(offer: Offer, qu_per_credit: int) -> Qu | None:
    """QU per hour that the catalogue suggests for one such GPU; None if it does not know it."""
    if catalogue.gpu_of(offer.gpu_class) is None:
        return None
    return catalogue.suggested_price(offer.gpu_class, qu_per_credit)


def score_from(file: EvidenceFile, offer: Offer | None, leases: Sequence[Known]) -> Score:
    """The score of a provider. The raw bytes of the file are not looked at: `offer` and `leases` are what
    is in them. Leases of another wallet than the one it is paid to now count nothing: what the contract
    has counted is the wallet's."""
    wallet = wallet_of(offer, [one.gist for one in leases])
    viewer = PeerKey(bytes.fromhex(file.viewer))
    deeds = [
        deed_of(one, viewer=viewer, at_ms=file.at_ms) for one in leases if one.gist.provider_id == wallet
    ]
    counted = file.counters
    evidence = Evidence(
        deeds=tuple(deeds),
        counters=Counters(Qu(counted.volume), counted.completed, counted.disputes_lost) if counted else None,
        worth=worth_of(offer, file.qu_per_credit) if offer else None,
        price=offer.price_qu_per_hour if offer else None,
        benchmark=file.benchmark,
    )
    return score(evidence)


def wallet_of(offer: Offer | None, leases: Sequence[Gist]) -> QubicId | None:
    """The wallet of a provider: its offer's, else the last lease's; None if neither is known."""
    if offer is not None:
        return offer.qubic_id
    last = max(leases, key=lambda one: (one.ended_at, one.lease_id), default=None)
    return last.provider_id if last else None


def load(data: bytes) -> EvidenceFile:
    """UsageError if this is no evidence file."""
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"an evidence file has at most {MAX_FILE_BYTES:,} bytes; this one has {len(data):,}")
    try:
        file = msgspec.json.decode(data, type=EvidenceFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"this is not an evidence file: {error}") from error
    if file.format != FORMAT:
        raise UsageError(f"this file is of the format {file.format[:40]!r}; {FORMAT!r} is understood here")
    return file


def recompute(file: EvidenceFile) -> Score:
    """The score that a file's raw bytes give, every signature checked.

    UsageError that names the first lease whose bytes are not what a receipt must be.
    """
    provider = PeerKey(bytes.fromhex(file.provider))
    market = Market(file.network, file.contract_index)
    leases = []
    for number, entry in enumerate(file.leases, 1):
        try:
            checked, settlement = _checked(entry, provider, market, UnixMs(file.at_ms))
        except (QubixError, ValueError) as error:
            raise UsageError(f"lease {number} of the evidence file does not hold: {error}") from error
        agreed, known = settlement is not None, (entry.proof, entry.paid_qu, entry.opened_ms)
        leases.append(Known(gist_of(checked), agreed, *known))
    return score_from(file, _offer(file, provider), leases)


def _checked(
    entry: LeaseEntry, provider: PeerKey, market: Market, at_ms: UnixMs
) -> tuple[Checked, Settlement | None]:
    checked = check_receipt(verify(bytes.fromhex(entry.receipt)), market, at_ms)
    if checked.terms.provider != provider:
        raise MessageInvalid("it is about another provider")
    if not entry.settlement:
        return checked, None
    signed = verify(bytes.fromhex(entry.settlement))
    settlement = signed.message
    fits = isinstance(settlement, Settlement) and settlement.lease_id == checked.lease_id
    if not fits or signed.signer != provider:
        raise MessageInvalid("its settlement is not the provider's word on this lease")
    return checked, settlement


def _offer(file: EvidenceFile, provider: PeerKey) -> Offer | None:
    if not file.offer:
        return None
    try:
        signed = signing.verify(bytes.fromhex(file.offer), MAX_OFFER_BYTES)
    except (QubixError, ValueError) as error:
        raise UsageError(f"the offer in the evidence file does not hold: {error}") from error
    if not isinstance(signed.message, Offer) or signed.signer != provider:
        raise UsageError("the offer in the evidence file is not the provider's")
    return signed.message


def entry_of(checked: Checked, settlement: bytes, proof: Proof, paid: int, opened_ms: int) -> LeaseEntry:
    """A lease as a file has it, with the fields for people beside."""
    receipt, terms = checked.receipt, checked.terms
    readable = {
        "lease_id": checked.lease_id.hex(),
        "caller": peer_id_of(terms.caller),
        "caller_wallet": terms.caller_id.hex(),
        "escrow_id": receipt.escrow_id.hex(),
        "open_tick": receipt.open_tick,
        "outcome": receipt.outcome,
        "ready_ms": receipt.ready_ms,
        "seconds": receipt.seconds,
        "promised_qu": receipt.cumulative,
        "ended_ms": receipt.ended_at,
        "price_qu_per_hour": terms.price_qu_per_hour,
    }
    return LeaseEntry(checked.raw.hex(), settlement.hex(), proof, paid, opened_ms, readable)


def score_fields(result: Score) -> dict[str, Any]:
    """A score as JSON has it."""
    return dataclasses.asdict(result)


def report_on(path: Path) -> dict[str, Any]:
    """What a file says and what its bytes give. UsageError."""
    try:
        with path.open("rb") as source:
            data = source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    file = load(data)
    found = score_fields(recompute(file))
    stated, computed = json.dumps(file.score), json.dumps(found)
    return {
        "provider": peer_id_of(PeerKey(bytes.fromhex(file.provider))),
        "stated": file.score,
        "recomputed": json.loads(computed),
        "same": json.loads(stated) == json.loads(computed),
    }


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("error: usage: python -m qubixd.evidence FILE [usage.error]\n")
        return UsageError.exit_code
    try:
        sys.stdout.write(json.dumps(report_on(Path(arguments[0]))) + "\n")
    except QubixError as error:
        sys.stderr.write(f"error: {error} [{error.code}]\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
