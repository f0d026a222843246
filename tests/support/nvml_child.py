"""The child process of tests/support/nvml.py: does what each line of its input says, writes the outcome.

With a folder as its argument it runs a Health at a hundred rounds a second instead, whose /proc is the
folder's "proc", whose driver's list is "driver", and whose leases are in the file "jobs": {"rented": [UUID],
"tenants": {container: [UUID]}, "expected": [UUID]}. It then writes what is unfit after each change, and the
memory in use once it has started; it ends with its input.
"""

from __future__ import annotations

import base64
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pynvml
import trio

from protocol.units import UnixMs
from qubixd import hardware
from qubixd.hardware import Session
from qubixd.health import Health


def say(value: Any) -> None:
    print(base64.b64encode(pickle.dumps(value)).decode(), flush=True)


def answer(session: Session, question: str) -> Any:
    word, *numbers = question.split()
    match word:
        case "detect":
            return hardware.detect().gpus
        case "round":
            for _ in range(int(numbers[0]) if numbers else 1):
                told = session.sample(), session.vitals()
            return told
        case "opened":
            return pynvml.nvmlLib.stub_opened()
        case _:
            asked = getattr(session, word)
            return asked() if callable(asked) else asked


async def watch(folder: Path) -> None:
    def jobs() -> Any:
        return json.loads((folder / "jobs").read_text())

    async def tenants() -> dict[str, frozenset[str]]:
        return {container: frozenset(uuids) for container, uuids in jobs()["tenants"].items()}

    health = Health(
        lambda: frozenset(jobs()["rented"]),
        tenants,
        lambda: UnixMs(1),
        expected=jobs()["expected"],
        round_seconds=0.01,
        patience_seconds=2,
        driver=folder / "driver",
        proc=folder / "proc",
    )
    health.on_change.append(lambda: say(health.unfit))
    async with trio.open_nursery() as nursery:
        await nursery.start(health.run)
        say({uuid: sample.memory_used for uuid, sample in health.samples.items()})
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


def main() -> None:
    if len(sys.argv) > 1:
        trio.run(watch, Path(sys.argv[1]))
        return
    session = Session()
    for line in sys.stdin:
        say(answer(session, line))
    session.close()


if __name__ == "__main__":
    main()
