"""Ranking by fitness holds whatever is offered: everything with room is listed once, best value first, and
what is better and cheaper never stands below."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from protocol.catalogue import GPUS, USE_CASES, UseCase, gpu_of
from protocol.fitness import Candidate, has_room, rank
from protocol.units import Qu

USES = st.sampled_from(list(USE_CASES.values()))
CLASSES = st.sampled_from([*GPUS, "RTX_9999"])
SIZES_GIB = (0, 8, 12, 16, 24, 48, 80, 192)


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    return Candidate(
        key=draw(st.binary(min_size=4, max_size=4)),
        gpu_class=draw(CLASSES),
        gpus=draw(st.integers(0, 8)),
        vram_mib=draw(st.sampled_from(SIZES_GIB)) * 1_024,
        cpu_millis=draw(st.integers(0, 256_000)),
        memory_mib=draw(st.integers(0, 1 << 21)),
        qu_per_hour=Qu(draw(st.integers(0, 10**15))),
    )


MANY = st.lists(candidates(), max_size=12, unique_by=lambda one: one.key)


@given(MANY, USES)
def test_all_that_has_room_is_listed_once_in_order_of_value(many: list[Candidate], use: UseCase) -> None:
    ranked = rank(many, use)
    assert sorted(one.candidate.key for one in ranked) == sorted(m.key for m in many if has_room(m, use))
    values = [one.speed / max(1, one.candidate.qu_per_hour) for one in ranked]
    assert values == sorted(values, reverse=True)
    assert all(one.speed > 0 for one in ranked)
    assert [bool(one.above_next) for one in ranked] == [True] * (len(ranked) - 1) + [False] * bool(ranked)


@given(st.permutations(range(6)), st.lists(candidates(), min_size=6, max_size=6), USES, st.integers(0, 6))
def test_order_hangs_neither_on_arrival_nor_on_the_limit(
    places: list[int], many: list[Candidate], use: UseCase, limit: int
) -> None:
    named = [replace(one, key=bytes([place])) for place, one in enumerate(many)]
    assert rank([named[place] for place in places], use, limit) == rank(named, use)[:limit]


@given(candidates(), candidates(), USES, st.data())
def test_better_and_cheaper_is_never_below(
    one: Candidate, other: Candidate, use: UseCase, data: st.DataObject
) -> None:
    one, other = replace(one, key=b"one"), replace(other, key=b"other")
    better = improved(one, data)
    order = [ranked.candidate.key for ranked in rank([other, one, better], use)]
    assert one.key not in order or order.index(better.key) < order.index(one.key)


def improved(one: Candidate, data: st.DataObject) -> Candidate:
    """At least as good in everything, and cheaper, or free as well and first by name."""
    more = st.integers(0, 1 << 16)
    return replace(
        one,
        key=b"" if one.qu_per_hour == 0 else b"zz",
        gpu_class=data.draw(st.sampled_from([one.gpu_class, *faster_than(one.gpu_class)])),
        gpus=one.gpus + data.draw(st.integers(0, 2)),
        vram_mib=one.vram_mib + data.draw(more),
        cpu_millis=one.cpu_millis + data.draw(more),
        memory_mib=one.memory_mib + data.draw(more),
        qu_per_hour=Qu(data.draw(st.integers(0, max(0, one.qu_per_hour - 1)))),
    )


def faster_than(gpu_class: str) -> list[str]:
    """Classes that are at least as fast in everything that any use weighs."""
    model = gpu_of(gpu_class)
    if model is None or not model.tflops:
        return [name for name, other in GPUS.items() if other.tflops]
    return [
        name
        for name, other in GPUS.items()
        if other.bandwidth_gb_s >= model.bandwidth_gb_s
        and all(other.tflops.get(one, 0) >= model.tflops[one] for one in ("fp32", "fp16"))
    ]
