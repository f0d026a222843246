"""Directories at work, on the virtual clock: who is seen, for how long, by whom, in both modes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from qubixd.book import ALIVE_MS
from qubixd.offers import SETTLED_LIFE_MS
from tests.support.discovery import Shop, key_of, running, until
from tests.support.memory_wire import MemoryNet

DEAD_SECONDS = 90
"""By then a provider that died is in nobody's book."""


@asynccontextmanager
async def town(net: MemoryNet, *shops: Shop) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for shop in shops:
            await stack.enter_async_context(running(net, shop))
        yield


def directories(count: int) -> list[Shop]:
    return [Shop(f"directory-{number}", directory=True) for number in range(count)]


async def test_with_two_directories_providers_settle_and_readers_stop_listening(
    autojump_clock: MockClock,
) -> None:
    net = MemoryNet(delay_seconds=0.02)
    alice, bob, shops = Shop("alice", 7), Shop("bob"), directories(2)
    async with town(net, *shops, alice, bob):
        await until(lambda: alice.service.settled and bob.service.served, 10)
        assert bob.seen == {"alice": 7}
        assert not alice.service._joined and not bob.service._joined
        assert len(alice.discovery.directories.in_use()) == 2
        alice.price = 9
        alice.service.changed()
        assert await until(lambda: bob.seen == {"alice": 9}, 10) < 2


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_provider_that_lives_stays_and_one_that_dies_goes(
    autojump_clock: MockClock, count: int
) -> None:
    net = MemoryNet(delay_seconds=0.05)
    alice, bob, carol, shops = Shop("alice", 7), Shop("bob"), Shop("carol", 8), directories(count)
    async with town(net, *shops, bob, carol):
        async with running(net, alice):
            await until(lambda: bob.seen == {"alice": 7, "carol": 8}, 10)
            for _ in range(SETTLED_LIFE_MS // 10_000):
                await trio.sleep(10)
                assert bob.seen == {"alice": 7, "carol": 8}
        books = [bob, *shops, *([] if count > 1 else [carol])]
        assert await until(lambda: all("alice" not in one.seen for one in books), DEAD_SECONDS) > 30
        assert bob.seen == {"carol": 8}


@pytest.mark.parametrize("count", [0, 3])
async def test_a_pulled_cable_is_noticed_and_so_is_a_mended_one(
    autojump_clock: MockClock, count: int
) -> None:
    net = MemoryNet(delay_seconds=0.05)
    alice, bob, shops = Shop("alice", 7), Shop("bob"), directories(count)
    async with town(net, *shops, alice, bob):
        await until(lambda: bob.seen == {"alice": 7} and alice.service.settled == (count > 1), 10)
        net.pull_cable(alice.peer)
        await until(lambda: all(not one.seen for one in [bob, *shops]), DEAD_SECONDS)
        for other in list(net.wires):
            if other != alice.peer:
                net.heal(alice.peer, other)
        await until(lambda: all(one.seen == {"alice": 7} for one in [bob, *shops]), 90)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_goodbye_is_heard_within_two_seconds(autojump_clock: MockClock, count: int) -> None:
    net = MemoryNet(delay_seconds=0.05)
    alice, bob, shops = Shop("alice", 7), Shop("bob"), directories(count)
    async with town(net, *shops, alice, bob):
        await until(lambda: all(one.seen == {"alice": 7} for one in [bob, *shops]), 10)
        await trio.sleep(100)
        began = trio.current_time()
        await alice.discovery.goodbye()
        await until(lambda: all(not one.seen for one in [bob, *shops]), 10)
        assert trio.current_time() - began < 2
        alice.service.changed()
        await trio.sleep(ALIVE_MS / 1_000)
        assert bob.seen == {} and alice.service.own is not None and alice.service.own.offer.withdrawn


async def test_lost_directories_are_replaced_and_without_any_gossip_does_their_work(
    autojump_clock: MockClock,
) -> None:
    net = MemoryNet(delay_seconds=0.02)
    alice, bob, shops = Shop("alice", 7), Shop("bob"), directories(5)
    async with town(net, *shops, alice, bob):
        await until(lambda: alice.service.settled and bob.service.served, 10)
        lost = {*alice.discovery.directories.heartbeats, *bob.discovery.directories.reading}
        lost = set(sorted(lost)[:3])
        for shop in shops:
            if shop.peer in lost:
                net.pull_cable(shop.peer)
        await trio.sleep(60)
        assert alice.service.settled and bob.service.served
        assert not lost & {*alice.discovery.directories.heartbeats, *bob.discovery.directories.reading}
        assert bob.seen == {"alice": 7}
        for shop in shops:
            net.pull_cable(shop.peer)
        await until(lambda: not alice.service.settled and not bob.service.served, 60)
        for _ in range(30):
            await trio.sleep(10)
            assert bob.seen == {"alice": 7}


async def test_configured_directories_come_first(autojump_clock: MockClock) -> None:
    net = MemoryNet(delay_seconds=0.02)
    mine = ("directory-3", "directory-7")
    bob = Shop("bob", use=mine)
    async with town(net, *directories(10), bob):
        await until(lambda: bob.service.served, 10)
        assert set(bob.discovery.directories.reading) == {key_of(name).public for name in mine}


async def test_a_provider_reads_the_market_only_while_somebody_looks(autojump_clock: MockClock) -> None:
    net = MemoryNet(delay_seconds=0.02)
    alice, carol = Shop("alice", 7), Shop("carol", 8)
    async with town(net, *directories(3), alice, carol):
        await until(lambda: alice.service.settled, 10)
        await trio.sleep(30)
        assert not alice.discovery.directories.reading
        alice.service.want()
        await until(lambda: alice.seen == {"alice": 7, "carol": 8}, 10)
        await until(lambda: not alice.discovery.directories.reading, 700)


async def test_markets_that_nobody_here_wants_are_not_read(autojump_clock: MockClock) -> None:
    net = MemoryNet(delay_seconds=0.02)
    for count in (0, 2):
        alice, carol = Shop("alice", 7), Shop("carol", 8, gpu_class="CPU")
        bob = Shop("bob", markets=("CPU",))
        async with town(net, *directories(count), alice, carol, bob):
            await until(lambda bob=bob: "carol" in bob.seen, 40)  # type: ignore[misc]  # mypy cannot infer defaults of a lambda
            await trio.sleep(60)
            assert bob.seen == {"carol": 8} or count == 0


async def test_a_reader_goes_on_where_it_stopped(autojump_clock: MockClock) -> None:
    net = MemoryNet(delay_seconds=0.02)
    bob, shops = Shop("bob"), directories(2)
    sellers = [Shop(f"seller-{number}", number + 1) for number in range(20)]
    async with town(net, *shops, *sellers, bob):
        await until(lambda: len(bob.seen) == 20 and bob.service.served, 60)
        await trio.sleep(60)
        known = bob.discovery.book.dropped["offer.known"]
        for shop in shops:
            net.cut(bob.peer, shop.peer)
            net.heal(bob.peer, shop.peer)
        sellers[3].price = 99
        sellers[3].service.changed()
        await until(lambda: not bob.service.served, 5)
        await until(lambda: bob.service.served and bob.seen["seller-3"] == 99, 60)
        assert len(bob.seen) == 20
        assert bob.discovery.book.dropped["offer.known"] - known < 20, "the whole book was sent again"


async def test_good_directories_are_known_after_a_restart(autojump_clock: MockClock, tmp_path: Path) -> None:
    net = MemoryNet(delay_seconds=0.02, mesh=6)
    bob, shops = Shop("bob"), directories(2)
    for number, shop in enumerate(shops):
        net.ips[shop.peer] = f"66.{number}.0.1"
    async with town(net, *shops, Shop("alice", 7, use=("directory-0", "directory-1"))):
        async with running(net, bob, tmp_path / "bob.sqlite"):
            for shop in shops:
                net.join(bob.peer, shop.peer)
            await until(lambda: bob.service.served, 60)
            await trio.sleep(300)
        bob = Shop("bob")
        async with running(net, bob, tmp_path / "bob.sqlite"):  # and nobody says a word to it
            await until(lambda: bob.service.served and bob.seen == {"alice": 7}, 30)


async def test_who_reaches_no_directory_reads_the_books_of_others(autojump_clock: MockClock) -> None:
    """Those whom directories serve gossip next to nothing, so listening would take most of an hour."""
    net, bob = MemoryNet(delay_seconds=0.01), Shop("bob")
    dora, dave = Shop("dora", directory=True), Shop("dave", directory=True)
    alice, bait, carol = Shop("alice", 7), Shop("bait", 8), Shop("carol")
    async with town(net, dora, dave, alice, carol):
        await until(lambda: alice.service.settled and carol.service.served)
        await trio.sleep(60)
        for one in (dora, dave):
            net.cut(bait.peer, one.peer)
            net.cut(bob.peer, one.peer)
        for other in (alice, carol):
            net.cut(bait.peer, other.peer)
        net.cut(bob.peer, alice.peer)
        net.cut(bob.peer, carol.peer)
        async with running(net, bait), running(net, bob):
            await until(lambda: "bait" in bob.seen, 60)
            for known in carol.discovery.register.known():
                bob.discovery.register.consider(known.raw, bob.clock())
            net.heal(bob.peer, carol.peer)
            await until(lambda: "alice" in bob.seen, 60)
            assert not bob.service.served
