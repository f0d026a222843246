"""The host and the contracts under the address and undefined-behaviour sanitizers.

A shared library with sanitizers needs their runtime loaded before Python's own allocations: so other
tests of the host run once more, in a process that has it preloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AGAIN = [
    "tests/unit/test_contract_batch.py",
    "tests/unit/test_contract_buy.py",
    "tests/unit/test_contract_dispute.py",
    "tests/unit/test_contract_expiry.py",
    "tests/unit/test_contract_money.py",
    "tests/unit/test_contract_redeem.py",
    "tests/unit/test_contract_registry.py",
    "tests/unit/test_contract_slash.py",
    "tests/unit/test_contract_top_up.py",
    "tests/property/test_contract_machine.py::test_the_contract_does_what_the_model_says",
    "tests/unit/test_host_calls.py",
    "tests/unit/test_host_hashmap.py",
    "tests/unit/test_host_money.py",
]
PROGRAM = """
import sys, pytest
from escrow_bridge.devnet import compiler
command = ("g++", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
compiler.find_compiler = lambda: command
sys.exit(pytest.main(["-q", "-s", "-x", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def runtime() -> Path | None:
    """The address sanitizer's library of the GNU compiler, if there is one."""
    if sys.platform != "linux" or not shutil.which("g++"):
        return None
    asked = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=False
    )
    path = Path(asked.stdout.strip())
    return path if path.is_absolute() and path.exists() else None


@pytest.mark.slow
@pytest.mark.timeout(600)  # it compiles, and runs hundreds of tests slowly
def test_nothing_is_undefined_or_out_of_bounds() -> None:
    library = runtime()
    if library is None:
        pytest.skip("needs g++ on Linux with the library of its address sanitizer")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "QUBIX_CONTRACT_STEPS": "3000",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps memory until the end
        "PYCRYPTODOME_DISABLE_DEEPBIND": "1",  # a sanitizer cannot work with libraries bound that way
    }
    command = [sys.executable, "-c", PROGRAM, *AGAIN]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=590, check=False
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
