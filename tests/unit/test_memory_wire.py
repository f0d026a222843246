"""The wire in memory behaves as the real one: streams, gossip, cuts and delays, on a virtual clock."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from protocol.errors import MessageInvalid, MessageTooLarge, PeerUnreachable, StreamBroken
from protocol.units import PeerKey
from qubixd.wire import MAX_GOSSIP_BYTES, GossipValidator, Stream, Verdict, Wire
from tests.support.memory_wire import MemoryNet

ALICE, BOB, CAROL = (PeerKey(bytes([n]) * 32) for n in (1, 2, 3))
ECHO = "/test/echo/1"


async def echo(stream: Stream, peer: PeerKey) -> None:
    while chunk := await stream.receive_some():
        await stream.send_all(chunk)


@pytest.fixture
def net() -> MemoryNet:
    return MemoryNet(seed=1)


@pytest.fixture
async def pair(net: MemoryNet) -> AsyncIterator[tuple[Wire, Wire]]:
    async with net.wire(ALICE) as alice, net.wire(BOB) as bob:
        bob.serve(ECHO, echo)
        yield alice, bob


async def read_all(stream: Stream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def test_bytes_and_half_close_go_both_ways(pair: tuple[Wire, Wire]) -> None:
    stream = await pair[0].open(BOB, ECHO)
    data = bytes(range(256)) * 8_192  # more than a pipe holds
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        assert await read_all(stream) == data
    assert await stream.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"more")


async def test_a_stalled_reader_stalls_its_writer(pair: tuple[Wire, Wire], autojump_clock: MockClock) -> None:
    stream = await pair[0].open(BOB, ECHO)
    with trio.move_on_after(1) as scope:
        await stream.send_all(bytes(10_000_000))
    assert scope.cancelled_caught


async def test_close_without_end_resets_the_peer(pair: tuple[Wire, Wire]) -> None:
    broken: list[str] = []
    done = trio.Event()

    async def reader(stream: Stream, peer: PeerKey) -> None:
        try:
            await read_all(stream)
        except StreamBroken as error:
            broken.append(str(error))
            done.set()

    pair[1].serve("/reader/1", reader)
    stream = await pair[0].open(BOB, "/reader/1")
    await stream.send_all(b"half of it")
    await stream.aclose()
    await done.wait()
    assert broken
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


async def test_two_tasks_may_not_read_one_stream(pair: tuple[Wire, Wire]) -> None:
    stream = await pair[0].open(BOB, ECHO)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()
        nursery.cancel_scope.cancel()


async def test_a_cut_breaks_streams_and_refuses_new_ones_until_healed(
    net: MemoryNet, pair: tuple[Wire, Wire]
) -> None:
    alice, _ = pair
    await trio.testing.wait_all_tasks_blocked()
    seen: list[PeerKey] = []
    alice.on_peer(seen.append)
    stream = await alice.open(BOB, ECHO)
    async with trio.open_nursery() as nursery:

        async def reads() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()

        nursery.start_soon(reads)
        await trio.testing.wait_all_tasks_blocked()
        net.cut(ALICE, BOB)
    with pytest.raises(StreamBroken):
        await stream.send_all(b"x")
    with pytest.raises(PeerUnreachable):
        await alice.open(BOB, ECHO)
    assert alice.peers() == ()
    net.heal(ALICE, BOB)
    await trio.testing.wait_all_tasks_blocked()
    assert alice.peers() == (BOB,) and seen == [BOB]
    await (await alice.open(BOB, ECHO)).aclose()


async def test_both_sides_hear_of_a_new_peer(net: MemoryNet) -> None:
    heard: list[tuple[PeerKey, PeerKey]] = []
    async with net.wire(ALICE) as alice:
        alice.on_peer(lambda peer: heard.append((ALICE, peer)))
        async with net.wire(BOB) as bob:
            bob.on_peer(lambda peer: heard.append((BOB, peer)))
            await trio.testing.wait_all_tasks_blocked()
        assert alice.peers() == ()
    assert sorted(heard) == [(ALICE, BOB), (BOB, ALICE)]


async def test_delay_counts_on_the_virtual_clock(
    net: MemoryNet, pair: tuple[Wire, Wire], autojump_clock: MockClock
) -> None:
    stream = await pair[0].open(BOB, ECHO)
    net.link(ALICE, BOB).delay_seconds = 3
    start = trio.current_time()
    await stream.send_all(b"there and back")
    assert await stream.receive_some() == b"there and back"
    assert trio.current_time() - start == pytest.approx(6)


async def test_gossip_goes_round_a_cut_and_each_validator_runs_once(net: MemoryNet) -> None:
    got: list[tuple[PeerKey, bytes, PeerKey]] = []
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(net.wire(key)) for key in (ALICE, BOB, CAROL)]
        for wire in wires:

            def validator(data: bytes, source: PeerKey, me: PeerKey = wire.peer_key) -> Verdict:
                got.append((me, data, source))
                return Verdict.ACCEPT

            wire.subscribe("offers", validator)
        net.cut(ALICE, CAROL)
        await wires[0].publish("offers", b"one")
        await trio.testing.wait_all_tasks_blocked()
    assert got == [(BOB, b"one", ALICE), (CAROL, b"one", BOB)]


@pytest.mark.parametrize("verdict", [Verdict.IGNORE, Verdict.REJECT])
async def test_what_is_not_accepted_is_not_forwarded(net: MemoryNet, verdict: Verdict) -> None:
    async with net.wire(ALICE) as alice, net.wire(BOB) as bob, net.wire(CAROL) as carol:
        net.cut(ALICE, CAROL)
        bob.subscribe("offers", lambda data, source: verdict)
        carol.subscribe("offers", lambda data, source: pytest.fail("it was forwarded"))
        await alice.publish("offers", b"bad")
        await trio.testing.wait_all_tasks_blocked()
        counters = bob.counters
        assert (counters.gossip_ignored, counters.gossip_rejected) == (
            (1, 0) if verdict is Verdict.IGNORE else (0, 1)
        )


async def test_duplicates_and_disorder_repeat_with_the_seed(autojump_clock: MockClock) -> None:
    async def run() -> list[bytes]:
        net = MemoryNet(seed=3, duplicate=0.5, reorder_seconds=5)
        got: list[bytes] = []
        async with net.wire(ALICE) as alice, net.wire(BOB) as bob:

            def keep(data: bytes, source: PeerKey) -> Verdict:
                got.append(data)
                return Verdict.ACCEPT

            bob.subscribe("t", keep)
            for number in range(20):
                await alice.publish("t", bytes([number]))
            await trio.sleep(10)
        return got

    first = await run()
    assert first == await run()
    assert len(first) > 20 and first != sorted(first) and set(first) == {bytes([n]) for n in range(20)}


async def test_too_large_gossip_is_refused(pair: tuple[Wire, Wire]) -> None:
    with pytest.raises(MessageTooLarge):
        await pair[0].publish("t", bytes(MAX_GOSSIP_BYTES + 1))


@pytest.mark.parametrize(
    ("error", "level"), [(ValueError("bug"), "WARNING"), (MessageInvalid("no"), "DEBUG")]
)
async def test_a_failing_handler_breaks_its_stream_only(
    pair: tuple[Wire, Wire], caplog: pytest.LogCaptureFixture, error: Exception, level: str
) -> None:
    caplog.set_level(logging.DEBUG)
    alice, bob = pair

    async def fails(stream: Stream, peer: PeerKey) -> None:
        raise error

    bob.serve("/fails/1", fails)
    stream = await alice.open(BOB, "/fails/1")
    with pytest.raises(StreamBroken):
        await stream.receive_some()
    assert [record.levelname for record in caplog.records] == [level]
    assert bob.counters.handler_errors == (level == "WARNING")
    await (await alice.open(BOB, ECHO)).aclose()


async def test_unknown_protocol_and_unknown_peer_are_unreachable(pair: tuple[Wire, Wire]) -> None:
    with pytest.raises(PeerUnreachable, match="does not speak"):
        await pair[0].open(BOB, "/nothing/1")
    with pytest.raises(PeerUnreachable, match="does not answer"):
        await pair[0].open(CAROL, ECHO)


async def test_an_error_of_the_block_comes_out_bare(net: MemoryNet) -> None:
    with pytest.raises(KeyError):
        async with net.wire(ALICE):
            raise KeyError("mine")


def ear(heard: list[bytes]) -> GossipValidator:
    def hear(data: bytes, source: PeerKey) -> Verdict:
        heard.append(data)
        return Verdict.ACCEPT

    return hear


async def test_who_leaves_a_topic_hears_nothing_more(net: MemoryNet, autojump_clock: MockClock) -> None:
    heard: list[bytes] = []
    async with net.wire(ALICE) as alice, net.wire(BOB) as bob:
        bob.subscribe("t", ear(heard))
        await alice.publish("t", b"1")
        await trio.sleep(1)
        bob.unsubscribe("t")
        bob.unsubscribe("never joined")
        await alice.publish("t", b"2")
        await trio.sleep(1)
        assert heard == [b"1"]


async def test_a_round_trip_takes_twice_the_delay(autojump_clock: MockClock) -> None:
    net = MemoryNet(delay_seconds=0.02)
    async with net.wire(ALICE) as alice, net.wire(BOB):
        assert await alice.round_trip(BOB) == pytest.approx(0.04)
        net.cut(ALICE, BOB)
        with pytest.raises(PeerUnreachable):
            await alice.round_trip(BOB)
        assert alice.remote_ip(BOB) is None


async def test_in_a_net_with_a_mesh_only_those_who_met_are_connected(autojump_clock: MockClock) -> None:
    net = MemoryNet(mesh=2)
    keys = [PeerKey(bytes([n]) * 32) for n in range(1, 12)]
    heard: dict[PeerKey, list[bytes]] = {key: [] for key in keys}
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(net.wire(key)) for key in keys]
        for wire in wires:
            wire.serve(ECHO, echo)
            wire.subscribe("t", ear(heard[wire.peer_key]))
        for before, after in pairwise(keys):
            net.join(before, after)
        await trio.sleep(1)
        assert set(wires[0].peers()) == {keys[1]} and set(wires[5].peers()) == {keys[4], keys[6]}
        await wires[0].publish("t", b"along the line")
        await trio.sleep(1)
        assert all(heard[key] == [b"along the line"] for key in keys[1:])
        await (await wires[0].open(keys[9], ECHO)).aclose()
        assert set(wires[0].peers()) == {keys[1], keys[9]}
