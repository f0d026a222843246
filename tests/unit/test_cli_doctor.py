"""`qubix doctor` for people and programs: all of it is said, nothing is trusted, the exit code counts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from protocol import control
from protocol.control_doctor import DoctorArgs, DoctorView, Facts, FindingView, Level
from qubixd.doctor_rules import judge, outlook
from tests.support.control_server import Reply, control_server
from tests.support.views import HOSTILE
from tests.unit.test_doctor import at_home, facts
from tui import cli, doctor

RELAY = "12D3KooWRelayRelayRelay"


def view(found: Facts) -> DoctorView:
    return DoctorView(1, "12D3KooWMe", found, judge(found), outlook(found))


def drawn(shown: DoctorView, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    console.print(doctor.screen(shown))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_person_reads_all_of_it(width: int) -> None:
    shown = view(at_home(provider=True, nat="symmetric", peers=0))
    text = drawn(shown, width)
    plain = " ".join(text.split())
    for one in shown.findings:
        assert f"{one.sentence} [{one.code}]" in plain
        assert one.change in plain
    for way in shown.outlook:
        assert f"{way.path or 'none'} {way.whom}: {way.sentence}" in " ".join(plain.split())
    assert "2 things do not work here. 2 things could be better." in plain


def test_where_all_is_well_it_says_so() -> None:
    assert drawn(view(facts()), 80).startswith("All that this node needs works.\n")


def test_no_word_of_others_reaches_the_terminal_as_it_is() -> None:
    hostile = FindingView(HOSTILE, Level.NOTE, HOSTILE, HOSTILE)
    found = facts(outside_ips=[HOSTILE], relays=[HOSTILE], chain_error=HOSTILE)
    text = drawn(DoctorView(1, HOSTILE, found, [hostile], []), 80)
    assert not set(text) & set("\x1b\x07\u202e\x9b")


@pytest.mark.parametrize(("found", "code"), [(facts(), 0), (at_home(), 0), (facts(peers=0), 5)])
def test_the_exit_code_is_that_of_the_worst(
    found: Facts, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def replies(verb: str, args: Any) -> list[Reply]:
        return [{"ok": control.to_body(view(found))}]

    with control_server(tmp_path / "control.sock", replies) as received:
        assert cli.main(["--data-dir", str(tmp_path), "doctor", "--json"]) == code
    assert received == [DoctorArgs()]
    answer = json.loads(capsys.readouterr().out)
    assert [one["code"] for one in answer["findings"]] == [one.code for one in judge(found)]
    assert answer["facts"]["reachable"] is found.reachable
