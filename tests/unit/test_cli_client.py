"""The control client against a daemon that answers, lies, breaks off or is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import control
from protocol.control import LogChunk, LogsArgs, PsArgs, PsView, RunArgs
from protocol.control_market import MarketArgs, MarketView
from protocol.errors import (
    DaemonUnreachable,
    LeaseUnknown,
    MessageInvalid,
    MessageTooLarge,
    PeerRefused,
)
from tests.support.control_server import Replies, Reply, control_server
from tui.client import connect, error_of

NO_LEASES: dict[str, Any] = {"ok": {"leases": []}}


def ask(path: Path, verb: str, args: object) -> Any:
    async def talk() -> Any:
        async with connect(path) as client:
            return await client.call(verb, args)

    return run(talk())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


def says(*replies: Reply) -> Replies:
    return lambda verb, args: replies


def test_an_answer_is_typed(tmp_path: Path) -> None:
    with control_server(tmp_path / "s", says(NO_LEASES)) as received:
        assert ask(tmp_path / "s", "ps", PsArgs(all=True)) == PsView([])
    assert received == [PsArgs(all=True)]


def test_unknown_fields_of_a_newer_daemon_are_ignored(tmp_path: Path) -> None:
    with control_server(tmp_path / "s", says({"ok": {"leases": [], "new": 1}})):
        assert ask(tmp_path / "s", "ps", PsArgs()) == PsView([])


def test_events_come_before_the_answer(tmp_path: Path) -> None:
    async def collect() -> list[Any]:
        async with connect(tmp_path / "s") as client:
            return [item async for item in client.stream("logs", LogsArgs("abcd"))]

    replies = says({"event": {"data": b"one"}}, {"event": {"data": b"\xff\x00"}}, {"ok": {}})
    with control_server(tmp_path / "s", replies):
        assert run(collect()) == [LogChunk(b"one"), LogChunk(b"\xff\x00"), control.Done()]


def test_two_requests_share_one_connection(tmp_path: Path) -> None:
    def replies(verb: str, args: Any) -> Iterator[Reply]:
        yield NO_LEASES if verb == "ps" else {"ok": {"offers": []}}

    async def both() -> Any:
        async with connect(tmp_path / "s") as client:
            return await asyncio.gather(client.call("ps", PsArgs()), client.call("market", MarketArgs()))

    with control_server(tmp_path / "s", replies):
        assert run(both()) == [PsView([]), MarketView([])]


def test_a_stream_left_early_does_not_block_the_next_request(tmp_path: Path) -> None:
    """More events than a queue holds arrive for a stream that nobody reads any more."""

    def replies(verb: str, args: Any) -> Iterator[Reply]:
        yield from ({"event": {"data": b"x"}} for _ in range(1_000)) if verb == "logs" else ()
        yield {"ok": {}} if verb == "logs" else NO_LEASES

    async def leave() -> Any:
        async with connect(tmp_path / "s") as client:
            stream = client.stream("logs", LogsArgs("abcd", follow=True))
            await anext(stream)
            await asyncio.sleep(0)
            await stream.aclose()
            return await client.call("ps", PsArgs())

    with control_server(tmp_path / "s", replies):
        assert run(leave()) == PsView([])


def test_no_daemon_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match=r"no qubix daemon answers at .*; start one with `qubix up`"):
        ask(tmp_path / "absent", "ps", PsArgs())


def test_a_path_too_long_for_a_socket_is_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable):
        ask(tmp_path / ("x" * 200), "ps", PsArgs())


@pytest.mark.parametrize("broken", [b"", b"\0\0", b"\0\0\0\x09half"])
def test_a_daemon_that_breaks_off(tmp_path: Path, broken: bytes) -> None:
    with control_server(tmp_path / "s", says(broken)), pytest.raises(DaemonUnreachable, match="ended before"):
        ask(tmp_path / "s", "ps", PsArgs())


def test_a_daemon_that_breaks_off_tells_everyone_who_waits(tmp_path: Path) -> None:
    async def both() -> Any:
        async with connect(tmp_path / "s") as client:
            calls = (client.call("ps", PsArgs()), client.call("ps", PsArgs()))
            first = await asyncio.gather(*calls, return_exceptions=True)
            return [*first, *await asyncio.gather(client.call("ps", PsArgs()), return_exceptions=True)]

    with control_server(tmp_path / "s", says(b"")):
        assert [type(error) for error in run(both())] == [DaemonUnreachable] * 3


def test_a_frame_above_the_limit_is_not_read(tmp_path: Path) -> None:
    size = (control.MAX_FRAME_BYTES + 1).to_bytes(4, "big")
    with control_server(tmp_path / "s", says(size)), pytest.raises(MessageTooLarge):
        ask(tmp_path / "s", "ps", PsArgs())


def test_a_request_above_the_limit_is_not_sent(tmp_path: Path) -> None:
    args = RunArgs("x" * control.MAX_FRAME_BYTES, "/", "/")
    with control_server(tmp_path / "s", says(NO_LEASES)) as received, pytest.raises(MessageTooLarge):
        ask(tmp_path / "s", "run", args)
    assert received == []


@pytest.mark.parametrize(
    "reply",
    [
        {"ok": {}},
        {"ok": None},
        {"ok": {"leases": "none"}},
        {"error": {"code": "x.y"}},
        {"error": {"code": "x.y", "message": "m", "exit_code": 0}},
        {"event": {"data": b""}},
        {"other": 1},
        control.pack({"id": "one"}),
        b"\0\0\0\x01\xc1",
    ],
)
def test_an_answer_of_the_wrong_shape_is_refused(tmp_path: Path, reply: Reply) -> None:
    with control_server(tmp_path / "s", says(reply)), pytest.raises(MessageInvalid):
        ask(tmp_path / "s", "ps", PsArgs())


def test_the_daemons_error_is_raised_as_its_kind(tmp_path: Path) -> None:
    error = {"code": "lease.unknown", "message": "no such lease", "exit_code": 3}
    with control_server(tmp_path / "s", says({"error": error})), pytest.raises(LeaseUnknown) as caught:
        ask(tmp_path / "s", "ps", PsArgs())
    assert (str(caught.value), caught.value.code, caught.value.exit_code) == (
        "no such lease",
        "lease.unknown",
        3,
    )


@pytest.mark.parametrize("code", ["quote.taken_by_aliens", PeerRefused.code])
def test_codes_without_a_class_keep_code_and_exit(code: str) -> None:
    error = error_of(code, "sentence", 4)
    assert (error.code, str(error), error.exit_code) == (code, "sentence", 4)


def test_every_verb_has_an_answer() -> None:
    assert control.ANSWERS.keys() == control.VERBS.keys()
    assert control.EVENTS.keys() <= control.VERBS.keys()
