"""Tests of the real thing: where NVML answers and lists a card; skipped with the reason else."""

from __future__ import annotations

from collections.abc import Iterator

import pynvml
import pytest

from qubixd.hardware import Session


def _why_not() -> str:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"no NVIDIA GPU answers on this machine: {error}"
    try:
        return "" if pynvml.nvmlDeviceGetCount() else "NVML lists no GPU on this machine"
    finally:
        pynvml.nvmlShutdown()


@pytest.fixture
def session() -> Iterator[Session]:
    """Opened on this machine's cards."""
    if reason := _why_not():
        pytest.skip(reason)
    with Session() as opened:
        yield opened
