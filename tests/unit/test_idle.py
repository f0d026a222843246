"""When a job counts as idle: only if that is known of every second, and soon again not when it works."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages import GpuUse, Sample, Terms, Wish
from qubixd.idle import GAP_MS, NOT_IDLE, STRETCH_MS, Idleness, after, cpu_line_millis, passed_over
from tests.support.lease_plan import make_terms
from tests.support.meter_values import CARD, sample

STRETCH_S = STRETCH_MS // 1_000
TERMS = replace(make_terms(), wish=replace(make_terms().wish, cpu_millis=4_000))
LINE = cpu_line_millis(4_000)
ON_GPU = replace(TERMS, gpu_digests=(CARD.digest, b"h" * 32))
QUIET = (replace(CARD, use_permille=0), replace(CARD, digest=b"h" * 32, use_permille=19))


def lived(samples: Iterable[Sample], terms: Terms = TERMS) -> Idleness:
    state = NOT_IDLE
    for one in samples:
        state = after(state, one, terms)
    return state


def idle_s(samples: Iterable[Sample], terms: Terms = TERMS) -> float:
    return lived(samples, terms).idle_ms() / 1_000


def test_a_job_that_does_nothing_is_idle_from_its_first_sample() -> None:
    assert idle_s(sample(n) for n in range(STRETCH_S)) == 0
    assert idle_s(sample(n) for n in range(STRETCH_S + 1)) == STRETCH_S
    assert idle_s(sample(n) for n in range(601)) == 600


@pytest.mark.parametrize("rented, line", [(100, 5), (1_000, 20), (4_000, 80), (64_000, 100)])
def test_the_line_of_the_processor(rented: int, line: int) -> None:
    assert cpu_line_millis(rented) == line


@pytest.mark.parametrize(
    "changes, idle",
    [
        ({"cpu_millis": LINE - 1}, True),
        ({"cpu_millis": LINE}, False),
        ({"memory_mib": 100_000, "disk_mib": 100_000}, True),
    ],
)
def test_work_is_what_the_processor_does(changes: dict[str, int], idle: bool) -> None:
    assert (idle_s(sample(n, **changes) for n in range(100)) > 0) is idle


def test_one_busy_second_in_a_stretch_is_a_heartbeat_or_work() -> None:
    def beats(millis: int) -> list[Sample]:
        return [sample(n, cpu_millis=millis if n % STRETCH_S == 5 else 0) for n in range(101)]

    assert idle_s(beats(STRETCH_S * LINE - 1)) == 100
    assert idle_s(beats(STRETCH_S * LINE)) == 0


def test_traffic_is_work() -> None:
    assert idle_s(sample(n, received_bytes=10**9 + 60_000 * n) for n in range(101)) == 100
    assert idle_s(sample(n, received_bytes=40_000 * n, sent_bytes=40_000 * n) for n in range(101)) == 0


def test_all_cards_have_to_be_idle() -> None:
    assert idle_s((sample(n, gpus=QUIET) for n in range(101)), ON_GPU) == 100
    busy = (QUIET[0], replace(QUIET[1], use_permille=20))
    assert idle_s((sample(n, gpus=busy) for n in range(101)), ON_GPU) == 0


@pytest.mark.parametrize("gpus", [(), QUIET[:1], (QUIET[0], replace(QUIET[1], use_permille=None))])
def test_a_card_that_nobody_can_see_is_not_idle(gpus: tuple[GpuUse, ...]) -> None:
    assert idle_s((sample(n, gpus=gpus) for n in range(101)), ON_GPU) == 0


def test_a_card_that_cannot_be_seen_for_a_moment_begins_it_anew() -> None:
    told = [sample(n, gpus=() if n == 50 else QUIET) for n in range(101)]
    assert idle_s(told, ON_GPU) == 40  # whole stretches since the 51st second


def test_a_gap_in_the_samples_begins_it_anew() -> None:
    gap = GAP_MS // 1_000
    whole = [sample(n) for n in range(50)]
    assert idle_s([*whole, *(sample(49 + gap + n) for n in range(51))]) == 99 + gap
    assert idle_s([*whole, *(sample(50 + gap + n) for n in range(51))]) == 50


def test_work_ends_it_and_it_begins_again() -> None:
    told = [*(sample(n) for n in range(300)), *(sample(n, cpu_millis=4_000) for n in range(300, 310))]
    assert idle_s(told) == 0
    assert idle_s([*told, *(sample(n) for n in range(310, 400))]) in range(70, 91)


def test_a_proof_of_the_machine_counts_as_neither_work_nor_idleness() -> None:
    state = lived(sample(n) for n in range(51))
    for n in range(51, 60):
        state = passed_over(state, sample(n, cpu_millis=4_000))
    assert state.idle_ms() == 50_000
    for n in range(60, 110):
        state = after(state, sample(n), TERMS)
    assert state.idle_ms() == 100_000
    assert passed_over(NOT_IDLE, sample(5)) == NOT_IDLE


def test_a_network_that_is_made_anew_begins_it_anew() -> None:
    told = [*(sample(n, sent_bytes=500) for n in range(50)), sample(50, sent_bytes=3)]
    assert lived(told).idle_ms() == 0


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 400)), min_size=1, max_size=200))
def test_it_is_never_idle_for_longer_than_it_was_seen_to_be(steps: list[tuple[int, int]]) -> None:
    """Held to the plain meaning: no gap, and less than the line in all."""
    state, second, seen = NOT_IDLE, 0, list[Sample]()
    for seconds, millis in steps:
        second += seconds
        seen.append(sample(second, cpu_millis=millis))
        state = after(state, seen[-1], TERMS)
        idle = [one for one in seen if state.since <= one.at <= state.stretch_from]
        if state.idle_ms():
            assert all(one.at - before.at <= GAP_MS for before, one in pairwise(idle))
            assert sum(one.cpu_millis for one in idle[1:]) < len(idle[1:]) * LINE


def test_the_wish_says_how_much_is_rented() -> None:
    small = replace(TERMS, wish=replace(TERMS.wish, cpu_millis=500))
    assert isinstance(small.wish, Wish)
    assert idle_s((sample(n, cpu_millis=10) for n in range(101)), small) == 0
