"""`qubix relay`: what is shown of relays; a rent says price and greatest loss before it is signed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import control
from protocol.control import QuoteView, RunEvent
from protocol.control_relay import OwnRelayView, RelayArgs, RelaysView, RentRelayArgs, UsedRelayView
from tests.support import views
from tests.support.control_server import Reply, control_server
from tests.support.views import HOSTILE, LEASE_ID
from tui import cli

PEER = "12D3KooWAbcdEfgh"
MIB = 1 << 20
USED = UsedRelayView(
    PEER,
    ["/ip4/192.0.2.1/tcp/4001"],
    True,
    free_bytes=512 * MIB,
    gone_bytes=100 * MIB,
    bytes_per_second=2 * MIB,
    price_qu_per_hour=3_600,
)
QUOTE = QuoteView(
    token="t",
    provider=f"the relay {PEER}",
    price_qu_per_hour=3_600,
    max_seconds=7_200,
    interval_seconds=5,
    deposit=7_200,
    max_loss_qu=27,
    max_loss_intervals=5.4,
    machine_qu_per_hour=3_600,
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUBIX_DATA_DIR", str(tmp_path))
    return tmp_path / "control.sock"


def saying(*replies: Any) -> Callable[[str, Any], Iterator[Reply]]:
    def answer(verb: str, args: Any) -> Iterator[Reply]:
        yield from replies

    return answer


def shown(view: RelaysView, place: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with control_server(place, saying({"ok": control.to_body(view)})) as asked:
        assert cli.main(["relay", *words]) == 0
    assert asked == [RelayArgs(*words)]
    return capsys.readouterr().out


def test_a_relay_in_use_and_what_of_its_gift_is_gone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(RelaysView([USED]), place, capsys)
    assert PEER in said and "this node is reached through it" in said
    assert "100 of 512 MiB are gone today, 2 MiB/s at most" in said
    assert "3,600 QU an hour, without limits" in said


def test_one_that_is_rented_and_one_that_does_not_answer(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rented = UsedRelayView("12D3KooWrented", [], False, rented=LEASE_ID)
    silent = UsedRelayView("12D3KooWsilent", [], True, sentence=f"no answer {HOSTILE}")
    said = shown(RelaysView([rented, silent]), place, capsys, PEER)
    assert "lease 3fa9c1" in said and "it is not for rent" in said
    assert "no answer" in said and "\x1b" not in said


def test_a_node_that_relays_itself(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(RelaysView([], OwnRelayView(3, 2, 1, 3_600)), place, capsys)
    assert "3; connections now: 2" in said and "3,600 QU an hour; rented by 1 now" in said


def test_a_node_without_relays_is_told_how(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--use-relay ADDRESS" in shown(RelaysView(), place, capsys)


def test_price_and_greatest_loss_are_said_before_the_lease(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quoted = control.to_body(RunEvent("quoted", "", None, QUOTE))
    runs = views.event(views.lease(phase="running", reason="", settled=False, exit_code=None))
    with control_server(place, saying({"event": quoted}, {"ok": runs})) as asked:
        assert cli.main(["relay", "rent", PEER, "--hours", "2", "--max-price", "5_000"]) == 0
    assert asked == [RentRelayArgs(PEER, 7_200, 5_000, ask=False)]
    out, err = capsys.readouterr()
    assert "asks 3,600 QU per hour" in err and "You can lose at most 27 QU" in err
    assert "The relay is yours for 2h00m at most: lease 3fa9c1" in out


def test_a_rent_that_fails_is_an_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = views.event(views.lease(phase="failed", reason="net.peer_unreachable", sentence="it is silent"))
    with control_server(place, saying({"ok": failed})):
        assert cli.main(["relay", "rent", "--json"]) == 8
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["code"] == "net.peer_unreachable"


@pytest.mark.parametrize("words", [["rent", "--hours", "0"], ["rent", "--hours", "1000"], ["look", PEER]])
def test_what_cannot_be_asked(place: Path, words: list[str]) -> None:
    assert cli.main(["relay", *words]) == 2
