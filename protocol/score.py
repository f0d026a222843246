"""The G-Score of a provider (G5): performance x reliability x efficiency, each in [0, 1]. Pure.

docs/score.md is the same in words, with the reasons for each constant. Only + - x / and exact sums are
used, so that the same evidence gives the same number on every machine, in whatever order it comes.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Final

from protocol.units import LeaseId, Qu, QubicId

DAY_MS: Final = 86_400_000
LEAST_PAID: Final = Qu(10_000)
"""What a lease must pay for the contract to count it (QUBIX_MIN_TICKET of contracts/Qubix.h)."""
HALF_HOURS: Final = 4
HALF_PAID: Final = Qu(10 * LEAST_PAID)
"""A counterparty that has paid so many hours of what the GPU is worth, and at least so much, has half of
the weight that one counterparty can have."""
SEASON_MS: Final = 14 * DAY_MS
"""A counterparty has its whole weight so long after its first lease here."""
FRESH: Final = 0.1
"""The part of its weight that it has on its first day."""
FADE_MS: Final = 90 * DAY_MS
"""After so long a lease counts half."""
OWN_WEIGHT: Final = 5.0
"""One's own leases weigh as many strangers, at most."""
PRIOR_WEIGHT: Final = 3.0
PRIOR_RELIABILITY: Final = 0.2
"""What is believed of somebody unknown, and how many counterparties it takes to think otherwise."""
PACE_WEIGHT: Final = 1.0
PRIOR_PERFORMANCE: Final = 0.5
UNKNOWN_EFFICIENCY: Final = 0.5
CLAIMED_PART: Final = 0.5
"""Of what a lease paid that lies in ticks nobody can read any more, within what the contract counted."""
SEEN_CAP: Final = 2.0
CLAIMED_CAP: Final = 0.5
"""What all counterparties together can weigh whose payments the contract's counters do not bear out: of
those whose transactions were found, and of those who can only be believed."""
UNPAID_FAILURE: Final = 0.25
CLAIMED_FAILURE: Final = 0.05
UNPAID_FAILURES_CAP: Final = 2.0
"""What a stranger's complaint weighs that cost nothing, found in the ticks or not, and all of them."""
LONGEST_START_MS: Final = 1_920_000
"""What our own terms give a provider to fetch the image and to start; longer promises earn nothing."""


class Proof(enum.StrEnum):
    """What the chain says about a receipt."""

    TICKET = "ticket"
    """The contract itself says what the lease paid."""
    SEEN = "seen"
    """The transactions that opened and settled it are in their ticks. Included is not executed."""
    CLAIMED = "claimed"
    """Its ticks cannot be read (any more), or nobody has looked yet."""
    REFUTED = "refuted"
    """Its ticks can be read and it is not there."""


@dataclass(frozen=True)
class Deed:
    """One lease as evidence about the provider. All signatures have been checked."""

    lease_id: LeaseId
    counterparty: QubicId
    """The wallet that paid."""
    own: bool
    """The node that scores was the caller."""
    failed: bool
    """By the provider, in the caller's word."""
    paid: Qu
    age_ms: int
    """Since it was opened."""
    ready_ms: int
    """From deposit to ready; 0: not known."""
    allowed_ms: int
    """What the terms gave it for that."""
    proof: Proof
    agreed: bool
    """The provider has signed where it was settled."""


@dataclass(frozen=True)
class Counters:
    """What the contract has counted for a registered provider."""

    volume: Qu
    completed: int
    disputes_lost: int


@dataclass(frozen=True)
class Evidence:
    """All that a score is made of."""

    deeds: tuple[Deed, ...] = ()
    counters: Counters | None = None
    """None: it is not registered, or the contract could not be asked."""
    worth: Qu | None = None
    """QU per hour that the catalogue suggests for the GPUs it offers; None: not in the catalogue."""
    price: Qu | None = None
    """QU per hour that it asks; None: it has no offer."""
    benchmark: float | None = None
    """Own measurement against the catalogue's figure, 0 to 1. None, which is neutral: nothing measures it."""


@dataclass(frozen=True)
class Score:
    """All numbers in [0, 1]."""

    g: float
    performance: float
    reliability: float
    efficiency: float
    confidence: float
    """How much of the number is evidence; the rest is what is believed of anybody."""
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Voice:
    """What one counterparty's leases amount to."""

    weight: float
    pace: float | None
    """How soon its jobs were ready, 0 to 1; None: not known."""


def score(evidence: Evidence) -> Score:
    """The score that this evidence gives. Refuted, doubled and one-sided deeds count nothing."""
    deeds = _counted(evidence.deeds)
    own, strangers = [d for d in deeds if d.own], [d for d in deeds if not d.own]
    half = _half_paid(evidence)
    voices = [*_own_voice(own), *_voices(strangers, evidence.counters, half)]
    good = fsum(voice.weight for voice in voices)
    bad = fsum((_own_failures(own), _failures(strangers, half), _disputes(evidence.counters)))
    reliability = (good + PRIOR_RELIABILITY * PRIOR_WEIGHT) / (good + bad + PRIOR_WEIGHT)
    performance = _performance(voices) * (1.0 if evidence.benchmark is None else _unit(evidence.benchmark))
    efficiency = _efficiency(evidence)
    confidence = good / (good + PRIOR_WEIGHT)
    reasons = _reasons(evidence, deeds, performance, efficiency)
    return Score(
        performance * reliability * efficiency, performance, reliability, efficiency, confidence, reasons
    )


def _counted(deeds: Iterable[Deed]) -> list[Deed]:
    """One of each lease, and none that is known to be false."""
    by_lease: dict[LeaseId, Deed] = {}
    for deed in deeds:
        known = by_lease.get(deed.lease_id)
        if deed.proof is not Proof.REFUTED and (known is None or _claims(deed) < _claims(known)):
            by_lease[deed.lease_id] = deed
    return list(by_lease.values())


def _claims(deed: Deed) -> tuple[object, ...]:
    """Of two receipts for one lease the one that claims less counts."""
    return (not deed.failed, deed.paid, deed.age_ms, -deed.ready_ms, deed.proof.value, deed.agreed, deed.own)


def _pays(deed: Deed) -> bool:
    """The contract's ticket speaks for itself; else both sides must say that it was settled."""
    return not deed.failed and deed.paid > 0 and (deed.agreed or deed.proof is Proof.TICKET or deed.own)


# --- what speaks for it -----------------------------------------------------------------------


def _own_voice(own: Sequence[Deed]) -> list[_Voice]:
    good = [deed for deed in own if _pays(deed)]
    return [_Voice(OWN_WEIGHT * _share(fsum(map(_fade, good)), 1.0), _pace(good))] if good else []


def _voices(strangers: Sequence[Deed], counters: Counters | None, half: float) -> list[_Voice]:
    """What counterparties weigh, in three tiers: borne out by the contract; seen; claimed. Together they
    never weigh more than one counterparty can, and the lower tiers not more than their caps."""
    good = [deed for deed in strangers if _pays(deed)]
    part = _part_counted(good, counters)
    tiers: tuple[list[_Voice], ...] = ([], [], [])
    for deeds in _by_counterparty(good).values():
        paid, weight, heard = 0.0, 0.0, list[Deed]()
        for tier, voices in enumerate(tiers):
            here = [deed for deed in deeds if _tier(deed, counters) == tier and _worth(deed, part) > 0]
            paid, heard = fsum((paid, *(_worth(deed, part) for deed in here))), heard + here
            higher = _rise(paid, half) * _season(heard)
            voices.append(_Voice(higher - weight, _pace(here)))
            weight = higher
    borne_out, seen, claimed = tiers
    return [*borne_out, *_capped([*seen, *_capped(claimed, CLAIMED_CAP)], SEEN_CAP)]


def _tier(deed: Deed, counters: Counters | None) -> int:
    """0: the contract vouches for it, by a ticket or in its counters."""
    if deed.proof is Proof.TICKET or _in_counters(deed, counters):
        return 0
    return 1 if deed.proof is Proof.SEEN else 2


def _in_counters(deed: Deed, counters: Counters | None) -> bool:
    return counters is not None and deed.paid >= LEAST_PAID


def _worth(deed: Deed, part: float) -> float:
    """QU of a lease that count. `part`: how much of it fits into the contract's counters."""
    if deed.proof is Proof.TICKET:
        return deed.paid * _fade(deed)
    return deed.paid * _fade(deed) * part * (1.0 if deed.proof is Proof.SEEN else CLAIMED_PART)


def _part_counted(good: Sequence[Deed], counters: Counters | None) -> float:
    """How much of what is said beside the tickets fits into the contract's counters. Where more is said
    than was counted, all of it is cut in the same proportion: nobody can tell which part is false."""
    if counters is None:
        return 1.0
    large = [deed for deed in good if deed.paid >= LEAST_PAID]
    said = [deed for deed in large if deed.proof is not Proof.TICKET]
    proven = [deed for deed in large if deed.proof is Proof.TICKET]
    volume = max(0, counters.volume - sum(deed.paid for deed in proven))
    leases = max(0, counters.completed - len(proven))
    return min(1.0, volume / max(1, sum(deed.paid for deed in said)), leases / max(1, len(said)))


def _capped(voices: list[_Voice], cap: float) -> list[_Voice]:
    total = fsum(voice.weight for voice in voices)
    if total <= cap:
        return voices
    return [_Voice(voice.weight * cap / total, voice.pace) for voice in voices]


def _performance(voices: Sequence[_Voice]) -> float:
    known = [(voice.weight, voice.pace) for voice in voices if voice.pace is not None]
    weight = fsum(weight for weight, _ in known)
    return (fsum(weight * pace for weight, pace in known) + PRIOR_PERFORMANCE * PACE_WEIGHT) / (
        weight + PACE_WEIGHT
    )


def _pace(deeds: Sequence[Deed]) -> float | None:
    """The mean of allowed / (allowed + 4 x ready) over what was paid: 1 at once, 1/5 in the last moment."""
    timed = [deed for deed in deeds if deed.ready_ms > 0 and deed.allowed_ms > 0]
    total = fsum(deed.paid * _fade(deed) for deed in timed)
    if not total:
        return None
    return fsum(deed.paid * _fade(deed) * _quickness(deed) for deed in timed) / total


def _quickness(deed: Deed) -> float:
    allowed = min(deed.allowed_ms, LONGEST_START_MS)
    return allowed / (allowed + 4 * deed.ready_ms)


def _efficiency(evidence: Evidence) -> float:
    if evidence.price is None or evidence.worth is None:
        return UNKNOWN_EFFICIENCY
    return 1.0 if evidence.price <= evidence.worth else evidence.worth / evidence.price


# --- what speaks against it -------------------------------------------------------------------


def _own_failures(own: Sequence[Deed]) -> float:
    return OWN_WEIGHT * _share(fsum(_fade(deed) for deed in own if deed.failed), 1.0)


def _failures(strangers: Sequence[Deed], half: float) -> float:
    """A failure that its caller has paid for, as the contract says, weighs what was paid; any other is a
    word, and all words together weigh so much and no more."""
    failed = [deed for deed in strangers if deed.failed]
    proven, words = list[float](), list[float]()
    for deeds in _by_counterparty(failed).values():
        paid = [deed for deed in deeds if deed.proof is Proof.TICKET]
        proven.append(_rise(fsum(deed.paid * _fade(deed) for deed in paid), half))
        words.append(max((_word(deed) for deed in deeds), default=0.0))
    return fsum((*proven, min(UNPAID_FAILURES_CAP, fsum(words))))


def _word(deed: Deed) -> float:
    return _fade(deed) * (CLAIMED_FAILURE if deed.proof is Proof.CLAIMED else UNPAID_FAILURE)


def _disputes(counters: Counters | None) -> float:
    return float(counters.disputes_lost) if counters else 0.0


# --- curves -----------------------------------------------------------------------------------


def _half_paid(evidence: Evidence) -> float:
    return float(max(HALF_PAID, HALF_HOURS * (evidence.worth or 0)))


def _rise(paid: float, half: float) -> float:
    """Weight of what one counterparty has paid: next to nothing for dust, 1/2 at `half`, 1 at most."""
    return paid * paid / (paid * paid + half * half)


def _season(deeds: Sequence[Deed]) -> float:
    oldest = max((deed.age_ms for deed in deeds), default=0)
    return FRESH + (1.0 - FRESH) * min(1.0, oldest / SEASON_MS)


def _fade(deed: Deed) -> float:
    return FADE_MS / (FADE_MS + max(0, deed.age_ms))


def _share(amount: float, half: float) -> float:
    return amount / (amount + half)


def _unit(number: float) -> float:
    return min(1.0, max(0.0, number))


def _by_counterparty(deeds: Iterable[Deed]) -> dict[QubicId, list[Deed]]:
    found: dict[QubicId, list[Deed]] = defaultdict(list)
    for deed in deeds:
        found[deed.counterparty].append(deed)
    return found


# --- in words ---------------------------------------------------------------------------------


def _reasons(
    evidence: Evidence, deeds: Sequence[Deed], performance: float, efficiency: float
) -> tuple[str, ...]:
    said = [*_history(deeds), *_trust(evidence, deeds)]
    if performance < PRIOR_PERFORMANCE:
        said.append("its jobs are slow to become ready")
    if evidence.price is None:
        said.append("it has no offer, so what its price is worth is not known")
    elif evidence.worth is None:
        said.append("its GPU is not in the catalogue, so what its price is worth is not known")
    elif efficiency < 1:
        asks = f"it asks {evidence.price:,} QU an hour"
        said.append(f"{asks} for what is worth {evidence.worth:,} by --qu-per-credit")
    return tuple(said)


def _history(deeds: Sequence[Deed]) -> list[str]:
    if not deeds:
        return ["nobody has rented here yet, as far as is known"]
    own, failed = sum(deed.own for deed in deeds), sum(deed.failed for deed in deeds)
    callers = len({deed.counterparty for deed in deeds if _pays(deed)})
    said = [f"{callers} {'callers have' if callers != 1 else 'caller has'} paid it"]
    if own:
        said.append(f"leases of your own: {own} of {len(deeds)} known here")
    if failed:
        said.append(f"leases that failed by its fault: {failed} of {len(deeds)} known here")
    return said


def _trust(evidence: Evidence, deeds: Sequence[Deed]) -> list[str]:
    said = []
    if evidence.counters is None:
        said.append("it is not in the contract's registry, so what strangers say of it counts little")
    elif evidence.counters.disputes_lost:
        said.append(f"it has lost {evidence.counters.disputes_lost} disputes")
    believed = sum(deed.proof is Proof.CLAIMED and not deed.own for deed in deeds)
    if believed:
        said.append(f"{believed} of {len(deeds)} receipts could not be looked up on the chain")
    return said


NEWCOMER: Final = score(Evidence())
"""Of whom nothing is known."""
