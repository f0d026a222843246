"""Jobs through the end of the Docker engine itself: stopped, killed, gone with the whole machine.

Each test has an engine of its own, so that it can be ended.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
import trio

from protocol.errors import EngineUnreachable, JobMissing, PortClosed
from qubixd.runner import ExitReason, JobExit, JobState
from qubixd.runner.docker import DockerRunner
from tests.support.engine import BUSYBOX_IMAGE
from tests.support.mortal_engine import MortalEngine, missing, mortal_engine
from tests.support.runners import LIMIT_SECONDS, Bench

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(bool(missing()), reason=missing() or "an engine of its own can be started"),
]
BEATS = "echo ready; while :; do date +%s >> beats; sleep 0.1; done"
NONCE = b"12345678"
SLACK_MS = 2_000
"""Beats tell whole seconds, and the job's last one comes before its end."""


def bench_on(engine: MortalEngine, folder: Path, patch: pytest.MonkeyPatch) -> Bench:
    patch.setenv("DOCKER_HOST", engine.address)
    return Bench.make(lambda: DockerRunner(folder / "state"), BUSYBOX_IMAGE, folder / "workspace")


async def off_thread(work: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(work)


def last_beat_ms(bench: Bench) -> int:
    return int((bench.workspace / "beats").read_text().split()[-1]) * 1_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_job_ends_with_its_engine_truthfully_and_goes_on_by_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    with mortal_engine({}) as engine, trio.fail_after(2 * LIMIT_SECONDS):
        bench = bench_on(engine, tmp_path, monkeypatch)
        spec = bench.spec(BEATS)
        released = await bench.begin(spec)
        await bench.until_said(spec.lease_id, "ready")
        ends: list[JobExit] = []

        async def wait() -> None:
            ends.append(await bench.runner.wait(spec.lease_id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await off_thread(lambda: engine.end(number))
            await off_thread(engine.start)
        [ended] = ends
        assert ended.reason in (ExitReason.EXITED, ExitReason.LOST) and ended.code != 0
        assert ended.started_at == released
        assert -SLACK_MS < ended.finished_at - last_beat_ms(bench) < SLACK_MS
        beats = last_beat_ms(bench)
        again = await bench.runner.restart(spec.lease_id, {}, 5, NONCE)
        assert again >= ended.finished_at
        while last_beat_ms(bench) <= beats:
            await trio.sleep(0.05)
        assert (await bench.runner.status(spec.lease_id)).released_at == released
        await bench.remove_all()


async def test_the_way_into_a_job_is_there_again_after_its_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echoes() -> None:
        while True:
            with suppress(PortClosed):
                stream = await bench.runner.dial(spec.lease_id, 4711)
                break
            await trio.sleep(0.05)
        assert isinstance(stream, trio.SocketStream)
        async with stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"

    with mortal_engine({}) as engine, trio.fail_after(2 * LIMIT_SECONDS):
        bench = bench_on(engine, tmp_path, monkeypatch)
        spec = bench.spec("nc -ll -p 4711 -e cat")
        await bench.begin(spec)
        await echoes()
        await off_thread(lambda: engine.end(signal.SIGTERM))
        await off_thread(engine.start)
        with pytest.raises(JobMissing):
            await bench.runner.dial(spec.lease_id, 4711)
        await bench.runner.restart(spec.lease_id, {}, 5, NONCE)
        await echoes()
        await bench.remove_all()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_with_live_restore_a_job_simply_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    with mortal_engine({"live-restore": True}) as engine, trio.fail_after(2 * LIMIT_SECONDS):
        bench = bench_on(engine, tmp_path, monkeypatch)
        spec = bench.spec(BEATS.replace(":;", "! [ -e go ];") + "; exit 6")
        released = await bench.begin(spec)
        await bench.until_said(spec.lease_id, "ready")
        ends: list[JobExit] = []

        async def wait() -> None:
            ends.append(await bench.runner.wait(spec.lease_id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await off_thread(lambda: engine.end(number))
            beats = last_beat_ms(bench)
            await off_thread(engine.start)
            while last_beat_ms(bench) <= beats:
                await trio.sleep(0.05)
            assert (await bench.runner.status(spec.lease_id)).state is JobState.RUNNING
            assert not ends
            (bench.workspace / "go").touch()
        assert [(each.code, each.reason, each.started_at) for each in ends] == [
            (6, ExitReason.EXITED, released)
        ]
        await bench.remove_all()


async def test_a_job_that_went_down_with_the_machine_is_lost_when_it_was_last_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine then takes the moment of its own return for the end of the job."""
    with mortal_engine({}) as engine, trio.fail_after(2 * LIMIT_SECONDS):
        bench = bench_on(engine, tmp_path, monkeypatch)
        spec = bench.spec(BEATS)
        released = await bench.begin(spec)
        await bench.until_said(spec.lease_id, "ready")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.runner.wait, spec.lease_id)
            while not bench.runner._seen.last(spec.lease_id):  # type: ignore[attr-defined]  # it is Docker's
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        await off_thread(lambda: engine.end(signal.SIGKILL))
        await off_thread(engine.kill_jobs)
        down_ms = time.time() * 1_000
        await trio.sleep(1.5)  # the machine is down: what is lost must not be counted
        await off_thread(engine.start)
        bench.reopen()
        ended = await bench.runner.wait(spec.lease_id)
        assert ended.reason is ExitReason.LOST and ended.started_at == released
        assert released <= ended.finished_at <= down_ms
        bench.reopen()
        assert await bench.runner.wait(spec.lease_id) == ended
        await bench.remove_all()


async def test_an_exit_with_the_engine_s_own_code_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mortal_engine({}) as engine, trio.fail_after(LIMIT_SECONDS):
        bench = bench_on(engine, tmp_path, monkeypatch)
        ended, _ = await bench.run("sleep 0.3; exit 255")
        assert (ended.code, ended.reason) == (255, ExitReason.EXITED)
        await bench.remove_all()


async def test_everything_says_that_the_engine_is_away_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mortal_engine({"live-restore": True}) as engine, trio.fail_after(2 * LIMIT_SECONDS):
        bench = bench_on(engine, tmp_path, monkeypatch)
        spec = bench.spec("echo ready; sleep 600")
        await bench.runner.start(spec)
        await off_thread(lambda: engine.end(signal.SIGKILL))
        runner, lease_id = bench.runner, spec.lease_id
        for ask in (
            lambda: runner.status(lease_id),
            lambda: bench.said(lease_id),
            lambda: runner.inside(lease_id, ["true"]),
            lambda: runner.release(lease_id, {"TOKEN": "t"}),
            lambda: runner.restart(lease_id, {}, 1, NONCE),
            lambda: runner.stop(lease_id, 1),
        ):
            with pytest.raises(EngineUnreachable):
                await ask()
        await off_thread(engine.start)
        assert (await runner.status(lease_id)).released_at is None
        await runner.release(lease_id, {"TOKEN": "t"})
        await bench.until_said(lease_id, "ready")
        async with aclosing(await runner.inside(lease_id, ["echo", "here"])) as inside:
            assert await inside.receive_some() == b"here\n"
        await runner.stop(lease_id, 0)
        assert (await runner.wait(lease_id)).reason is ExitReason.STOPPED
        await bench.remove_all()
