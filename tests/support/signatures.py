"""Runs a test on one of the two implementations of Qubic's signatures, in this process and its children."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from unittest import mock

import pytest

from escrow_bridge import qubic

IMPLEMENTATIONS: Final = ("native", "python")


@contextmanager
def signing_with(implementation: str) -> Iterator[None]:
    """Skips the test if the native library is asked for where there is none."""
    value = "1" if implementation == "python" else ""
    with mock.patch.dict(os.environ, {qubic.PURE_VARIABLE: value}):
        choose_anew()
        try:
            if implementation == "native" and qubic.native() is None:
                pytest.skip("QubiPy has no native library for this machine")
            yield
        finally:
            choose_anew()


def choose_anew() -> None:
    """Forgets which implementation was chosen."""
    qubic.native.cache_clear()
    qubic._signatures.cache_clear()
