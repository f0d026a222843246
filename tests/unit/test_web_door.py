"""Strangers who keep a connection without asking, ask without end, or do not take the answer."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, Final

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from web import door
from web.door import LONGEST_HEAD, Http, room_for

PATIENCE_S: Final = 30
LARGE: Final = b"x" * (8 << 20)
ASK: Final = b"GET /%b HTTP/1.1\r\nhost: market.test\r\n\r\n"
needs_httptools: Final = pytest.mark.skipif(
    find_spec("httptools") is None, reason="h11 lets the next one wait, and notices who leaves"
)
Reader = asyncio.StreamReader
Connect = Callable[[], Awaitable[tuple[Reader, asyncio.StreamWriter]]]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    body = LARGE if scope["path"] == "/large" else b"here"
    headers = [(b"content-length", str(len(body)).encode())]
    if scope["path"] == "/never":
        while (await receive())["type"] != "http.disconnect":
            pass
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(each: int = 10, most: int = 100) -> AsyncIterator[Connect]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        http: Any = functools.partial(Http, each=each, most=most)
        config = uvicorn.Config(app, http=http, ws="none", lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([listening]))
        try:
            yield functools.partial(asyncio.open_connection, *listening.getsockname()[:2])
        finally:
            server.should_exit = True
            await serving


async def answer(reader: Reader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"here"), PATIENCE_S)


async def rest(reader: Reader) -> bytes:
    """Until the other side ends it, in whatever way."""
    read = bytearray()
    try:
        while some := await asyncio.wait_for(reader.read(1 << 16), PATIENCE_S):
            read += some
    except ConnectionError:
        pass
    return bytes(read)


def run(check: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(check(), PATIENCE_S))


def test_who_does_not_ask_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_S", 0.2)

    async def check() -> None:
        async with serving() as connect:
            silent, _ = await connect()
            slow, writer = await connect()
            again, other = await connect()
            other.write(ASK % b"")
            await answer(again)
            for side in (writer, other):
                side.write(b"GET / HTTP/1.1\r\nhost: ")  # and never the rest
            for reader in (silent, slow, again):
                assert await rest(reader) == b""

    run(check)


@pytest.mark.parametrize(
    "asked",
    [
        b"GET / HTTP/1.1\r\nx: " + b"a" * (16 * LONGEST_HEAD),
        b"GET / HTTP/1.1\r\nx: " + b"a" * LONGEST_HEAD + b"\r\n\r\n",
        b"GET /" + b"a" * (16 * LONGEST_HEAD),
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * (LONGEST_HEAD // 3),
        pytest.param(ASK % b"never" + ASK % b"", marks=needs_httptools),
    ],
)
def test_who_asks_without_end_is_not_listened_to(asked: bytes) -> None:
    async def check() -> None:
        async with serving() as connect:
            reader, writer = await connect()
            writer.write(asked)
            assert b"200" not in await rest(reader)
            reader, writer = await connect()
            for _ in range(2):
                writer.write(ASK % (b"a" * (LONGEST_HEAD - 1_000)))
                assert b"200 OK" in await answer(reader)

    run(check)


def test_a_body_is_not_waited_for() -> None:
    async def check() -> None:
        async with serving() as connect:
            reader, writer = await connect()
            writer.write(b"POST / HTTP/1.1\r\nhost: market.test\r\ncontent-length: 1000000\r\n\r\nx")
            assert (await rest(reader)).endswith(b"here")

    run(check)


def test_who_does_not_take_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "STALLED_S", 0.2)

    async def check() -> None:
        async with serving(each=2) as connect:
            for _ in range(4):  # each frees its place
                reader, writer = await connect()
                writer.write(ASK % b"large")
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
                assert b"200 OK" in head
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
                while Http._open:
                    await asyncio.sleep(0.05)

    run(check)


def test_an_address_has_so_many_connections_and_all_together_too() -> None:
    async def check(each: int, most: int) -> None:
        async with serving(each, most) as connect:
            held = [await connect() for _ in range(2)]
            for reader, writer in held:
                writer.write(ASK % b"")
                await answer(reader)
            more, _ = await connect()
            assert await rest(more) == b""
            held[0][1].close()
            await held[0][1].wait_closed()
            while Http._open.total() > 1:
                await asyncio.sleep(0)
            reader, writer = await connect()
            writer.write(ASK % b"")
            assert b"200 OK" in await answer(reader)

    run(functools.partial(check, 2, 100))
    run(functools.partial(check, 0, 2))


def test_room_is_what_the_system_gives() -> None:
    assert room_for(10) == 10
    assert 0 < room_for(10**9) <= 10**9
