"""Programs beside a job, on the real Docker engine and on real processes alike."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
import trio

from protocol.errors import JobMissing, StartFailed, StreamBroken
from protocol.units import LeaseId
from qubixd.runner import Inside
from tests.support.runners import LIMIT_SECONDS, MIB, Bench, both_runners

WAITING = "until [ -e go ]; do sleep 0.05; done"


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with both_runners(request, tmp_path) as made:
        yield made


async def said_by(inside: Inside) -> bytes:
    parts = []
    while part := await inside.receive_some():
        parts.append(part)
    return b"".join(parts)


async def ask(bench: Bench, lease_id: LeaseId, command: Sequence[str]) -> tuple[int, str]:
    """The exit code of a program inside, and all it said."""
    with trio.fail_after(LIMIT_SECONDS):
        async with aclosing(await bench.runner.inside(lease_id, command)) as inside:
            return await inside.exit_code(), (await said_by(inside)).decode()


async def test_a_program_talks_beside_a_job_at_the_gate_and_afterwards(bench: Bench) -> None:
    spec = bench.spec(WAITING)
    await bench.runner.start(spec)
    assert await ask(bench, spec.lease_id, ["sh", "-c", "echo hello; exit 5"]) == (5, "hello\n")
    await bench.runner.release(spec.lease_id, {"TOKEN": "t"})
    assert await ask(bench, spec.lease_id, ["sh", "-c", 'echo "${TOKEN-none}"']) == (0, "none\n")
    (bench.workspace / "go").touch()
    with trio.fail_after(LIMIT_SECONDS):
        assert (await bench.runner.wait(spec.lease_id)).code == 0
    assert await bench.said(spec.lease_id) == ""


async def test_much_passes_through_in_both_directions(bench: Bench) -> None:
    spec = bench.spec(WAITING)
    await bench.runner.start(spec)
    sent = os.urandom(3 * MIB)

    async def send(inside: Inside) -> None:
        await inside.send_all(sent)
        await inside.send_eof()

    with trio.fail_after(LIMIT_SECONDS):
        inside = await bench.runner.inside(spec.lease_id, ["cat"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, inside)
            assert await said_by(inside) == sent
        assert await inside.exit_code() == 0
        await inside.aclose()


async def test_a_read_that_was_given_up_loses_nothing(bench: Bench) -> None:
    spec = bench.spec(WAITING)
    await bench.runner.start(spec)
    with trio.fail_after(LIMIT_SECONDS):
        inside = await bench.runner.inside(spec.lease_id, ["cat"])
        with trio.move_on_after(0.2) as given_up:
            await inside.receive_some()
        assert given_up.cancelled_caught
        await inside.send_all(b"all of it")
        got = b""
        while len(got) < 9:
            got += await inside.receive_some(2)
        assert got == b"all of it"
        await inside.aclose()


async def test_closing_ends_the_program_itself(bench: Bench) -> None:
    spec = bench.spec("sleep 600")
    await bench.runner.start(spec)
    with trio.fail_after(LIMIT_SECONDS):
        inside = await bench.runner.inside(
            spec.lease_id, ["sh", "-c", "trap '' TERM HUP PIPE; : > began; while :; do sleep 7654; done"]
        )
        while not (bench.workspace / "began").exists():
            await trio.sleep(0.02)
        await inside.aclose()
        while any("7654" in " ".join(process.info["cmdline"] or ()) for process in _processes()):
            await trio.sleep(0.02)
        with pytest.raises((trio.ClosedResourceError, StreamBroken)):
            await inside.receive_some()
        await inside.aclose()
    assert (await bench.runner.status(spec.lease_id)).released_at is None


async def test_a_program_has_the_job_s_place_and_limits(bench: Bench) -> None:
    spec = bench.spec(WAITING + "; ulimit -n; ulimit -c; ulimit -f; id -u; pwd", env={"COLOUR": "blue"})
    await bench.begin(spec)
    own = await ask(bench, spec.lease_id, ["sh", "-c", "ulimit -n; ulimit -c; ulimit -f; id -u; pwd"])
    assert (await ask(bench, spec.lease_id, ["sh", "-c", 'echo "$COLOUR"']))[1] == "blue\n"
    (bench.workspace / "go").touch()
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.wait(spec.lease_id)
    assert own == (0, await bench.said(spec.lease_id))


async def test_a_program_in_the_workspace_is_run_by_its_relative_name(bench: Bench) -> None:
    spec = bench.spec(WAITING)
    await bench.runner.start(spec)
    program = bench.workspace / "tool"
    program.write_text('#!/bin/sh\necho "tool $1"\n')
    program.chmod(0o755)
    assert await ask(bench, spec.lease_id, ["./tool", "a b; c"]) == (0, "tool a b; c\n")


@pytest.mark.parametrize("command", [["no-such-program"], ["./nothing"]])
async def test_a_program_that_is_not_there_is_said_so(bench: Bench, command: list[str]) -> None:
    spec = bench.spec(WAITING)
    await bench.runner.start(spec)
    with pytest.raises(StartFailed):
        await bench.runner.inside(spec.lease_id, command)


async def test_no_program_runs_beside_a_job_that_does_not_run(bench: Bench) -> None:
    with pytest.raises(JobMissing):
        await bench.runner.inside(LeaseId(os.urandom(32)), ["true"])
    spec = bench.spec("true")
    await bench.begin(spec)
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.wait(spec.lease_id)
    with pytest.raises(JobMissing):
        await bench.runner.inside(spec.lease_id, ["true"])


@pytest.mark.parametrize("bench", [pytest.param("docker", marks=pytest.mark.docker)], indirect=True)
async def test_a_program_ends_with_its_container(bench: Bench) -> None:
    spec = bench.spec("sleep 600")
    await bench.begin(spec)
    with trio.fail_after(LIMIT_SECONDS):
        inside = await bench.runner.inside(spec.lease_id, ["cat"])
        await bench.runner.stop(spec.lease_id, grace_seconds=0)
        assert await said_by(inside) == b""
        await inside.exit_code()
        await inside.aclose()


def _processes() -> list[psutil.Process]:
    return list(psutil.process_iter(["cmdline"]))
