"""`qubix metrics`: a table for a person, a line a sample for a pipe, JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol import control
from protocol.control_meters import (
    GpuSampleView,
    GpuSpanView,
    LevelView,
    MetricsView,
    SampleView,
    SpanView,
)
from tests.support import views
from tests.support.control_server import Reply, control_server
from tui import cli
from tui.metrics import SPARK_CHARS

GPU = GpuSampleView("ab12cd34ef56", use_permille=574, memory_mib=12_288, temperature_c=62, power_mw=210_400)
MUTE = GpuSampleView("0123456789ab", use_permille=None, memory_mib=10, temperature_c=None, power_mw=None)


def sample(second: int, **changes: Any) -> SampleView:
    usual = SampleView(
        at_ms=1_800_000_000_000 + 1_000 * second,
        cpu_millis=500,
        memory_mib=96,
        disk_mib=3,
        received_bytes=1_000 * second,
        sent_bytes=20,
        gpus=[GPU, MUTE],
    )
    return replace(usual, **changes)


UNKNOWN = LevelView(None, None)
SPAN = SpanView(
    start_ms=1_800_000_000_000,
    span_s=60,
    samples=60,
    cpu_millis=LevelView(480.0, 990),
    memory_mib=LevelView(90.4, 96),
    disk_mib=LevelView(3.0, 3),
    received_bytes=2_500_000,
    sent_bytes=20,
    gpus=[GpuSpanView("ab12cd34ef56", LevelView(512.0, 990), LevelView(12_000.0, 12_288), UNKNOWN, UNKNOWN)],
)
VIEW = MetricsView(
    lease_id=views.LEASE_ID,
    role="caller",
    phase="running",
    cpu_rented_millis=2_000,
    memory_rented_mib=1_024,
    disk_rented_mib=10_240,
    samples=[sample(n) for n in range(600)],
    history=[],
)


def shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], view: MetricsView, *words: str, events: int = 0
) -> tuple[str, list[Any]]:
    """What is printed, and what the daemon was asked."""

    def answer(verb: str, args: Any) -> Iterator[Reply]:
        assert verb == "metrics"
        if args.follow:
            for n in range(events):
                yield {"event": control.to_body(sample(600 + n))}
        yield {"ok": control.to_body(view)}

    with control_server(tmp_path / "control.sock", answer) as asked:
        assert cli.main(["metrics", "3fa9", *words, "--data-dir", str(tmp_path)]) == 0
    return capfd.readouterr().out, asked


def test_what_it_uses_now_beside_what_is_rented(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text, asked = shown(tmp_path, capfd, VIEW)
    assert (asked[0].lease, asked[0].follow, asked[0].since_s) == ("3fa9", False, 0)
    lines = {line.strip().split("  ")[0]: line for line in text.splitlines()}
    assert "0.50 cores" in lines["cpu"] and "2 cores" in lines["cpu"] and "▃" * SPARK_CHARS in lines["cpu"]
    assert "96 MB" in lines["memory"] and "1.0 GB" in lines["memory"]
    assert "599.0 kB" in lines["received"] and "20 B" in lines["sent"]
    assert "57 %, 12 GB, 62 °C, 210 W" in lines["gpu ab12cd"]
    assert "-, 10 MB" in lines["gpu 012345"]


def test_the_history(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text, asked = shown(tmp_path, capfd, replace(VIEW, samples=[], history=[SPAN, SPAN]), "--since", "2h")
    assert asked[0].since_s == 7_200
    assert text.count("0.48/0.99") == 2 and "90/96 MB" in text and "2.5 MB" in text
    assert "51/99 %, 12000/12288 MB, - °C, - W" in " ".join(text.split())


@pytest.mark.parametrize("changes, said", [
    ({"samples": [], "phase": "done"}, "Nothing is known of what lease 3fa9c100 uses; it is done."),
    ({"trouble": views.HOSTILE}, "The provider could not be asked: \\x1b]0;owned"),
])  # fmt: skip
def test_when_there_is_nothing_to_show(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    text, _ = shown(tmp_path, capfd, replace(VIEW, **changes))
    assert said in " ".join(text.split()) and "\x1b" not in text


def test_followed_into_a_pipe_it_is_a_line_a_sample(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text, asked = shown(tmp_path, capfd, VIEW, "--follow", events=3)
    assert asked[-1].follow
    lines = text.splitlines()
    assert len(lines) == 3
    pairs = dict(pair.split("=") for pair in lines[-1].split(" "))
    assert (pairs["at"], pairs["cpu_millis"], pairs["received_bytes"]) == ("1800000602000", "500", "602000")
    assert pairs["gpu_ab12cd34ef56_use_permille"] == "574"
    assert pairs["gpu_0123456789ab_power_mw"] == "-"


def test_in_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text, _ = shown(tmp_path, capfd, VIEW, "--json")
    assert json.loads(text) == control.to_body(VIEW)
    text, _ = shown(tmp_path, capfd, VIEW, "--json", "-f", events=2)
    first, second, last = [json.loads(line) for line in text.splitlines()]
    assert (first["sample"], second["sample"]["at_ms"]) == (control.to_body(sample(600)), 1_800_000_601_000)
    assert last == control.to_body(VIEW)


def test_followed_on_a_terminal_the_table_lives(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    text, _ = shown(tmp_path, capfd, replace(VIEW, history=[SPAN]), "--follow", "--since", "1m", events=3)
    assert "602.0 kB" in text and "0.48/0.99" in text


@pytest.mark.parametrize("text", ["", "0", "1w", "-5m", "2h30m", "367d", "9999999999"])
def test_times_that_are_none(tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str) -> None:
    assert cli.main(["metrics", "3fa9", f"--since={text}", "--data-dir", str(tmp_path)]) == 2
    assert "is no time such as 30m" in capfd.readouterr().err
