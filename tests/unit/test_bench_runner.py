"""The bench runner: standard output is JSON lines and nothing else."""

from __future__ import annotations

import json

import pytest

from tests.bench import __main__ as runner


def broken() -> dict[str, object]:
    raise OSError("no engine")


BENCHES: dict[str, runner.Bench] = {
    "wire.a": lambda: {"value": 1.5, "unit": "ratio", "reference": "TCP"},
    "wire.b": broken,
    "job.c": lambda: {"value": 2, "unit": "ratio", "reference": "docker run"},
}


@pytest.fixture(autouse=True)
def benches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "collect", lambda: BENCHES)


def test_each_figure_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["job"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"bench": "job.c", "value": 2, "unit": "ratio", "reference": "docker run"}


def test_one_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main([]) == 1
    captured = capsys.readouterr()
    assert [json.loads(line)["bench"] for line in captured.out.splitlines()] == ["wire.a", "job.c"]
    assert "no engine" in captured.err


def test_an_unknown_prefix_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["tunnel"]) == 2
    assert "tunnel" in capsys.readouterr().err
