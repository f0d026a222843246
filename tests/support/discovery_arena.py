"""A market with one hostile peer: what its attacks on discovery start from and must leave whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from protocol.messages import Directory
from protocol.units import PeerKey, UnixMs
from qubixd.wire import Wire
from tests.support.deals import CONTRACT, NETWORK, offer
from tests.support.discovery import Shop, key_of, running, until
from tests.support.memory_wire import MemoryNet
from tests.support.world_jobs import now_ms

MALLORY = key_of("mallory")


@dataclass
class Arena:
    """An honest directory, provider and caller, and a hostile peer's wire."""

    net: MemoryNet
    dora: Shop
    dave: Shop
    alice: Shop
    bob: Shop
    mallory: Wire

    @property
    def wires(self) -> list[Wire]:
        return [self.net.wires[one.peer] for one in (self.dora, self.dave, self.alice, self.bob)]


@asynccontextmanager
async def arena() -> AsyncIterator[Arena]:
    """Runs an attack; then a new offer must reach the caller, as before it."""
    net = MemoryNet(delay_seconds=0.02)
    dora, dave = Shop("dora", directory=True), Shop("dave", directory=True)
    alice, bob = Shop("alice", 7), Shop("bob")
    async with AsyncExitStack() as stack:
        for shop in (dora, dave, alice, bob):
            await stack.enter_async_context(running(net, shop))
        mallory = await stack.enter_async_context(net.wire(MALLORY.public))
        await until(lambda: alice.service.settled and bob.service.served, 30)
        yield Arena(net, dora, dave, alice, bob, mallory)
        await stack.enter_async_context(running(net, Shop("carol", 8)))
        alice.price = 9
        alice.service.changed()
        await until(lambda: bob.seen.items() >= {"alice": 9, "carol": 8}.items(), 10)
        assert all(wire.counters.handler_errors == 0 for wire in net.wires.values())


def mallorys(sequence: int = 1, **changes: object) -> bytes:
    return MALLORY.sign(replace(offer(sequence, now_ms()), gpu_class="RTX_4090", name="mallory", **changes))  # type: ignore[arg-type]  # fields of an offer


def record(peer: PeerKey, number: int = 0, **changes: object) -> Directory:
    made = Directory(
        sequence=now_ms(),
        issued_at=now_ms(),
        expires_at=UnixMs(now_ms() + 1_800_000),
        withdrawn=False,
        network=NETWORK,
        contract_index=CONTRACT,
        region="",
        places=1_000_000,
        addresses=(f"/ip4/66.{number % 200}.0.1/tcp/1/p2p/{peer.hex()}",),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # fields of a record
