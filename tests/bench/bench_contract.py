"""How fast the host runs random steps of the property test, and what each procedure costs by itself.

`contract.us_per_call` is what contracts/README.md says under "What it costs to run": the time in the
contract's own code, and beside it how often it hashed and checked signatures, which a node does with code of
its own. The references in the same run are one signature check and K12 over the whole state.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Final

from escrow_bridge.devnet.host import Cost
from escrow_bridge.qubic import Wallet, k12, verify
from protocol.units import QubicId
from tests.support.contract_costs import CASES, a_guild, buying, rating, terms, wallet
from tests.support.contract_play import STEPS, drive
from tests.support.escrow import CAPACITY, REDEEM, Code, Desk
from tests.support.guild import Guild
from tests.support.probes import QUBIX

ENOUGH_STEPS: Final = 10_000
CALLS: Final = 2_000
REPEATED: Final = 61
ROUNDS: Final = 9
SWEEP: Final = 16


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
    """Of the property test: each a call with real signatures, its check against the model, and the time
    that Hypothesis takes to choose it."""
    drive(0, 1)  # compiles
    begun = time.perf_counter()
    steps = drive(1, ENOUGH_STEPS)[STEPS]
    value = steps / (time.perf_counter() - begun)
    return {
        "value": round(value),
        "unit": "steps/s",
        "reference": "1,000,000 steps in a night",
        "detail": {"steps": steps, "redeems_per_s": round(redeems_per_s())},
    }


def us_per_call() -> dict[str, object]:
    detail: dict[str, object] = {"raw": raw_us()}
    for case in CASES:
        guild = a_guild()
        detail[case.name] = summary(case.run(guild, number) for number in range(REPEATED))
    detail |= system_us()
    redeem = detail["redeem ok"]
    assert isinstance(redeem, dict)
    return {
        "value": redeem["us"],
        "unit": "us",
        "reference": "detail.raw: one signature check, and K12 of the whole state, in the same run",
        "detail": detail,
    }


def summary(costs: Iterable[Cost]) -> dict[str, float]:
    """Of calls of one kind: the median of the times, and what else they used, which is the same in all."""
    seen = list(costs)
    assert len({(cost.hashes, cost.hashed_bytes, cost.signatures) for cost in seen}) == 1
    return {
        "us": round(statistics.median(cost.nanoseconds for cost in seen) / 1_000, 2),
        "hashes": seen[0].hashes,
        "hashed_bytes": seen[0].hashed_bytes,
        "hash_us": round(statistics.median(cost.hash_nanoseconds for cost in seen) / 1_000, 2),
        "signatures": seen[0].signatures,
    }


def raw_us() -> dict[str, float]:
    signer, digest, state = Wallet("a" * 55), k12(b"digest"), Desk().host.state(QUBIX)
    key, signature = QubicId(signer.public_key), signer.sign(digest)
    assert verify(key, digest, signature)
    return {
        "signature_check_us": round(each_us(lambda: verify(key, digest, signature)), 1),
        "state_hash_us": round(each_us(lambda: k12(state)), 1),
        "state_bytes": len(state),
    }


def each_us(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATED):
        begun = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - begun)
    return statistics.median(times) / 1_000


def system_us() -> dict[str, object]:
    """What runs by itself, in chains whose maps are full: with nothing to do, and with all to do at once."""
    rounds = [crowded_epoch() for _ in range(ROUNDS)]
    return {name: summary(each[name] for each in rounds) for name in rounds[0]}


def crowded_epoch() -> dict[str, Cost]:
    guild, costs = crowded(), {}
    guild.tick_to((guild.host.tick // SWEEP + 1) * SWEEP - 1)
    for name in ("end_tick", "end_tick sweep, nothing over"):
        guild.host.end_tick()
        costs[name] = guild.host.cost()
        guild.host.begin_tick(guild.host.tick + 1)
    guild.host.change_epoch()
    costs["end_epoch, nothing over"] = guild.host.cost()
    guild.host.begin_tick((guild.host.tick // SWEEP + 200) * SWEEP)
    guild.host.end_tick()
    costs[f"end_tick sweep, all {CAPACITY:,} channels over"] = guild.host.cost()
    assert guild.info().closed == guild.info().opened
    guild.host.begin_tick(guild.host.tick + 1)
    guild.host.change_epoch()
    costs["end_epoch, all stakes, tickets and purchases over"] = guild.host.cost()
    assert guild.info().stakes == 0
    return costs


def crowded() -> Guild:
    """All places are taken; all providers leave."""
    guild = a_guild()
    for number in range(1_023):
        by = wallet(guild, number)
        assert guild.register(by=by) == guild.exit(by=by) == Code.OK
    for number in range(1_024):
        rating(guild, number)
        by, payload, price = buying(guild, number)
        guild.call(by, 17, payload, price)
    assert guild.exit() == Code.OK
    for number in range(CAPACITY):
        code, _ = guild.open(1 << 16, terms=terms(CAPACITY + number))
        assert code == Code.OK
    return guild


BENCHES = {"contract.steps_per_s": steps_per_s, "contract.us_per_call": us_per_call}
