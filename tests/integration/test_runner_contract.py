"""What every runner promises, on the real Docker engine and on real processes alike."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from protocol import images
from protocol.errors import ImageUnavailable, JobMissing, StartFailed
from protocol.units import LeaseId
from qubixd.runner import ExitReason, JobState
from qubixd.runner.gate import GATE
from tests.support.runners import LIMIT_SECONDS, MIB, Bench, both_runners


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with both_runners(request, tmp_path) as made:
        yield made


async def test_input_goes_in_and_output_comes_out(bench: Bench) -> None:
    (bench.workspace / "in.txt").write_text("3\n4\n")
    ended, said = await bench.run("{ read a; read b; } < in.txt; echo $((a * b)) > out.txt; echo done")
    assert (ended.code, ended.reason, said) == (0, ExitReason.EXITED, "done\n")
    assert (bench.workspace / "out.txt").read_text() == "12\n"
    assert 0 < time.time() * 1000 - ended.started_at < LIMIT_SECONDS * 1000
    assert ended.finished_at >= ended.started_at


async def test_exit_code_and_shell_strictness(bench: Bench) -> None:
    assert (await bench.run("exit 7"))[0].code == 7
    assert (await bench.run("false; exit 0"))[0].code == 1
    assert (await bench.run('echo "$NOT_SET"'))[0].code != 0


async def test_environment_holds_the_job_s_and_not_the_daemon_s(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAEMON_ONLY", "secret-of-the-daemon")
    _, said = await bench.run("env", env={"COLOUR": "dark blue"}, secrets={"TOKEN": "t-1"})
    assert "COLOUR=dark blue\n" in said and "TOKEN=t-1\n" in said
    assert "DAEMON_ONLY" not in said


async def test_secret_of_any_characters_arrives_unchanged(bench: Bench) -> None:
    value = 'it\'s "quoted" $HOME `id` \\n %s\n\nlast line é\x81\t'
    await bench.run('printf %s "$TOKEN" > got', secrets={"TOKEN": value, "OTHER": "2"})
    assert (bench.workspace / "got").read_bytes() == value.encode()


async def test_job_waits_at_the_gate_until_it_is_released(bench: Bench) -> None:
    spec = bench.spec("read line || echo nothing to read; echo begun")
    started = await bench.runner.start(spec)
    waiting = await bench.runner.status(spec.lease_id)
    assert (waiting.state, waiting.started_at, waiting.released_at) == (JobState.RUNNING, started, None)
    assert await bench.said(spec.lease_id) == ""
    with trio.fail_after(LIMIT_SECONDS):
        released = await bench.runner.release(spec.lease_id, {})
        ended = await bench.runner.wait(spec.lease_id)
    assert released >= started and (ended.started_at, ended.code) == (released, 0)
    assert await bench.said(spec.lease_id) == "nothing to read\nbegun\n"
    assert (await bench.runner.status(spec.lease_id)).released_at == released
    assert list(bench.workspace.iterdir()) == []


async def test_release_has_its_effect_once(bench: Bench) -> None:
    spec = bench.spec('echo "$S" >> runs; echo ready; until [ -e go ]; do sleep 0.05; done')
    await bench.runner.start(spec)
    first = await bench.runner.release(spec.lease_id, {"S": "one"})
    await bench.until_said(spec.lease_id, "ready")
    assert await bench.runner.release(spec.lease_id, {"S": "two"}) == first
    bench.reopen()
    assert await bench.runner.release(spec.lease_id, {"S": "three"}) == first
    (bench.workspace / "go").touch()
    with trio.fail_after(LIMIT_SECONDS):
        assert (await bench.runner.wait(spec.lease_id)).started_at == first
    assert await bench.runner.release(spec.lease_id, {}) == first
    assert (bench.workspace / "runs").read_text() == "one\n"


async def test_a_job_that_ended_at_the_gate_ran_no_second(bench: Bench) -> None:
    spec = bench.spec("echo never > ran")
    await bench.runner.start(spec)
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.stop(spec.lease_id, grace_seconds=5)
        ended = await bench.runner.wait(spec.lease_id)
    assert ended.reason is ExitReason.STOPPED and ended.started_at == ended.finished_at
    with pytest.raises(JobMissing):
        await bench.runner.release(spec.lease_id, {})
    assert (await bench.runner.status(spec.lease_id)).released_at is None
    assert not (bench.workspace / "ran").exists()


async def test_a_job_s_own_file_at_the_gate_changes_nothing(bench: Bench) -> None:
    spec = bench.spec(f"echo ready; : > {GATE}; until [ -e go ]; do sleep 0.05; done")
    first = await bench.begin(spec)
    await bench.until_said(spec.lease_id, "ready")
    bench.reopen()
    assert await bench.runner.release(spec.lease_id, {}) == first
    (bench.workspace / "go").touch()
    with trio.fail_after(LIMIT_SECONDS):
        assert (await bench.runner.wait(spec.lease_id)).code == 0


async def test_a_job_that_cannot_come_to_the_gate_leaves_nothing(bench: Bench) -> None:
    (bench.workspace / GATE).mkdir()
    with pytest.raises((StartFailed, ImageUnavailable), match=r"before (the job|it could) beg[ia]n"):
        await bench.runner.start(bench.spec("true"))
    assert await bench.runner.leases() == frozenset()


async def test_an_input_file_of_the_gate_s_name_is_no_gate(bench: Bench) -> None:
    (bench.workspace / GATE).touch()
    ended, said = await bench.run("echo begun")
    assert (ended.code, said) == (0, "begun\n")


async def test_start_again_and_by_the_next_daemon_adopts(bench: Bench) -> None:
    spec = bench.spec('echo run >> runs; echo ready; until [ -e go ]; do sleep 0.05; done; echo "$S"')
    first = await bench.runner.start(spec)
    released = await bench.runner.release(spec.lease_id, {"S": "x"})
    await bench.until_said(spec.lease_id, "ready")
    bench.reopen()
    assert await bench.runner.start(spec) == first
    assert await bench.runner.leases() == {spec.lease_id}
    assert (await bench.runner.status(spec.lease_id)).state is JobState.RUNNING
    (bench.workspace / "go").touch()
    with trio.fail_after(LIMIT_SECONDS):
        ended = await bench.runner.wait(spec.lease_id)
    assert (ended.code, ended.started_at) == (0, released)
    assert (bench.workspace / "runs").read_text() == "run\n"
    assert await bench.said(spec.lease_id) == "ready\nx\n"
    assert await bench.runner.start(spec) == first  # it has ended and does not run again
    assert (bench.workspace / "runs").read_text() == "run\n"


async def test_end_without_a_daemon_is_known_to_the_next(bench: Bench) -> None:
    spec = bench.spec("echo bye; exit 5")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "bye")
    with trio.fail_after(LIMIT_SECONDS):
        while (await bench.runner.status(spec.lease_id)).state is not JobState.EXITED:
            await trio.sleep(0.02)
    finished_before = time.time() * 1000
    bench.reopen()
    ended = await bench.runner.wait(spec.lease_id)
    assert (ended.code, ended.reason) == (5, ExitReason.EXITED)
    assert ended.finished_at <= finished_before
    assert await bench.runner.wait(spec.lease_id) == ended


async def test_stop_gives_the_program_its_grace(bench: Bench) -> None:
    """The shell runs a program which saves on SIGTERM: it must get the signal and the time."""
    inner = "trap 'echo saved > saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    spec = bench.spec('cat > inner.sh <<"END"\n' + inner + "\nEND\n/bin/sh inner.sh\necho never")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "ready")
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.stop(spec.lease_id, grace_seconds=LIMIT_SECONDS)
    ended = await bench.runner.wait(spec.lease_id)
    assert (ended.reason, ended.code) == (ExitReason.STOPPED, 143)
    assert (bench.workspace / "saved").exists()
    assert "never" not in await bench.said(spec.lease_id)


async def test_stop_kills_after_the_grace_and_the_next_daemon_knows_why(bench: Bench) -> None:
    spec = bench.spec("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "ready")
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.stop(spec.lease_id, grace_seconds=0.3)
    bench.reopen()
    ended = await bench.runner.wait(spec.lease_id)
    assert (ended.reason, ended.code) == (ExitReason.STOPPED, 137)
    await bench.runner.stop(spec.lease_id, grace_seconds=0)
    assert await bench.runner.wait(spec.lease_id) == ended


async def test_disk_limit_of_many_files_ends_the_job(bench: Bench) -> None:
    script = "i=0; while :; do i=$((i+1)); head -c 500000 /dev/zero > f$i; sleep 0.01; done"
    ended, _ = await bench.run(script, disk_bytes=4 * MIB)
    assert ended.reason is ExitReason.DISK_LIMIT


async def test_disk_limit_of_one_file_is_held_at_once_and_remembered(bench: Bench) -> None:
    spec = bench.spec("head -c 50000000 /dev/zero > big", disk_bytes=4 * MIB)
    await bench.begin(spec)
    with trio.fail_after(LIMIT_SECONDS):
        ended = await bench.runner.wait(spec.lease_id)
    assert ended.reason is ExitReason.DISK_LIMIT
    assert (bench.workspace / "big").stat().st_size <= 5 * MIB
    (bench.workspace / "big").unlink()
    bench.reopen()
    assert await bench.runner.wait(spec.lease_id) == ended


async def test_pause_and_resume(bench: Bench) -> None:
    spec = bench.spec("echo ready; while :; do echo x >> beats; sleep 0.02; done")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "ready")
    await bench.runner.pause(spec.lease_id)
    await bench.runner.pause(spec.lease_id)
    with trio.fail_after(LIMIT_SECONDS):
        while (await bench.runner.status(spec.lease_id)).state is not JobState.PAUSED:
            await trio.sleep(0.02)
    size = (bench.workspace / "beats").stat().st_size
    await trio.sleep(0.3)  # nothing happens: there is no event to wait for
    assert (bench.workspace / "beats").stat().st_size == size
    await bench.runner.resume(spec.lease_id)
    with trio.fail_after(LIMIT_SECONDS):
        while (bench.workspace / "beats").stat().st_size == size:
            await trio.sleep(0.02)
        await bench.runner.pause(spec.lease_id)
        await bench.runner.stop(spec.lease_id, grace_seconds=5)
    assert (await bench.runner.wait(spec.lease_id)).reason is ExitReason.STOPPED


async def test_logs_from_an_offset_and_following(bench: Bench) -> None:
    spec = bench.spec("echo one; echo two >&2; until [ -e go ]; do sleep 0.05; done; echo three")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "two")
    assert await bench.said(spec.lease_id, offset=2) == "e\ntwo\n"
    followed: list[str] = []

    async def follow() -> None:
        followed.append(await bench.said(spec.lease_id, follow=True, offset=5))

    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            (bench.workspace / "go").touch()
    assert followed == ["wo\nthree\n"]
    assert await bench.said(spec.lease_id, offset=100) == ""


async def test_waiting_and_following_are_cancelled_at_once(bench: Bench) -> None:
    spec = bench.spec("echo ready; sleep 600")
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "ready")

    async def follow() -> None:
        await bench.said(spec.lease_id, follow=True)

    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.runner.wait, spec.lease_id)
            nursery.start_soon(follow)
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
    assert (await bench.runner.status(spec.lease_id)).state is JobState.RUNNING


async def test_remove_leaves_nothing_but_the_workspace(bench: Bench) -> None:
    (bench.workspace / "kept").touch()
    spec = bench.spec("echo ready; sleep 600")
    await bench.begin(spec)
    await bench.runner.remove(spec.lease_id)
    await bench.runner.remove(spec.lease_id)
    assert await bench.runner.leases() == frozenset()
    assert (await bench.runner.status(spec.lease_id)).state is JobState.ABSENT
    assert (bench.workspace / "kept").exists()
    with pytest.raises(JobMissing):
        await bench.runner.wait(spec.lease_id)


async def test_unknown_job(bench: Bench) -> None:
    unknown = LeaseId(os.urandom(32))
    await bench.runner.stop(unknown, grace_seconds=0)
    assert (await bench.runner.status(unknown)).state is JobState.ABSENT
    for call in (bench.runner.wait, bench.runner.pause, bench.runner.resume, bench.said):
        with pytest.raises(JobMissing):
            await call(unknown)


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"LD_PRELOAD": "/workspace/x.so"}},
        {"env": {"A B": "1"}},
        {"env": {"A": "1\0"}},
        {"gpu_uuids": ("all",)},
        {"memory_bytes": 0},
        {"workspace": Path("/nonexistent")},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_odd_jobs_are_refused(bench: Bench, changes: dict[str, object]) -> None:
    with pytest.raises(StartFailed):
        await bench.runner.start(bench.spec("true", **changes))
    assert await bench.runner.leases() == frozenset()


@pytest.mark.parametrize("name, value", [("NVIDIA_VISIBLE_DEVICES", "all"), ("A", "x" * 70_000), ("A", "\0")])
async def test_odd_secrets_are_refused(bench: Bench, name: str, value: str) -> None:
    spec = bench.spec("true")
    await bench.runner.start(spec)
    with pytest.raises(StartFailed):
        await bench.runner.release(spec.lease_id, {name: value})
    assert (await bench.runner.status(spec.lease_id)).released_at is None


async def test_stock_is_what_offers_can_say(bench: Bench) -> None:
    await bench.runner.pull(bench.image, lambda phase, share: None)  # what jobs want is told of first
    stock = await bench.runner.stock()
    assert len(stock.tags) <= images.MAX_TAGS and all(len(tag) == images.TAG_BYTES for tag in stock.tags)
    assert stock.pull_mib_per_s == 0
    known = await bench.runner.image(bench.image)
    assert (known is None) == (stock.tags == ())
    if known is not None:
        assert {images.image_tag(bench.image), *known.layers} <= set(stock.tags)
