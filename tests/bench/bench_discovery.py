"""What discovery costs and how fast it is, on real wires over loopback.

The node that is measured runs in a process of its own. Around it is a crowd (tests/support/market_crowd.py)
that says what the rest of a market of that size says: as often, with real signatures, over real
connections. CPU shares are of one core and contain libp2p.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any, Final

import trio

from protocol import signing
from protocol.units import PeerKey
from qubixd.discovery import Discovery
from qubixd.wire import Wire
from qubixd.wire_libp2p import DIRECTORY_LIMITS, Limits, WireConfig, open_wire
from tests.support import market_crowd
from tests.support.market_child import child, key_of, market_node, now_ms, offer_of, seed_of
from tests.support.market_crowd import PROVIDERS_PER_DIRECTORY, Crowd, crowd, speak

SETTLE_S: Final = 5.0
MEASURE_S: Final = 30.0
NODES: Final = 30
CHANGES: Final = 60
SIZES: Final = (1_000, 10_000, 100_000)
ADDRESSES_SAID: Final = 200
"""Directories whose records are heard before measuring begins; the rest follow as in life."""


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _rounded(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


# The cost of being a directory ------------------------------------------------------------------


async def _directory_share(providers: int) -> dict[str, Any]:
    async with child("directory", seed_of("node", 0)) as node, child("idle", seed_of("idle", 0)) as idle:
        _progress(f"a directory learns {providers:,} offers")
        await node.ask(f"known {providers}")
        heartbeats = min(PROVIDERS_PER_DIRECTORY, providers)
        async with crowd(node, providers, heartbeats, market_crowd.FOLLOWERS) as market:
            for number in range(min(market.directories, ADDRESSES_SAID)):
                await market.record(number)
            return await _measure(market, node.cpu_share, idle.cpu_share)


async def _measure(market: Crowd, share_of: Any, idle_share_of: Any) -> dict[str, Any]:
    shares: dict[str, tuple[float, dict[str, Any]]] = {}

    async def measure(name: str, share: Any) -> None:
        shares[name] = await share(MEASURE_S)

    async with trio.open_nursery() as talking:
        await speak(market, talking)
        await trio.sleep(SETTLE_S)
        said = market.said
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure, "node", share_of)
            nursery.start_soon(measure, "idle", idle_share_of)
        said = market.said - said
        talking.cancel_scope.cancel()
    share, after = shares["node"]
    return {
        "share": share,
        "idle_share": shares["idle"][0],
        "gossip_per_s": said / MEASURE_S,
        "rates": {name: _rounded(rate) for name, rate in market.rates.items()},
        "directories": market.directories,
        "heartbeats_here": min(PROVIDERS_PER_DIRECTORY, market.providers),
        "followers_here": market_crowd.FOLLOWERS,
        "live_offers": after["live"],
        "resident_mb": round(after["resident_bytes"] / 1e6),
    }


@cache
def _directory(providers: int) -> dict[str, Any]:
    measured = trio.run(_directory_share, providers)
    assert measured["live_offers"] > 0.9 * providers, measured
    return measured


def _directory_bench(providers: int) -> dict[str, object]:
    found = _directory(providers)
    return {
        "value": _rounded(found["share"]),
        "unit": "share of one core",
        "reference": "an idle libp2p node",
        "detail": {**found, "cpu_share": found["share"], "times_idle": found["share"] / found["idle_share"]},
    }


def growth_exponent() -> dict[str, object]:
    """The slope of log(CPU share of a directory) over log(providers)."""
    shares = {size: _directory(size)["share"] for size in SIZES}
    slope, _ = statistics.linear_regression(
        [math.log(size) for size in SIZES], [math.log(share) for share in shares.values()]
    )
    return {
        "value": _rounded(slope, 3),
        "unit": "exponent",
        "reference": "1.0: every node hears everything",
        "detail": {"cpu_share": {str(size): _rounded(share) for size, share in shares.items()}},
    }


# The cost of being a provider -------------------------------------------------------------------


@asynccontextmanager
async def _node(role: str, number: int, bootstrap: tuple[str, ...]) -> AsyncIterator[tuple[Wire, Discovery]]:
    """A real node in this process."""
    seed = seed_of("provider", number)
    limits = DIRECTORY_LIMITS if role == "directory" else Limits()
    async with (
        open_wire(WireConfig("127.0.0.1", 0, bootstrap), seed, limits) as wire,
        market_node(wire, role, number) as discovery,
    ):
        yield wire, discovery


async def _provider_share(providers: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        first, _ = await stack.enter_async_context(_node("directory", 1, ()))
        for number in (2, 3):
            await stack.enter_async_context(_node("directory", number, first.addresses[:1]))
        node = await stack.enter_async_context(child("provider", seed_of("node", 0), first.addresses[0]))
        idle = await stack.enter_async_context(child("idle", seed_of("idle", 0), first.addresses[0]))
        with trio.fail_after(120):
            while not (await node.ask())["settled"]:
                await trio.sleep(0.5)
        market = Crowd(node, providers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_records, market, first)
            await trio.sleep(SETTLE_S)
            shares: dict[str, float] = {}
            async with trio.open_nursery() as measuring:
                measuring.start_soon(_share, shares, "node", node)
                measuring.start_soon(_share, shares, "idle", idle)
            nursery.cancel_scope.cancel()
        return {"shares": shares, "rates": market.rates}


async def _share(shares: dict[str, float], name: str, node: Any) -> None:
    shares[name] = (await node.cpu_share(2 * MEASURE_S))[0]


async def _records(market: Crowd, through: Wire) -> None:
    """All that a settled provider hears of the market: who its directories are."""

    async def say(topic: str, data: bytes) -> None:
        await through.publish(topic, data)

    market.say = say  # type: ignore[method-assign]  # a real neighbour instead of the crowd's
    await market.records()


def provider_share() -> dict[str, object]:
    found = trio.run(_provider_share, 10_000)
    share, idle = found["shares"]["node"], found["shares"]["idle"]
    return {
        "value": _rounded(share),
        "unit": "share of one core",
        "reference": "an idle libp2p node",
        "detail": {
            "cpu_share": share,
            "idle_share": idle,
            "heartbeat_streams": 3,
            "records_per_s": found["rates"]["records"],
        },
    }


# How fast ---------------------------------------------------------------------------------------


async def _cold_join(providers: int) -> dict[str, Any]:
    began = time.perf_counter()
    records = [key_of(number).sign(offer_of(number, now_ms())) for number in range(1_000)]
    signing_s = (time.perf_counter() - began) / len(records)
    began = time.perf_counter()
    for raw in records:
        signing.verify(raw)
    bare_s = (time.perf_counter() - began) / len(records) * providers
    async with child("directory", seed_of("node", 0)) as node:
        await node.ask(f"known {providers}")
        rounds = []
        for number in range(3):
            began, cpu = time.perf_counter(), time.process_time()
            async with _node("caller", providers + 10 + number, node.addresses) as (_, joined):
                with trio.fail_after(120):
                    while len(joined.book) < providers:
                        await trio.sleep(0.01)
                rounds.append((time.perf_counter() - began, time.process_time() - cpu))
    wall_s, cpu_s = sorted(rounds)[1]
    return {"wall_s": wall_s, "cpu_s": cpu_s, "bare_s": bare_s, "signing_us": signing_s * 1e6}


def cold_join() -> dict[str, object]:
    """From opening the wire to the last of 10,000 offers; the middle of three joins."""
    found = trio.run(_cold_join, 10_000)
    return {
        "value": _rounded(found["wall_s"], 3),
        "unit": "s",
        "reference": "checking 10,000 signatures and nothing else",
        "detail": {
            "reference_s": found["bare_s"],
            "cpu_share": found["cpu_s"] / found["wall_s"],
            "ratio": found["wall_s"] / found["bare_s"],
        },
    }


async def _seen() -> dict[str, Any]:
    """30 nodes: 2 directories, 18 providers, 10 callers; one provider after the other changes its offer."""
    async with AsyncExitStack() as stack:
        nodes: list[tuple[str, Wire, Discovery]] = []
        for number in range(NODES):
            role = "directory" if number < 2 else "provider" if number < 20 else "caller"
            bootstrap = nodes[0][1].addresses[:1] if nodes else ()
            wire, discovery = await stack.enter_async_context(_node(role, number, bootstrap))
            nodes.append((role, wire, discovery))
            _progress(f"{number + 1} of {NODES} nodes are up")
        providers = [discovery for role, _, discovery in nodes if role == "provider"]
        readers = [discovery for role, _, discovery in nodes if role != "provider"]
        with trio.fail_after(180):
            while not all(len(reader.book) >= len(providers) for reader in readers):
                await trio.sleep(0.1)
        times, cpu, began = [], time.process_time(), time.perf_counter()
        for change in range(CHANGES):
            times += await _one_change(providers[change % len(providers)], readers)
            await trio.sleep(0.3)
        share = (time.process_time() - cpu) / (time.perf_counter() - began)
        caller = nodes[-1][1]
        trips = [await caller.round_trip(nodes[0][1].peer_key) for _ in range(20)]
    return {"times": sorted(times), "round_trip_s": statistics.median(trips), "cpu_share": share}


async def _one_change(provider: Discovery, readers: list[Discovery]) -> list[float]:
    """Seconds until each reader's book had it."""
    seen: list[float] = []
    began = time.perf_counter()

    async def wait(reader: Discovery, key: PeerKey, sequence: int) -> None:
        with trio.fail_after(30):
            while (entry := reader.book.get(key, now_ms())) is None or entry.offer.sequence < sequence:
                await trio.sleep(0.005)
        seen.append(time.perf_counter() - began)

    await provider.offers.publish()
    own = provider.offers.own
    assert own is not None
    async with trio.open_nursery() as nursery:
        for reader in readers:
            nursery.start_soon(wait, reader, own.provider, own.offer.sequence)
    return seen


def offer_seen() -> dict[str, object]:
    """From signing a changed offer until a book has it: all nodes in one process, on one core."""
    found = trio.run(_seen)
    times = found["times"]
    return {
        "value": _rounded(times[int(len(times) * 0.99)], 3),
        "unit": "s",
        "reference": "a round trip between two of the nodes in the same run",
        "detail": {
            "p50_s": statistics.median(times),
            "max_s": times[-1],
            "seen": len(times),
            "reference_s": found["round_trip_s"],
            "cpu_share": found["cpu_share"],
        },
    }


BENCHES: Final = {
    "discovery.provider_cpu_share_10k": provider_share,
    "discovery.directory_cpu_share_10k": lambda: _directory_bench(10_000),
    "discovery.directory_cpu_share_100k": lambda: _directory_bench(100_000),
    "discovery.growth_exponent": growth_exponent,
    "discovery.cold_join_10k_s": cold_join,
    "discovery.offer_seen_p99_s_30": offer_seen,
}
