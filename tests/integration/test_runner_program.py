"""Programs that a person runs beside a job, on the real Docker engine and on real processes alike."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
import trio

from protocol.errors import JobMissing, StartFailed
from protocol.units import LeaseId
from qubixd.runner import ERRORS, OUTPUT, Program, Terminal
from tests.support.runners import LIMIT_SECONDS, Bench, both_runners

FOREVER = "while :; do sleep 1; done"


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with both_runners(request, tmp_path) as made:
        yield made


async def begun(bench: Bench) -> LeaseId:
    spec = bench.spec(FOREVER)
    await bench.begin(spec)
    return spec.lease_id


async def said(program: Program, until: bytes | None = None) -> dict[int, bytes]:
    """All it says by stream, to its end or until a text is there."""
    got = {OUTPUT: b"", ERRORS: b""}
    with trio.fail_after(LIMIT_SECONDS):
        while (until is None or until not in got[OUTPUT]) and (part := await program.receive_some()):
            got[part[0]] += part[1]
    return got


async def ask(
    bench: Bench, lease_id: LeaseId, command: Sequence[str], data: bytes = b""
) -> tuple[int, bytes, bytes]:
    with trio.fail_after(LIMIT_SECONDS):
        async with aclosing(await bench.runner.program(lease_id, command)) as program:
            await program.send_all(data)
            await program.send_eof()
            got = await said(program)
            return await program.exit_code(), got[OUTPUT], got[ERRORS]


async def test_output_and_errors_come_apart_and_input_ends(bench: Bench) -> None:
    job = await begun(bench)
    script = "cat; echo bad >&2; kill -TERM $$"
    assert await ask(bench, job, ["sh", "-c", script], b"good\n") == (
        128 + signal.SIGTERM,
        b"good\n",
        b"bad\n",
    )
    assert await ask(bench, job, [], b"echo a shell reads this; exit 3\n") == (
        3,
        b"a shell reads this\n",
        b"",
    )
    with pytest.raises(StartFailed, match="no-such-thing"):
        await bench.runner.program(job, ["no-such-thing"])
    with pytest.raises(JobMissing):
        await bench.runner.program(LeaseId(bytes(32)), ["true"])


async def test_a_terminal_has_its_size_its_kind_and_its_keys(bench: Bench) -> None:
    job = await begun(bench)
    terminal = Terminal(101, 37, "screen")
    with trio.fail_after(LIMIT_SECONDS):
        async with aclosing(await bench.runner.program(job, [], terminal)) as program:
            await program.send_all(b"stty size; echo kind=$TERM; tty\n")
            first = (await said(program, b"/dev/"))[OUTPUT]
            assert b"37 101" in first and b"kind=screen" in first
            await program.resize(55, 11)
            await program.send_all(b"stty size\n")
            await said(program, b"11 55")
            await program.send_all(b"sleep 600; echo code=$?\n")
            await said(program, b"sleep 600")
            await trio.sleep(0.2)  # the shell gives the terminal to what it runs
            await program.send_all(b"\x03")
            await program.send_all(b"echo still here\nexit 9\n")
            rest = (await said(program))[OUTPUT]
            assert b"still here" in rest
            assert await program.exit_code() == 9


async def test_the_end_of_input_takes_nothing_from_a_terminal(bench: Bench) -> None:
    job = await begun(bench)
    script = "stty -echo; echo go; read word; echo got $word"
    async with aclosing(await bench.runner.program(job, ["sh", "-c", script], Terminal(80, 24))) as program:
        await said(program, b"go")
        await program.send_eof()
        await program.send_all(b"it\n")
        assert b"got it" in (await said(program))[OUTPUT]


async def test_nothing_comes_before_what_the_program_says(bench: Bench) -> None:
    job = await begun(bench)
    with trio.fail_after(LIMIT_SECONDS):
        for _ in range(3):
            async with aclosing(await bench.runner.program(job, ["echo", "x"], Terminal(80, 24))) as program:
                assert (await said(program))[OUTPUT] == b"x\r\n"
                assert await program.exit_code() == 0


async def test_a_signal_reaches_the_program_and_what_it_began(bench: Bench) -> None:
    job = await begun(bench)
    script = "trap 'echo heard; exit 4' USR1; (sleep 7653; true) & echo up; wait"
    with trio.fail_after(LIMIT_SECONDS):
        async with aclosing(await bench.runner.program(job, ["sh", "-c", script])) as program:
            await said(program, b"up\n")
            await program.signal("USR1")
            await said(program, b"heard\n")
            assert await program.exit_code() == 4


@pytest.mark.parametrize("bench", [pytest.param("docker", marks=pytest.mark.docker)], indirect=True)
async def test_where_the_engine_s_line_is_no_plain_socket_threads_wait_for_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qubixd.runner.docker_pipe._is_plain", lambda _: False)
    job = await begun(bench)
    data = os.urandom(300_000)
    assert await ask(bench, job, ["sh", "-c", "cat; echo bad >&2; exit 3"], data) == (3, data, b"bad\n")
    with trio.fail_after(LIMIT_SECONDS):
        async with aclosing(await bench.runner.program(job, ["cat"], Terminal(80, 24))) as program:
            with trio.move_on_after(0.2):
                await program.receive_some()
            await program.send_all(b"lost nothing\n")
            assert (await said(program, b"nothing"))[OUTPUT].startswith(b"lost")


@pytest.mark.parametrize("bench", [pytest.param("docker", marks=pytest.mark.docker)], indirect=True)
async def test_the_next_daemon_ends_what_one_that_was_killed_has_left(bench: Bench) -> None:
    job = await begun(bench)
    with trio.fail_after(LIMIT_SECONDS):
        for terminal in (None, Terminal(80, 24)):
            await said(await bench.runner.program(job, ["sh", "-c", "echo up; sleep 7652"], terminal), b"up")
        bench.reopen()
        async with aclosing(await bench.runner.program(job, ["sh", "-c", "echo up; cat"])) as mine:
            await said(mine, b"up")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.runner.wait, job)
                while _sleeping():
                    await trio.sleep(0.02)
                nursery.cancel_scope.cancel()
            await mine.send_all(b"here")
            await said(mine, b"here")


@pytest.mark.parametrize("terminal", [None, Terminal(80, 24)])
async def test_closing_ends_all_of_a_session(bench: Bench, terminal: Terminal | None) -> None:
    job = await begun(bench)
    script = (
        "trap '' TERM HUP INT PIPE; sleep 7652 & set -m; sleep 7651 & echo up; while :; do sleep 7650; done"
    )
    with trio.fail_after(LIMIT_SECONDS):
        program = await bench.runner.program(job, ["sh", "-c", script], terminal)
        await said(program, b"up")
        assert _sleeping()
        await program.aclose()
        while _sleeping():
            await trio.sleep(0.02)
        with pytest.raises(trio.ClosedResourceError):
            await program.send_all(b"x")


async def test_what_a_program_leaves_behind_does_not_hold_its_end(bench: Bench) -> None:
    job = await begun(bench)
    with trio.fail_after(LIMIT_SECONDS):
        async with aclosing(await bench.runner.program(job, ["sh", "-c", "sleep 20 & echo up"])) as program:
            assert (await said(program))[OUTPUT] == b"up\n"
            assert await program.exit_code() == 0


def _sleeping() -> bool:
    lines = (" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
    return any(re.fullmatch(r"sleep 765[0-3]", line) for line in lines)
