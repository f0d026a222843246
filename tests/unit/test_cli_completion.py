"""What a shell is told may come next: words, options, and what the daemon knows; nothing a shell misreads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import control
from tests.support import views
from tests.support.control_server import Reply, control_server
from tests.support.views import HOSTILE
from tui import cli
from tui.completion import SCRIPTS, Candidate, candidates
from tui.exit_codes import EXIT_CODES
from tui.verb_table import VERBS

ENDED = "ab" * 32


def daemon(verb: str, args: Any) -> Iterator[Reply]:
    if verb == "ps":
        running = views.lease(phase="running", settled=False, name=HOSTILE)
        ended = [views.lease(lease_id=ENDED)] if args.all else []
        yield {"ok": control.to_body(control.PsView([running, *ended]))}
    elif verb == "market":
        hostile = views.offer(name="$(reboot)", peer_id="12D3KooWXyz", gpu_class=HOSTILE)
        offers = [views.offer(gpu_class="RTX 4090"), hostile, views.offer(name="cpu", gpus=0)]
        yield {"ok": control.to_body(views.MARKET) | {"offers": [control.to_body(one) for one in offers]}}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("QUBIX_DATA_DIR", str(tmp_path))
    with control_server(tmp_path / "control.sock", daemon):
        yield tmp_path


def told(capsys: pytest.CaptureFixture[str], line: str) -> list[str]:
    """The values for a line whose last word is being typed."""
    assert cli.main(["__complete", *line.split(" ")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return [one.partition("\t")[0] for one in out.splitlines()]


def nothing(metavar: str, verb: str) -> list[Candidate]:
    return [(f"<{metavar}>", "")]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("sto", ["stop"]),
        ("dance", []),
        ("dance ", None),
        ("--da", ["--data-dir"]),
        ("--data-dir ", None),
        ("--data-dir /x --json sto", ["stop"]),
        ("stop ", ["<LEASE>"]),
        ("stop <", ["<LEASE>"]),
        ("stop 3fa9 ", []),
        ("logs -f ", ["<LEASE>"]),
        ("wallet s", ["send"]),
        ("deny ", ["add", "remove", "list"]),
        ("deny add ", ["<PROVIDER>"]),
        ("demo --runner ", ["auto", "docker", "process"]),
        ("run ", None),
        ("run --gpu ", ["<GPU>"]),
        ("run --gpu A100 --ho", ["--hours"]),
        ("run --hours 2 --ho", []),
        ("run --env A=1 --en", ["--env"]),
        ("run --template ", ["<TEMPLATE>"]),
        ("run --gpu A100 -- python ", None),
        ("exec 3fa9 ls ", ["<COMMAND>"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("import ", None),
        ("market --json --limit ", ["<N>"]),
    ],
)
def test_what_may_come_next(line: str, values: list[str] | None) -> None:
    *before, typed = line.split(" ")
    found = candidates(before, typed, nothing)
    assert (None if found is None else [value for value, _ in found]) == values


def test_all_words_are_offered() -> None:
    assert [value for value, _ in candidates([], "", nothing) or []] == list(VERBS)


def test_leases_come_from_the_daemon(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "stop ") == [views.LEASE_ID[:8]]
    assert told(capsys, "logs -f ") == [ENDED[:8], views.LEASE_ID[:8]]
    assert told(capsys, "logs ab") == [ENDED[:8]]


def test_what_strangers_say_is_harmless(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "score ") == ["alice", "12D3KooWXyz", "cpu"]
    assert cli.main(["__complete", "stop", ""]) == 0
    assert cli.main(["__complete", "run", "--gpu", ""]) == 0
    out = capsys.readouterr().out
    assert all(char in "\n\t" or char.isprintable() for char in out)
    values = [line.partition("\t")[0] for line in out.splitlines()]
    assert "RTX4090" in values and all(value.isalnum() for value in values)


def test_what_is_known_without_a_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUBIX_DATA_DIR", str(tmp_path))
    assert told(capsys, "stop ") == []
    assert "jupyter" in told(capsys, "run --template ")
    assert {"jupyter", "all"} <= set(told(capsys, "images "))
    assert "price" in told(capsys, "market --sort ")
    assert told(capsys, "run ") == [":files"]


def test_bash_completes(home: Path) -> None:
    """Its own way of asking, with the real command behind it."""
    program = home / "qubix"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tui.cli "$@"\n')
    program.chmod(0o755)
    asked = "COMP_WORDS=(qubix {}); COMP_CWORD={}; _qubix; echo ${{COMPREPLY[@]}}\n"
    script = SCRIPTS["bash"] + asked.format("sto", 1) + asked.format("stop ''", 2)
    env = os.environ | {"PATH": f"{home}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["stop", views.LEASE_ID[:8]], done.stderr


@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    assert capsys.readouterr().out == SCRIPTS[shell]
    assert "qubix __complete" in SCRIPTS[shell]


def test_help_says_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert all(meaning in out for meaning in EXIT_CODES.values())
