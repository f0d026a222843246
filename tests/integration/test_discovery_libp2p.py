"""Discovery on real libp2p nodes on loopback: directories, a provider, a caller, and somebody hostile."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from ledger.store import inline, open_store
from protocol.units import UnixMs
from qubixd import directory, discovery, sync
from qubixd.book import OfferBook
from qubixd.discovery import Discovery
from qubixd.wire import Wire
from qubixd.wire_libp2p import WireConfig, open_wire
from tests.support.deals import CONTRACT, NETWORK
from tests.support.discovery import Shop
from tests.support.wire_nodes import FAST, until


def wall_ms() -> UnixMs:
    return UnixMs(time.time_ns() // 1_000_000)


@dataclass
class Node:
    shop: Shop
    wire: Wire
    discovery: Discovery

    def sees(self, *names: str) -> bool:
        return {e.offer.name for e in self.discovery.book.entries(wall_ms())} == set(names)


@asynccontextmanager
async def started(shop: Shop, *bootstrap: str) -> AsyncIterator[Node]:
    config = WireConfig("127.0.0.1", 0, bootstrap)
    seed = hashlib.sha256(shop.name.encode()).digest()
    async with (
        open_store(":memory:", inline) as store,
        open_wire(config, seed, FAST) as wire,
        trio.open_nursery() as nursery,
    ):
        book = OfferBook(NETWORK, CONTRACT, own=shop.peer)
        found = Discovery(wire, shop.key, book, wall_ms, shop.make, store, shop.settings())
        await nursery.start(found.run)
        yield Node(shop, wire, found)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def town(directories: int) -> AsyncIterator[tuple[Node, Node, Node]]:
    """The node in the middle, a provider and a caller; both know the one in the middle only."""
    async with AsyncExitStack() as stack:
        middle = await stack.enter_async_context(started(Shop("directory-0", directory=directories > 0)))
        known = middle.wire.addresses[0]
        for number in range(1, directories):
            shop = Shop(f"directory-{number}", directory=True)
            await stack.enter_async_context(started(shop, known))
        alice = await stack.enter_async_context(started(Shop("alice", 7), known))
        bob = await stack.enter_async_context(started(Shop("bob"), known))
        yield middle, alice, bob


@pytest.mark.parametrize("directories", [0, 3])
async def test_offers_changes_and_goodbye_arrive(directories: int) -> None:
    async with town(directories) as (middle, alice, bob):
        await until(lambda: bob.sees("alice") and middle.sees("alice"))
        if directories:
            await until(lambda: alice.discovery.offers.settled and bob.discovery.offers.served)
        alice.shop.price = 9
        alice.discovery.offers.changed()
        await until(lambda: _price(bob) == 9)
        await alice.discovery.goodbye()
        await until(lambda: bob.sees() and middle.sees())


def _price(node: Node) -> int:
    return max((e.offer.price_qu_per_hour for e in node.discovery.book.entries(wall_ms())), default=0)


@pytest.mark.attack
@pytest.mark.parametrize("protocol", [sync.PROTOCOL, directory.PROTOCOL, discovery.RECORDS_PROTOCOL])
async def test_ten_megabytes_of_junk_change_nothing(protocol: str) -> None:
    async with town(2) as (middle, alice, bob), open_wire(WireConfig("127.0.0.1", 0, ()), bytes(32)) as enemy:
        await until(lambda: bob.sees("alice"))
        for _ in range(3):
            stream = await enemy.open(middle.wire.peer_key, protocol, middle.wire.addresses)
            with trio.move_on_after(3), pytest.raises(trio.BrokenResourceError):
                for _ in range(160):
                    await stream.send_all(os.urandom(65_536))
                await trio.sleep_forever()
            await stream.aclose()
        assert middle.wire.counters.handler_errors == 0
        alice.shop.price = 9
        alice.discovery.offers.changed()
        await until(lambda: _price(bob) == 9)
