"""What only the process runner has: a supervisor that can die, limits of the system, a log of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trio

from protocol.errors import StartFailed
from protocol.units import LeaseId
from qubixd.runner import ExitReason, JobState
from qubixd.runner.process import ProcessRunner
from qubixd.runner.process_supervisor import LOG_BYTES_MAX, LOG_CUT_NOTE
from tests.support.runners import LIMIT_SECONDS, MIB, Bench, until_gone


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench.make(lambda: ProcessRunner(tmp_path / "state"), "none", tmp_path / "workspace")
    yield made
    await made.remove_all()


def record(bench: Bench, lease_id: LeaseId) -> dict[str, int]:
    found: dict[str, int] = json.loads(
        (bench.workspace.parent / "state/process" / lease_id.hex() / "started.1").read_text()
    )
    return found


async def test_job_whose_supervisor_died_is_lost_and_ended(bench: Bench) -> None:
    spec = bench.spec("echo ready; sleep 600")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "ready")
    pids = record(bench, spec.lease_id)
    os.kill(pids["supervisor_pid"], signal.SIGKILL)
    with trio.fail_after(LIMIT_SECONDS):
        ended = await bench.runner.wait(spec.lease_id)
    await until_gone(pids["pid"])
    assert ended.reason is ExitReason.LOST
    bench.reopen()
    assert await bench.runner.wait(spec.lease_id) == ended


async def test_process_with_a_reused_id_is_left_alone(bench: Bench) -> None:
    """The record names a process that began at another time: this test's own."""
    spec = bench.spec("sleep 600")
    await bench.begin(spec)
    path = bench.workspace.parent / "state/process" / spec.lease_id.hex() / "started.1"
    real = path.read_text()
    path.write_text(json.dumps(json.loads(real) | {"pid": os.getpid(), "started_at": 1_000}))
    await bench.runner.pause(spec.lease_id)  # would stop this very process
    path.write_text(real)
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.stop(spec.lease_id, grace_seconds=5)


async def test_what_the_script_leaves_behind_ends_with_it(bench: Bench) -> None:
    ended, said = await bench.run("sleep 600 & echo $!")
    assert ended.code == 0
    await until_gone(int(said))


async def test_secrets_are_in_no_argument_nor_file(bench: Bench) -> None:
    secret = "kept-from-every-record-5512"
    spec = bench.spec("echo ready; sleep 600")
    await bench.begin(spec, {"TOKEN": secret})
    await bench.until_said(spec.lease_id, "ready")
    supervisor = psutil.Process(record(bench, spec.lease_id)["supervisor_pid"])
    family = [supervisor, *supervisor.children(recursive=True)]
    assert len(family) >= 2
    assert not any(secret in argument for process in family for argument in process.cmdline())
    assert secret not in str(supervisor.environ())
    state = bench.workspace.parent / "state"
    assert not [path for path in state.rglob("*") if path.is_file() and secret in path.read_text()]


async def test_memory_and_file_limits_are_the_system_s(bench: Bench) -> None:
    _, said = await bench.run("ulimit -d; ulimit -f; ulimit -c", memory_bytes=64 * MIB, disk_bytes=3 * MIB)
    assert said.split() == [str(64 * 1024), str(4 * MIB // 512), "0"]


async def test_log_is_capped_and_says_so(bench: Bench) -> None:
    ended, said = await bench.run(f"head -c {LOG_BYTES_MAX + 5 * MIB} /dev/zero | tr '\\0' x; echo end")
    assert ended.code == 0
    assert said == "x" * LOG_BYTES_MAX + LOG_CUT_NOTE.decode()


async def test_a_process_that_goes_while_it_is_looked_at_is_not_paused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench.spec("echo ready; sleep 600")
    await bench.begin(spec)
    with subprocess.Popen(["/bin/sh", "-c", "exit 0"]) as child:
        gone = psutil.Process(child.pid)
    monkeypatch.setattr("qubixd.runner.process._job_process", lambda begun: gone)
    assert (await bench.runner.status(spec.lease_id)).state is JobState.RUNNING
    monkeypatch.undo()


async def test_an_end_that_cannot_be_written_down_yet_is_not_lost(bench: Bench) -> None:
    spec = bench.spec("echo ready; until [ -e go ]; do sleep 0.05; done; exit 7")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "ready")
    pids = record(bench, spec.lease_id)
    in_the_way = bench.workspace.parent / "state/process" / spec.lease_id.hex() / "exit.part"
    in_the_way.mkdir()
    (bench.workspace / "go").touch()
    await until_gone(pids["pid"])
    assert (await bench.runner.status(spec.lease_id)).state is JobState.RUNNING
    in_the_way.rmdir()
    with trio.fail_after(LIMIT_SECONDS):
        assert (await bench.runner.wait(spec.lease_id)).code == 7


async def test_a_start_that_cannot_be_written_down_leaves_no_process(bench: Bench) -> None:
    spec = bench.spec("echo $$ > pid; sleep 600")
    in_the_way = bench.workspace.parent / "state/process" / spec.lease_id.hex() / "started.part"
    in_the_way.mkdir(parents=True)
    with pytest.raises(StartFailed, match=r"started\.part"):
        await bench.begin(spec)
    with trio.fail_after(LIMIT_SECONDS):
        while any(_works_in(process, bench.workspace) for process in psutil.process_iter()):
            await trio.sleep(0.02)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder)
    return False


async def test_a_pause_in_the_moment_in_which_a_program_begins_is_one(bench: Bench) -> None:
    spec = bench.spec("echo ready; while :; do /bin/true; done")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "ready")
    for _ in range(60):  # one of twenty hits a shell that waits for its program's first step
        await bench.runner.pause(spec.lease_id)
        with trio.fail_after(LIMIT_SECONDS):
            while (await bench.runner.status(spec.lease_id)).state is not JobState.PAUSED:
                await trio.sleep(0.002)
        await bench.runner.resume(spec.lease_id)
