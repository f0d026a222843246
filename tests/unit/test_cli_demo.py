"""The demo's own judgement: sums that are right, every way in which one can be wrong, and who has died."""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from protocol import jobspec
from protocol.errors import DaemonUnreachable, PortBusy
from tui import demo_job
from tui.demo import _while_alive
from tui.demo_screen import Money
from tui.processes import Child

RIGHT = Money(
    deposit=30_000,
    paid=910,
    provider_received=865,
    fee=45,
    refunded=29_090,
    caller=(1_000_000, 999_090),
    provider=(10_000, 10_865),
    seconds=9,
    vouchers=9,
    caller_risk=300,
    provider_risk=500,
)


def test_right_sums_are_accepted() -> None:
    assert list(RIGHT.mistakes()) == []


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (replace(RIGHT, fee=46, provider_received=864, provider=(0, 864)), "fee"),
        (replace(RIGHT, provider_received=866, provider=(0, 866)), "provider received"),
        (replace(RIGHT, refunded=29_091), "deposit"),
        (replace(RIGHT, caller=(1_000_000, 999_091)), "caller's wallet"),
        (replace(RIGHT, provider=(10_000, 10_000)), "provider's wallet"),
    ],
)
def test_each_wrong_sum_is_named(wrong: Money, word: str) -> None:
    [sentence] = wrong.mistakes()
    assert word in sentence


def test_nothing_paid_is_a_mistake() -> None:
    nothing = Money(30_000, 0, 0, 0, 30_000, (5, 5), (5, 5), 0, 0, 300, 500)
    assert list(nothing.mistakes()) == ["nothing was paid"]


def test_the_job_file_is_valid_and_the_data_always_the_same(tmp_path: Path) -> None:
    job = jobspec.parse(demo_job.job_file("qubix-demo:abc"))
    assert (job.image, job.outputs, job.max_seconds) == ("qubix-demo:abc", (demo_job.RESULT_NAME,), 300)
    demo_job.write_data(tmp_path / "one")
    demo_job.write_data(tmp_path / "two")
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes() and len(data) > 4_000_000
    lines = demo_job.expected_result(tmp_path / "one").decode().splitlines()
    assert lines[0] == demo_job.RESULT_HEADER and len(lines) == 1 + demo_job.CARDS


def test_the_second_computation_on_a_file_small_enough_to_check_by_hand(tmp_path: Path) -> None:
    rows = ["header", "b,0,30,80001", "b,1,10,80000", "b,2,20,90000", "a,0,7,1", "b,3,41,0"]
    (tmp_path / "data").write_text("\n".join(rows) + "\n")
    assert demo_job.expected_result(tmp_path / "data").decode().splitlines() == [
        demo_job.RESULT_HEADER,
        "a,1,7,7,7,7,7,0",
        "b,4,10,20,41,41,25,2",
    ]


def test_a_daemon_that_dies_is_blamed_rather_than_its_broken_connection(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("error: port 5 is taken [net.port_busy]\n")
    with subprocess.Popen(["/bin/sh", "-c", "read line; exit 5"], stdin=subprocess.PIPE) as process:

        async def talk() -> None:
            assert process.stdin is not None
            process.stdin.close()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has looked
            raise DaemonUnreachable("the connection broke")

        with pytest.raises(PortBusy, match="port 5"):
            asyncio.run(_while_alive([Child("helper", process, log, {})], talk()))
