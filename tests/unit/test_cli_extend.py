"""`qubix extend` and the method of the package, against a canned daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import qubix
from protocol import control
from protocol.control_extend import ExtendArgs, ExtendView
from protocol.control_wallet import WaitingEvent
from protocol.errors import QuoteDeclined, UsageError
from tests.support import views
from tests.support.control_server import Reply, control_server
from tui import cli, consent
from tui.argument import span

HOSTILE = "a\x1b[2Jb"
LEASE = views.lease(phase="running", settled=False, ended_at_ms=0, max_seconds=10_800, name=HOSTILE)
CHECKED = ExtendView(
    state="checked",
    lease=LEASE,
    seconds=7_200,
    cost_qu=720_000,
    max_seconds=10_800,
    ends_at_ms=1_700_000_000_000,
    deposit=1_080_000,
    locks_qu=720_000,
    balance=5_000_000,
    max_loss_qu=2_700,
    closes_at_ms=1_700_010_000_000,
)


class Daemon:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[ExtendArgs] = []

    def __call__(self, verb: str, args: Any) -> Iterator[Reply]:
        self.asked.append(args)
        if not args.check:
            yield {"event": control.to_body(WaitingEvent("the node is behind"))}
        view = CHECKED if args.check else replace(CHECKED, state="extended")
        yield {"ok": control.to_body(view)}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    canned = Daemon()
    with control_server(tmp_path / "control.sock", canned):
        yield canned


def run(home: Path, *words: str) -> int:
    return cli.main(["--data-dir", str(home), "extend", "3fa9", "--hours", "2", *words])


def test_a_program_says_what_it_may_cost_and_adds_it_once(
    daemon: Daemon, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--max-cost", "800_000", "--id", "evening", "--json") == 0
    assert daemon.asked == [ExtendArgs("3fa9", 7_200, "evening", 800_000)]
    out, err = capfd.readouterr()
    assert json.loads(out)["state"] == "extended"
    assert "the node is behind" in err


def test_a_look_pays_nothing(daemon: Daemon, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--check") == 0
    assert [one.check for one in daemon.asked] == [True]
    out, _ = capfd.readouterr()
    for said in (
        "720,000 QU",
        "3h00m",
        "1,080,000 QU",
        "at most 2,700 QU",
        "no time goes beyond",
        "5,000,000",
    ):
        assert said in out
    assert "\x1b" not in out and "added" not in out


@pytest.mark.parametrize("yes", [True, False])
def test_a_person_sees_the_price_and_is_asked(
    daemon: Daemon, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any, yes: bool
) -> None:
    async def answer(question: str) -> bool:
        assert "720,000 QU" in capfd.readouterr().err
        return yes

    monkeypatch.setattr(consent, "can_ask", lambda: True)
    monkeypatch.setattr(consent, "answer", answer)
    assert run(tmp_path) == (0 if yes else QuoteDeclined.exit_code)
    first, *rest = daemon.asked
    assert first.check
    assert rest == ([replace(first, check=False, max_cost_qu=720_000)] if yes else [])
    assert ("added" in capfd.readouterr().out) == yes


def test_without_being_asked_a_person_says_yes(daemon: Daemon, tmp_path: Path) -> None:
    assert run(tmp_path, "--yes") == 0
    assert [one.check for one in daemon.asked] == [False]


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 7_200), ("90m", 5_400), ("1h30m", 5_400), ("0.5", 1_800)]
)
def test_times(text: str, seconds: int) -> None:
    assert span(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "abc", "9000h", "1h-"])
def test_what_is_no_time_is_a_usage_error(tmp_path: Path, text: str) -> None:
    assert (
        cli.main(["--data-dir", str(tmp_path), "extend", "3fa9", f"--hours={text}"]) == UsageError.exit_code
    )


async def test_the_package_adds_time_too(daemon: Daemon, tmp_path: Path) -> None:
    async with qubix.connect(tmp_path) as node:
        view = await node.extend("3fa9", 7_200, order="evening", max_cost_qu=800_000)
        assert view.state == "extended"
        assert (await node.extend("3fa9", 60, check=True)).state == "checked"
    assert daemon.asked[0] == ExtendArgs("3fa9", 7_200, "evening", 800_000)
    assert daemon.asked[1].order and daemon.asked[1].order != "evening"
