"""Directories that lie, break the rules, hide offers or fall silent: others go on without them."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import MockClock

from protocol import messages
from protocol.messages import Ack, OfferBatch
from protocol.units import PeerKey
from qubixd import directory, register, sync
from qubixd.wire import Stream, send_frame
from tests.support.discovery import Shop, key_of, running, until
from tests.support.discovery_arena import MALLORY, arena, mallorys, record
from tests.support.memory_wire import MemoryNet

pytestmark = pytest.mark.attack


async def test_a_flood_of_directories_pushes_no_proven_one_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register, "MAX_KNOWN", 64)
    async with arena() as at:
        await trio.sleep(120)
        for number in range(200):
            key = key_of(f"fake-{number}")
            await at.mallory.publish(directory.RECORDS_TOPIC, key.sign(record(key.public, number)))
            await trio.sleep(0.1)
        await trio.sleep(5)
        honest = {at.dora.peer, at.dave.peer}
        for one in (at.bob, at.alice):
            assert len(one.discovery.register) <= 64
            assert one.discovery.counters["directory.no_room"] > 0
            assert {peer for peer, _ in one.discovery.directories.in_use()} == honest
        at.net.cut(at.bob.peer, at.dora.peer)
        at.net.heal(at.bob.peer, at.dora.peer)
        await until(lambda: honest <= set(at.bob.discovery.directories.reading), 300)


async def test_directories_of_one_network_are_one_whatever_their_records_say(
    autojump_clock: MockClock,
) -> None:
    net, dora, dave = (
        MemoryNet(delay_seconds=0.02),
        Shop("dora", directory=True),
        Shop("dave", directory=True),
    )
    alice, bob = Shop("alice", 7), Shop("bob")
    net.ips[dora.peer], net.ips[dave.peer] = "66.1.0.1", "77.1.0.1"
    async with running(net, dora), running(net, dave):
        await trio.sleep(5)
        net.ips[dave.peer] = "66.1.0.2"  # now that its record names another network
        async with running(net, alice), running(net, bob):
            await trio.sleep(60)
            assert len(bob.discovery.directories.in_use()) == 2
            assert not alice.service.settled and not bob.service.served
            assert bob.seen["alice"] == 7, "gossip goes on"


Serve = Callable[[Stream, PeerKey], Awaitable[None]]


def batch(offers: bytes, alive: bytes = b"", cursor: int = 1, complete: bool = False) -> bytes:
    return messages.encode(OfferBatch(b"mallorys", cursor, complete, offers, alive))


async def bomb(stream: Stream, peer: PeerKey) -> None:
    await send_frame(stream, batch(zlib.compress(bytes(40 << 20), 9)))
    await trio.sleep_forever()


async def forgeries(stream: Stream, peer: PeerKey) -> None:
    wrong = [mallorys(number)[:-1] + b"\0" for number in range(50)]
    await send_frame(stream, batch(sync.pack(wrong)))
    await trio.sleep_forever()


async def no_zlib(stream: Stream, peer: PeerKey) -> None:
    await send_frame(stream, batch(b"what is this"))
    await trio.sleep_forever()


async def half_a_sighting(stream: Stream, peer: PeerKey) -> None:
    await send_frame(stream, batch(b"", bytes(10)))
    await trio.sleep_forever()


async def endless(stream: Stream, peer: PeerKey) -> None:
    """Complete, and then the same again and again."""
    while True:
        await send_frame(stream, batch(sync.pack([mallorys()] * 900), complete=True))


async def something_else(stream: Stream, peer: PeerKey) -> None:
    await send_frame(stream, messages.encode(Ack()))
    await trio.sleep_forever()


@pytest.mark.parametrize("serve", [bomb, forgeries, no_zlib, half_a_sighting, endless, something_else])
async def test_a_directory_that_breaks_the_rules_is_left_alone(
    autojump_clock: MockClock, serve: Serve
) -> None:
    net = MemoryNet(delay_seconds=0.02)
    bob = Shop("bob", use=("mallory", "dora"))
    async with net.wire(MALLORY.public) as mallory, running(net, Shop("dora", directory=True)):
        mallory.serve(sync.PROTOCOL, serve)
        async with running(net, Shop("alice", 7)), running(net, bob):
            await until(lambda: bob.discovery.counters["directory.broke_the_rules"] == 1, 200)
            assert bob.seen["alice"] == 7
            await trio.sleep(20)
            assert bob.discovery.counters["directory.broke_the_rules"] == 1


async def test_a_silent_directory_is_replaced(autojump_clock: MockClock) -> None:
    async def silent(stream: Stream, peer: PeerKey) -> None:
        await send_frame(stream, batch(b"", complete=True))
        await trio.sleep_forever()

    net = MemoryNet(delay_seconds=0.02)
    bob = Shop("bob", use=("mallory",))
    async with AsyncExitStack() as stack:
        mallory = await stack.enter_async_context(net.wire(MALLORY.public))
        mallory.serve(sync.PROTOCOL, silent)
        for shop in (Shop("dora", directory=True), Shop("dave", directory=True), Shop("alice", 7), bob):
            await stack.enter_async_context(running(net, shop))
        await until(lambda: MALLORY.public in dict(bob.discovery.directories.in_use()), 10)
        await until(lambda: bob.discovery.counters["directory.lost"] > 0, 60)
        await trio.sleep(6)
        assert MALLORY.public not in bob.discovery.directories.reading
        assert bob.service.served and bob.seen == {"alice": 7}


async def test_a_directory_that_hides_offers_is_replaced(
    autojump_clock: MockClock,
) -> None:
    async def hiding(stream: Stream, peer: PeerKey) -> None:
        while True:
            await send_frame(stream, batch(b"", complete=True))
            await trio.sleep(10)

    net = MemoryNet(delay_seconds=0.02)
    bob = Shop("bob")
    async with AsyncExitStack() as stack:
        mallory = await stack.enter_async_context(net.wire(MALLORY.public))
        mallory.serve(sync.PROTOCOL, hiding)
        for name in ("dora", "dave", "dick"):
            await stack.enter_async_context(running(net, Shop(name, directory=True)))
        for number in range(10):
            await stack.enter_async_context(running(net, Shop(f"alice-{number}", 7)))
        await stack.enter_async_context(running(net, bob))
        await mallory.publish(directory.RECORDS_TOPIC, MALLORY.sign(record(MALLORY.public)))
        await trio.sleep(1)
        net.cut(bob.peer, key_of("dora").public)
        net.cut(bob.peer, key_of("dave").public)  # so that the liar is chosen
        await until(lambda: MALLORY.public in dict(bob.discovery.directories.in_use()), 60)
        net.heal(bob.peer, key_of("dora").public)
        net.heal(bob.peer, key_of("dave").public)
        await until(lambda: bob.discovery.counters["directory.hides_offers"] == 1, 600)
        await trio.sleep(10)
        assert MALLORY.public not in bob.discovery.directories.reading
        assert len(bob.seen) == 10
