"""The RPC client against services that are down, slow, behind, refusing, garbled or lying."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from escrow_bridge.chain import Chain, Outcome
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, FIRST_TICK
from escrow_bridge.devnet.engine import Engine, Rules
from escrow_bridge.devnet.rpc_server import ARCHIVE, LIVE, RpcServer
from escrow_bridge.node_peer import Timing
from escrow_bridge.qubic import sign_transaction
from escrow_bridge.rpc import MAX_BODY_BYTES, open_rpc_chain, parse_url
from protocol.errors import ChainUnreachable, ConfigInvalid
from protocol.units import Qu, Tick
from tests.support.nodes import BRISK, FAST, OTHER, RICH, Handler, engine_at, never_sent, serving

Twist = Callable[[str, int, Any], tuple[int, Any]]
"""(path, honest status, honest answer) -> what is sent instead; bytes are sent as they are."""


class Twisted(RpcServer):
    """The devnet's RPC whose answers are twisted on their way out."""

    twist: Twist

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        return self.twist(path, *super().answer(method, path, body))


@asynccontextmanager
async def chain_over(handler: Handler, timing: Timing = FAST) -> AsyncIterator[Chain]:
    async with (
        serving(handler) as addresses,
        open_rpc_chain(f"rpc+http://{addresses[0]}", timing) as chain,
    ):
        yield chain


@asynccontextmanager
async def twisted(engine: Engine, twist: Twist, lag: int = 2) -> AsyncIterator[Chain]:
    server = Twisted(engine, lag)
    server.twist = twist
    async with chain_over(server.handle) as chain:
        yield chain


def with_a_transaction() -> tuple[Engine, bytes, Tick]:
    engine = engine_at(5)
    tick = Tick(FIRST_TICK + 8)
    raw = sign_transaction(RICH, OTHER.public_key, Qu(300), tick)
    assert engine.submit(raw) is None
    for _ in range(7):
        engine.advance()
    return engine, raw, tick


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("rpc+http://127.0.0.1:81", "http://127.0.0.1:81"),
        ("rpc+http://127.0.0.1:80", "http://127.0.0.1"),
        ("rpc+https://RPC.qubic.org:443/", "https://rpc.qubic.org"),
        ("rpc+https://rpc.qubic.org:80/A", "https://rpc.qubic.org:80/A"),
        ("rpc+http://[::1]:80", "http://[::1]"),
        ("rpc+https://rpc.qubic.org", "https://rpc.qubic.org"),
        ("rpc+https://rpc.qubic.org/", "https://rpc.qubic.org"),
        ("rpc+http://[::1]:8080/proxy/", "http://[::1]:8080/proxy"),
    ],
)
def test_addresses(url: str, base: str) -> None:
    assert parse_url(url) == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        "rpc+http://",
        "http://host",
        "rpc+ftp://host",
        "rpc+http://host:x",
        "rpc+http://host:0",
        "rpc+http://host:65536",
        "rpc+http://[::1",
        "rpc+http://user:secret@host",
        "rpc+http://host?a=b",
        "rpc+http://host#a",
    ],
)
def test_wrong_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse_url(url)


async def test_what_the_archive_has_not_processed_says_nothing() -> None:
    engine, raw, tick = with_a_transaction()
    async with twisted(engine, lambda path, status, answer: (status, answer), lag=4) as chain:
        assert await chain.outcome(raw) is Outcome.PENDING
        assert await chain.outcome(never_sent(tick)) is Outcome.PENDING
        with pytest.raises(ChainUnreachable, match="does not know tick"):
            await chain.transactions(tick)
        engine.advance()
        assert await chain.outcome(raw) is Outcome.INCLUDED
        assert await chain.outcome(never_sent(tick)) is Outcome.MISSED
        assert await chain.transactions(tick) == (raw,)


async def test_a_tick_before_the_archive_is_unknown() -> None:
    engine = engine_at()
    engine.rules = Rules(keep_ticks=100)
    for _ in range(110):
        engine.advance()
    async with chain_over(RpcServer(engine).handle) as chain:
        assert await chain.outcome(never_sent(Tick(FIRST_TICK + 3))) is Outcome.UNKNOWN
        assert await chain.transactions(Tick(FIRST_TICK + 3)) is None
        assert await chain.outcome(never_sent(Tick(FIRST_TICK + 50))) is Outcome.MISSED


async def test_a_tick_that_the_network_skipped_ran_nothing() -> None:
    engine, tick = engine_at(13), Tick(FIRST_TICK + 8)

    def skipped(path: str, status: int, answer: Any) -> tuple[int, Any]:
        if path == f"{ARCHIVE}/getProcessedTickIntervals":
            intervals = [(FIRST_TICK, tick - 1), (tick + 1, tick + 2)]
            return 200, {
                "processedTickIntervals": [{"epoch": 1, "firstTick": a, "lastTick": b} for a, b in intervals]
            }
        of_tick = (f"{ARCHIVE}/getTickData", f"{ARCHIVE}/getTransactionsForTick")
        return (400, {"code": 3, "message": "skipped"}) if path in of_tick else (status, answer)

    async with twisted(engine, skipped) as chain:
        assert await chain.outcome(never_sent(tick)) is Outcome.PENDING, "the archive is not beyond it yet"
        with pytest.raises(ChainUnreachable, match="does not know tick"):
            await chain.transactions(tick)
        engine.advance()
        assert await chain.outcome(never_sent(tick)) is Outcome.MISSED
        assert await chain.transactions(tick) == ()


async def test_numbers_may_come_as_strings_and_unknown_fields_are_ignored() -> None:
    def stringly(path: str, status: int, answer: Any) -> tuple[int, Any]:
        return status, {**json.loads(json.dumps(answer), parse_int=str), "news": [1, {"a": None}]}

    engine, raw, tick = with_a_transaction()
    async with twisted(engine, stringly) as chain:
        assert await chain.tick_info() == engine.tick_info()
        assert (await chain.balance(RICH.public_key)).amount == 700
        assert await chain.transactions(tick) == (raw,)


CALLS: dict[str, Callable[[Chain, Tick], Awaitable[object]]] = {
    f"{LIVE}/tick-info": lambda chain, tick: chain.tick_info(),
    f"{LIVE}/balances": lambda chain, tick: chain.balance(RICH.public_key),
    f"{LIVE}/querySmartContract": lambda chain, tick: chain.query(CONTRACT_INDEX, 2, b""),
    f"{LIVE}/broadcast-transaction": lambda chain, tick: chain.broadcast(bytes(144)),
    f"{ARCHIVE}/getLastProcessedTick": lambda chain, tick: chain.transactions(tick),
    f"{ARCHIVE}/getTickData": lambda chain, tick: chain.outcome(never_sent(tick)),
    f"{ARCHIVE}/getTransactionsForTick": lambda chain, tick: chain.transactions(tick),
    f"{ARCHIVE}/getTransactionByHash": lambda chain, tick: chain.outcome(never_sent(tick)),
}


NONSENSE = {
    "tickInfo": {"tick": -1},
    "balance": 3,
    "responseData": 5,
    "tickNumber": 1.5,
    "tickData": {"tickNumber": "x"},
    "transactions": "none",
    "transaction": [1],
}
BAD_ANSWERS = [
    (500, {"code": 13, "message": "database\nis down", "details": []}, r"database\?is down \(code 13\)"),
    (503, {}, "HTTP status 503"),
    (502, ["<html>"], "HTTP status 502"),
    (302, {}, "HTTP status 302"),
    (200, [], "something else"),
]


@pytest.mark.attack
@pytest.mark.parametrize(
    ("path", "status", "answer", "sentence"),
    [(path, *bad) for path in CALLS for bad in BAD_ANSWERS]
    # Of what a broadcast answers nothing is read.
    + [(path, 200, NONSENSE, "something else") for path in CALLS if "broadcast" not in path],
)
async def test_refusals_and_garbage_end_in_one_sentence(
    path: str, status: int, answer: Any, sentence: str
) -> None:
    def twist(asked: str, honest: int, usual: Any) -> tuple[int, Any]:
        return (status, answer) if asked.startswith(path) else (honest, usual)

    engine, _, tick = with_a_transaction()
    async with twisted(engine, twist) as chain:
        with pytest.raises(ChainUnreachable, match=sentence) as raised:
            await CALLS[path](chain, tick)
    assert "\n" not in str(raised.value)


@pytest.mark.attack
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", "301"),
        ("amount", "-1"),
        ("signature", "AAAA"),
        ("signature", "no base64"),
        ("source", "A" * 60),
        ("inputSize", 7),
        ("tickNumber", 1),
    ],
)
async def test_a_transaction_that_is_not_the_one_in_the_tick_is_not_taken(field: str, value: object) -> None:
    def twist(path: str, status: int, answer: Any) -> tuple[int, Any]:
        if path == f"{ARCHIVE}/getTransactionsForTick":
            answer["transactions"][0][field] = value
        return status, answer

    engine, _, tick = with_a_transaction()
    async with twisted(engine, twist) as chain:
        with pytest.raises(ChainUnreachable, match="answers with"):
            await chain.transactions(tick)


@pytest.mark.attack
@pytest.mark.parametrize(
    ("path", "change"),
    [
        (f"{LIVE}/balances", lambda answer: answer["balance"].update(id="A" * 60)),
        (f"{ARCHIVE}/getTickData", lambda answer: answer["tickData"].update(tickNumber=1)),
        (f"{ARCHIVE}/getTickData", lambda answer: answer["tickData"].update(transactionHashes=["x"])),
        (f"{ARCHIVE}/getTransactionsForTick", lambda answer: answer["transactions"].clear()),
    ],
)
async def test_answers_about_something_else_are_not_taken(path: str, change: Callable[[Any], None]) -> None:
    def twist(asked: str, status: int, answer: Any) -> tuple[int, Any]:
        if asked.startswith(path):
            change(answer)
        return status, answer

    engine, _, tick = with_a_transaction()
    async with twisted(engine, twist) as chain:
        with pytest.raises(ChainUnreachable, match="answers with"):
            await chain.balance(RICH.public_key)
            await chain.transactions(tick)


async def mute(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


async def endless(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    for _ in range(2 * MAX_BODY_BYTES >> 16):
        await stream.send_all(bytes(1 << 16))


async def no_http(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"\x00\x01 garbage\r\n\r\n" * 100)


async def hangs_up(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


async def trickles(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        await stream.send_all(b" ")
        await trio.sleep(0.05)


@pytest.mark.attack
@pytest.mark.timeout(60)
async def test_an_answer_that_trickles_in_for_ever_is_none() -> None:
    async with chain_over(trickles, replace(BRISK, answer_seconds=0.3)) as chain:
        with pytest.raises(ChainUnreachable, match=r"does not answer \(too slowly\)"):
            await chain.tick_info()


@pytest.mark.attack
@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        (mute, "does not answer"),
        (endless, "more than"),
        (no_http, "does not answer"),
        (hangs_up, "does not answer"),
    ],
)
async def test_a_service_that_does_not_speak_http_ends_in_one_sentence(
    handler: Handler, sentence: str
) -> None:
    async with chain_over(handler, BRISK) as chain:
        with pytest.raises(ChainUnreachable, match=sentence) as raised:
            await chain.tick_info()
    assert "\n" not in str(raised.value)


async def test_a_service_that_is_down_is_unreachable_and_used_again_when_it_is_back() -> None:
    async with serving(RpcServer(engine_at()).handle) as addresses:
        pass
    port = int(addresses[0].rpartition(":")[2])
    async with open_rpc_chain(f"rpc+http://{addresses[0]}", FAST) as chain:
        with pytest.raises(ChainUnreachable, match=addresses[0]):
            await chain.tick_info()
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, RpcServer(engine_at(2)).handle, listeners)
            assert (await chain.tick_info()).tick == FIRST_TICK + 2
            nursery.cancel_scope.cancel()
