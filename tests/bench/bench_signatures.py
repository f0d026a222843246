"""Qubic's signatures in Python against QubiPy's native library, in one process, in alternating rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Final

from escrow_bridge import qubic, schnorrq

_ROUNDS: Final = 7
_CALLS: Final = 40


def _each_ms(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    for _ in range(_CALLS):
        call()
    return (time.perf_counter() - begun) / _CALLS * 1_000


def fallback_verify_vs_native() -> dict[str, object]:
    """How many times longer one verification takes without the native library; medians of the rounds."""
    native = qubic.native()
    if native is None:
        raise RuntimeError("QubiPy has no native library for this machine: nothing to compare with")
    subseed, digest = schnorrq.subseed("a" * 55), qubic.k12(b"digest")
    key = schnorrq.public_key(schnorrq.private_key(subseed))
    signature = schnorrq.sign(subseed, key, digest)
    calls: dict[str, Callable[[], object]] = {
        "native_verify": lambda: native.verify(key, digest, signature),
        "fallback_verify": lambda: schnorrq.verify(key, digest, signature),
        "native_sign": lambda: native.sign(subseed, key, digest),
        "fallback_sign": lambda: schnorrq.sign(subseed, key, digest),
    }
    assert calls["native_verify"]() and calls["fallback_verify"]()
    assert calls["native_sign"]() == calls["fallback_sign"]() == signature
    rounds = [{name: _each_ms(call) for name, call in calls.items()} for _ in range(_ROUNDS)]
    ms = {name: statistics.median(one[name] for one in rounds) for name in calls}
    detail: dict[str, object] = {f"{name}_ms": round(value, 4) for name, value in ms.items()}
    detail["key_check_ms"] = round(_key_check_ms(), 4)
    ratio = ms["fallback_verify"] / ms["native_verify"]
    return {"value": round(ratio, 2), "unit": "ratio", "reference": "QubiPy's library", "detail": detail}


def _key_check_ms() -> float:
    """What a key costs once, with either implementation, before its first signature is looked at."""
    seeds = (
        f"{number:055d}".translate(str.maketrans("0123456789", "abcdefghij")) for number in range(_CALLS)
    )
    keys = [schnorrq.public_key(schnorrq.private_key(schnorrq.subseed(seed))) for seed in seeds]
    left = iter(keys)
    return _each_ms(lambda: schnorrq.may_sign(next(left)))


BENCHES: Final[dict[str, Callable[[], dict[str, object]]]] = {
    "settle.fallback_verify_vs_native": fallback_verify_vs_native
}
