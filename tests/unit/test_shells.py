"""The scripts of `qubix completion` in the shells that they are for: keys go in, a longer line comes out."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import control
from tests.support import views
from tests.support.control_server import Reply, control_server
from tui.completion import SCRIPTS

PATIENCE_SECONDS = 90.0
LEASE = views.LEASE_ID[:8]


def daemon(verb: str, args: Any) -> Iterator[Reply]:
    running = views.lease(phase="running", settled=False, name="a: name; $(reboot) `reboot`")
    yield {"ok": control.to_body(control.PsView([running]))}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """With a `qubix` of its own, its completions where zsh and fish look for them, and a file."""
    program = tmp_path / "bin" / "qubix"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tui.cli "$@"\n')
    program.chmod(0o755)
    for path, shell in (("zsh/_qubix", "zsh"), (".config/fish/completions/qubix.fish", "fish")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(SCRIPTS[shell])
    (tmp_path / "only-job.yaml").write_text("")
    with control_server(tmp_path / "control.sock", daemon):
        yield tmp_path


def environment(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "QUBIX_DATA_DIR": str(home),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here, so that its completion cannot be tried")
    return found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("qubix sto", ["stop"]),
        ("qubix stop ", [LEASE]),
        ("qubix completion ", ["bash", "fish", "zsh"]),
        ("qubix run only-", ["only-job.yaml"]),
        ("qubix stop 3fa9 ", []),
    ],
)
def test_fish_completes(home: Path, line: str, found: list[str]) -> None:
    """Its own way to say what it would offer."""
    command = [shell("fish"), "-c", "complete -C $argv[1]", line]
    done = subprocess.run(
        command, cwd=home, env=environment(home), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stderr == ""
    assert sorted(one.partition("\t")[0] for one in done.stdout.splitlines()) == found


class Typist:
    """At the terminal of an interactive shell."""

    def __init__(self, command: list[str], home: Path) -> None:
        self._ours, theirs = os.openpty()
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=home, env=environment(home),
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    def types(self, keys: str, until: str) -> str:
        """What is shown since, once that is among it."""
        os.write(self._ours, keys.encode())
        seen, end = b"", time.monotonic() + PATIENCE_SECONDS
        while until.encode() not in seen:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._ours], [], [], left)[0]:
                raise AssertionError(f"{until!r} did not come: {seen!r}")
            seen += os.read(self._ours, 4_096)
        return seen.decode(errors="replace")

    def leaves(self) -> None:
        self._process.terminate()
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


def test_zsh_completes(home: Path) -> None:
    one = Typist([shell("zsh"), "-f", "-i"], home)
    try:
        one.types("PS1='READ''Y> '; fpath=($HOME/zsh $fpath); autoload -Uz compinit\n", "READY> ")
        one.types("compinit -u -d $HOME/dump; print DONE''NOW\n", "DONENOW")
        for typed, until in (
            ("qubix sto\t", "stop "),
            ("qubix stop \t", LEASE),
            ("qubix run only-\t", "only-job.yaml"),
            ("qubix completion z\t", "zsh "),
        ):
            assert "rror" not in one.types(f"\x15{typed}", until)
        listed = one.types("\x15qubix wallet \t\t", "history")
        assert "export" in listed and "command not found" not in listed
    finally:
        one.leaves()


def test_zsh_takes_the_lines_for_this_shell_alone(home: Path) -> None:
    one = Typist([shell("zsh"), "-f", "-i"], home)
    try:
        one.types("PS1='READ''Y> '; autoload -Uz compinit\n", "READY> ")
        one.types("compinit -u -d $HOME/dump; source $HOME/zsh/_qubix; print DONE''NOW\n", "DONENOW")
        one.types("qubix sto\t", "stop ")
    finally:
        one.leaves()
