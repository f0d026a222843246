"""The whole way in a real terminal, by keys alone: from nothing to a wallet, a job and its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.tui_pilot import short_folder

ROOT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 200.0

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")


@dataclass
class Terminal:
    """A tmux server of our own with one pane of 80x24."""

    root: Path

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-S", str(self.root / "tmux"), "-f", os.devnull, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def qubix(self, *words: str, check: bool = True) -> None:
        """Run the command line beside the terminal."""
        command = [sys.executable, "-m", "tui.cli", *words]
        subprocess.run(command, check=check, capture_output=True, env=self.environment, cwd=ROOT, timeout=100)

    @property
    def environment(self) -> dict[str, str]:
        homes = {"HOME": "h", "XDG_DATA_HOME": "d", "XDG_CONFIG_HOME": "c"}
        own = {name: str(self.root / folder) for name, folder in homes.items()}
        # Contract and proof are compiled under a digest of all that goes into them: once for every test.
        own["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return {**os.environ, **own, "PYTHONPATH": str(ROOT), "DOCKER_HOST": f"unix://{self.root}/none"}

    def start(self) -> None:
        """`qubix`, with nothing else said."""
        home = self.root / "h"
        home.mkdir()
        names = ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "PYTHONPATH", "DOCKER_HOST")
        given = [word for name in names for word in ("-e", f"{name}={self.environment[name]}")]
        size = ("-x", "80", "-y", "24")
        self.tmux("new-session", "-d", *size, *given, "-c", str(home), f"{sys.executable} -m tui.cli")

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def until(self, *words: str) -> None:
        """Wait until the terminal shows all of it: a terminal tells nobody that it has changed."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not all(word in self.screen() for word in words):
            assert time.monotonic() < end, f"{words} never came; the terminal shows:\n{self.screen()}"
            time.sleep(0.1)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with short_folder() as root:
        here = Terminal(root)
        here.start()
        try:
            yield here
        finally:
            here.tmux("kill-server")
            for words in (("down",), ("--data-dir", str(root / "d/qubix-devnet/practice"), "down")):
                here.qubix(*words, check=False)
            here.qubix("devnet", "--end", check=False)


def test_from_nothing_to_a_job_and_its_end(terminal: Terminal) -> None:
    first_run(terminal)
    launch(terminal)
    stop(terminal)


def first_run(terminal: Terminal) -> None:
    """A wallet, a daemon, something to rent."""
    terminal.until("Make a new wallet")
    terminal.press("Enter")
    terminal.until("These 55 letters are your wallet")
    terminal.press("Tab", "Enter")
    terminal.until("Go on without one")
    terminal.press("Enter")
    terminal.until("Start a practice provider")
    terminal.press("Enter")
    terminal.until("[1 Market]", "Press p to start a practice provider")
    terminal.press("p")
    terminal.until("1 offer", "practice")


def launch(terminal: Terminal) -> None:
    """The wizard from its first step, until connected."""
    terminal.press("2")
    terminal.until("[2 Instances]")
    terminal.press("n")
    terminal.until("What do you want to do?")
    terminal.press("Enter")
    terminal.until("[2 GPU]", "1,000,000")
    terminal.press("Enter")
    terminal.until("[3 Settings]", "Ask for a price")
    terminal.press("C-n")
    terminal.until("it says what the job does")
    terminal.type("sleep 600")
    terminal.until("sleep 600")
    terminal.press("C-n")
    terminal.until("[4 Price and risk]", "You can lose at most")
    terminal.press("y")
    terminal.until("Connected: job", "qubix attach")


def stop(terminal: Terminal) -> None:
    """Ended, paid for what was used, and the terminal is as it was."""
    terminal.press("s")
    terminal.until("Stop it")
    terminal.press("y")
    terminal.until("you stopped it")
    terminal.press("q")
