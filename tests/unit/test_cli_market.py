"""`qubix market`, `score`, `deny` in words: what is said when there is nothing, or something wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import control, control_market
from protocol.errors import QueryInvalid
from tests.support import views
from tests.support.control_server import Reply, control_server
from tui import cli, run

EMPTY = [
    (["market"], {}, "and no peers they could come from"),
    (["market"], {"peers": 2}, "No offers here yet"),
    (
        ["market", "--gpu", "H100", "region=eu"],
        {"peers": 2, "known": 7},
        "known here (7) fits --gpu H100",
    ),
    (
        ["market", "--for", "sdxl"],
        {"known": 7, "use_case": views.USE_CASE},
        "room for Stable Diffusion: it needs",
    ),
]


def answering(reply: Reply) -> Any:
    def answer(verb: str, args: Any) -> Iterator[Reply]:
        yield reply

    return answer


@pytest.mark.parametrize(("words", "known", "said"), EMPTY)
def test_an_empty_market_says_why_and_what_to_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], known: dict[str, Any], said: str
) -> None:
    empty = control.to_body(control_market.MarketView([], **known))
    with control_server(tmp_path / "control.sock", answering({"ok": empty})):
        assert cli.main([*words, "--data-dir", str(tmp_path)]) == 0
        shown = capfd.readouterr().out
        assert said in shown and "`qubix" in shown


@pytest.mark.parametrize(
    ("words", "view", "said"),
    [
        (["market"], views.MARKET, "for as many GPUs as it takes"),
        (["market"], dataclasses.replace(views.MARKET, use_case=None), "for one GPU, or a machine without"),
        (["directories"], control_market.DirectoriesView([]), "offers come by gossip"),
        (["directories"], control_market.DirectoriesView([], ["12D3KooWa"]), "heartbeats go to 12D3KooWa"),
        (["directories"], control_market.DirectoriesView([], serving=1_200), "This node is a directory"),
    ],
)
def test_a_screen_says(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], view: Any, said: str
) -> None:
    with control_server(tmp_path / "control.sock", answering({"ok": control.to_body(view)})):
        assert cli.main([*words, "--data-dir", str(tmp_path)]) == 0
        assert said in " ".join(capfd.readouterr().out.split())


def test_a_mistake_in_a_filter_is_pointed_at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    error = QueryInvalid("no field is called 'vrom'; did you mean vram?", "vrom>=24", 0)
    body = {"code": error.code, "message": str(error), "exit_code": error.exit_code}
    with control_server(tmp_path / "control.sock", answering({"error": body})):
        assert cli.main(["market", "vrom>=24", "--data-dir", str(tmp_path)]) == 2
    assert capfd.readouterr().err == (
        "error: no field is called 'vrom'; did you mean vram? [query.invalid]\n  vrom>=24\n  ^\n"
    )


def test_a_score_is_exported_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "alice.json"
    words = ["score", "alice", "--export", str(path), "--data-dir", str(tmp_path)]
    with control_server(tmp_path / "control.sock", answering({"ok": control.to_body(views.SCORE)})):
        assert cli.main(words) == 0
        assert path.read_text() == views.SCORE.evidence and path.stat().st_mode & 0o777 == 0o600
        assert "alice.json" in capfd.readouterr().out
        assert cli.main(words) == 2
        assert "is there already" in capfd.readouterr().err


def test_evidence_that_is_none_is_an_error_without_a_daemon(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "alice.json"
    path.write_text("{}")
    for words in ([], ["--json"]):
        assert cli.main(["score", "--evidence", str(path), *words]) == 2
        assert "error" in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "words",
    [
        ["score"],
        ["score", "a", "--evidence", "b"],
        ["deny", "list", "a"],
        ["deny", "add"],
        ["market", "--limit", "0"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_asked(tmp_path: Path, words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--data-dir", str(tmp_path)]) == 2
    assert "error: " in capfd.readouterr().err


def test_why_takes_a_job_file_and_conditions(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("resources: {image: a}\nrun: x\n")
    words = ["why", str(path), "--ask", "--region", "eu", "--provider", "alice", "--data-dir", str(tmp_path)]
    answer = answering({"ok": control.to_body(views.WHY)})
    with control_server(tmp_path / "control.sock", answer) as received:
        assert cli.main(words) == 0
    assert received == [control_market.WhyArgs(path.read_text(), True, "region='eu'", "alice")]
    assert "raise max_price to 12,500: 3 providers" in capfd.readouterr().out


def test_flags_of_run_are_conditions() -> None:
    flags = "--region EU --min-score 0.5 --min-reliability 95% --max-rtt 50ms --filter cpus>=8"
    options = cli.make_parser().parse_args(["run", "j.yaml", *flags.split()])
    assert run.conditions(options) == "cpus>=8 region='EU' score>='0.5' reliability>='95%' rtt<='50ms'"
    options.max_rtt = "soon"
    with pytest.raises(QueryInvalid, match="rtt is a number"):
        run.conditions(options)
