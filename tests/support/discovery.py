"""Nodes that do nothing but discovery, on the wire in memory: providers, callers, directories, liars.

net = MemoryNet(delay_seconds=0.01)
async with running(net, Shop("dora", directory=True)), running(net, Shop("alice", 7)) as alice: ...
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import trio

from ledger.store import inline, open_store
from protocol.messages import Offer
from protocol.signing import NodeKey
from protocol.units import PeerKey, Qu, UnixMs
from qubixd.book import OfferBook
from qubixd.discovery import Discovery, Settings
from qubixd.offers import OfferService
from tests.support.deals import CONTRACT, NETWORK, offer
from tests.support.memory_wire import MemoryNet
from tests.support.world_jobs import now_ms

GPU_CLASS = "RTX_4090"


def key_of(name: str) -> NodeKey:
    return NodeKey(hashlib.sha256(name.encode()).digest())


@dataclass
class Shop:
    """A node that only gossips; `price` None offers nothing."""

    name: str
    price: int | None = None
    withdrawn: bool = False
    clock: Callable[[], UnixMs] = now_ms
    directory: bool = False
    use: Sequence[str] = ()
    """Names of directories it was told to use."""
    markets: tuple[str, ...] = ()
    gpu_class: str = GPU_CLASS
    places: int = 500
    discovery: Discovery = field(init=False)

    @property
    def key(self) -> NodeKey:
        return key_of(self.name)

    @property
    def peer(self) -> PeerKey:
        return self.key.public

    @property
    def service(self) -> OfferService:
        return self.discovery.offers

    def make(self, sequence: int, issued_at: UnixMs, expires_at: UnixMs) -> Offer | None:
        if self.price is None:
            return None
        template = replace(
            offer(sequence), name=self.name, withdrawn=self.withdrawn, gpu_class=self.gpu_class
        )
        return replace(template, price_qu_per_hour=Qu(self.price), issued_at=issued_at, expires_at=expires_at)

    def settings(self) -> Settings:
        use = {key_of(name).public: (f"/memory/{name}",) for name in self.use}
        return Settings(
            NETWORK,
            CONTRACT,
            directory=self.directory,
            use=use,
            markets=self.markets,
            places=self.places,
        )

    @property
    def seen(self) -> dict[str, int]:
        """Name -> price of every live offer in this node's book."""
        entries = self.discovery.book.entries(now_ms())
        return {entry.offer.name: entry.offer.price_qu_per_hour for entry in entries}


@asynccontextmanager
async def running(
    net: MemoryNet,
    shop: Shop,
    path: Path | Literal[":memory:"] = ":memory:",
    places: int | None = None,
) -> AsyncIterator[Shop]:
    """Leaving the block is the node's sudden death. An error of the block comes out as it is. `places`:
    of its book, if not as many as usual."""
    failure: Exception | None = None
    async with (
        open_store(path, inline) as store,
        net.wire(shop.peer) as wire,
        trio.open_nursery() as nursery,
    ):
        room = {} if places is None else {"places": places}
        book = OfferBook(NETWORK, CONTRACT, own=shop.peer, lots=net.random, **room)
        shop.discovery = Discovery(
            wire, shop.key, book, shop.clock, shop.make, store, shop.settings(), net.random
        )
        await nursery.start(shop.discovery.run)
        try:
            yield shop
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> float:
    """Wait in virtual time; how long it took. TooSlowError after `seconds`."""
    began = trio.current_time()
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.05)
    return trio.current_time() - began
