"""The node client against nodes that die, lag, keep silent or lie about sizes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from escrow_bridge import wire_format as wire
from escrow_bridge.chain import Outcome
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, FIRST_TICK, build_engine
from escrow_bridge.devnet.engine import Engine, Rules
from escrow_bridge.devnet.server import GREETING, Server
from escrow_bridge.node import MAX_LAG_TICKS, open_node_chain
from escrow_bridge.node_peer import Timing
from escrow_bridge.qubic import sign_transaction, transaction_digest
from escrow_bridge.wire_format import Kind, MessageReader, encode
from protocol.errors import ChainUnreachable, ConfigInvalid
from protocol.units import Qu, Tick
from tests.support.chains import wallet_of
from tests.support.devnet_process import devnet_process

RICH, OTHER = wallet_of(0), wallet_of(1)
FAST = Timing(connect_seconds=1.0, answer_seconds=0.3, first_retry_seconds=0.02, last_retry_seconds=0.1)
Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def serving(*handlers: Handler) -> AsyncIterator[list[str]]:
    """Addresses of in-process servers, one per handler, gone at the end."""
    async with trio.open_nursery() as nursery:
        addresses = []
        for handler in handlers:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handler, listeners)
            addresses.append(f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        with trio.fail_after(30):
            yield addresses
        nursery.cancel_scope.cancel()


def engine_at(offset: int = 0) -> Engine:
    engine = build_engine(Rules(), [(RICH.public_key, Qu(1_000))])
    for _ in range(offset):
        engine.advance()
    return engine


def node(engine: Engine) -> Handler:
    return Server(engine).handle


@pytest.mark.parametrize("address", ["", "host", "host:", "host:0", "host:65536", "host:x", ":1"])
async def test_wrong_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigInvalid):
        async with open_node_chain([address]):
            pass


async def test_no_address_is_refused() -> None:
    with pytest.raises(ConfigInvalid):
        async with open_node_chain([]):
            pass


async def test_all_calls_over_one_node() -> None:
    engine = engine_at(5)
    async with serving(node(engine)) as addresses, open_node_chain(addresses, FAST) as chain:
        info = await chain.tick_info()
        assert info == engine.tick_info()
        raw = sign_transaction(RICH, OTHER.public_key, Qu(300), Tick(info.tick + 3))
        assert await chain.outcome(transaction_digest(raw), Tick(info.tick + 3)) is Outcome.PENDING
        await chain.broadcast(raw)
        await chain.tick_info()  # the node has read everything sent before this
        for _ in range(4):
            engine.advance()
        assert await chain.outcome(transaction_digest(raw), Tick(info.tick + 3)) is Outcome.INCLUDED
        assert await chain.outcome(bytes(32), Tick(info.tick + 3)) is Outcome.MISSED
        assert await chain.transactions(Tick(info.tick + 3)) == (raw,)
        balance = await chain.balance(OTHER.public_key)
        assert (balance.amount, balance.as_of) == (300, info.tick + 4)
        assert (await chain.balance(wallet_of(5).public_key)).amount == 0
        assert len(await chain.query(CONTRACT_INDEX, 2, b"")) > 0
        assert await chain.query(CONTRACT_INDEX + 1, 2, b"") == b""


async def test_what_no_data_for_a_tick_means() -> None:
    engine = engine_at(60)
    async with serving(node(engine)) as addresses, open_node_chain(addresses, FAST) as chain:
        now = (await chain.tick_info()).tick
        expected = {
            0: Outcome.PENDING,
            1: Outcome.PENDING,
            2: Outcome.MISSED,
            49: Outcome.MISSED,
            50: Outcome.UNKNOWN,
        }
        for age, outcome in expected.items():
            assert await chain.outcome(bytes(32), Tick(now - age)) is outcome
        assert await chain.transactions(Tick(now - 2)) == ()
        assert await chain.transactions(Tick(now - 1)) is None
        assert await chain.transactions(Tick(now - 50)) is None
        engine.end_epoch()
        for _ in range(3):
            engine.advance()
        assert await chain.outcome(bytes(32), Tick(now - 1)) is Outcome.UNKNOWN
        assert await chain.outcome(bytes(32), Tick(now + 1)) is Outcome.MISSED


async def test_the_next_node_answers_when_the_first_is_dead() -> None:
    engine = engine_at(5)
    async with serving(node(engine)) as dead:
        pass
    async with serving(node(engine)) as living, open_node_chain([*dead, *living], FAST) as chain:
        assert (await chain.tick_info()).tick == FIRST_TICK + 5


async def test_a_lagging_node_is_not_read_from() -> None:
    ahead, behind = engine_at(10), engine_at(10 - MAX_LAG_TICKS - 1)
    cut = trio.CancelScope()

    async def mortal(stream: trio.SocketStream) -> None:
        with cut:
            await node(ahead)(stream)

    async with serving(mortal, node(behind)) as addresses, open_node_chain(addresses, FAST) as chain:
        await wait_for_tick(chain.tick_info, FIRST_TICK + 10)
        cut.cancel()
        with pytest.raises(ChainUnreachable, match="behind tick"):
            while True:
                assert (await chain.tick_info()).tick == FIRST_TICK + 10
        behind.advance()
        assert (await chain.tick_info()).tick == FIRST_TICK + 8


async def wait_for_tick(tick_info: Callable[[], Awaitable[object]], tick: int) -> None:
    while getattr(await tick_info(), "tick", 0) != tick:
        await trio.sleep(0.01)


async def silent(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def rude(stream: trio.SocketStream) -> None:
    await stream.send_all(encode(Kind.TICK_INFO, 1, bytes(16)))
    await trio.sleep_forever()


async def mute(stream: trio.SocketStream) -> None:
    await stream.send_all(GREETING)
    async for _ in stream:
        pass


async def huge(stream: trio.SocketStream) -> None:
    await stream.send_all(GREETING + b"\xff\xff\xff" + bytes(5))
    await trio.sleep_forever()


async def busy(stream: trio.SocketStream) -> None:
    await _answer_all(stream, Kind.TRY_AGAIN, b"")


async def short(stream: trio.SocketStream) -> None:
    await _answer_all(stream, Kind.TICK_INFO, bytes(15))


async def _answer_all(stream: trio.SocketStream, kind: Kind, payload: bytes) -> None:
    await stream.send_all(GREETING)
    reader = MessageReader(stream)
    while (message := await reader.receive()) is not None:
        await stream.send_all(encode(kind, message.dejavu, payload))


@pytest.mark.parametrize(
    ("handler", "trouble"),
    [
        (silent, "no greeting"),
        (rude, "did not greet"),
        (mute, "no answer within"),
        (huge, "announced"),
        (busy, "busy"),
        (short, "must have 16 bytes"),
    ],
)
async def test_a_broken_node_ends_in_one_sentence_and_another_one_helps(
    handler: Handler, trouble: str
) -> None:
    async with serving(handler, node(engine_at(3))) as addresses:
        async with open_node_chain(addresses[:1], FAST) as chain:
            with pytest.raises(ChainUnreachable, match=trouble):
                await chain.tick_info()
        async with open_node_chain(addresses, FAST) as chain:
            await wait_for_tick(chain.tick_info, FIRST_TICK + 3)


async def test_foreign_messages_are_ignored() -> None:
    async def chatty(stream: trio.SocketStream) -> None:
        await stream.send_all(GREETING)
        reader = MessageReader(stream)
        while (message := await reader.receive()) is not None:
            noise = encode(Kind.TRANSACTION, 0, bytes(144)) + encode(Kind.TICK_DATA, 77, bytes(50_000))
            reply = encode(Kind.TICK_INFO, message.dejavu, wire.pack_tick_info(engine.tick_info()))
            await stream.send_all(noise + reply)

    engine = engine_at()
    async with serving(chatty) as addresses, open_node_chain(addresses, FAST) as chain:
        for _ in range(5):
            assert await chain.tick_info() == engine.tick_info()


async def test_busy_for_a_moment_is_waited_for() -> None:
    async def first_busy(stream: trio.SocketStream) -> None:
        await stream.send_all(GREETING)
        reader, refusals = MessageReader(stream), 2
        while (message := await reader.receive()) is not None:
            if refusals:
                refusals -= 1
                await stream.send_all(encode(Kind.TRY_AGAIN, message.dejavu))
            else:
                info = wire.pack_tick_info(engine.tick_info())
                await stream.send_all(encode(Kind.TICK_INFO, message.dejavu, info))

    engine = engine_at()
    async with serving(first_busy) as addresses, open_node_chain(addresses, FAST) as chain:
        assert await chain.tick_info() == engine.tick_info()


async def test_reconnects_when_the_node_comes_back_on_its_port() -> None:
    async with (
        devnet_process([(RICH.public_key, Qu(5))]) as first,
        open_node_chain([first.node], FAST) as chain,
    ):
        assert (await chain.balance(RICH.public_key)).amount == 5
        first.process.kill()
        await first.process.wait()
        with pytest.raises(ChainUnreachable, match=first.node):
            await chain.tick_info()
        async with devnet_process([(RICH.public_key, Qu(6))], port=first.port):
            assert (await chain.balance(RICH.public_key)).amount == 6


async def test_the_callers_own_error_comes_out_as_it_is() -> None:
    class Own(Exception):
        pass

    async with serving(node(engine_at())) as addresses:
        with pytest.raises(Own):
            async with open_node_chain(addresses, FAST):
                raise Own
