"""A machine with NVIDIA cards for tests: the stub of NVML's library, the file that says what it answers, and
a child process in which the real binding finds that library.

Keys of the file: driver (up, down, mismatch, silent), started (counts the driver's starts), driver_version,
cuda, cards, old (no second form of the memory question), xid.N; and of each card, "card.N.", what `CARD` has.
What a card has no key for it does not support.
"""

from __future__ import annotations

import base64
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from qubixd.hardware import GIB

ROOT: Final = Path(__file__).parents[2]
NO_INSTANCE: Final = 0xFFFFFFFF
CARD: Final = {
    "model": "NVIDIA GeForce RTX 4090",
    "total": 24 * GIB,
    "used": 0,
    "reserved": 400 << 20,
    "capability": 89,
    "pcie_now": 1,
    "pcie_most": 4,
    "lanes_now": 8,
    "lanes_most": 16,
    "use": 0,
    "celsius": 40,
    "milliwatts": 20_000,
    "reasons": 0,
    "pages_pending": 0,
}
DATA_CENTER_CARD: Final = CARD | {
    "model": "NVIDIA A100-SXM4-40GB",
    "total": 40 * GIB,
    "capability": 80,
    "ecc": 0,
    "rows_pending": 0,
    "needs": 0,
    "mig": 0,
}


def build_stub(directory: Path) -> None:
    """Put libnvidia-ml.so.1 there, by the system's C compiler or the one in the `ziglang` wheel."""
    own = shutil.which("cc") or shutil.which("gcc")
    compiler = [own] if own else [sys.executable, "-m", "ziglang", "cc"]
    source = Path(__file__).with_name("nvml_stub.c")
    library = directory / "libnvidia-ml.so.1"
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source], check=True, timeout=120)


class Machine:
    """What the stub answers; each change takes effect with its next answer."""

    def __init__(self, path: Path, *cards: dict[str, Any]) -> None:
        """Cards have the UUIDs GPU-0, GPU-1, ... and the buses 1, 2, ... unless they say otherwise."""
        self.path = path
        self.state: dict[str, Any] = {"driver": "up", "started": 1, "driver_version": "550.54.14"}
        self._xids = 0
        self.set(cards=len(cards))
        for index, card in enumerate(cards):
            self.card(index, **{"uuid": f"GPU-{index}", "bus": index + 1} | card)

    def set(self, **values: Any) -> None:
        self.state |= values
        self._write()

    def card(self, index: int, **values: Any) -> None:
        """Keys with a "_" before a number have a "." there in the file: process_0, slice_0_uuid."""
        self.state |= {f"card.{index}.{_dotted(key)}": value for key, value in values.items()}
        self._write()

    def forget(self, index: int, *keys: str) -> None:
        for key in keys:
            self.state.pop(f"card.{index}.{_dotted(key)}", None)
        self._write()

    def xid(self, card: int, number: int, instance: int = NO_INSTANCE) -> None:
        self.set(**{f"xid.{self._xids}": f"{card} {number} {instance}"})
        self._xids += 1

    def restart_driver(self) -> None:
        self.set(driver="up", started=self.state["started"] + 1)

    def _write(self) -> None:
        """At once, so that the stub never reads a half."""
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{key}={value}\n" for key, value in self.state.items()))
        new.replace(self.path)


def _dotted(key: str) -> str:
    for family in ("process", "slice"):
        if key.startswith(f"{family}_"):
            number, _, rest = key.removeprefix(f"{family}_").partition("_")
            return f"{family}.{number}.{_dotted(rest)}" if rest else f"{family}.{number}"
    return key


class Child:
    """A process that holds a hardware.Session; `ask("sample")` gives its answer as the object it is. With
    arguments it runs a Health instead: see tests/support/nvml_child.py."""

    def __init__(self, library: Path, state: Path, *arguments: str) -> None:
        if sys.platform != "linux":
            pytest.skip("loads a library the Linux way")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.nvml_child", *arguments],
            env=environment(library) | {"QUBIX_NVML_STATE": str(state), "QUBIX_AMDSMI_STATE": str(state)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: str) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        """The next thing that it says."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the child has ended; see its standard error"
        return pickle.loads(base64.b64decode(line))

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(30) == 0


def environment(library: Path) -> dict[str, str]:
    """Of a process that searches `library` first for NVML, and for an amdsmi."""
    modules = os.pathsep.join((str(ROOT), str(library)))
    return {"LD_LIBRARY_PATH": str(library), "PATH": os.defpath, "PYTHONPATH": modules}
