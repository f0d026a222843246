"""Which machine for which use: those with room for it, best first, each with its reasons in words. Pure.

Speed is a product of powers: each thing that matters to the use, relative to a machine with an RTX 4090 and
enough of all else, to the power of its weight in the catalogue. So half of a thing with weight 0.5 makes
0.71 of the speed. Beyond what a use calls enough nothing is gained; less than the recommended memory counts
as slower. Machines are ordered by speed per QU, all in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from protocol.catalogue import CPU_CLASS, GPUS, GpuModel, UseCase, gpu_of
from protocol.units import Qu

MIB_PER_GIB: Final = 1_024
REFERENCE: Final = GPUS["RTX_4090"]
LEAST_CORES: Final = 0.1
LEAST_MEMORY_GIB: Final = 0.1
NOTABLY_MORE: Final = 1.5
"""From this ratio on people are told "times as much" instead of "percent more"."""
_REST: Final = ("cpu", "memory")
_CARDS: Final = tuple(model for name, model in GPUS.items() if name != CPU_CLASS)
_WORDS: Final = {
    "bandwidth": "memory bandwidth",
    "fp32": "FP32 speed",
    "fp16": "FP16 speed",
    "cpu": "cores",
    "memory": "memory",
}


@dataclass(frozen=True)
class Candidate:
    """What a machine would be rented with."""

    key: bytes
    """The caller's own name for it; decides between equals."""
    gpu_class: str
    gpus: int
    vram_mib: int
    """Of the smallest of its cards, as it is sold: an L4 that reports 23,034 has 24,576."""
    cpu_millis: int
    memory_mib: int
    qu_per_hour: Qu
    """All in."""


@dataclass(frozen=True)
class Ranked:
    """One place in the order."""

    candidate: Candidate
    speed: float
    """1.0 is a machine with an RTX 4090 and enough of all else."""
    reasons: str
    """What speaks for it, and its price."""
    above_next: str
    """Why it is above the next; empty for the last."""


def rank(candidates: Iterable[Candidate], use: UseCase, limit: int | None = None) -> list[Ranked]:
    """The machines with room for a use, most speed per QU first, at most `limit`."""
    cards: dict[tuple[str, int, int], float] = {}
    rest_matters = not use.weights.keys().isdisjoint(_REST)
    placed = []
    for one in candidates:
        kind = (one.gpu_class, one.gpus, one.vram_mib)
        if kind not in cards:
            cards[kind] = _card_speed(one, use) if has_room(one, use) else 0.0
        if cards[kind]:
            speed = cards[kind] * (_machine_speed(one, use) if rest_matters else 1)
            placed.append((-speed / max(1, one.qu_per_hour), one.qu_per_hour, -speed, one.key, one))
    placed.sort(key=itemgetter(0, 1, 2, 3))
    order = [(place[4], -place[2]) for place in placed]
    return _explained(order, use, len(order) if limit is None else limit)


def value(one: Candidate, use: UseCase) -> float:
    """Speed per QU, by which machines are ordered; 0 without room."""
    if not has_room(one, use):
        return 0.0
    return _card_speed(one, use) * _machine_speed(one, use) / max(1, one.qu_per_hour)


def best_speed(gpu_class: str, use: UseCase) -> float:
    """Of the best machine there may be with such a card."""
    vram_mib = math.ceil(use.recommended_vram_gib) * MIB_PER_GIB
    return _card_speed(Candidate(b"", gpu_class, 1, vram_mib, 0, 0, Qu(0)), use)


def has_room(one: Candidate, use: UseCase) -> bool:
    """Whether the use fits into its cards' memory. What needs no card fits everywhere."""
    return use.min_vram_gib == 0 or _vram_gib(one, use) >= use.min_vram_gib


def _vram_gib(one: Candidate, use: UseCase) -> float:
    """Of all cards together if the use can be spread over them, else of one."""
    return one.vram_mib / MIB_PER_GIB * (one.gpus if use.splits else min(one.gpus, 1))


# Speed -----------------------------------------------------------------------------------------


def _card_speed(one: Candidate, use: UseCase) -> float:
    """The part that hangs on its cards."""
    room = min(1, _vram_gib(one, use) / use.recommended_vram_gib) if "vram" in use.weights else 1
    speed = math.pow(room, use.weights.get("vram", 0))
    for figure, weight in use.weights.items():
        if figure in ("bandwidth", "fp32", "fp16"):
            ours, reference = _figure(one.gpu_class, figure), _of(REFERENCE, figure)
            speed *= math.pow(_capped(figure, ours, use) / _capped(figure, reference, use), weight)
    return speed


def _machine_speed(one: Candidate, use: UseCase) -> float:
    """The part that hangs on the rest of the machine."""
    return math.prod(
        math.pow(_capped(figure, _amount(one, figure), use) / use.enough[figure], use.weights[figure])
        for figure in _REST
        if figure in use.weights
    )


def _capped(figure: str, value: float, use: UseCase) -> float:
    return min(value, use.enough.get(figure, math.inf))


def _amount(one: Candidate, figure: str) -> float:
    if figure == "cpu":
        return max(LEAST_CORES, one.cpu_millis / 1_000)
    if figure == "memory":
        return max(LEAST_MEMORY_GIB, one.memory_mib / MIB_PER_GIB)
    return _figure(one.gpu_class, figure)


def _figure(gpu_class: str, figure: str) -> float:
    """One that is not listed counts as the slowest that is."""
    model = None if gpu_class == CPU_CLASS else gpu_of(gpu_class)
    return _of(model, figure) if model else min(_of(card, figure) for card in _CARDS)


def _of(model: GpuModel, figure: str) -> float:
    return model.bandwidth_gb_s if figure == "bandwidth" else model.tflops[figure]


# Reasons ---------------------------------------------------------------------------------------


def _explained(order: Sequence[tuple[Candidate, float]], use: UseCase, limit: int) -> list[Ranked]:
    if not order:
        return []
    cheapest = min((one for one, _ in order), key=lambda one: (one.qu_per_hour, one.key))
    return [
        Ranked(one, speed, _reasons(one, cheapest, use), _above(one, speed, *order[place + 1 : place + 2]))
        for place, (one, speed) in enumerate(order[:limit])
    ]


def _reasons(one: Candidate, cheapest: Candidate, use: UseCase) -> str:
    said = [_room(one, use), _against(one, cheapest, use), f"{one.qu_per_hour:,} QU/h"]
    return "; ".join(part for part in said if part)


def _room(one: Candidate, use: UseCase) -> str:
    if use.min_vram_gib == 0:
        return f"{one.cpu_millis / 1_000:g} cores and {one.memory_mib / MIB_PER_GIB:.0f} GB of memory"
    has = _vram_gib(one, use)
    if has < use.recommended_vram_gib:
        return f"{has:.3g} GB: enough for {use.title}, {use.recommended_vram_gib:g} GB would be better"
    return f"{has:.3g} GB: room for {use.title} with {has - use.min_vram_gib:.3g} GB to spare"


def _against(one: Candidate, cheapest: Candidate, use: UseCase) -> str:
    """What matters most, held against the cheapest machine."""
    if use.min_vram_gib and gpu_of(one.gpu_class) is None:
        return "a card that is not listed, taken for the slowest"
    if one is cheapest:
        return "the cheapest that fits"
    figure = max((name for name in use.weights if name != "vram"), key=lambda name: use.weights[name])
    ours, theirs = (_amount(each, figure) for each in (one, cheapest))
    if ours == theirs:
        return f"the same {_WORDS[figure]} as the cheapest that fits"
    return f"{_times(ours / theirs)} the {_WORDS[figure]} of the cheapest that fits"


def _above(one: Candidate, speed: float, following: tuple[Candidate, float] | None = None) -> str:
    """In words, why a machine is above the one that follows."""
    if following is None:
        return ""
    other, other_speed = following
    price, other_price = max(1, one.qu_per_hour), max(1, other.qu_per_hour)
    faster, dearer = speed / other_speed, price / other_price
    if math.isclose(faster, 1):
        return "as fast as the next " + (
            "for the same price" if price == other_price else f"and {_percent(1 - dearer)} cheaper"
        )
    if faster > 1:
        cost = "the same price" if price == other_price else f"{_times(dearer)} the price"
        return f"{_times(faster)} as fast as the next for {cost}"
    cheaper, slower = _percent(1 - dearer), _percent(1 - faster)
    if cheaper == slower:
        return "as much for a QU as the next, and less to pay"
    return f"{cheaper} cheaper than the next and only {slower} slower"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}x" if not 1 / NOTABLY_MORE < ratio < NOTABLY_MORE else f"{ratio:.2f}x"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"
