"""What the watch over a provider's GPUs costs: one round of samples and health of eight cards, each with a
process, against a library opened and closed for every round. The library is the tests' stub, which reads a
file for each answer; the real one asks the kernel instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.__main__ import Bench
from tests.support.nvml import DATA_CENTER_CARD, Machine, build_stub, environment

CARDS = 8
ROUNDS = 200
MEASURE = f"""
import json, time
from qubixd.hardware import Session
session = Session()
def spent(round_):
    round_()
    began = time.process_time()
    for _ in range({ROUNDS}):
        round_()
    return (time.process_time() - began) * 1000 / {ROUNDS}
def kept_open():
    session.sample(), session.vitals()
def anew():
    session.open()
    session.sample(), session.vitals()
    session.close()
session.open()
open_ms = spent(kept_open)
session.close()
print(json.dumps([open_ms, spent(anew)]))
"""


def round_cpu_ms() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_stub(folder)
        machine = Machine(folder / "state", *[DATA_CENTER_CARD | {"process_0": "77 1 compute"}] * CARDS)
        env = environment(folder) | {"QUBIX_NVML_STATE": str(machine.path)}
        command = [sys.executable, "-c", MEASURE]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    value, anew = json.loads(done.stdout)
    return {
        "value": round(value, 2),
        "unit": "ms of one core",
        "reference": "the library opened anew for each round",
        "detail": {"reference_ms": round(anew, 2), "cards": CARDS, "rounds": ROUNDS},
    }


BENCHES: dict[str, Bench] = {"hardware.round_cpu_ms": round_cpu_ms}
