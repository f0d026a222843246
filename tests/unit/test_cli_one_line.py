"""A job said in one line: what is made of its words, and what is refused before anybody is asked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import jobspec
from protocol.control import RunArgs
from tests.support import views
from tests.support.control_server import Reply, control_server
from tui import cli, one_line
from tui.words import prepared


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a program and its data, and no daemon."""
    folder = tmp_path / "work"
    (folder / "lib").mkdir(parents=True)
    (folder / "train.py").touch()
    (folder / "data.csv").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QUBIX_DATA_DIR", str(tmp_path))
    return folder


def job(words: str, *command: str) -> jobspec.Job:
    options = cli.parsed(["run", *words.split(), *(["--", *command] if command else [])])
    return jobspec.parse(one_line.job_file(options, Path()))


def ended(verb: str, args: Any) -> Iterator[Reply]:
    yield {"ok": views.event(views.lease())}


def test_a_folder_that_was_deleted_meanwhile(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "gone").mkdir()
    os.chdir(here / "gone")
    (here / "gone").rmdir()
    assert cli.main(["run", "--dry-run", "--", "ls"]) == 2
    assert "the folder you are in is not there any more" in capsys.readouterr().err


def test_a_gpu_some_hours_and_a_command(here: Path) -> None:
    found = job("--gpu RTX4090:24GB:2 --hours 2", "python", "train.py", "--lr", "3")
    assert (found.wish.gpu_model, found.wish.gpu_vram_mib, found.wish.gpu_count) == ("RTX4090", 24_576, 2)
    assert (found.max_seconds, found.script, found.name) == (7_200, "python train.py --lr 3", "train")
    assert found.file_mounts == {"train.py": "train.py"}


def test_everything_that_can_be_said(here: Path) -> None:
    words = (
        "--image a:1 --cpus 4 --memory 8GB --disk 20GB --budget 9_000 --idle-stop 30m --internet --name n "
        "--setup x --env A=1 --env B=2 --secret TOKEN --port 80 --port 9/udp --file lib "
        "--file data.csv:d.csv --outputs out"
    )
    found = job(words, "python", "train.py", "data.csv")
    assert (found.name, found.image, found.script) == ("n", "a:1", "x\npython train.py data.csv")
    wish = found.wish
    assert (wish.cpu_millis, wish.memory_mib, wish.disk_mib) == (4_000, 8_192, 20_480)
    assert wish.internet and (found.budget, found.life.idle_seconds) == (9_000, 1_800)
    assert (found.envs, found.secrets) == ({"A": "1", "B": "2"}, ("TOKEN",))
    assert [port.name for port in found.ports] == ["80", "9/udp"]
    assert found.outputs == ("out",)
    assert found.file_mounts == {"lib": "lib", "d.csv": "data.csv", "train.py": "train.py"}


@pytest.mark.parametrize(
    ("command", "script", "mounts"),
    [
        (["cat data.csv | wc -l > n"], "cat data.csv | wc -l > n", {"data.csv"}),
        (["echo", "it's", "$HOME"], "echo 'it'\"'\"'s' '$HOME'", set()),
        (["ls", "../work", "/etc/passwd", "lib/"], "ls ../work /etc/passwd lib/", {"lib"}),
        (["echo 'half"], "echo 'half", set()),
    ],
)
def test_a_command_keeps_its_words_and_brings_its_files(
    here: Path, command: list[str], script: str, mounts: set[str]
) -> None:
    found = job("--image a", *command)
    assert (found.script, set(found.file_mounts)) == (script, mounts)


def test_a_template_needs_no_command(here: Path) -> None:
    found = job("--template jupyter")
    assert (found.name, found.template) == ("jupyter", "jupyter")


def test_the_daemon_gets_a_job_file_that_starts_here(here: Path) -> None:
    with control_server(here.parent / "control.sock", ended) as received:
        assert cli.main(["run", "--hours", "1", "--max-price", "5", "--", "python", "train.py"]) == 0
    (args,) = received
    assert isinstance(args, RunArgs)
    assert (args.base_dir, args.max_price_qu_per_hour) == (str(here), 5)
    assert jobspec.parse(args.job_yaml).script == "python train.py"


def test_a_dry_run_shows_the_job_file_and_asks_nobody(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--dry-run", "--", "python", "train.py"]) == 0
    text = capsys.readouterr().out
    assert cli.main(["run", "--dry-run", "--json", "--", "python", "train.py"]) == 0
    assert json.loads(capsys.readouterr().out) == {"job_yaml": text}
    assert jobspec.parse(text).name == "train"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to run"),
        (["--gpu", "A100"], "say what to run"),
        (["--gpu", "A100", "--"], "say what to run"),
        (["job.yaml", "--gpu", "A100"], "--gpu is for a job without a file; write it into job.yaml"),
        (["job.yaml", "--", "ls"], "-- is for a job without a file"),
        (["--hours", "soon", "--", "ls"], "hours: must be a number, not 'soon'"),
        (["--gpu", "a:b:c:d", "--", "ls"], "gpu: must be model"),
        (["--env", "A", "--", "ls"], "envs: 'A' must be NAME=VALUE"),
        (["--file", "/etc/passwd", "--", "ls"], "files: '/etc/passwd' lies elsewhere"),
        (["--port", "0", "--", "ls"], "ports: must be a port"),
        (["--template", "none", "--", "ls"], "template: 'none' is no template"),
        (["--image", "x\x1b[2J", "--", "ls"], "image: "),
        (["--name", "\udcff", "--", "ls"], "name: "),
    ],
)
def test_what_is_wrong_is_said_before_the_daemon_is_asked(
    here: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", *words]) == 2, "no daemon answers here: its error would be 5"
    err = capsys.readouterr().err
    assert err.startswith(f"error: {said}") and err.count("\n") == 1 and err[:-1].isprintable()


@pytest.mark.parametrize(
    ("words", "verb", "ready", "command"),
    [
        ("run --gpu A -- ls -l -- x", "run", "run --gpu A", "ls -l -- x"),
        ("--data-dir run run -- ls", "run", "--data-dir run run", "ls"),
        ("exec 3fa9 -- ls -l", "exec", "exec 3fa9 -- ls -l", ""),
        ("exec 3fa9 ls -l", "exec", "exec 3fa9 -- ls -l", ""),
        ("--json market --sort -score", "market", "--json market --sort=-score", ""),
        ("--help", "", "--help", ""),
    ],
)
def test_words_before_the_parser(words: str, verb: str, ready: str, command: str) -> None:
    assert prepared(words.split()) == (ready.split(), verb, command.split())
