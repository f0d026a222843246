"""Hostile peers against a running node: handshakes, yamux, stream handlers. The arena asserts, after
every attack, that an honest peer is served as before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.utils.varint import encode_uvarint

from protocol.units import PeerKey
from qubixd.wire import Stream
from qubixd.wire_libp2p.yamux_stream import (
    DATA,
    INITIAL_WINDOW,
    PING,
    SYN,
    WINDOW_UPDATE,
    YamuxStream,
)
from tests.support.wire_arena import BRISK, HOSTILE_IP, LIMITS, Arena, arena
from tests.support.wire_nodes import (
    ECHO,
    PATIENCE_SECONDS,
    Hostile,
    assert_echoes,
    hostile,
    node,
    noise_to,
    select,
    selection,
    tcp_to,
    until,
)

pytestmark = pytest.mark.attack

# Before and during the handshake


@pytest.mark.parametrize("protocol", ["/plaintext/2.0.0", "/tls/1.0.0", "/secio/1.0.0", "/yamux/1.0.0"])
async def test_only_noise_is_spoken_on_a_bare_connection(protocol: str) -> None:
    async with arena() as at, await tcp_to(at.node) as tcp:
        assert await select(tcp, protocol) == b"na"


async def test_garbage_instead_of_a_handshake_costs_its_connection() -> None:
    async with arena() as at, await tcp_to(at.node) as tcp:
        assert await select(tcp, "/noise") == b"/noise"
        for _ in range(2):  # the first could be a key, the second can prove none
            await tcp.send_all((200).to_bytes(2, "big") + os.urandom(200))
        await _until_closed(tcp)


async def test_only_yamux_is_spoken_after_noise() -> None:
    async with arena() as at:
        _, secure = await noise_to(at.node, 66)
        hello = selection("/multistream/1.0.0")
        await secure.write(hello + selection("/mplex/6.7.0"))
        answer = hello + selection("na")
        assert await secure.read(len(answer)) == answer
        await secure.close()


async def test_half_open_connections_take_no_honest_place() -> None:
    async with arena(BRISK) as at, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(await tcp_to(at.node, HOSTILE_IP)) for _ in range(60)]
        for tcp in silent[:10]:
            with trio.move_on_after(0.1):
                await tcp.send_all(selection("/multistream/1.0.0"))
        async with node(3) as late:
            await assert_echoes(late, at.node)
        for tcp in silent:  # all are dropped: most at once, the first few when their time is over
            await _until_closed(tcp)


async def _until_closed(tcp: trio.SocketStream) -> None:
    with trio.fail_after(PATIENCE_SECONDS), suppress(trio.BrokenResourceError):
        while await tcp.receive_some():
            pass


async def test_a_flood_of_connections_stops_at_the_cap_and_leaves_no_trace() -> None:
    async with arena() as at:
        async with AsyncExitStack() as stack:
            refused = 0
            for number in range(20):
                try:
                    await stack.enter_async_context(hostile(at.node, 100 + number, HOSTILE_IP))
                except Exception:
                    refused += 1
            assert refused >= 12 and len(at.node.peers()) <= 9
            async with node(3) as late:
                await assert_echoes(late, at.node)
        await until(lambda: len(at.node.peers()) == 1)
        for number in range(15):  # every slot came back, again and again
            async with hostile(at.node, 130 + number, HOSTILE_IP) as enemy:
                await enemy.stream(ECHO)


async def test_one_peer_holds_two_connections_at_most() -> None:
    async with arena() as at, AsyncExitStack() as stack:
        enemies = [await stack.enter_async_context(hostile(at.node, 66)) for _ in range(4)]
        for old in enemies[:2]:
            await old.gone()
        await enemies[3].stream(ECHO)


# Yamux


async def _announce_two_gigabytes(enemy: Hostile) -> None:
    await enemy.frame(DATA, SYN, 1, 2**31)


async def _fill_beyond_the_window(enemy: Hostile) -> None:
    stream = await enemy.stream("/test/never/1")
    for _ in range(8):
        await enemy.frame(DATA, 0, stream.stream_id, 60_000, bytes(60_000))


async def _unknown_version(enemy: Hostile) -> None:
    await enemy.secure.write(b"\x09" + bytes(11))


async def _unknown_type(enemy: Hostile) -> None:
    await enemy.frame(77, 0, 1, 0)


async def _streams_of_the_other_side(enemy: Hostile) -> None:
    await enemy.frame(WINDOW_UPDATE, SYN, 2, 0)


async def _one_stream_twice(enemy: Hostile) -> None:
    await enemy.frame(WINDOW_UPDATE, SYN, 1, 0)
    await enemy.frame(WINDOW_UPDATE, SYN, 1, 0)


@pytest.mark.parametrize(
    "attack",
    [
        _announce_two_gigabytes,
        _fill_beyond_the_window,
        _unknown_version,
        _unknown_type,
        _streams_of_the_other_side,
        _one_stream_twice,
    ],
)
async def test_who_breaks_yamux_loses_the_connection(
    attack: Callable[[Hostile], Awaitable[None]],
) -> None:
    async with arena() as at, hostile(at.node) as enemy:
        at.node.serve("/test/never/1", _never_reads)
        await attack(enemy)
        await enemy.gone()


async def test_a_peer_that_pings_but_does_not_read_is_cut() -> None:
    async with arena() as at, hostile(at.node) as enemy:
        pings = b"".join(
            bytes([0, PING]) + SYN.to_bytes(2, "big") + bytes(4) + n.to_bytes(4, "big") for n in range(5_000)
        )
        await until(lambda: enemy.key in at.node.peers())
        enemy.secure.read = trio.sleep_forever  # type: ignore[method-assign,assignment]  # a peer that stops reading
        with trio.fail_after(PATIENCE_SECONDS), suppress(ConnectionClosedError):
            while enemy.key in at.node.peers():
                await enemy.secure.write(pings)
        await until(lambda: enemy.key not in at.node.peers())


async def test_a_thousand_streams_from_one_peer_are_refused_beyond_the_cap() -> None:
    async with arena(BRISK) as at, hostile(at.node) as enemy:
        streams = [await enemy.muxed.open_stream() for _ in range(1_000)]
        cap = LIMITS.streams_per_peer
        await until(lambda: sum(stream.broken is None for stream in streams) <= cap)
        assert at.node.counters.streams_refused >= 1_000 - cap
        await until(
            lambda: all(stream.broken or stream.fin_received for stream in streams)
        )  # none negotiates


async def _never_reads(stream: Stream, peer: PeerKey) -> None:
    await trio.sleep_forever()


async def _tiny_reads(stream: Stream, peer: PeerKey) -> None:
    for _ in range(3_000):
        await stream.receive_some(1)
    await stream.send_all(b"!")
    await trio.sleep_forever()


@pytest.mark.parametrize("handler", [_never_reads, _tiny_reads])
async def test_what_nobody_reads_fills_one_window_and_no_more(
    handler: Callable[[Stream, PeerKey], Awaitable[None]],
) -> None:
    async with arena() as at, hostile(at.node) as enemy:
        at.node.serve("/test/slow/1", handler)
        stream = await enemy.stream("/test/slow/1")
        before = stream.send_window
        with trio.move_on_after(1.0):
            await stream.send(bytes(20_000_000))
        if handler is _tiny_reads:
            assert await stream.receive(1) == b"!"
        assert before <= INITIAL_WINDOW and stream.send_window == 0  # it got no more than it had


async def test_unread_data_of_all_peers_together_is_bounded() -> None:
    async with arena(replace(LIMITS, unread_bytes=600_000)) as at, hostile(at.node) as enemy:
        at.node.serve("/test/never/1", _never_reads)
        streams = [await enemy.stream("/test/never/1") for _ in range(8)]
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(_send_until_broken, stream)
            await until(lambda: sum(stream.broken is not None for stream in streams) >= 4)
            nursery.cancel_scope.cancel()
        for stream in streams:
            await stream.reset()


async def _send_until_broken(stream: YamuxStream) -> None:
    with trio.move_on_after(30):
        try:
            await stream.send(bytes(1_000_000))
        except Exception:
            return


# Stream handlers


async def _bug(stream: Stream, peer: PeerKey) -> None:
    await stream.receive_some()
    raise ValueError("a bug of ours")


async def _bugs(stream: Stream, peer: PeerKey) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_bug, stream, peer)


@pytest.mark.parametrize("handler", [_bug, _bugs])
async def test_a_failing_handler_of_ours_costs_its_stream(
    handler: Callable[[Stream, PeerKey], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    async with arena() as at, hostile(at.node) as enemy:
        at.node.serve("/test/bug/1", handler)
        stream = await enemy.stream("/test/bug/1")
        await stream.send(b"x")
        await until(lambda: stream.broken is not None and at.node.counters.handler_errors > 0)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert sum("/test/bug/1" in warning for warning in warnings) == at.node.counters.handler_errors == 1
        await enemy.stream(ECHO)


GARBAGE = [
    ("/ipfs/ping/1.0.0", b"short"),
    ("/ipfs/ping/1.0.0", os.urandom(1_000)),
    ("/ipfs/id/1.0.0", os.urandom(1_000)),
    ("/qubix/peers/1", os.urandom(1_000)),
    ("/qubix/peers/1", b"\x00\x00\x00\x03\x91\xa1x"),
    ("/qubix/observe/1", os.urandom(1_000)),
    ("/qubix/relay/1", os.urandom(1_000)),
    ("/qubix/relay/1", b"\x00\x00\x00\x04\x92\x25\x80\xc0" + os.urandom(100)),
    ("/qubix/relayed/1", os.urandom(1_000)),
    ("/meshsub/1.1.0", os.urandom(1_000)),
    ("/meshsub/1.1.0", b"\x05\xff\xff\xff\xff\xff"),
    ("/meshsub/1.1.0", b"\xff" * 50),
    ("/meshsub/1.1.0", encode_uvarint(2**30) + bytes(1_000)),
    ("/meshsub/1.1.0", b"\x40half of it"),
]


@pytest.mark.parametrize(
    ("protocol", "garbage"), GARBAGE, ids=[f"{p}-{i}" for i, (p, _) in enumerate(GARBAGE)]
)
@pytest.mark.parametrize("ending", ["finish", "reset"])
async def test_garbage_in_any_protocol_costs_its_stream(protocol: str, garbage: bytes, ending: str) -> None:
    async with arena() as at, hostile(at.node) as enemy:
        for _ in range(3):
            stream = await enemy.stream(protocol)
            await stream.send(garbage)
            stream.finish() if ending == "finish" else await stream.reset()
            await until(lambda stream=stream: bool(stream.broken or stream.fin_received))  # type: ignore[misc]  # mypy cannot infer defaults of a lambda
        await enemy.stream(ECHO)


@pytest.mark.parametrize(
    "garbage", [b"\x02\xff\n", b"\x00", b"\xff" * 12, selection("/x" * 30_000), encode_uvarint(2**50) + b"/x"]
)
async def test_garbage_instead_of_a_protocol_name_costs_its_stream(garbage: bytes) -> None:
    async with arena(BRISK) as at, hostile(at.node) as enemy:
        stream = await enemy.muxed.open_stream()
        await stream.send(selection("/multistream/1.0.0") + garbage)
        await until(lambda: stream.broken is not None)
        await enemy.stream(ECHO)


async def _over_bare_tcp(enemy: Hostile, at: Arena) -> Callable[[bytes], Awaitable[None]]:
    return (await tcp_to(at.node, HOSTILE_IP)).send_all


async def _over_noise(enemy: Hostile, at: Arena) -> Callable[[bytes], Awaitable[None]]:
    _, secure = await noise_to(at.node, 68, HOSTILE_IP)
    return secure.write


async def _over_a_stream(enemy: Hostile, at: Arena) -> Callable[[bytes], Awaitable[None]]:
    return (await enemy.muxed.open_stream()).send


@pytest.mark.parametrize("way", [_over_bare_tcp, _over_noise, _over_a_stream])
async def test_a_protocol_name_without_an_end_is_not_kept(
    way: Callable[[Hostile, Arena], Awaitable[Callable[[bytes], Awaitable[None]]]],
) -> None:
    async with arena() as at, hostile(at.node) as enemy:
        send, sent = await way(enemy, at), 0
        with suppress(trio.BrokenResourceError, IOException, MuxedStreamError):
            await send(selection("/multistream/1.0.0") + encode_uvarint(2**50))
            while sent < 64_000_000:
                await send(bytes(60_000))
                sent += 60_000
        assert sent < 16_000_000  # the system's own buffers may hold some
