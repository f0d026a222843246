"""One node behind the client: everything it can be asked, and every way in which it can be broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from escrow_bridge.chain import Chain, Outcome
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, FIRST_TICK
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.devnet.server import GREETING, Server
from escrow_bridge.layout import Function
from escrow_bridge.node import open_node_chain
from escrow_bridge.qubic import sign_transaction
from escrow_bridge.wire_format import Kind, MessageReader, encode, pack_tick_info
from protocol.errors import ChainUnreachable, ConfigInvalid
from protocol.units import Qu, Tick
from tests.support.chains import wallet_of
from tests.support.devnet_process import devnet_process
from tests.support.hostile_nodes import busy, hasty, huge, mute, noisy, reordering, rude, short, silent
from tests.support.nodes import BRISK, FAST, RICH, Handler, engine_at, never_sent, node, serving


@pytest.mark.parametrize("address", ["", "host", "host:", "host:0", "host:65536", "host:x", ":1"])
async def test_wrong_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigInvalid):
        async with open_node_chain([address]):
            pass


async def test_a_node_named_twice_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="twice"):
        async with open_node_chain(["localhost:1", "127.0.0.1:2", "LocalHost:1"]):
            pass


async def test_a_single_node_is_trusted_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with open_node_chain(["127.0.0.1:1"], FAST):
        pass
    assert "only one Qubic node" in caplog.text


async def test_no_address_is_refused() -> None:
    with pytest.raises(ConfigInvalid):
        async with open_node_chain([]):
            pass


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
            assert await chain.outcome(never_sent(Tick(now - age))) is outcome
        assert await chain.transactions(Tick(now - 2)) == ()
        assert await chain.transactions(Tick(now - 1)) is None
        assert await chain.transactions(Tick(now - 50)) is None
        engine.end_epoch()
        for _ in range(3):
            engine.advance()
        assert await chain.outcome(never_sent(Tick(now - 1))) is Outcome.UNKNOWN
        assert await chain.outcome(never_sent(Tick(now + 1))) is Outcome.MISSED


async def test_a_node_that_catches_up_between_two_answers_calls_no_tick_empty() -> None:
    """Its "no data" is from before the tick, its own tick from after it."""
    engine = engine_at()
    raw = sign_transaction(RICH, wallet_of(1).public_key, Qu(1), Tick(FIRST_TICK + 5), 0, b"")
    assert engine.submit(raw) is None
    for _ in range(10):
        engine.advance()
    late = True

    async def catching_up(stream: trio.SocketStream) -> None:
        nonlocal late
        await stream.send_all(GREETING)
        server, reader = Server(engine), MessageReader(stream)
        while (message := await reader.receive()) is not None:
            if message.kind == Kind.REQUEST_TICK_DATA and late:
                late = False
                await stream.send_all(encode(Kind.END, message.dejavu))
            else:
                await stream.send_all(b"".join(server.answers(message)))

    async with serving(catching_up) as addresses, open_node_chain(addresses, FAST) as chain:
        assert await chain.outcome(raw) is Outcome.INCLUDED
    assert not late


async def wait_for_tick(tick_info: Callable[[], Awaitable[object]], tick: int) -> None:
    while getattr(await tick_info(), "tick", 0) != tick:
        await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("handler", "trouble"),
    [
        (silent, "no greeting"),
        (rude, "did not greet"),
        (mute, "no answer within"),
        (huge, "announced"),
        (busy, "busy"),
        (short, "must have 16 bytes"),
        (hasty, "closed the connection"),
        (noisy, "no Qubic node answers"),
    ],
)
async def test_a_broken_node_ends_in_one_sentence_and_two_others_do_without_it(
    handler: Handler, trouble: str
) -> None:
    honest = engine_at(3)
    async with serving(handler, node(honest), node(honest)) as addresses:
        async with open_node_chain(addresses[:1], BRISK) as chain:
            with pytest.raises(ChainUnreachable, match=trouble):
                await chain.tick_info()
        async with open_node_chain(addresses, FAST) as chain:
            await wait_for_tick(chain.tick_info, FIRST_TICK + 3)


async def test_a_refused_connection_has_a_sentence() -> None:
    async with serving(silent) as gone:
        pass
    async with open_node_chain(gone, BRISK) as chain:
        with pytest.raises(ChainUnreachable, match=f"all attempts to connect to {gone[0]} failed"):
            await chain.tick_info()


async def test_replies_out_of_order_reach_whom_they_are_for() -> None:
    engine = engine_at()
    async with (
        serving(reordering(engine, hold=8)) as addresses,
        open_node_chain(addresses, FAST) as chain,
        trio.open_nursery() as nursery,
    ):
        for number in range(8):
            nursery.start_soon(_check, chain, engine, number)


async def _check(chain: Chain, engine: Engine, number: int) -> None:
    owner = wallet_of(number).public_key
    if number % 2:
        assert (await chain.query(CONTRACT_INDEX, Function.GET_INFO, owner))[:4] == CONTRACT_INDEX.to_bytes(
            4, "little"
        )
    else:
        assert (await chain.balance(owner)).amount == engine.balance(owner)


async def test_busy_for_a_moment_is_waited_for() -> None:
    async def first_busy(stream: trio.SocketStream) -> None:
        await stream.send_all(GREETING)
        reader, refusals = MessageReader(stream), 2
        while (message := await reader.receive()) is not None:
            if refusals:
                refusals -= 1
                await stream.send_all(encode(Kind.TRY_AGAIN, message.dejavu))
            else:
                info = pack_tick_info(engine.tick_info())
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
