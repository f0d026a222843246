"""The child process of tests/support/nvml.py: does what each line of its input says, writes the outcome."""

from __future__ import annotations

import base64
import pickle
import sys
from typing import Any

import pynvml

from qubixd import hardware
from qubixd.hardware import Session


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


def main() -> None:
    session = Session()
    for line in sys.stdin:
        say(answer(session, line))
    session.close()


if __name__ == "__main__":
    main()
