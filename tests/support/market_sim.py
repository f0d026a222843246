"""A market under attack, played in virtual time; one seed, one history.

    python -m tests.support.market_sim SCENARIO SEED

prints one JSON line: what was seen, in counts and virtual seconds. Run with PYTHONHASHSEED=0 it is the same
line every time. All honest nodes are real (qubixd.discovery on the wire in memory, with its real
signatures); the attackers are scripts on bare wires that keep no rule.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import trio
import trio.testing

from protocol import messages
from protocol.errors import QubixError
from protocol.messages import MAX_OFFER_BYTES, Ack, Directory, GetOffers, Liveness, OfferBatch
from protocol.units import PeerKey, Qu, UnixMs
from qubixd.directory import PROTOCOL as HEARTBEAT
from qubixd.directory import RECORDS_TOPIC
from qubixd.liveness import LIVENESS_TOPIC
from qubixd.offers import LIFE_MS, TOPIC
from qubixd.sync import MAX_REQUEST, pack_all, pack_sightings
from qubixd.sync import PROTOCOL as BOOK
from qubixd.wire import Stream, Wire, receive_frame, send_frame
from tests.support.deals import CONTRACT, NETWORK, offer
from tests.support.discovery import GPU_CLASS, Shop, key_of, running
from tests.support.market_sim_scores import forged_score
from tests.support.memory_wire import MemoryNet
from tests.support.world_jobs import now_ms

PROVIDERS: Final = 24
CALLERS: Final = 4
DIRECTORIES: Final = 4
LINKS: Final = 3
CHANGES: Final = 12
MARKET: Final = "RTX_40"


@dataclass
class Sim:
    seed: int
    places: int | None = None
    """Room of the books, if smaller than usual."""
    chance: random.Random = field(init=False)
    net: MemoryNet = field(init=False)
    nursery: trio.Nursery = field(init=False)
    providers: list[Shop] = field(default_factory=list)
    callers: list[Shop] = field(default_factory=list)
    directories: list[Shop] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.net = MemoryNet(seed=self.seed, delay_seconds=0.02, mesh=6)

    @property
    def honest(self) -> list[Shop]:
        return self.directories + self.providers + self.callers

    @property
    def names(self) -> set[str]:
        return {shop.name for shop in self.providers}

    async def start(self, shop: Shop, ip: str) -> Shop:
        """One more honest node, which knows a few of those before it."""
        self.net.ips[shop.peer] = ip
        await self.nursery.start(self._run, shop)
        for other in self.chance.sample(self.honest, min(LINKS, len(self.honest))):
            self.net.join(shop.peer, other.peer)
        return shop

    async def _run(self, shop: Shop, task_status: trio.TaskStatus[None]) -> None:
        async with running(self.net, shop, places=self.places):
            task_status.started()
            await trio.sleep_forever()

    async def populate(self, directories: int = DIRECTORIES) -> None:
        """All honest nodes, each in a network of its own, until everybody knows everything."""
        for number in range(directories):
            shop = Shop(f"directory-{number}", directory=True)
            self.directories.append(await self.start(shop, f"10.{number}.0.1"))
        for number in range(PROVIDERS):
            shop = Shop(f"provider-{number}", 1_000 + number)
            self.providers.append(await self.start(shop, f"20.{number}.0.1"))
        for number in range(CALLERS):
            self.callers.append(await self.start(Shop(f"caller-{number}"), f"30.{number}.0.1"))
        await self.until(self.everything_is_known)

    def everything_is_known(self) -> bool:
        return all(self.names <= set(caller.seen) for caller in self.callers)

    def visible(self) -> float:
        """The share of honest offers that the worst-served caller sees."""
        return min(len(self.names & set(caller.seen)) / len(self.names) for caller in self.callers)

    async def until(self, condition: Callable[[], bool], seconds: float = 300.0) -> float:
        began = trio.current_time()
        with trio.fail_after(seconds):
            while not condition():
                await trio.sleep(0.05)
        return round(trio.current_time() - began, 2)

    async def arrivals(self, changes: int = CHANGES) -> list[float]:
        """Seconds until every caller knows a change, for one provider after the other; None arrives late."""
        found = []
        for number in range(changes):
            provider = self.providers[number % len(self.providers)]
            assert provider.price is not None
            provider.price += 1_000
            await provider.service.publish()
            found.append(await self.until(lambda shop=provider: self._all_know(shop)))  # type: ignore[misc]  # mypy cannot infer defaults of a lambda
            await trio.sleep(1)
        return found

    def _all_know(self, provider: Shop) -> bool:
        return all(caller.seen.get(provider.name) == provider.price for caller in self.callers)

    async def worst_view(self, seconds: float) -> float:
        """The least that any caller saw of the honest offers, looked at twice a second."""
        least = 1.0
        with trio.move_on_after(seconds):
            while True:
                least = min(least, self.visible())
                await trio.sleep(0.5)
        return least

    @asynccontextmanager
    async def stranger(self, name: str, ip: str, links: int) -> AsyncIterator[Wire]:
        """A wire without a node behind it."""
        peer = key_of(name).public
        self.net.ips[peer] = ip
        async with self.net.wire(peer) as wire:
            for other in self.chance.sample(self.honest, min(links, len(self.honest))):
                self.net.join(peer, other.peer)
            yield wire


def false_offer(name: str, **changes: Any) -> bytes:
    """A signed offer, cheap and by default right in every other way."""
    now = now_ms()
    template = replace(
        offer(now),
        name=name,
        gpu_class=GPU_CLASS,
        price_qu_per_hour=Qu(1),
        issued_at=now,
        expires_at=UnixMs(now + LIFE_MS),
    )
    return key_of(name).sign(replace(template, **changes))


# Attacks ---------------------------------------------------------------------------------------


async def flood_from_one(sim: Sim, task_status: trio.TaskStatus[None]) -> None:
    """Fifty messages a second over all its connections: junk, forgeries, the future, fresh identities."""
    async with sim.stranger("flooder", "66.6.0.1", 8) as wire:
        task_status.started()
        for number in range(1_000_000):
            right = false_offer(f"fresh-{number}")
            future = UnixMs(now_ms() + 86_400_000)
            await wire.publish(TOPIC + MARKET, right)
            for raw in (
                sim.chance.randbytes(MAX_OFFER_BYTES),
                right[:-1] + bytes([right[-1] ^ 1]),
                false_offer("flooder", issued_at=future, expires_at=UnixMs(future + LIFE_MS)),
                false_offer("flooder", network="elsewhere"),
            ):
                await wire.publish(TOPIC + MARKET, raw)
            await trio.sleep(0.1)


async def thousand_identities(sim: Sim, task_status: trio.TaskStatus[None], count: int = 1_000) -> None:
    """A thousand providers that are none, from many networks, each with connections of its own."""
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(_one_identity, sim, number)
        task_status.started()


async def _one_identity(sim: Sim, number: int) -> None:
    name = f"fresh-{number}"
    await trio.sleep(sim.chance.uniform(0, 20))
    async with sim.stranger(name, f"66.{number % 200}.{number // 200}.1", 2) as wire:
        while True:
            await trio.sleep(0.1)
            await wire.publish(TOPIC + MARKET, false_offer(name))
            await trio.sleep(sim.chance.uniform(15, 25))


@dataclass
class FalseDirectory:
    """Says that it is a directory. What it does with what it is told is its own affair."""

    name: str
    ip: str
    shows: Callable[[], Sequence[bytes]] = tuple
    """The records of its book."""
    alive: Sequence[str] = ()
    """Whom it says to have heard."""
    mute: bool = False
    """It takes everything and then says nothing."""

    async def run(self, sim: Sim, task_status: trio.TaskStatus[None]) -> None:
        async with sim.stranger(self.name, self.ip, 6) as wire, trio.open_nursery() as nursery:
            wire.serve(HEARTBEAT, self._heartbeats)
            wire.serve(BOOK, self._book)
            nursery.start_soon(self._announce, wire)
            task_status.started()
            await trio.sleep_forever()

    async def _announce(self, wire: Wire) -> None:
        key = key_of(self.name)
        while True:
            now = now_ms()
            where = (f"/ip4/{self.ip}/tcp/4001",)
            said = Directory(now, now, UnixMs(now + 900_000), False, NETWORK, CONTRACT, "", 500, where)
            await wire.publish(RECORDS_TOPIC, key.sign(said))
            if not self.mute:
                await wire.publish(LIVENESS_TOPIC, key.sign(Liveness(now, self._sightings(now))))
            await trio.sleep(25)

    def _sightings(self, now: UnixMs) -> bytes:
        return b"".join(pack_sightings(((key_of(name).public, now) for name in self.alive), now))

    async def _heartbeats(self, stream: Stream, peer: PeerKey) -> None:
        await receive_frame(stream, MAX_OFFER_BYTES)
        await send_frame(stream, messages.encode(Ack()))
        while await receive_frame(stream, MAX_OFFER_BYTES):
            pass

    async def _book(self, stream: Stream, peer: PeerKey) -> None:
        asked = messages.decode(await receive_frame(stream, MAX_REQUEST) or b"", MAX_REQUEST)
        assert isinstance(asked, GetOffers)
        identity = key_of(self.name).public[:8]
        for body in pack_all(list(self.shows())) or [b""]:
            await send_frame(stream, messages.encode(OfferBatch(identity, 1, True, body, b"")))
        while not self.mute:
            await trio.sleep(10)
            sightings = self._sightings(now_ms())
            await send_frame(stream, messages.encode(OfferBatch(identity, 1, True, b"", sightings)))
        await trio.sleep_forever()


# Scenarios -------------------------------------------------------------------------------------

Report = dict[str, object]


async def quiet(sim: Sim) -> Report:
    """Nobody does any harm."""
    await sim.populate()
    arrivals, wires = await sim.arrivals(), sim.net.wires
    return {"arrivals_s": arrivals, "heard": [wires[one.peer].counters.gossip_in for one in sim.honest]}


async def flood(sim: Sim) -> Report:
    """One peer shouts as loud as it can."""
    await sim.populate()
    calm = await sim.arrivals()
    await sim.nursery.start(flood_from_one, sim)
    return await _under_attack(sim, calm)


async def sybil(sim: Sim) -> Report:
    """A thousand fresh identities, in books that have room for a part of them only."""
    sim.places = 400
    await sim.populate()
    calm = await sim.arrivals()
    await sim.nursery.start(thousand_identities, sim)
    await trio.sleep(25)
    report = await _under_attack(sim, calm)
    late = Shop("provider-late", 5_000)
    sim.providers.append(await sim.start(late, "21.0.0.1"))
    return report | {"newcomer_s": await sim.until(sim.everything_is_known)}


async def _under_attack(sim: Sim, calm: list[float]) -> Report:
    hard = await sim.arrivals()
    books = [shop.discovery.book for shop in sim.honest]
    return {
        "calm_s": calm,
        "hard_s": hard,
        "least_visible": await sim.worst_view(120),
        "places": sim.places,
        "largest_book": max(len(book) for book in books),
        "most_bytes": max(sum(len(entry.raw) for entry in book.entries(now_ms())) for book in books),
        "dropped": sum(sum(book.dropped.values()) for book in books),
    }


async def silent(sim: Sim) -> Report:
    """Two of six directories take everybody in and then say nothing."""
    for number in range(2):
        mute = FalseDirectory(f"mute-{number}", f"66.{number}.0.1", mute=True)
        sim.nursery.start_soon(_when_there_is_somebody, sim, mute)
    await sim.populate()
    least = await sim.worst_view(240)
    dead = sim.providers[0]
    await dying(sim, dead)
    gone_s = await sim.until(lambda: all(dead.name not in caller.seen for caller in sim.callers))
    return {"least_visible": least, "dead_gone_s": gone_s, **_used(sim, "mute-")}


async def eclipse(sim: Sim, networks: int = 1) -> Report:
    """Thirty directories of one attacker, who shows its own offers only, in so many networks."""
    own = [f"bait-{number}" for number in range(10)]
    for number in range(30):
        ip = f"66.{number % networks}.{number // networks}.1"
        false = FalseDirectory(f"false-{number}", ip, lambda: [false_offer(name) for name in own], own)
        sim.nursery.start_soon(_when_there_is_somebody, sim, false)
    began = trio.current_time()
    await sim.populate()
    seen_s = round(trio.current_time() - began, 2)
    await trio.sleep(60)
    least = await sim.worst_view(120)
    return {"all_seen_s": seen_s, "least_visible": least, **_used(sim, "false-")}


async def wide_eclipse(sim: Sim) -> Report:
    """The same from thirty networks: what an attacker gets who can pay for that."""
    return await eclipse(sim, 30)


async def lies(sim: Sim) -> Report:
    """A directory goes on reporting a provider that is dead."""
    dead = "provider-0"
    liar = FalseDirectory("liar", "66.0.0.1", lambda: [], [dead])
    sim.nursery.start_soon(_when_there_is_somebody, sim, liar)
    await sim.populate()
    await dying(sim, sim.providers[0])
    await trio.sleep(120)
    believed = sum(dead in caller.seen for caller in sim.callers)
    return {"believed_by": believed, "others_visible": sim.visible()}


async def _when_there_is_somebody(sim: Sim, false: FalseDirectory) -> None:
    await sim.until(lambda: len(sim.honest) > DIRECTORIES + 2)
    await sim.nursery.start(false.run, sim)


async def dying(sim: Sim, shop: Shop) -> None:
    """The node's cable is pulled."""
    sim.net.pull_cable(shop.peer)
    sim.providers.remove(shop)
    await trio.lowlevel.checkpoint()


def _used(sim: Sim, prefix: str) -> Report:
    """How many of the attacker's directories are in use at the end."""
    false = {key_of(f"{prefix}{number}").public for number in range(30)}
    used = [{peer for peer, _ in shop.discovery.directories.in_use()} for shop in sim.callers]
    return {"false_in_use": [len(false & peers) for peers in used]}


SCENARIOS: Final[dict[str, Callable[[Sim], Awaitable[Report]]]] = {
    "quiet": quiet,
    "flood": flood,
    "sybil": sybil,
    "silent": silent,
    "eclipse": eclipse,
    "wide_eclipse": wide_eclipse,
    "lies": lies,
    "forged_score": lambda sim: forged_score(sim.seed),
}


async def play(scenario: str, seed: int) -> Report:
    sim = Sim(seed)
    async with trio.open_nursery() as sim.nursery:
        with trio.fail_after(3_600):
            report = await SCENARIOS[scenario](sim)
        sim.nursery.cancel_scope.cancel()
    return report


def main(scenario: str, seed: int) -> None:
    random.seed(seed)
    # The scheduler's own dice: trio keeps them here for exactly this use.
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # a constant otherwise
    trio._core._run._r.seed(seed)
    try:
        report = trio.run(play, scenario, seed, clock=trio.testing.MockClock(autojump_threshold=0))
    except (QubixError, trio.TooSlowError) as error:
        report = {"failed": repr(error)}
    print(json.dumps({"scenario": scenario, "seed": seed, **report}, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
