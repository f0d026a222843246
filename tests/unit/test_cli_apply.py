"""`qubix apply`: nothing where nothing is to be done, no end of a job that nobody has agreed to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import control
from protocol.control import RunArgs, StopArgs, WaitArgs
from protocol.control_compare import CompareArgs, CompareView, FieldChange
from protocol.errors import BalanceTooLow, NoOffer, QubixError, QuoteDeclined
from tests.support import views
from tests.support.control_server import Reply, control_server
from tests.support.views import HOSTILE, LEASE_ID
from tui import cli

RUNNING = views.lease(phase="running", settled=False, exit_code=None)
RUN_ID = 2
"""Of the request that follows `hello` and `compare`."""
CHANGES = [
    FieldChange("resources.gpu", "", "A100:0MB:1"),
    FieldChange("run", "one\ntwo\nthree", "one\n2\nthree"),
    FieldChange("envs", HOSTILE, "A=1"),
]


def refused(error: QubixError) -> dict[str, Any]:
    return {"code": error.code, "message": str(error), "exit_code": error.exit_code}


class Daemon:
    """Answers as if these leases of the name went on; `said` are the verbs it was asked."""

    def __init__(self, *leases: control.LeaseView, changes: list[FieldChange] | None = None) -> None:
        self.view = CompareView(list(leases), changes or [])
        self.said: list[str] = []
        self.hired: QubixError | None = None

    def __call__(self, verb: str, args: Any) -> Iterator[Reply]:
        self.said.append(verb)
        if verb == "compare":
            yield {"ok": control.to_body(self.view)}
        elif verb == "stop":
            yield {"ok": views.event(views.lease(phase="stopping", settled=False))}
        elif verb == "wait":
            yield {"event": views.event(views.lease(phase="settling", settled=False))}
            yield {"ok": views.event(views.lease())}
        elif verb == "confirm":
            yield {"ok": {}}
            yield {
                "id": RUN_ID,
                **(self.opened() if args.accept else {"error": refused(QuoteDeclined("no"))}),
            }
        elif verb == "run" and self.hired:
            yield {"error": refused(self.hired)}
        elif verb == "run":
            yield {"event": views.quoted()} if args.ask and args.replaces else self.opened()

    def opened(self) -> dict[str, Any]:
        return {"ok": views.event(views.lease(phase="funding", settled=False, exit_code=None))}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "job.yaml").write_text("name: wordcount\nresources: {image: a}\nrun: wc\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QUBIX_DATA_DIR", str(tmp_path))
    return folder / "job.yaml"


def applied(job: Path, daemon: Daemon, *words: str) -> tuple[int, list[Any]]:
    with control_server(job.parent.parent / "control.sock", daemon) as received:
        return cli.main(["apply", "-f", "job.yaml", *words]), received


def test_what_does_not_run_is_started(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon()
    code, received = applied(job, daemon)
    (started,) = (one for one in received if isinstance(one, RunArgs))
    assert (code, daemon.said[:2]) == (0, ["compare", "run"])
    assert received[0] == CompareArgs(job.read_text(), str(job.parent))
    assert (started.job_yaml, started.base_dir, started.detach) == (job.read_text(), str(job.parent), True)
    assert started.sole, "two at the same time get the same lease"
    assert "wordcount does not run; it is started." in capsys.readouterr().out


def test_what_runs_as_the_file_says_is_left_alone(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon(RUNNING)
    assert applied(job, daemon)[0] == 0
    assert applied(job, daemon)[0] == 0
    assert daemon.said == ["compare", "compare"]
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_nothing_is_ended_where_nobody_can_be_asked(
    job: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = Daemon(RUNNING, changes=CHANGES)
    assert applied(job, daemon, *words)[0] == 2
    assert daemon.said == ["compare"]
    captured = capsys.readouterr()
    assert "--yes" in captured.out + captured.err


def test_a_diff_says_field_by_field_what_is_otherwise(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon(RUNNING, changes=CHANGES)
    assert applied(job, daemon, "--diff")[0] == 0
    assert daemon.said == ["compare"]
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert f"wordcount (lease {LEASE_ID[:8]}) is not as the file says:" in lines
    assert lines[lines.index("run:") :][:3] == ["run:", "- two", "+ 2"]
    assert "+ A100:0MB:1" in lines and all(line.isprintable() for line in lines)


def test_a_diff_starts_nothing(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon()
    assert applied(job, daemon, "--diff")[0] == 0
    assert daemon.said == ["compare"] and "would be started" in capsys.readouterr().out


def test_what_differs_goes_on_until_another_is_rented(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon(RUNNING, changes=CHANGES)
    code, received = applied(job, daemon, "--yes")
    assert (code, [one for one in daemon.said if one != "ps"]) == (0, ["compare", "run"])
    (wanted,) = (one for one in received if isinstance(one, RunArgs))
    assert (wanted.replaces, wanted.sole, wanted.ask) == (LEASE_ID, True, False)
    assert "is ended once another is open" in capsys.readouterr().err


@pytest.mark.parametrize("error", [NoOffer("nobody"), BalanceTooLow("too little")])
def test_where_nothing_is_found_the_other_way_is_named(
    job: Path, error: QubixError, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = Daemon(RUNNING, changes=CHANGES)
    daemon.hired = error
    assert applied(job, daemon, "--yes")[0] == error.exit_code
    assert daemon.said == ["compare", "run"] and "--end-first" in capsys.readouterr().err


def test_ended_first_it_is_only_then_started_anew(job: Path) -> None:
    daemon = Daemon(RUNNING, changes=CHANGES)
    code, received = applied(job, daemon, "--yes", "--end-first")
    assert (code, daemon.said[:4]) == (0, ["compare", "stop", "wait", "run"])
    assert received[1:3] == [StopArgs(LEASE_ID), WaitArgs(LEASE_ID)]


def test_as_json_what_is_done_comes_first(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert applied(job, Daemon(RUNNING, changes=CHANGES), "--yes", "--json")[0] == 0
    out, err = capsys.readouterr()
    first, *_, last = map(json.loads, out.splitlines())
    assert (first["apply"]["action"], first["apply"]["lease"]["lease_id"]) == ("replace", LEASE_ID)
    assert first["apply"]["changes"][1] == {
        "field": "run",
        "before": "one\ntwo\nthree",
        "after": "one\n2\nthree",
    }
    assert (last["phase"], err) == ("funding", "")


def test_a_missing_secret_is_told_before_anything_ends(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job.write_text(job.read_text() + "secrets: [NOT_THERE]\n")
    daemon = Daemon(RUNNING, changes=CHANGES)
    assert applied(job, daemon, "--yes")[0] == 2
    assert daemon.said == ["compare"] and "NOT_THERE" in capsys.readouterr().err


def test_two_of_a_name_are_not_chosen_between(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon(RUNNING, views.lease(lease_id="ab" * 32), changes=CHANGES)
    assert applied(job, daemon, "--yes")[0] == 2
    err = capsys.readouterr().err
    assert daemon.said == ["compare"] and LEASE_ID[:8] in err and "abababab" in err


@pytest.mark.parametrize(
    ("words", "typed", "exit_code", "asked"),
    [
        (["--end-first"], "y", 0, ["compare", "stop", "wait", "run"]),
        (["--end-first"], "", 4, ["compare"]),
        (["--end-first"], "n", 4, ["compare"]),
        ([], "y", 0, ["compare", "run", "confirm"]),
        ([], "", 4, ["compare", "run", "confirm"]),
    ],
)
def test_a_person_is_asked_before_a_job_is_ended(
    job: Path, words: list[str], typed: str, exit_code: int, asked: list[str]
) -> None:
    """Nothing typed means no: here something would be lost. Without --end-first there is a quote by then."""
    daemon = Daemon(RUNNING, changes=CHANGES)
    ours, theirs = os.openpty()
    with control_server(job.parent.parent / "control.sock", daemon):
        command = [sys.executable, "-m", "tui.cli", "apply", "-f", "job.yaml", *words]
        with subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE) as process:
            os.close(theirs)
            told = b""
            while b"[y/N]" not in told:
                told += os.read(ours, 4_096)
            assert (b"You can lose at most" in told) != bool(words)
            os.write(ours, f"{typed}\n".encode())
            process.communicate(timeout=60)
    os.close(ours)
    assert (process.returncode, [one for one in daemon.said if one != "ps"]) == (exit_code, asked)
