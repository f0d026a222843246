"""A GPU never comes and goes faster than its rule says, whatever it does."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from qubixd.hardware import Gpu, Vitals
from qubixd.health_rules import RULES, Memory, Round, judge, unfit

CARD = Gpu("GPU-0", "NVIDIA RTX", 1 << 34, "550", 12_040, "8.9")


def seen(*, hot: bool, lost: bool, needs: str | None) -> Round:
    vitals = Vitals(
        "GPU-0",
        lost="gone" if lost else "",
        slowdown=frozenset({"thermal"} if hot else ()),
        needs=needs,
    )
    return Round((CARD,), {}, {"GPU-0": vitals}, tenants={})


looks = st.lists(
    st.builds(
        seen,
        hot=st.sampled_from([True, True, True, True, False]),
        lost=st.sampled_from([True, False, False, False, False, False]),
        needs=st.sampled_from([None, ""]),
    ),
    min_size=50,
    max_size=250,
)


def outs(rounds: list[Round], code: str) -> list[bool]:
    """After each round: is the card out for this reason?"""
    memory: Memory = {}
    found = []
    for one in rounds:
        memory = judge(memory, one)
        found.append(code in {finding.code for finding in unfit(memory).get("GPU-0", ())})
    return found


@given(looks)
def test_out_and_back_take_their_time(rounds: list[Round]) -> None:
    for code in ("gpu.lost", "gpu.slowdown"):
        runs = [(out, len(list(run))) for out, run in groupby(outs(rounds, code))]
        for place, (out, length) in enumerate(runs[:-1]):
            # It was in for all that it takes to put it out, or out for all that it takes to bring it back.
            assert length >= (RULES[code].back if out else RULES[code].out - 1 + (place > 0))
