"""`qubix forward`: ports as they are written, what is told of them, and how tunnels look in `ps`."""

from __future__ import annotations

import asyncio
import io
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from protocol import control
from protocol.control_tunnels import ForwardArgs, ForwardEnd, ForwardEvent, ForwardPort, PathView
from protocol.errors import JobNotRunning, UsageError
from tests.support.control_server import control_server
from tests.support.values import sample
from tui import show
from tui.forward import forward, read_port


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("8888", ForwardPort(8888, 8888)),
        ("9999:8888", ForwardPort(9999, 8888)),
        ("0:8888/tcp", ForwardPort(0, 8888)),
        ("53/udp", ForwardPort(53, 53, "udp")),
        ("5353:53/udp", ForwardPort(5353, 53, "udp")),
    ],
)
def test_ports_as_they_are_written(text: str, port: ForwardPort) -> None:
    assert read_port(text) == port


@pytest.mark.parametrize("text", ["", "x", "0", "1:0", "65536", "70000:80", "80/sctp", "1:2:3", "-1", "٣"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(UsageError):
        read_port(text)


def answered(*events: ForwardEvent) -> Iterable[dict[str, Any]]:
    yield from ({"event": control.to_body(event)} for event in events)
    yield {"ok": control.to_body(ForwardEnd("the job has ended: \x1b[2Jdone"))}


def run(tmp_path: Path, *events: ForwardEvent) -> list[Any]:
    with control_server(tmp_path / "control.sock", lambda *_: answered(*events)) as asked:
        options = Namespace(data_dir=str(tmp_path), lease="3fa9", ports=["0:80"], json=False)
        assert asyncio.run(forward(options)) == JobNotRunning.exit_code
    return asked


def test_what_happens_is_told_and_the_same_trouble_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = ForwardPort(4711, 80)
    refused = ForwardEvent(
        "refused", [port], code="tunnel.port_closed", sentence="nobody \x1b]0;is\x07 there"
    )
    path = PathView("relayed", rtt_ms=41.7)
    asked = run(
        tmp_path,
        ForwardEvent("listening", [port, ForwardPort(53, 53, "udp")]),
        ForwardEvent("path", [], path=path),
        ForwardEvent("path", [], path=replace(path, received_per_second=5)),
        refused,
        refused,
        ForwardEvent("path", [], path=replace(path, waiting=True)),
    )
    assert asked == [ForwardArgs("3fa9", [ForwardPort(0, 80)])]
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "127.0.0.1:4711 leads to port 80 of the job",
        "127.0.0.1:53/udp leads to port 53 of the job",
    ]
    assert told.err.splitlines() == [
        "through a relay, 42 ms",
        r"port 80: nobody \x1b]0;is\x07 there [tunnel.port_closed]",
        "the path is lost, waiting for another",
        r"The ports are closed: the job has ended: \x1b[2Jdone.",
    ]


def test_ports_of_a_frozen_job_say_why_nothing_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, ForwardEvent("listening", [ForwardPort(4711, 80)], sentence="The job is frozen."))
    assert capsys.readouterr().err.splitlines()[0] == "The job is frozen."


def test_ps_tells_of_tunnels_below_its_table() -> None:
    lease = replace(sample(control.LeaseView), phase="running", frozen=False, differences=[])
    path = PathView("punched", rtt_ms=8.25, sent_per_second=1_500, received_per_second=12_300_000)
    shown = io.StringIO()
    for one in (path, replace(path, waiting=True), None):
        Console(file=shown, width=200).print(show.leases_screen([replace(lease, path=one)]))
    said = shown.getvalue()
    assert ": tunnels: directly, through both routers, 8.2 ms, ↓ 12.3 MB/s, ↑ 1.5 kB/s" in said
    assert ": tunnels: the path is lost, waiting for another, " in said
    assert said.count("tunnels:") == 2


def test_leases_with_the_same_node_share_a_way() -> None:
    lease = replace(sample(control.LeaseView), phase="running", frozen=False, differences=[])
    path = PathView("direct", rtt_ms=1)
    names = ("aaaaaaaa" * 8, "bbbbbbbb" * 8)
    both = [replace(lease, lease_id=name, peer_id="P", path=path) for name in names]
    shown = io.StringIO()
    Console(file=shown, width=200).print(
        show.leases_screen([*both, replace(lease, lease_id="c" * 64, peer_id="Q", path=path)])
    )
    notes = [line.strip() for line in shown.getvalue().splitlines() if "tunnels:" in line]
    assert notes == ["aaaaaaaa, bbbbbbbb: tunnels: directly, 1.0 ms", "cccccccc: tunnels: directly, 1.0 ms"]
