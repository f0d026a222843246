"""`qubix provider` on screens of every size: it fits, it cuts nothing that matters, it trusts no word."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from protocol import control
from protocol.control_provider import ProviderArgs, ProviderView, RunnerView
from protocol.errors import ConfigInvalid
from tests.support import provider_views as views
from tests.support.control_server import Reply, control_server
from tests.unit.test_cli import read_terminal
from tui import cli, provider_screen, show

BUSY = views.provider(
    machine=views.provider().machine,
    jobs=[views.job(lease_id=f"{number:02x}" * 32) for number in range(12)],
    ended=[views.ended()] * 10,
)


def drawn(view: ProviderView, width: int, height: int | None = None) -> list[str]:
    """The lines of the screen."""
    console = show.console(io.StringIO())
    console = Console(file=console.file, width=width, markup=False, highlight=False, emoji=False)
    console.print(provider_screen.screen(view, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n").split("\n")


@pytest.mark.parametrize("view", [views.provider(), views.provider(shop=views.HINDERED), BUSY])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 60)])
def test_the_screen_fits_a_terminal(view: ProviderView, width: int, height: int) -> None:
    lines = drawn(view, width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= height


def test_what_did_not_fit_is_counted() -> None:
    lines = drawn(BUSY, 80, 24)
    jobs = sum(line.startswith(tuple(f"{number:02x}" * 4 for number in range(12))) for line in lines)
    more = [int(found[1]) for line in lines if (found := re.fullmatch(r"… and (\d+) more", line.strip()))]
    ended = sum(line.startswith("Jan 15") for line in lines)
    assert (jobs + more[0], ended + more[1]) == (12, 10)
    assert not [line for line in drawn(BUSY, 80) if "more" in line]


@pytest.mark.parametrize("width", [80, 132])
def test_numbers_are_whole_on_every_width(width: int) -> None:
    text = "\n".join(drawn(views.provider(), width, 24))
    for number in ("684,000", "4,210,000", "9,876,543", "12,345,678", "336,000", "1,234,567", "353,500"):
        assert number in text
    assert "87 %" in text and "312" in text and "2.3 of 4" in text


def test_one_suggested_price_is_no_range() -> None:
    same = views.shop(suggested_low_qu_per_hour=7_000, suggested_high_qu_per_hour=7_000)
    assert "(suggested 7,000)" in drawn(views.provider(shop=same), 132)[3]
    assert "(suggested 1 to 2)" in drawn(views.provider(), 132)[3]


@pytest.mark.parametrize(
    ("runner", "words"), [("docker", "docker; they may"), ("process", "no Docker: plain")]
)
def test_the_first_answer_says_what_holds_jobs(runner: str, words: str) -> None:
    view = views.provider(runner=RunnerView(runner, True, "", True, 0, 0))
    console = Console(file=io.StringIO(), width=200)
    console.print(provider_screen.first(view))
    assert isinstance(console.file, io.StringIO) and words in console.file.getvalue()


def test_a_shut_shop_says_why_and_what_to_do() -> None:
    text = "\n".join(drawn(views.provider(shop=views.HINDERED), 80))
    assert "takes no jobs" in text
    assert "A" * 60 in text  # the wallet can be copied
    assert "`qubix provider resume`" in text
    assert "its memory made errors" in text


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_word_of_a_stranger_reaches_the_terminal_raw(width: int) -> None:
    text = "".join(drawn(views.HOSTILE_PROVIDER, width, 24))
    assert not [char for char in text if not char.isprintable()], ascii(text)


def test_days_rise_to_today() -> None:
    view = views.provider()
    bars = next(line for line in drawn(view, 80) if line.startswith("14 days")).split()[2]
    assert bars == "··········▁·█▅"


# --- the verb -----------------------------------------------------------------------------------


def answering(view: ProviderView) -> Any:
    def daemon(verb: str, args: Any) -> list[Reply]:
        return [{"ok": control.to_body(view)}]

    return daemon


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["provider"], ProviderArgs()),
        (["provider", "pause"], ProviderArgs(pause=True)),
        (["provider", "resume"], ProviderArgs(pause=False)),
    ],
)
def test_what_is_asked_of_the_daemon(
    tmp_path: Path, words: list[str], asked: ProviderArgs, capfd: pytest.CaptureFixture[str]
) -> None:
    with control_server(tmp_path / "control.sock", answering(BUSY)) as received:
        assert cli.main(["--data-dir", str(tmp_path), *words]) == 0
    assert received == [asked]
    if asked.pause:
        assert "12 jobs here go on" in capfd.readouterr().out


def test_json_has_every_number(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with control_server(tmp_path / "control.sock", answering(views.provider())):
        assert cli.main(["--data-dir", str(tmp_path), "provider", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["earnings"]["today_qu"] == 684_000
    assert len(answer["earnings"]["days"]) == 14
    assert answer["machine"]["gpus"][0]["temperature_c"] == 64
    assert answer["jobs"][0]["owed_qu"] == 500


def test_watching_and_changing_are_two_things(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--data-dir", str(tmp_path), "provider", "pause", "--watch"]) == 2
    assert "--watch only looks" in capfd.readouterr().err


def test_a_daemon_that_offers_nothing_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = {"code": ConfigInvalid.code, "message": "this daemon offers nothing; start it", "exit_code": 2}
    with control_server(tmp_path / "control.sock", lambda verb, args: [{"error": body}]):
        assert cli.main(["--data-dir", str(tmp_path), "provider"]) == 2
    assert "offers nothing" in capfd.readouterr().err


def test_watching_draws_again_and_gives_the_terminal_back(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    env = os.environ | {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    command = [sys.executable, "-m", "tui.cli", "--data-dir", str(tmp_path), "provider", "--watch"]
    with (
        control_server(tmp_path / "control.sock", answering(BUSY)) as received,
        subprocess.Popen(command, stdout=theirs, env=env) as process,
    ):
        os.close(theirs)
        shown = b""
        while shown.count(b"QU made") < 2:
            shown += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        while chunk := read_terminal(ours):
            shown += chunk
        os.close(ours)
    assert process.returncode == 130
    assert b"\x1b[?1049h" in shown and shown.rstrip().endswith((b"\x1b[?25h", b"\x1b[?1049l"))
    assert len(received) >= 2


def test_watching_into_a_pipe_is_one_answer_after_the_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tui.cli", "--data-dir", str(tmp_path), "provider", "--watch", "--json"]
    with (
        control_server(tmp_path / "control.sock", answering(BUSY)),
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        process.send_signal(signal.SIGINT)
    assert json.loads(first) == json.loads(second)
    assert process.returncode == 130
