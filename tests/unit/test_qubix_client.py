"""The client on both event loops: cancelling, leaving, full queues, versions; against a daemon's side in
a thread, so that each case runs on trio and on asyncio."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.abc
import pytest

from protocol import control
from protocol.control import LeaveArgs, LogChunk, LogsArgs, PsArgs, PsView, RunArgs
from protocol.control_prices import PricesArgs
from protocol.errors import DaemonUnreachable, StreamBroken, UsageError, VersionMismatch
from qubix.client import Client, connect
from tests.support.control_server import HELLO, Reply, control_server

Loop = Literal["trio", "asyncio"]
NO_LEASES: dict[str, Any] = {"ok": {"leases": []}}


@pytest.fixture(params=["trio", "asyncio"])
def loop(request: pytest.FixtureRequest) -> Loop:
    name: Loop = request.param
    return name


def on(loop: Loop, work: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        with anyio.fail_after(60):
            return await work()

    return anyio.run(bounded, backend=loop)


def talk(loop: Loop, path: Path, say: Callable[[Client], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with connect(path) as client:
            return await say(client)

    return on(loop, main)


def answers(verb: str, args: Any) -> Iterator[Reply]:
    """Three pieces of a log that ends, or thousands of one that is followed; no leases."""
    if verb == "logs":
        yield from ({"event": {"data": b"x"}} for _ in range(10_000 if args.follow else 3))
        yield {"ok": {}}
    elif verb == "run":
        yield {"ok": {"phase": "done", "detail": "", "lease": None}}
    else:
        yield NO_LEASES


def test_a_call_and_a_stream(tmp_path: Path, loop: Loop) -> None:
    async def both(client: Client) -> Any:
        items = [item async for item in client.stream("logs", LogsArgs("abcd"))]
        return items, await client.call("ps", PsArgs())

    with control_server(tmp_path / "s", answers):
        items, view = talk(loop, tmp_path / "s", both)
    assert items == [LogChunk(b"x")] * 3 + [control.Done()] and view == PsView([])


def test_many_requests_at_once_get_each_its_own(tmp_path: Path, loop: Loop) -> None:
    async def crowd(client: Client) -> list[Any]:
        got: list[Any] = []

        async def one(verb: str, args: object) -> None:
            got.append((verb, await client.call(verb, args)))

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(one, *(("ps", PsArgs()) if number % 2 else ("logs", LogsArgs("abcd"))))
        return got

    with control_server(tmp_path / "s", answers):
        got = talk(loop, tmp_path / "s", crowd)
    assert len(got) == 40
    assert all(answer == (PsView([]) if verb == "ps" else control.Done()) for verb, answer in got)


def test_an_answer_does_not_wait_for_those_who_hear_nothing(tmp_path: Path, loop: Loop) -> None:
    """Several quiet streams, and then a call: whoever of them reads its answer hands it on."""

    def quiet(verb: str, args: Any) -> Iterator[Reply]:
        if verb != "logs":
            yield NO_LEASES

    async def say(client: Client) -> None:
        async def listen() -> None:
            async with aclosing(client.stream("logs", LogsArgs("a", follow=True))) as items:
                async for _ in items:
                    pass

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(listen)
            for _ in range(20):
                await anyio.wait_all_tasks_blocked()
                assert await client.call("ps", PsArgs()) == PsView([])
            group.cancel_scope.cancel()

    with control_server(tmp_path / "control.sock", quiet):
        talk(loop, tmp_path / "control.sock", say)


def test_a_slow_reader_holds_nobody_up_and_loses_nothing(tmp_path: Path, loop: Loop) -> None:
    """Whoever asks something about each piece waits, himself, for what is behind them all."""

    async def slow(client: Client) -> tuple[int, Any]:
        async with aclosing(client.stream("logs", LogsArgs("abcd", follow=True))) as items:
            await anext(items)
            view = await client.call("ps", PsArgs())
            return 1 + sum([1 async for item in items if isinstance(item, LogChunk)]), view

    with control_server(tmp_path / "s", answers):
        assert talk(loop, tmp_path / "s", slow) == (10_000, PsView([]))


def test_what_nobody_reads_is_given_up(tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qubix.client.MAX_UNREAD_BYTES", 1_000)
    left: list[Any] = []

    async def slow(client: Client) -> list[Any]:
        read: list[Any] = []
        async with aclosing(client.stream("logs", LogsArgs("abcd", follow=True))) as items:
            read.append(await anext(items))
            assert await client.call("ps", PsArgs()) == PsView([])
            with pytest.raises(StreamBroken, match="of what `logs` tells were not read"):
                async for item in items:
                    read.append(item)
        assert await client.call("ps", PsArgs()) == PsView([]), "nothing else has come to harm"
        return read

    with control_server(tmp_path / "s", answers, left_requests=left):
        read = talk(loop, tmp_path / "s", slow)
    assert read == [LogChunk(b"x")] * len(read) and 10 < len(read) < 200
    assert left == [LeaveArgs(1)]


@pytest.mark.parametrize("args", [LogsArgs("\udcff"), PricesArgs(since_s=2**70)])
def test_what_cannot_be_said_is_told_at_once(tmp_path: Path, loop: Loop, args: Any) -> None:
    async def say(client: Client) -> Any:
        with pytest.raises(UsageError, match="not UTF-8"):
            await client.call("logs", args)
        return await client.call("ps", PsArgs())

    with control_server(tmp_path / "s", answers):
        assert talk(loop, tmp_path / "s", say) == PsView([])


def test_a_cancelled_request_leaves_the_connection_whole(tmp_path: Path, loop: Loop) -> None:
    """However far it had come: cancelled at every point of its way, the next one is answered."""

    async def cancel(client: Client) -> Any:
        for steps in range(30):
            with anyio.CancelScope() as scope:

                async def soon(scope: anyio.CancelScope = scope, steps: int = steps) -> None:
                    for _ in range(steps):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(soon)
                    await client.call("run", RunArgs("x" * 300_000, "/", "/"))
        return await client.call("ps", PsArgs())

    with control_server(tmp_path / "s", answers):
        assert talk(loop, tmp_path / "s", cancel) == PsView([])


def test_the_daemon_is_told_of_a_stream_that_was_left(tmp_path: Path, loop: Loop) -> None:
    left: list[Any] = []

    async def leave(client: Client) -> None:
        async with aclosing(client.stream("logs", LogsArgs("abcd"))) as items:
            await anext(items)
        assert [item async for item in client.stream("logs", LogsArgs("abcd"))]
        await client.call("ps", PsArgs())

    with control_server(tmp_path / "s", answers, left_requests=left):
        talk(loop, tmp_path / "s", leave)
    assert left == [LeaveArgs(1)], "the second one was read to its end"


def test_who_waits_when_the_connection_is_closed_learns_it(tmp_path: Path, loop: Loop) -> None:
    held = threading.Event()

    def never(verb: str, args: Any) -> Iterator[Reply]:
        held.set()
        return iter(())

    async def close(client: Client) -> Any:
        async def wait() -> None:
            with pytest.raises(DaemonUnreachable, match="was closed here"):
                await client.call("ps", PsArgs())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            while not held.is_set():
                await anyio.sleep(0.001)
            await anyio.wait_all_tasks_blocked()
            client.close()

    with control_server(tmp_path / "s", never):
        talk(loop, tmp_path / "s", close)


def test_errors_come_bare_from_the_block(tmp_path: Path, loop: Loop) -> None:
    async def fail(client: Client) -> None:
        raise KeyError("mine")

    with control_server(tmp_path / "s", answers), pytest.raises(KeyError, match="mine"):
        talk(loop, tmp_path / "s", fail)


def test_a_connection_may_be_used_from_a_generator_that_is_left(tmp_path: Path, loop: Loop) -> None:
    async def lines(path: Path) -> Any:
        async with connect(path) as client:
            async for item in client.stream("logs", LogsArgs("abcd", follow=True)):
                yield item

    async def main() -> Any:
        async with aclosing(lines(tmp_path / "s")) as items:
            return await anext(items)

    with control_server(tmp_path / "s", answers):
        assert on(loop, main) == LogChunk(b"x")


# --- versions -------------------------------------------------------------------------------------


def test_a_daemon_of_another_version_is_told_in_one_sentence(tmp_path: Path, loop: Loop) -> None:
    ahead = replace(HELLO, api_version=control.API_VERSION + 1, version="9.9")
    with (
        control_server(tmp_path / "s", answers, greeting=ahead) as received,
        pytest.raises(VersionMismatch, match=r"is newer \(9\.9\) than this qubix; update this one"),
    ):
        talk(loop, tmp_path / "s", lambda client: client.call("ps", PsArgs()))
    assert received == [], "nothing was asked of it"


def test_an_older_daemon(tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "API_VERSION", HELLO.api_version + 1)
    with (
        control_server(tmp_path / "s", answers),
        pytest.raises(VersionMismatch, match=r"is older \(0\.0\.0\) than this qubix; restart it"),
    ):
        talk(loop, tmp_path / "s", lambda client: client.call("ps", PsArgs()))


def test_a_daemon_from_before_versions(tmp_path: Path, loop: Loop) -> None:
    words = "the daemon knows no verb 'hello'; known: status"
    refusal = {"error": {"code": "wire.message_invalid", "message": words, "exit_code": 4}}
    with (
        control_server(tmp_path / "s", answers, greeting=refusal),
        pytest.raises(VersionMismatch, match=r"the daemon at .* is older than this qubix; restart it"),
    ):
        talk(loop, tmp_path / "s", lambda client: client.call("ps", PsArgs()))


def test_the_greeting_is_kept(tmp_path: Path, loop: Loop) -> None:
    async def say(client: Client) -> Any:
        return client.hello

    with control_server(tmp_path / "s", answers):
        assert talk(loop, tmp_path / "s", say) == HELLO


def test_a_socket_of_somebody_else(tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system answers where its mode forbids it; root may open everything."""

    def refuse(self: Any, path: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", refuse)

    async def main() -> None:
        async with connect(tmp_path / "s"):
            raise AssertionError("it must not open")

    with pytest.raises(DaemonUnreachable, match=r"you may not speak to .*--control-group"):
        on(loop, main)
