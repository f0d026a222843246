"""How fast the host runs the contract: random steps of the property test, each a call with real signatures
and a comparison with the model, and the bare calls among them."""

from __future__ import annotations

import random
import time
from typing import Final

from tests.support.contract_actions import play
from tests.support.escrow import REDEEM, Desk

STEPS: Final = 5_000
EPISODE: Final = 500
CALLS: Final = 2_000


def redeems_per_s() -> float:
    """Redeems of vouchers signed beforehand: the contract's most expensive usual call."""
    desk = Desk()
    escrow = desk.opened(CALLS)
    vouchers = [desk.voucher(escrow, cumulative) for cumulative in range(1, CALLS + 1)]
    begun = time.perf_counter()
    for voucher in vouchers:
        desk.call(desk.provider, REDEEM, voucher, 100)
    return CALLS / (time.perf_counter() - begun)


def steps_per_s() -> dict[str, object]:
    play(random.Random(0), EPISODE)  # compiles
    begun = time.perf_counter()
    for seed in range(STEPS // EPISODE):
        play(random.Random(seed), EPISODE)
    value = STEPS / (time.perf_counter() - begun)
    return {
        "value": round(value),
        "unit": "steps/s",
        "reference": "1,000,000 steps in a night",
        "detail": {"steps": STEPS, "redeems_per_s": round(redeems_per_s())},
    }


BENCHES = {"contract.steps_per_s": steps_per_s}
