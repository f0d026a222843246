"""`qubix run` and `qubix up`: what is checked before the daemon is asked, and what the end of a job means."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import control
from protocol.control import RunArgs
from protocol.control_again import JobFileArgs, JobFileView
from qubixd import config
from tests.support import views
from tests.support.control_server import Reply, control_server
from tests.support.views import HOSTILE, LEASE_ID
from tui import cli, up
from tui.run import failure

RUN_ID = 1
"""Of the first request on a connection."""
JOB = "name: wordcount\nresources: {image: python:3.12}\nsecrets: [TOKEN]\nmax_price: 500000\nrun: wc data\n"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job file in the working directory, its secret in the environment."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "job.yaml").write_text(JOB)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TOKEN", "s3cret")
    monkeypatch.setenv("QUBIX_DATA_DIR", str(tmp_path))
    return folder / "job.yaml"


def ends_as(**changes: Any) -> Callable[[str, Any], Iterator[Reply]]:
    """A daemon whose job runs and then ends so."""

    def replies(verb: str, args: Any) -> Iterator[Reply]:
        yield {"event": views.event(None, "quoting", f"asking {HOSTILE}")}
        yield {"event": views.event(views.lease(phase="running", settled=False, exit_code=None))}
        yield {"ok": views.event(views.lease(**changes))}

    return replies


def serve(job: Path, replies: Callable[[str, Any], Iterator[Reply]]) -> Any:
    return control_server(job.parent.parent / "control.sock", replies)


def test_what_the_daemon_is_sent(job: Path) -> None:
    with serve(job, ends_as()) as received:
        assert cli.main(["run", "job.yaml", "--output", "out", "--provider", "ali", "--max-price", "7"]) == 0
        assert cli.main(["run", str(job), "--detach"]) == 0
    first, second = received
    assert first == RunArgs(
        job_yaml=JOB,
        base_dir=str(job.parent),
        output_dir=str(job.parent / "out"),
        secrets={"TOKEN": "s3cret"},
        max_price_qu_per_hour=7,
        provider="ali",
    )
    assert (second.max_price_qu_per_hour, second.detach) == (500_000, True)
    assert Path(second.output_dir).is_absolute() and "wordcount" in second.output_dir


def test_the_end_says_cost_and_place(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(job, ends_as()):
        assert cli.main(["run", "job.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "900 QU (29,100 of the 30,000 QU deposit came back)" in out
    assert "/home/someone/out" in out
    assert "`qubix logs " in out, "where what it printed is"
    assert err == "", "no progress where there is no terminal"


def test_json_is_a_line_per_event_and_the_lease_last(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(job, ends_as()):
        assert cli.main(["run", "job.yaml", "--json"]) == 0
    out, err = capsys.readouterr()
    *events, last = [json.loads(line) for line in out.splitlines()]
    assert [event["event"]["phase"] for event in events] == ["quoting", "running", "done"]
    assert (last["lease_id"], last["paid"], err) == (LEASE_ID, 900, "")


def test_who_waits_reads_why_once(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def replies(verb: str, args: Any) -> Iterator[Reply]:
        funding = views.event(views.lease(phase="funding", settled=False, exit_code=None))
        for why in ("", "A is behind B", "A is behind B", "", ""):
            yield {"event": {**funding, "waiting": why}}
        yield {"ok": views.event(views.lease())}

    with serve(job, replies):
        assert cli.main(["run", "job.yaml"]) == 0
    err = capsys.readouterr().err
    assert err.splitlines() == ["Waiting for the chain: A is behind B", "The chain goes on."]


def shows_a_quote(verb: str, args: Any) -> Iterator[Reply]:
    """A daemon that shows its quote and, asked to, goes on only after a `confirm`."""
    if verb == "run":
        yield {"event": views.quoted()}
    if verb == "confirm":
        yield {"ok": {}}
    if verb == "confirm" and not args.accept:
        declined = {"code": "quote.declined", "message": "you declined the quote", "exit_code": 4}
        yield {"id": RUN_ID, "error": declined}
    elif verb == "confirm" or not args.ask:
        yield {"id": RUN_ID, "ok": views.event(views.lease())}


@pytest.mark.parametrize("words", [[], ["--yes"]])
def test_what_can_be_lost_is_said_before_it_is_signed(
    job: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with serve(job, shows_a_quote) as received:
        assert cli.main(["run", "job.yaml", *words]) == 0
    assert "You can lose at most 700 QU = 1.4 intervals of 5 s" in capsys.readouterr().err
    assert [args.ask for args in received] == [False], "nobody is there to be asked"


@pytest.mark.parametrize(
    ("typed", "words", "exit_code"),
    [("y", [], 0), ("", [], 0), ("n", [], 4), ("what?", [], 4), (None, ["-y"], 0), (None, ["--json"], 0)],
)
def test_a_person_is_asked(job: Path, typed: str | None, words: list[str], exit_code: int) -> None:
    ours, theirs = os.openpty()
    with serve(job, shows_a_quote) as received:
        command = [sys.executable, "-m", "tui.cli", "run", "job.yaml", *words]
        with subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE) as process:
            os.close(theirs)
            if typed is not None:
                told = b""
                while b"[Y/n]" not in told:
                    told += os.read(ours, 4_096)
                assert b"at most 700 QU" in told
                os.write(ours, typed.encode() + b"\n")
            assert process.wait(60) == exit_code
    os.close(ours)
    asked, *answers = received
    assert asked.ask == (typed is not None)
    assert [(one.token, one.accept) for one in answers] == ([("t0", exit_code == 0)] if asked.ask else [])


@pytest.mark.parametrize(
    ("changes", "exit_code", "code"),
    [
        ({"phase": "failed", "reason": "job.failed", "exit_code": 3}, 7, "job.failed"),
        ({"phase": "failed", "reason": "job.out_of_memory"}, 7, "job.out_of_memory"),
        ({"phase": "cancelled", "reason": "lease.stopped_by_caller"}, 7, "lease.stopped_by_caller"),
        ({"phase": "failed", "reason": "chain.funding_failed"}, 6, "chain.funding_failed"),
        ({"phase": "failed", "reason": "quote.capacity_taken"}, 4, "quote.capacity_taken"),
        ({"phase": "failed", "reason": "runner.image_unavailable"}, 5, "runner.image_unavailable"),
        ({"phase": "done", "exit_code": 9}, 7, "job.failed"),
    ],
)
def test_a_job_that_failed_ends_with_its_own_code(
    job: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], exit_code: int, code: str
) -> None:
    with serve(job, ends_as(**changes)):
        assert cli.main(["run", "job.yaml"]) == exit_code
        human = capsys.readouterr()
        assert cli.main(["run", "job.yaml", "--json", "--output", "other"]) == exit_code
        machine = capsys.readouterr()
    assert human.err.startswith("error: ") and human.err.endswith(f"[{code}]\n")
    assert json.loads(machine.out.splitlines()[-1])["phase"] == changes["phase"]
    assert machine.err == ""


def test_a_lease_that_goes_on_is_no_failure() -> None:
    assert failure(views.lease(phase="running", exit_code=None, settled=False)) is None
    assert failure(views.lease()) is None


@pytest.mark.parametrize("reason", ["lease.duration_reached", "lease.budget_reached", "lease.idle"])
def test_an_end_that_was_agreed_is_no_failure(reason: str) -> None:
    assert failure(views.lease(reason=reason, exit_code=143)) is None


def test_a_refusal_before_there_is_a_lease(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = {"code": "quote.price_above_limit", "message": "too dear", "exit_code": 4}
    with serve(job, lambda verb, args: iter([{"error": error}])):
        assert cli.main(["run", "job.yaml"]) == 4
        assert capsys.readouterr().err == "error: too dear [quote.price_above_limit]\n"
        assert cli.main(["run", "job.yaml", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "quote.price_above_limit"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"name: x\nresources: {image: a}\nrun: y\ncpus: 2\n", ["job.yaml", "line 4", "cpus"]),
        (b"", ["job.yaml", "line 1", "empty"]),
        (b"\xff\xfe", ["job.yaml", "UTF-8"]),
        (b"a: [1", ["job.yaml", "line"]),
    ],
)
def test_a_broken_job_file_is_told_before_the_daemon_is_asked(
    job: Path, capsys: pytest.CaptureFixture[str], text: bytes, names: list[str]
) -> None:
    job.write_bytes(text)
    assert cli.main(["run", "job.yaml"]) == 2, "no daemon answers here: its error would be 5"
    err = capsys.readouterr().err
    assert err.endswith("[job.invalid]\n") and all(name in err for name in names)


def test_a_job_file_that_is_not_there(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "absent.yaml"]) == 2
    assert "absent.yaml" in capsys.readouterr().err


def test_a_missing_secret_is_named(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TOKEN")
    assert cli.main(["run", "job.yaml"]) == 2
    err = capsys.readouterr().err
    assert "TOKEN" in err and err.endswith("[job.invalid]\n")


def test_outputs_never_mix_with_other_files(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "job.yaml", "--output", "."]) == 2
    assert capsys.readouterr().err.endswith("[job.files_invalid]\n")


def test_ctrl_c_leaves_the_job_alone_and_says_how_to_go_on(job: Path) -> None:
    running, over = threading.Event(), threading.Event()

    def replies(verb: str, args: Any) -> Iterator[Reply]:
        yield {"event": views.event(views.lease(phase="running", settled=False, exit_code=None))}
        running.set()
        over.wait(100)

    with serve(job, replies):
        command = [sys.executable, "-m", "tui.cli", "run", "job.yaml", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert running.wait(60)
            assert process.stdout is not None and process.stderr is not None
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            err = process.stderr.read().decode()
        over.set()
    assert process.returncode == 130
    assert f"qubix logs -f {LEASE_ID[:8]}" in err and f"qubix stop {LEASE_ID[:8]}" in err


def parsed(*words: str) -> argparse.Namespace:
    return cli.make_parser().parse_args(["up", *words], argparse.Namespace(data_dir=None, json=False))


def test_up_hands_the_daemons_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUBIX_DATA_DIR", "/data")
    words = ("--provider", "--price", "5", "--bootstrap", "/a", "--bootstrap", "/b", "--chain", "node://h:1")
    command = up.daemon_command(parsed(*words), json=True)
    assert command[:4] == [sys.executable, "-P", "-m", "qubixd"]
    assert command[4:] == [
        *("--data-dir", "/data", "--provider", "--bootstrap", "/a", "--bootstrap", "/b"),
        *("--chain", "node://h:1", "--price", "5", "--json"),
    ]


def test_up_takes_every_option_of_the_daemon() -> None:
    """Whatever the daemon can be told, `qubix up` can be told."""

    def flags(parser: argparse.ArgumentParser) -> set[str]:
        return {flag for action in parser._actions for flag in action.option_strings}

    known = argparse.ArgumentParser()
    up.add_arguments(known)
    assert flags(config.parser()) - {"--data-dir", "--json"} <= flags(known)


def test_up_hands_a_directorys_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUBIX_DATA_DIR", "/data")
    words = ("--directory", "--use-directory", "/a", "--markets", "HOPPER", "--storage-price", "7")
    assert up.daemon_command(parsed(*words), json=False)[4:] == ["--data-dir", "/data", *words]


def test_up_becomes_the_daemon(tmp_path: Path) -> None:
    """The daemon's own words and exit code: it refuses to start with a chain that is none."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("QUBIX_")}
    env["XDG_CONFIG_HOME"] = str(tmp_path)
    command = [
        sys.executable,
        "-m",
        "tui.cli",
        "up",
        "--chain",
        "nowhere",
        "--data-dir",
        str(tmp_path / "data"),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no escrow contract is set" in done.stderr and done.stderr.endswith("[config.invalid]\n")


def test_a_template_s_key_is_yours_and_its_tokens_are_left_to_the_daemon(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.write_text("template: vscode\nsecrets: [TOKEN]")
    with serve(job, ends_as()) as received:
        assert cli.main(["run", "job.yaml", "--output", "one"]) == 0
        monkeypatch.setenv("SSH_PUBLIC_KEY", "ssh-ed25519 AAAA mine")
        monkeypatch.setenv("PASSWORD", "my own")
        assert cli.main(["run", "job.yaml", "--output", "two"]) == 0
    first, second = (args.secrets for args in received)
    used = job.parent.parent / "ssh" / "keys" / "qubix.pub"
    assert first == {"TOKEN": "s3cret", "SSH_PUBLIC_KEY": used.read_text().strip()}
    assert second == {"TOKEN": "s3cret", "SSH_PUBLIC_KEY": "ssh-ed25519 AAAA mine", "PASSWORD": "my own"}


KEPT = JobFileView(LEASE_ID, "wordcount", JOB, "/somewhere", "region=eu", "price", "ali", 7)


def keeps(verb: str, args: Any) -> Iterator[Reply]:
    if verb == "job_file":
        return iter([{"ok": control.to_body(KEPT)}])
    return ends_as()(verb, args)


def test_the_same_again_is_asked_as_before_unless_something_else_is_said(job: Path) -> None:
    with serve(job, keeps) as received:
        assert cli.main(["run", "--again", "3fa9c1"]) == 0
        assert cli.main(["run", "--again", "3fa9c1", "--provider", "bob", "--max-price", "9"]) == 0
    assert received[0] == JobFileArgs("3fa9c1")
    first, second = (one for one in received if isinstance(one, RunArgs))
    assert (first.job_yaml, first.base_dir, first.secrets) == (JOB, "/somewhere", {"TOKEN": "s3cret"})
    assert (first.where, first.order_by, first.provider, first.max_price_qu_per_hour) == (
        "region=eu",
        "price",
        "ali",
        7,
    )
    assert (second.where, second.provider, second.max_price_qu_per_hour) == ("region=eu", "bob", 9)


def test_the_kept_file_can_be_looked_at_and_takes_no_other_beside_it(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(job, keeps) as received:
        assert cli.main(["run", "--again", "3fa9c1", "--dry-run"]) == 0
        assert capsys.readouterr().out == JOB
        for words in (["job.yaml"], ["--hours", "2"], ["--", "true"]):
            assert cli.main(["run", "--again", "3fa9c1", *words]) == 2
    assert received == [JobFileArgs("3fa9c1")]
