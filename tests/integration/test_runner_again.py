"""Restarts of a job, on the real Docker engine and on real processes alike: once each, in one workspace."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from protocol.errors import JobMissing, StartFailed
from protocol.units import LeaseId
from qubixd.runner import ExitReason, JobState
from qubixd.runner.docker import DockerRunner
from qubixd.runner.process import ProcessRunner
from tests.support.runners import LIMIT_SECONDS, Bench, both_runners

LOOP = 'echo "$S" >> runs; echo "begun $S"; until [ -e go ]; do sleep 0.05; done; rm go; exit 3'
NONCE = b"12345678"
COUNT = "echo x >> begun; echo begun $(wc -l < begun); "


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with both_runners(request, tmp_path) as made:
        yield made


async def die_in_a_restart(bench: Bench, lease_id: LeaseId) -> None:
    """Leave what a daemon leaves that ended the old run, and died before it began the next."""
    runner = bench.runner
    assert isinstance(runner, DockerRunner | ProcessRunner)
    dead = trio.Event()

    async def die(lease_id: LeaseId, begin: object) -> None:
        dead.set()
        await trio.sleep_forever()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner._restarts, "begin_anew", die)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.restart, lease_id, {"S": "two"}, 0, NONCE)
            await dead.wait()
            nursery.cancel_scope.cancel()


def runs(bench: Bench) -> str:
    return (bench.workspace / "runs").read_text()


async def test_a_running_job_begins_anew_in_its_workspace_and_wait_goes_on(bench: Bench) -> None:
    spec = bench.spec(LOOP)
    first = await bench.begin(spec, {"S": "one"})
    await bench.until_said(spec.lease_id, "begun")
    ends = []

    async def wait() -> None:
        ends.append(await bench.runner.wait(spec.lease_id))

    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            again = await bench.runner.restart(spec.lease_id, {"S": "two"}, 0.3, NONCE)
            await bench.until_said(spec.lease_id, "begun two")
            assert not ends
            (bench.workspace / "go").touch()
    assert runs(bench) == "one\ntwo\n"
    [ended] = ends
    assert (ended.code, ended.reason, ended.started_at) == (3, ExitReason.EXITED, again)
    assert ended.finished_at >= again > first
    assert (await bench.runner.status(spec.lease_id)).released_at == first


async def test_a_restart_gives_the_job_its_grace(bench: Bench) -> None:
    spec = bench.spec("trap 'echo saved >> saved; exit 0' TERM; " + COUNT + "while :; do sleep 0.05; done")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "begun")
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.restart(spec.lease_id, {}, LIMIT_SECONDS, NONCE)
        await bench.until_said(spec.lease_id, "begun 2")
    assert (bench.workspace / "saved").read_text() == "saved\n"


async def test_a_restart_happens_once_for_its_nonce_also_by_the_next_daemon(bench: Bench) -> None:
    spec = bench.spec(LOOP)
    await bench.begin(spec, {"S": "one"})
    with trio.fail_after(LIMIT_SECONDS):
        again = await bench.runner.restart(spec.lease_id, {"S": "two"}, 0, NONCE)
        assert await bench.runner.restart(spec.lease_id, {"S": "three"}, 0, NONCE) == again
        bench.reopen()
        assert await bench.runner.restart(spec.lease_id, {"S": "three"}, 0, NONCE) == again
        other = await bench.runner.restart(spec.lease_id, {"S": "four"}, 0, b"another")
        assert await bench.runner.restart(spec.lease_id, {"S": "five"}, 0, NONCE) == other
        await bench.until_said(spec.lease_id, "begun")
        (bench.workspace / "go").touch()
        assert (await bench.runner.wait(spec.lease_id)).started_at == other
    assert runs(bench).splitlines()[-1] == "four"
    assert {"three", "five"}.isdisjoint(runs(bench).split())


async def test_a_job_that_has_ended_begins_anew_and_its_old_reason_is_forgotten(bench: Bench) -> None:
    spec = bench.spec(COUNT + "sleep 600")
    await bench.begin(spec)
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.stop(spec.lease_id, grace_seconds=5)
        assert (await bench.runner.wait(spec.lease_id)).reason is ExitReason.STOPPED
        again = await bench.runner.restart(spec.lease_id, {}, 5, NONCE)
        assert (await bench.runner.status(spec.lease_id)).state is JobState.RUNNING
        await bench.until_said(spec.lease_id, "begun")
        await bench.runner.stop(spec.lease_id, grace_seconds=0)
        ended = await bench.runner.wait(spec.lease_id)
    assert ended.started_at == again and ended.reason is ExitReason.STOPPED


async def test_a_paused_job_begins_anew(bench: Bench) -> None:
    spec = bench.spec(COUNT + "sleep 600")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "begun")
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.pause(spec.lease_id)
        await bench.runner.restart(spec.lease_id, {}, 0.5, NONCE)
        await bench.until_said(spec.lease_id, "begun 2")
    assert (await bench.runner.status(spec.lease_id)).state is JobState.RUNNING


async def test_a_daemon_that_died_before_the_next_run_began_is_taken_over(bench: Bench) -> None:
    """What is left of a restart whose daemon died: the wish is noted and the old run has ended."""
    spec = bench.spec(LOOP)
    await bench.begin(spec, {"S": "one"})
    with trio.fail_after(LIMIT_SECONDS):
        await bench.until_said(spec.lease_id, "begun")
        await die_in_a_restart(bench, spec.lease_id)
        bench.reopen()
        with trio.move_on_after(0.5) as waiting:
            await bench.runner.wait(spec.lease_id)
        assert waiting.cancelled_caught  # a job whose restart is under way has not ended
        again = await bench.runner.restart(spec.lease_id, {"S": "two"}, 0, NONCE)
        (bench.workspace / "go").touch()
        assert (await bench.runner.wait(spec.lease_id)).started_at == again
    assert runs(bench) == "one\ntwo\n"


async def test_a_stop_comes_before_the_restart_of_a_daemon_that_died(bench: Bench) -> None:
    spec = bench.spec(COUNT + "sleep 600")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "begun")
    with trio.fail_after(LIMIT_SECONDS):
        await die_in_a_restart(bench, spec.lease_id)
        bench.reopen()
        await bench.runner.stop(spec.lease_id, grace_seconds=0)
        assert (await bench.runner.wait(spec.lease_id)).reason is ExitReason.STOPPED
        with pytest.raises(StartFailed):
            await bench.runner.restart(spec.lease_id, {}, 0, NONCE)
    assert "begun 2" not in await bench.said(spec.lease_id)


async def test_output_of_all_runs_is_one_log(bench: Bench) -> None:
    spec = bench.spec("[ -e second ] && { echo two; exit 0; }; : > second; echo one; sleep 600")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "one")
    followed: list[str] = []

    async def follow() -> None:
        followed.append(await bench.said(spec.lease_id, follow=True))

    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await bench.runner.restart(spec.lease_id, {}, 0.5, NONCE)
    assert [line for line in followed[0].splitlines() if line != "Terminated"] == ["one", "two"]
    assert await bench.said(spec.lease_id, offset=4) == followed[0][4:]


async def test_there_is_nothing_to_restart(bench: Bench) -> None:
    with pytest.raises(JobMissing):
        await bench.runner.restart(LeaseId(os.urandom(32)), {}, 0, NONCE)
