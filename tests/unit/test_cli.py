"""The `qubix` command against a made-up daemon: words, exit codes, pure JSON, harmless screens."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import control, control_market, control_wallet
from protocol.control import LogsArgs, PsArgs, StopArgs
from protocol.control_market import DenyArgs, MarketArgs, OfferArgs, ScoreArgs, StakeArgs, WhyArgs
from protocol.control_watch import KeptNotice, NoticesView, NoticeView
from protocol.errors import UsageError
from tests.support import provider_views, views
from tests.support.control_server import Reply, control_server
from tests.support.views import HOSTILE
from tui import cli


def daemon(verb: str, args: Any) -> Iterator[Reply]:
    """A well-behaved daemon that knows hostile peers."""
    words = {"name": HOSTILE, "gpu": HOSTILE, "peer_id": HOSTILE, "detail": HOSTILE}
    hostile_lease = views.lease(phase="running", settled=False, frozen=True, **words)
    if verb == "logs":
        yield {"event": {"data": b"one\n"}}
        yield {"event": {"data": HOSTILE.encode()}}
    answers: dict[str, object] = {
        "status": views.STATUS,
        "wallet": views.WALLET,
        "send": views.PAYMENT,
        "history": control_wallet.HistoryView([views.HISTORY, views.HISTORY]),
        "market": views.MARKET,
        "why": views.WHY,
        "score": views.SCORE,
        "deny": views.DENIED,
        "stake": views.STAKE,
        "directories": control_market.DirectoriesView(views.MARKET.directories),
        "provider": provider_views.HOSTILE_PROVIDER,
        "offer": control_market.OfferAnswer(views.offer(own=True)),
        "ps": control.PsView([views.lease(), hostile_lease]),
        "stop": control.RunEvent("stopping", "you stopped it", views.lease(phase="stopping")),
        **dict.fromkeys(("pause", "resume", "restart"), control.RunEvent("running", "", hostile_lease)),
        "notices": NoticesView([KeptNotice(9, NoticeView("lease.ended", "bad", HOSTILE, "ab" * 32, 1))]),
        "logs": control.Done(),
        "shutdown": control.Done(),
    }
    yield {"ok": control.to_body(answers[verb])}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[str]:
    """A data directory where that daemon answers."""
    with control_server(tmp_path / "control.sock", daemon):
        yield str(tmp_path)


WALLET = [["wallet"], ["wallet", "history"], ["wallet", "send", "A" * 60, "1_000", "--id", "x"]]
MARKET = [["market"], ["why"], ["score", "alice"], ["deny", "list"], ["stake"], ["directories"]]
PROVIDER = [["offer"], ["provider"], ["provider", "pause"], ["provider", "resume"]]
LEASES = [["ps"], ["ps", "-a"], *([verb, "3fa9"] for verb in ("stop", "pause", "resume", "restart"))]
ASKING = [["status"], ["notices"], *WALLET, *MARKET, *PROVIDER, *LEASES, ["down"]]


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_json_is_one_document_and_nothing_else(
    home: str, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--data-dir", home, *words, "--json"]) == 0
    out, err = capfd.readouterr()
    assert isinstance(json.loads(out), dict)
    assert (out.count("\n"), err) == (1, "")


@pytest.mark.parametrize("words", [*ASKING, ["logs", "3fa9"]], ids=" ".join)
def test_a_screen_fits_80_columns_and_holds_no_control_character(home: str, words: list[str]) -> None:
    screen = on_terminal(["--data-dir", home, *words])
    text = screen.replace("\r\n", "\n")
    assert text.strip()
    assert not [c for c in text if c != "\n" and not c.isprintable()], ascii(text)
    if words[0] in ("market", "why", "deny", "directories", "offer", "ps") or "history" in words:
        assert max(map(len, text.splitlines())) <= 80


TABLES = [["market"], ["deny", "list"], ["directories"], ["offer"], ["ps", "-a"], ["wallet", "history"]]


@pytest.mark.parametrize("columns", [24, 40, 60, 100, 200])
@pytest.mark.parametrize("words", [*TABLES, ["why"], ["provider"]], ids=" ".join)
def test_a_table_fits_any_width(
    home: str,
    words: list[str],
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main(["--data-dir", home, *words]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= columns


@pytest.mark.parametrize(
    ("words", "money"), [(["ps", "-a"], "30,000"), (["wallet", "history"], "-1,000"), (["offer"], "361,000")]
)
def test_no_width_cuts_money(
    home: str,
    words: list[str],
    money: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for columns in range(24, 90, 3):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert cli.main(["--data-dir", home, *words]) == 0
        assert money in capsys.readouterr().out, f"in {columns} columns"


def test_ps_says_how_far_a_job_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    coming = views.lease(phase="provisioning", settled=False, detail="pulling the image 43 %")
    answer = {"ok": control.to_body(control.PsView([coming, views.lease(lease_id="ab" * 32)]))}
    with control_server(tmp_path / "control.sock", lambda verb, args: [answer]):
        assert cli.main(["--data-dir", str(tmp_path), "ps"]) == 0
    lines = [line.strip() for line in capfd.readouterr().out.splitlines() if "43 %" in line]
    assert lines == ["3fa9c100: pulling the image 43 %"]


def on_terminal(words: list[str]) -> str:
    """What a real terminal of 80 columns is sent by `qubix words`, colours left out."""
    ours, theirs = os.openpty()
    env = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    with subprocess.Popen([sys.executable, "-m", "tui.cli", *words], stdout=theirs, env=env) as process:
        os.close(theirs)
        chunks = []
        while chunk := read_terminal(ours):
            chunks.append(chunk)
    os.close(ours)
    assert process.returncode == 0
    return b"".join(chunks).decode()


def read_terminal(fd: int) -> bytes:
    try:
        return os.read(fd, 65_536)
    except OSError:  # how Linux says that the other side is closed
        return b""


def test_logs_go_raw_into_a_pipe(home: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["--data-dir", home, "logs", "3fa9"]) == 0
    assert capfdbinary.readouterr().out == b"one\n" + HOSTILE.encode()


def test_logs_as_json_end_with_a_last_object(home: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--data-dir", home, "logs", "-f", "3fa9", "--json"]) == 0
    *lines, last = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert "".join(line["log"] for line in lines) == "one\n" + HOSTILE
    assert last == {"lease": "3fa9", "bytes": 4 + len(HOSTILE.encode())}


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (["market", "--gpu", "RTX 4090", "--limit", "5"], MarketArgs("RTX 4090", 5)),
        (
            ["market", "vram>=24", "region in (eu, us)"],
            MarketArgs(limit=20, filter="vram>=24 region in (eu, us)"),
        ),
        (
            ["market", "--for", "sd", "--image", "a:1", "--disk", "1TB", "--measure"],
            MarketArgs(limit=10, use_case="sd", image="a:1", disk_mib=1 << 20, measure=True),
        ),
        (
            ["market", "--sort", "price,-score", "cpus>=2"],
            MarketArgs(limit=20, filter="cpus>=2", sort="price,-score"),
        ),
        (["market", "--sort", "-score,price"], MarketArgs(limit=20, sort="-score,price")),
        (["why"], WhyArgs()),
        (["score", "alice"], ScoreArgs("alice")),
        (["deny", "add", "alice"], DenyArgs(add="alice")),
        (["deny", "remove", "alice"], DenyArgs(remove="alice")),
        (["deny", "list"], DenyArgs()),
        (["stake"], StakeArgs()),
        (["stake", "1_000_000", "--id", "x"], StakeArgs("x", 1_000_000)),
        (["stake", "--leave", "--id", "x"], StakeArgs("x", leave=True)),
        (["wallet", "send", "A" * 60, "1,000", "--id", "x"], control_wallet.SendArgs("x", "A" * 60, 1_000)),
        (["wallet", "history", "--limit", "5"], control_wallet.HistoryArgs(5)),
        (["offer"], OfferArgs(None, None)),
        (["offer", "--price", "500_000"], OfferArgs(500_000, None)),
        (["offer", "--withdraw"], OfferArgs(None, True)),
        (["offer", "--restore", "--price", "1"], OfferArgs(1, False)),
        (["ps", "--all"], PsArgs(True)),
        (["logs", "-f", "3fa9"], LogsArgs("3fa9", True)),
        (["stop", "3fa9"], StopArgs("3fa9")),
    ],
)
def test_words_become_arguments(tmp_path: Path, words: list[str], sent: object) -> None:
    with control_server(tmp_path / "control.sock", daemon) as received:
        assert cli.main(["--data-dir", str(tmp_path), *words]) == 0
    assert received == [sent]


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_helps_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main([name, "--help"])
    text = capsys.readouterr().out
    assert exited.value.code == 0
    assert "--json" in text and f"examples:\n  qubix {name}" in text


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_has_something_that_does_it(name: str) -> None:
    assert inspect.iscoroutinefunction(cli.VERBS[name].load())


def test_help_loads_no_verb() -> None:
    """Each would bring the libraries that draw, check and connect."""
    heavy = "asyncio", "rich", "yaml", "msgspec", "textual"
    code = f"import sys, tui.cli; tui.cli.make_parser(''); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", cli.VERBS)
def test_examples_are_valid_commands(name: str) -> None:
    for example in cli.VERBS[name].examples:
        assert cli.parsed(shlex.split(example)[1:]).verb == name


@pytest.mark.parametrize(
    "words",
    [
        ["dance"],
        ["run"],
        ["market", "--limit", "0"],
        ["market", "--limit", "many"],
        ["offer", "--price", "-1"],
        ["offer", "--price", "1.5"],
        ["offer", "--withdraw", "--restore"],
        ["offer", "--withdraw", "--price", "1"],
        ["ps", "--al"],
        ["stop"],
    ],
    ids=" ".join,
)
def test_wrong_words_are_one_line_and_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.endswith("]\n") and err.count("\n") == 1


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: qubix" in capsys.readouterr().err


def test_errors_are_json_where_json_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ps", "--json", "--data-dir", str(tmp_path)]) == 5
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["code"] == "daemon.unreachable" and "`qubix up`" in error["message"]
    assert (err, out.count("\n")) == ("", 1)


def test_a_hostile_error_stays_on_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = {"code": "peer.\x1b[2Jsaid", "message": HOSTILE, "exit_code": 4}
    with control_server(tmp_path / "control.sock", lambda verb, args: [{"error": body}]):
        assert cli.main(["--data-dir", str(tmp_path), "wallet"]) == 4
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.rstrip("\n").isprintable()


def test_the_data_directory_comes_from_flag_then_environment(
    home: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUBIX_DATA_DIR", home)
    assert cli.main(["wallet", "--json"]) == 0
    assert cli.main(["wallet", "--json", "--data-dir", str(tmp_path / "other")]) == 5
    monkeypatch.delenv("QUBIX_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert cli.main(["wallet", "--json"]) == 5
    with control_server(make(tmp_path / "xdg" / "qubix") / "control.sock", daemon):
        assert cli.main(["wallet", "--json"]) == 0


def make(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


@pytest.mark.parametrize(
    "words",
    [
        ["send"],
        ["send", "A" * 60],
        ["send", "A" * 60, "-1"],
        ["send", "A" * 60, "0"],
        ["send", "A" * 60, "9" * 5_000],
        ["history", "x"],
        ["x"],
    ],
)
def test_wallet_words_that_make_no_sense(
    home: str, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--data-dir", home, "wallet", *words]) == 2
    assert capfd.readouterr().err.startswith("error: ")


def test_a_payment_that_failed_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    failed = control_wallet.PaymentView("x", "A" * 60, 1, "failed", "the wallet holds 0 QU", 1, [])
    with control_server(
        tmp_path / "control.sock", lambda verb, args: iter([{"ok": control.to_body(failed)}])
    ):
        words = ["--data-dir", str(tmp_path), "wallet", "send", "A" * 60, "1"]
        assert cli.main(words) == cli.main([*words, "--json"]) == 6
    out, err = capfd.readouterr()
    assert err == "error: the wallet holds 0 QU [wallet.payment_failed]\n"
    assert json.loads(out)["state"] == "failed"


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ({"error": {"code": "wallet.balance_too_low", "message": "too little", "exit_code": 6}}, True),
        ({"error": {"code": "error", "message": "something went wrong", "exit_code": 1}}, False),
        ({"ok": {"payment_id": 5}}, False),
        (b"\0\0\0\1x", False),
        (b"", False),
    ],
)
def test_who_cannot_know_whether_it_was_paid_is_told_how_to_ask_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], answer: Any, known: bool
) -> None:
    with control_server(tmp_path / "control.sock", lambda verb, args: iter([answer])):
        assert cli.main(["--data-dir", str(tmp_path), "wallet", "send", "A" * 60, "1", "--id", "x7"])
    assert ("ask again with --id x7" in " ".join(capfd.readouterr().err.split())) is not known


def test_who_pays_reads_why_it_takes_long(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sent = control_wallet.PaymentView("x", "A" * 60, 1, "sent", "carried out in tick 7", 1, [])

    def replies(verb: str, args: object) -> Iterator[dict[str, object]]:
        for why in ("no Qubic node answers\x1b[2J", ""):
            yield {"event": control.to_body(control_wallet.WaitingEvent(why))}
        yield {"ok": control.to_body(sent)}

    with control_server(tmp_path / "control.sock", replies):
        assert cli.main(["--data-dir", str(tmp_path), "wallet", "send", "A" * 60, "1", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["state"] == "sent"
    assert [line.strip() for line in err.splitlines()] == [
        "Waiting for the chain: no Qubic node answers\\x1b[2J",
        "The chain goes on.",
    ]


def test_a_data_directory_that_cannot_be_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        assert cli.main(["up", "--detach", "--data-dir", str(tmp_path / place)]) == 2
        assert capfd.readouterr().err.endswith("[config.invalid]\n")


@pytest.mark.parametrize(("phase", "said"), [("stopping", "is being stopped"), ("done", "has ended: you")])
def test_stop_says_whether_it_is_over(
    tmp_path: Path, phase: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def answer(verb: str, args: Any) -> Iterator[Reply]:
        event = control.RunEvent(phase, "you stopped it", views.lease(phase=phase))
        yield {"ok": control.to_body(event)}

    with control_server(tmp_path / "control.sock", answer):
        assert cli.main(["stop", "3fa9", "--data-dir", str(tmp_path)]) == 0
    assert said in capfd.readouterr().out


def test_a_mistyped_verb_is_answered_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runn", "job.yaml"]) == UsageError.exit_code
    assert "did you mean `qubix run`?" in capsys.readouterr().err
    assert cli.main(["zzzzzz"]) == UsageError.exit_code
    assert "`qubix --help` shows all" in capsys.readouterr().err
