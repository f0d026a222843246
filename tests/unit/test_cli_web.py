"""`qubix web`: becomes the web process, which gets the mirror's path and nothing of the node's secrets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from protocol.control import to_body
from protocol.control_mirror import MirrorArgs, MirrorView
from protocol.errors import MachineError, MirrorUnavailable
from tests.support.control_server import Replies, Reply, control_server
from tests.support.web_mirror import filled
from tui import cli, web_verb

SECRET: Final = "made-up-secret-of-this-test"
WAIT_S: Final = 60


def mirroring(path: Path, looks: int = 0, trouble: str = "") -> Replies:
    """A daemon whose mirror is complete after so many looks at it."""
    left = [looks]

    def replies(verb: str, args: Any) -> Iterator[Reply]:
        assert verb == "mirror"
        ready = left[0] <= 0
        left[0] -= args.on is None
        on = args.on is not False
        yield {"ok": to_body(MirrorView(on, str(path), 3, 3, int(ready and on), "" if ready else trouble))}

    return replies


def started(home: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tui.cli", "web", "--data-dir", str(home), "--json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "QUBIX_SECRET": SECRET, "PGPASSWORD": SECRET, "DOCKER_HOST": SECRET},
    )


def test_it_becomes_the_web_process_with_nothing_secret(tmp_path: Path) -> None:
    received: list[Any] = []
    with control_server(
        tmp_path / "control.sock", mirroring(filled(tmp_path / "mirror.db", 3), looks=2), received
    ):
        process = started(tmp_path, "--port", "0")
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
    with process:  # the daemon is gone meanwhile: nothing of it is needed any more
        answer = httpx.get(f"{url}v1/offers", timeout=WAIT_S)
        assert answer.status_code == 200 and "peer_id" in answer.text
        there = Path(f"/proc/{process.pid}")
        variables = {line.partition("=")[0] for line in (there / "environ").read_text().split("\0") if line}
        assert SECRET not in (there / "environ").read_text() and "QUBIX_WEB_MIRROR" in variables
        assert "mirror.db" not in (there / "cmdline").read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == cli.INTERRUPTED
    assert received == [MirrorArgs(on=True), MirrorArgs(), MirrorArgs(), MirrorArgs()]


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    path = filled(tmp_path / "mirror.db", 1)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        control_server(tmp_path / "control.sock", mirroring(path)),
    ):
        port = str(taken.getsockname()[1])
        said, _ = started(tmp_path, "--port", port).communicate(timeout=WAIT_S)
    error = json.loads(said)["error"]
    assert error["code"] == "net.port_busy" and port in error["message"]


def test_without_a_daemon_it_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["web", "--data-dir", str(tmp_path)]) == 5
    assert "`qubix up` [daemon.unreachable]" in " ".join(capsys.readouterr().err.split())


def test_a_mirror_that_does_not_come_is_said_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web_verb, "READY_SECONDS", 0.4)
    never = mirroring(tmp_path / "mirror.db", looks=9, trouble="the disk is full")
    with control_server(tmp_path / "control.sock", never):
        assert cli.main(["web", "--data-dir", str(tmp_path)]) == MirrorUnavailable.exit_code
    assert "the disk is full [mirror.unavailable]" in capsys.readouterr().err


def test_off_ends_the_mirror_and_serves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    received: list[Any] = []
    with control_server(tmp_path / "control.sock", mirroring(tmp_path / "mirror.db"), received):
        assert cli.main(["web", "--off", "--data-dir", str(tmp_path), "--json"]) == 0
    assert received == [MirrorArgs(on=False)] and json.loads(capsys.readouterr().out)["on"] is False
    assert cli.main(["web", "--off", "--mirror", "x", "--data-dir", str(tmp_path)]) == 2


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_verb, "NEEDED", ("json", "no_such_package_of_anybody"))
    with pytest.raises(MachineError, match=r"\(no_such_package_of_anybody\); install qubix again"):
        web_verb.need_packages()


def test_passwords_of_databases_go_through_the_environment() -> None:
    url = f"postgresql://qubix:{SECRET}@db.example/market"
    options = cli.parsed(["web", "--publish", url, "--port", "1", "--behind-proxy", "1"])
    assert isinstance(options, Namespace)
    command = web_verb.web_command(options)
    assert SECRET not in " ".join(command) and command[-2:] == ["--port=1", "--behind-proxy=1"]
    ours = {"PGSSLMODE": "require", "LC_ALL": "C", "QUBIX_PASSPHRASE_FILE": SECRET, "SSH_AUTH_SOCK": SECRET}
    made = web_verb.web_environment({"MIRROR": "/m.db", "PUBLISH": url}, ours)
    assert made == {
        "PGSSLMODE": "require", "LC_ALL": "C", "QUBIX_WEB_MIRROR": "/m.db", "QUBIX_WEB_PUBLISH": url
    }  # fmt: skip
    assert "PGSSLMODE" not in web_verb.web_environment({"MIRROR": "/m.db", "PUBLISH": ""}, ours)
