"""Starting a part of qubix as a process: it gets ready, fails with words, says nonsense or nothing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from protocol.errors import PortBusy, StartFailed
from tui.processes import Child, end, start

HOLD = "; import sys, time; sys.stdout.flush(); time.sleep(60)"


def started(tmp_path: Path, program: str, seconds: float = 60) -> Child:
    command = [sys.executable, "-c", program]
    return asyncio.run(start("helper", command, tmp_path / "log", seconds))


def test_ready_is_the_object_it_printed(tmp_path: Path) -> None:
    child = started(tmp_path, "print('{\"ready\": true}')" + HOLD)
    try:
        assert (child.ready, child.process.poll()) == ({"ready": True}, None)
    finally:
        end([child])
    assert child.process.poll() is not None
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_its_last_words_are_raised_as_their_kind(tmp_path: Path) -> None:
    program = "import sys; sys.stderr.write('noise\\nerror: port 5 is taken [net.port_busy]\\n'); sys.exit(5)"
    with pytest.raises(PortBusy, match=r"^port 5 is taken$"):
        started(tmp_path, program)


def test_the_last_words_of_an_earlier_start_are_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("error: port 5 is taken [net.port_busy]\n")
    with pytest.raises(StartFailed, match="ended with exit code 3"):
        started(tmp_path, "raise SystemExit(3)")


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)"])
def test_an_end_without_words(tmp_path: Path, program: str) -> None:
    with pytest.raises(StartFailed, match=r"the helper (ended with exit code 3|was killed by signal 9)"):
        started(tmp_path, program)


@pytest.mark.parametrize("said", ["hello", "[1]", "{"])
def test_nonsense_instead_of_readiness(tmp_path: Path, said: str) -> None:
    with pytest.raises(StartFailed, match="instead of JSON"):
        started(tmp_path, f"print({said!r})" + HOLD)


def test_silence_ends_and_so_does_the_process(tmp_path: Path) -> None:
    before = psutil.Process().children()
    with pytest.raises(StartFailed, match=r"not ready after 0.2 seconds"):
        started(tmp_path, "import sys" + HOLD, seconds=0.2)
    assert psutil.Process().children() == before


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.processes.STOP_SECONDS", 0.2)
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}')"
    child = started(tmp_path, ignore + HOLD)
    end([child])
    assert child.process.returncode == -9
