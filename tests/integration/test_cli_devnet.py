"""`qubix devnet` as a program would use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx

from protocol.errors import UsageError

QUBIX = [sys.executable, "-m", "tui.cli", "devnet"]


def test_one_line_says_where_the_network_is(tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    command = [*QUBIX, "--nodes", "3", "--json", "--seed-file", str(seed), "--epoch-ticks", "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert len(ready["nodes"]) == 3 and ready["seed_file"] == str(seed)
            info = httpx.get(f"{ready['rpc']}/live/v1/tick-info", trust_env=False).json()["tickInfo"]
            assert info["tick"] >= info["initialTick"]
        finally:
            process.terminate()
        assert process.wait(60) == 0


def test_what_makes_no_sense_is_one_sentence() -> None:
    result = subprocess.run([*QUBIX, "--nodes", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == UsageError.exit_code
    assert result.stderr.startswith("error: a devnet has 1 to 16 nodes")
