"""Hostile peers at the first byte of the port and at a relay; after each attack an honest peer is served."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamError

from protocol.messages import Refusal, decode, encode
from protocol.relay_messages import Connect, Incoming, Observe, Reserve, Reserved
from protocol.units import PeerKey
from qubixd.wire_libp2p.yamux_stream import YamuxStream
from tests.support.wire_arena import BRISK, HOSTILE_IP, LIMITS, arena
from tests.support.wire_nodes import (
    PATIENCE_SECONDS,
    Hostile,
    assert_echoes,
    hostile,
    node,
    tcp_to,
    until,
)

pytestmark = pytest.mark.attack

QUESTION = b"QUBIX/1\n" + bytes(8)


async def ended(tcp: trio.SocketStream) -> bytes:
    received = b""
    with trio.fail_after(PATIENCE_SECONDS), suppress(trio.BrokenResourceError):
        async for chunk in tcp:
            received += chunk
    return received


@pytest.mark.parametrize("words", [b"QUBIX/1\n", b"\x16"], ids=repr)
async def test_who_begins_and_does_not_go_on_takes_no_honest_place(words: bytes) -> None:
    async def never(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with arena(BRISK) as at, AsyncExitStack() as stack:
        at.node.take_sockets(0x16, never)
        many = [await stack.enter_async_context(await tcp_to(at.node, HOSTILE_IP)) for _ in range(30)]
        for tcp in many:
            with suppress(trio.BrokenResourceError):
                await tcp.send_all(words)
        async with node(3) as late:
            await assert_echoes(late, at.node)
        for tcp in many:
            assert await ended(tcp) == b""


async def test_answered_questions_are_held_open_for_few() -> None:
    async with arena() as at, AsyncExitStack() as stack:
        held = []
        for _ in range(LIMITS.echoes_per_ip + 6):
            tcp = await stack.enter_async_context(await tcp_to(at.node, HOSTILE_IP))
            await tcp.send_all(QUESTION)
            assert (await tcp.receive_some()).startswith(bytes(8) + HOSTILE_IP.encode())
            held.append(tcp)
        for tcp in held[LIMITS.echoes_per_ip :]:
            assert await ended(tcp) == b""
        for tcp in held[: LIMITS.echoes_per_ip]:  # and a place is free again when one leaves
            await tcp.aclose()
        last = await stack.enter_async_context(await tcp_to(at.node, HOSTILE_IP))
        await last.send_all(QUESTION)
        await last.receive_some()
        with trio.move_on_after(0.3) as waiting:
            await last.receive_some()
        assert waiting.cancelled_caught, "it was not held"


async def said(stream: YamuxStream, message: object) -> object:
    """What is answered to a bare message."""
    body = encode(message)
    await stream.send(len(body).to_bytes(4, "big") + body)
    size = int.from_bytes(await exactly(stream, 4), "big")
    return decode(await exactly(stream, size))


async def exactly(stream: YamuxStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = await stream.receive(size - len(data))
        assert chunk, "the answer ended early"
        data += chunk
    return data


async def code_of(enemy: Hostile, protocol: str, message: object) -> str:
    answer = await said(await enemy.stream(protocol), message)
    return answer.code if isinstance(answer, Refusal) else ""


async def test_nobody_is_brought_by_who_is_no_relay_of_ours() -> None:
    async with arena() as at, hostile(at.node) as enemy:
        for source in (at.honest.peer_key, at.node.peer_key, enemy.key):
            assert await code_of(enemy, "/qubix/relayed/1", Incoming(source)) == "relay.refused"
        assert at.node.relay_of(at.honest.peer_key) is None


async def test_a_relay_of_ours_that_brings_garbage_or_nobody_costs_its_streams() -> None:
    async with arena(BRISK) as at, hostile(at.node) as enemy:
        at.node.be_reached_through({enemy.key: ()})
        streams = []
        for number in range(12):
            stream = await enemy.stream("/qubix/relayed/1")
            streams.append(stream)
            with suppress(MuxedStreamError):  # those beyond the limit of handshakes are reset at once
                await said(stream, Incoming(PeerKey(bytes([number]) * 32)))
                await stream.send(bytes(100) if number % 2 else b"")
        for stream in streams:
            await until(lambda stream=stream: bool(stream.broken or stream.fin_received))  # type: ignore[misc]  # mypy cannot infer defaults of a lambda


async def test_places_and_targets_cannot_be_flooded() -> None:
    async with arena() as at, hostile(at.node) as enemy:
        first = await enemy.stream("/qubix/relay/1")
        assert isinstance(await said(first, Reserve()), Reserved)
        second = await enemy.stream("/qubix/relay/1")
        assert isinstance(await said(second, Reserve()), Reserved)
        await until(lambda: bool(first.broken or first.fin_received))
        codes = {
            await code_of(enemy, "/qubix/relay/1", Connect(target))
            for target in (at.honest.peer_key, at.node.peer_key, enemy.key, PeerKey(bytes(32)))
        }
        assert codes == {"relay.target_away", "relay.refused"}
        for _ in range(40):
            codes.add(await code_of(enemy, "/qubix/relay/1", Connect(at.honest.peer_key)))
        assert "peer.asked_too_often" in codes


async def test_a_node_is_not_made_to_dial_without_end() -> None:
    async with arena() as at, hostile(at.node, source=HOSTILE_IP) as enemy:
        codes = [await code_of(enemy, "/qubix/observe/1", Observe(dial=9)) for _ in range(8)]
        assert set(codes) == {"", "peer.asked_too_often"} and codes[-1]
        assert await code_of(enemy, "/qubix/observe/1", Observe(dial=2**32 - 1)) == ""
