"""The host against facts of a genuine node: arithmetic."""

from __future__ import annotations

import platform
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from escrow_bridge.devnet.host import Host
from tests.support.probes import NUMBERS, new_chain

MIN64, MAX64, MAXU64 = -(2**63), 2**63 - 1, 2**64 - 1
MIN32, MAX32, MAXU32 = -(2**31), 2**31 - 1, 2**32 - 1
SIGNED, UNSIGNED, SMALL = 1, 2, 3
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def chain() -> Host:
    return new_chain()


def signed(chain: Host, a: int, b: int) -> tuple[int, ...]:
    return struct.unpack("<4q", chain.query(NUMBERS, SIGNED, struct.pack("<2q", a, b)))


def unsigned(chain: Host, a: int, b: int) -> tuple[int, ...]:
    return struct.unpack("<6Q", chain.query(NUMBERS, UNSIGNED, struct.pack("<2Q", a, b)))


@pytest.mark.parametrize(
    ("a", "b", "quotient", "remainder"),
    [(7, 2, 3, 1), (-7, 2, -3, -1), (7, -2, -3, 1), (-7, -2, 3, -1), (7, 0, 0, 0), (MIN64, 0, 0, 0)],
)
def test_division_truncates_and_by_0_is_0(chain: Host, a: int, b: int, quotient: int, remainder: int) -> None:
    assert signed(chain, a, b)[:2] == (quotient, remainder)


def test_unsigned_division_by_0_is_0(chain: Host) -> None:
    assert unsigned(chain, 7, 0)[:2] == (0, 0)


@pytest.mark.parametrize(
    ("a", "b", "total", "product"),
    [
        (2, -3, -1, -6),
        (MAX64, 1, MAX64, MAX64),
        (MIN64, -3, MIN64, MAX64),
        (MAX64, 2, MAX64, MAX64),
        (MIN64, 2, MIN64 + 2, MIN64),
        (MAX64, -2, MAX64 - 2, MIN64),
    ],
)
def test_sadd_and_smul_clamp(chain: Host, a: int, b: int, total: int, product: int) -> None:
    assert signed(chain, a, b)[2:] == (total, product)


def test_unsigned_clamps_where_asked_and_else_wraps(chain: Host) -> None:
    assert unsigned(chain, MAXU64, 2)[2:] == (MAXU64, MAXU64, 1, MAXU64 - 1)
    assert unsigned(chain, 3, 4)[2:] == (7, 12, 7, 12)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((MAX32, 2, MAXU32, 2), (MAX32, MAX32, MAXU32, MAXU32)),
        ((MIN32, -2, 0, 0), (MIN32, MAX32, 0, 0)),
        ((MIN32, 2, 3, 4), (MIN32 + 2, MIN32, 7, 12)),
        ((-5, 3, 1, 1), (-2, -15, 2, 1)),
    ],
)
def test_32_bit_numbers_clamp_too(chain: Host, numbers: tuple[int, ...], expected: tuple[int, ...]) -> None:
    output = chain.query(NUMBERS, SMALL, struct.pack("<2i2I", *numbers))
    assert struct.unpack("<2i2I", output) == expected


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors do not trap here")
@pytest.mark.skipif(sys.platform == "win32", reason="dies by another code on Windows")
def test_the_smallest_number_divided_by_minus_1_kills_the_node() -> None:
    program = (
        "import struct; from tests.support.probes import *; "
        f"new_chain().query(NUMBERS, {SIGNED}, struct.pack('<2q', {MIN64}, -1))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGFPE
