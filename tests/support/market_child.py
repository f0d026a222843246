"""One real node of a simulated market, in a process of its own so that its CPU can be told from its crowd's.

    python -m tests.support.market_child ROLE SEED [ADDRESS...]

ROLE is idle (a bare wire), caller, provider or directory; SEED 64 hex digits; ADDRESS a node to start from.
The first line of output is its address. Each line of input `known NUMBER` fills the book with that many
providers of the market; any other is answered with one line of JSON: CPU seconds so far, resident bytes,
live offers, and what was counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import psutil
import trio

from ledger.store import open_store
from protocol.catalogue import MARKETS, market_of
from protocol.messages import Capacity, Gpu, Offer
from protocol.signing import NodeKey
from protocol.units import Qu, QubicId, UnixMs
from qubixd.book import OfferBook
from qubixd.discovery import Discovery, Settings
from qubixd.wire import Wire
from qubixd.wire_libp2p import DIRECTORY_LIMITS, Limits, WireConfig, open_wire

NETWORK: Final = "market"
CONTRACT_INDEX: Final = 1
MODELS: Final = ("RTX_3080", "RTX_4080", "RTX_4090", "A100_80GB", "H100_80GB", "L40S", "CPU")
LIFE_MS: Final = 3_600_000


def now_ms() -> UnixMs:
    return UnixMs(time.time_ns() // 1_000_000)


def seed_of(kind: str, number: int) -> bytes:
    return f"{kind} {number}".encode().ljust(32, b".")


def key_of(number: int) -> NodeKey:
    """The key of the market's provider of that number."""
    return NodeKey(seed_of("provider", number))


def offer_of(number: int, sequence: int, addresses: tuple[str, ...] = (), life_ms: int = LIFE_MS) -> Offer:
    """What the market's provider of that number offers; `sequence` is also when, in ms."""
    model = MODELS[number % len(MODELS)]
    cards = 0 if model == "CPU" else 1 + number % 4
    digests = (number.to_bytes(16, "big") + bytes([card]) * 16 for card in range(cards))
    return Offer(
        sequence=sequence,
        issued_at=UnixMs(sequence),
        expires_at=UnixMs(sequence + life_ms),
        withdrawn=False,
        network=NETWORK,
        contract_index=CONTRACT_INDEX,
        qubic_id=QubicId(seed_of("account", number)),
        name=f"provider-{number}",
        region=("eu", "us", "asia", "sa")[number % 4],
        gpu_class=model,
        runner="docker",
        price_qu_per_hour=Qu(100 + number * 7_919 % 10_000),
        storage_qu_per_tib_hour=Qu(number % 50),
        capacity=Capacity(
            tuple(Gpu(f"NVIDIA {model}", 24_564, digest) for digest in digests),
            1_000 * (4 + number % 60),
            16_384,
            500_000,
        ),
        addresses=addresses or (f"/ip4/198.51.100.{number % 250}/tcp/4001/p2p/{number:052}",),
        layers=tuple(bytes([number % 256, layer, 0, 0, 0, 0, 0, 0]) for layer in range(10)),
        pull_mib_per_s=50,
    )


def topic_of(offer: Offer) -> str:
    return f"/qubix/offers/2/{market_of(offer.gpu_class)}"


def all_topics() -> tuple[str, ...]:
    """What a directory listens to."""
    return (
        *(f"/qubix/offers/2/{market}" for market in MARKETS),
        "/qubix/liveness/1",
        "/qubix/directories/1",
    )


@asynccontextmanager
async def market_node(
    wire: Wire, role: str, number: int, key: NodeKey | None = None
) -> AsyncIterator[Discovery]:
    """Discovery as a node runs it, on any wire; the key is the market's of that number unless given."""

    def make_offer(sequence: int, issued_at: UnixMs, expires_at: UnixMs) -> Offer | None:
        if role != "provider":
            return None
        offer = offer_of(number, issued_at, wire.addresses[:8])
        return replace(offer, sequence=sequence, expires_at=expires_at)

    key = key or key_of(number)
    settings = Settings(NETWORK, CONTRACT_INDEX, directory=role == "directory")
    book = OfferBook(NETWORK, CONTRACT_INDEX, own=key.public)
    async with open_store(":memory:") as store, trio.open_nursery() as nursery:
        discovery = Discovery(wire, key, book, now_ms, make_offer, store, settings)
        await nursery.start(discovery.run)
        yield discovery
        nursery.cancel_scope.cancel()


async def _commands() -> AsyncIterator[str]:
    file = trio.wrap_file(sys.stdin)
    while line := await file.readline():
        yield line.strip()


async def _serve(wire: Wire, discovery: Discovery | None) -> None:
    print(wire.addresses[0], flush=True)
    async for line in _commands():
        verb, _, argument = line.partition(" ")
        if verb == "known" and discovery is not None:
            for number in range(int(argument)):
                at = now_ms()
                discovery.book.consider(key_of(number).sign(offer_of(number, at)), at)
        print(json.dumps(_report(wire, discovery)), flush=True)


def _report(wire: Wire, discovery: Discovery | None) -> dict[str, object]:
    return {
        "cpu_s": time.process_time(),
        "resident_bytes": psutil.Process().memory_info().rss,
        "peers": len(wire.peers()),
        "live": sum(1 for _ in discovery.book.entries(now_ms())) if discovery else 0,
        "settled": bool(discovery and discovery.offers.settled),
        "gossip_in": wire.counters.gossip_in,
        "counters": dict(discovery.counters if discovery else {}) | wire.counters.by_reason,
    }


async def main(role: str, seed: bytes, addresses: tuple[str, ...]) -> None:
    limits = DIRECTORY_LIMITS if role == "directory" else Limits()
    async with open_wire(WireConfig("127.0.0.1", 0, addresses), seed, limits) as wire:
        if role == "idle":
            await _serve(wire, None)
            return
        async with market_node(wire, role, 0, NodeKey(seed)) as discovery:
            await _serve(wire, discovery)


class Child:
    """The process, from outside."""

    def __init__(self, process: trio.Process, address: str) -> None:
        self.process, self.address = process, address
        assert process.stdout is not None
        self._lines = process.stdout
        self._rest = b""

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address,)

    async def ask(self, line: str = "report") -> dict[str, object]:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")
        return cast(dict[str, object], json.loads(await self.line()))

    async def line(self) -> str:
        while b"\n" not in self._rest:
            chunk = await self._lines.receive_some()
            assert chunk, "the node of the market ended"
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    async def cpu_share(self, seconds: float) -> tuple[float, dict[str, object]]:
        """Of one core, over so much time from now."""
        before, began = await self.ask(), time.monotonic()
        await trio.sleep(seconds)
        after = await self.ask()
        used = cast(float, after["cpu_s"]) - cast(float, before["cpu_s"])
        return used / (time.monotonic() - began), after


@asynccontextmanager
async def child(role: str, seed: bytes, *addresses: str) -> AsyncIterator[Child]:
    """A node of the market in a process of its own, until the block ends."""
    command = [sys.executable, "-m", "tests.support.market_child", role, seed.hex(), *addresses]
    process = await trio.lowlevel.open_process(
        command, stdin=-1, stdout=-1, cwd=str(Path(__file__).parents[2])
    )
    try:
        started = Child(process, "")
        with trio.fail_after(60):
            started.address = await started.line()
        yield started
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], bytes.fromhex(sys.argv[2]), tuple(sys.argv[3:]))
