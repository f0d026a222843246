"""Daemons that die while they let a job go: at every instant the next one makes it good, and once only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from protocol.units import LeaseId
from qubixd.runner import ExitReason
from qubixd.runner.docker import DockerRunner
from qubixd.runner.gate import gate_words
from qubixd.runner.process import ProcessRunner
from qubixd.runner.process_order import say_to
from tests.support.runners import LIMIT_SECONDS, Bench, both_runners

JOB = 'echo "$S" >> runs; echo begun; until [ -e go ]; do sleep 0.05; done'


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with both_runners(request, tmp_path) as made:
        yield made


async def say(bench: Bench, lease_id: LeaseId, words: bytes) -> None:
    """What a daemon says to a job that waits."""
    runner = bench.runner
    if isinstance(runner, DockerRunner):
        await runner._engine.call(lambda client: runner._jobs.say(client, lease_id, words))
    else:
        assert isinstance(runner, ProcessRunner)
        say_to(runner._notes.directory(lease_id) / "gate", words)


async def die_in(bench: Bench, lease_id: LeaseId, step: str, secrets: dict[str, str]) -> None:
    """Release a job, and die when it comes to that step of the notes."""
    runner = bench.runner
    assert isinstance(runner, DockerRunner | ProcessRunner)

    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(runner._passages, step, die)
        await runner.release(lease_id, secrets)
    bench.reopen()


async def finish(bench: Bench, lease_id: LeaseId) -> None:
    """The job is there, ran once, and ends in good order."""
    await bench.until_said(lease_id, "begun")
    (bench.workspace / "go").touch()
    with trio.fail_after(LIMIT_SECONDS):
        ended = await bench.runner.wait(lease_id)
    assert (ended.code, ended.reason) == (0, ExitReason.EXITED)
    assert ended.started_at == (await bench.runner.status(lease_id)).released_at


async def test_death_before_anything_was_noted(bench: Bench) -> None:
    spec = bench.spec(JOB)
    await bench.runner.start(spec)
    await die_in(bench, spec.lease_id, "_intend", {"S": "one"})
    assert (await bench.runner.status(spec.lease_id)).released_at is None
    await bench.runner.release(spec.lease_id, {"S": "two"})
    await finish(bench, spec.lease_id)
    assert (bench.workspace / "runs").read_text() == "two\n"


async def test_death_after_the_words_were_said_and_before_that_was_noted(bench: Bench) -> None:
    spec = bench.spec(JOB)
    await bench.runner.start(spec)
    await die_in(bench, spec.lease_id, "_opened", {"S": "one"})
    await bench.until_said(spec.lease_id, "begun")
    released = (await bench.runner.status(spec.lease_id)).released_at
    assert released is not None
    await trio.sleep(0.05)  # another instant than that of the death
    assert await bench.runner.release(spec.lease_id, {"S": "two"}) == released
    await finish(bench, spec.lease_id)
    assert (bench.workspace / "runs").read_text() == "one\n"


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
async def test_death_in_the_middle_of_the_words(bench: Bench, share: float) -> None:
    spec = bench.spec(JOB)
    await bench.runner.start(spec)
    words = gate_words({"S": "one 'quoted'\nand of two lines", "T": "t" * 500})
    await say(bench, spec.lease_id, words[: int(len(words) * share)])
    bench.reopen()
    assert (await bench.runner.status(spec.lease_id)).released_at is None
    await bench.runner.release(spec.lease_id, {"S": "two"})
    await finish(bench, spec.lease_id)
    assert (bench.workspace / "runs").read_text() == "two\n"


async def test_death_after_which_the_job_ran_to_its_end_unseen(bench: Bench) -> None:
    spec = bench.spec("sleep 0.3; exit 7")
    await bench.runner.start(spec)
    await die_in(bench, spec.lease_id, "_opened", {})
    with trio.fail_after(LIMIT_SECONDS):
        ended = await bench.runner.wait(spec.lease_id)
    assert ended.code == 7 and ended.finished_at - ended.started_at >= 300
    assert await bench.runner.release(spec.lease_id, {}) == ended.started_at


async def test_two_who_release_at_once_let_it_go_once(bench: Bench) -> None:
    spec = bench.spec(JOB)
    await bench.runner.start(spec)
    async with trio.open_nursery() as nursery:
        for name in ("one", "two", "three"):
            nursery.start_soon(bench.runner.release, spec.lease_id, {"S": name})
    await finish(bench, spec.lease_id)
    assert len((bench.workspace / "runs").read_text().split()) == 1
