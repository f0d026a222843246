"""`python -m tests.bench [PREFIX]`: runs the figures whose name starts with PREFIX.

Each `bench_*.py` beside this file has `BENCHES: dict[str, Callable[[], dict[str, object]]]`, name ->
function that measures and returns at least value, unit and reference. Standard output carries one
JSON line per figure and nothing else; progress goes to standard error. Exit code 1 if one failed.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

Bench = Callable[[], dict[str, object]]


def collect() -> dict[str, Bench]:
    """All figures by name, in name order; a name used twice is an error."""
    found: dict[str, Bench] = {}
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        benches: dict[str, Bench] = importlib.import_module(f"tests.bench.{path.stem}").BENCHES
        if doubles := found.keys() & benches.keys():
            raise SystemExit(f"{path.name} repeats {sorted(doubles)}")
        found |= benches
    return dict(sorted(found.items()))


def run_one(name: str, bench: Bench) -> bool:
    """Measure and print one figure; False if it raised."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    begun = time.monotonic()
    try:
        figure = bench()
    except Exception:
        traceback.print_exc()
        return False
    print(json.dumps({"bench": name, **figure}), flush=True)
    print(f"{name} took {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
    return True


def main(arguments: list[str]) -> int:
    prefix = arguments[0] if arguments else ""
    chosen = {name: bench for name, bench in collect().items() if name.startswith(prefix)}
    if not chosen:
        print(f"no figure starts with {prefix!r}", file=sys.stderr)
        return 2
    return 0 if all([run_one(name, bench) for name, bench in chosen.items()]) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
