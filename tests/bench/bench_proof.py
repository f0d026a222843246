"""How likely a machine passes that left out a quarter of its proof, and what a proof costs.

The bound follows from the number of rows that are opened; the formula is held against a cheating program
that leaves out every fourth row, at few openings, where it has a chance. The time is that of a processor's
whole proof, from the first byte to the verdict, beside the same product computed by the same code with
nobody who asks: the reference of the same run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from typing import Final

from protocol.messages import Gpu
from qubixd.proof.plan import cpu_plan, gpu_plan
from tests.support import proof_programs as programs
from tests.support.proof_programs import play, small

RUNS: Final = 7
TRIES: Final = 200
WEAK: Final = 4
"""Openings at which the cheater passes now and then."""
LEFT_OUT: Final = 4
"""One row of so many."""
MEMORY_MIB: Final = 1_024


def empirical() -> float:
    """How often the cheater passes."""
    plan, cheater = small(stripes=1, passes=1, openings=WEAK), programs.cheater()
    orders = {"QUBIX_CHEAT": f"skip {LEFT_OUT}"}
    return sum(play(cheater, plan, orders).ok for _ in range(TRIES)) / TRIES


def proof_seconds(cpu_millis: int) -> float:
    plan, program = cpu_plan(cpu_millis, MEMORY_MIB), programs.honest()
    begun = time.perf_counter()
    if not play(program, plan).ok:
        raise AssertionError("an honest proof has failed")
    return time.perf_counter() - begun


def plain_seconds(cpu_millis: int) -> float:
    shape = cpu_plan(cpu_millis, MEMORY_MIB).shape
    sizes = (shape.n, shape.stripe_rows, shape.stripes, shape.threads)
    done = subprocess.run([programs.plain(), *map(str, sizes)], check=True, capture_output=True, timeout=60)
    return float(done.stdout)


def false_accept_bound() -> dict[str, object]:
    """The bound, and both times as medians of alternating runs."""
    cpu_millis = 1_000 * len(os.sched_getaffinity(0))
    pairs = [(proof_seconds(cpu_millis), plain_seconds(cpu_millis)) for _ in range(RUNS)]
    proof, plain = (statistics.median(column) for column in zip(*pairs, strict=True))
    plan = cpu_plan(cpu_millis, MEMORY_MIB)
    card = gpu_plan([Gpu("NVIDIA GeForce RTX 4090", 24_564, bytes(32))])
    return {
        "value": plan.false_accept,
        "unit": "probability",
        "reference": "the same product without a proof",
        "detail": {
            "openings": plan.openings,
            "share_left_out": 1 / LEFT_OUT,
            "expected_at_4_openings": (1 - 1 / LEFT_OUT) ** WEAK,
            "measured_at_4_openings": empirical(),
            "tries": TRIES,
            "proof_s": round(proof, 3),
            "plain_product_s": round(plain, 3),
            "cores": cpu_millis // 1_000,
            "operations": plan.operations,
            "least_operations_per_s_of_a_4090": round(card.operations / (card.work_s - 2)),
            "most_seconds_of_a_4090": round(card.work_s + card.passes_s, 2),
        },
    }


BENCHES: Final = {"proof.false_accept_bound": false_accept_bound}
