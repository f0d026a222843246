"""A machine with two cards and many callers: no second of any history sells more of it than there is.

Quotes, acceptances at the same time, jobs that start and end, money that comes and goes, cards that fall
ill, a daemon that dies and finds its leases again. Against them: an engine that knows what really runs, and a
model that only adds up.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.store import Store, inline, open_store
from protocol import lease_model as m
from protocol.errors import CapacityTaken, QubixError
from protocol.lease_state import TERMINAL
from protocol.messages import Accept, Capacity, QuoteRequest, Terms, Wish
from protocol.signing import Signed, verify
from protocol.units import EscrowId, LeaseId, Qu, Tick
from qubixd.desk import Desk, lease_id_of
from qubixd.jobfiles import JobFiles
from qubixd.leases import Leases, Task
from qubixd.quotes import House, free_of, make_terms
from qubixd.views import holds_capacity
from tests.support.deals import CALLER, HOUSE, NOW, PROVIDER, REQUEST, gpu
from tests.support.world_jobs import now_ms

EXAMPLES = int(os.environ.get("QUBIX_LEASE_EXAMPLES", "100"))
MACHINE = Capacity(gpus=(gpu(0), gpu(1)), cpu_millis=4_000, memory_mib=4_096, disk_mib=1_000)
NEVER = 10**9


@dataclass
class Hardware:
    """What really takes up the machine. It outlives the daemon."""

    running: dict[LeaseId, Terms] = field(default_factory=dict)
    ended: set[LeaseId] = field(default_factory=set)
    hurry: bool = False

    async def __call__(self, task: Task, /) -> m.Event | None:
        lease, lease_id = task.lease, task.lease.lease_id
        await trio.sleep(0.01 if self.hurry else seconds_of(lease_id, task.effect))
        match task.effect:
            case m.RunPull():
                return m.RunPulled(now_ms())
            case m.RunStart():
                self.running[lease_id] = lease.terms
                check_fits(list(self.running.values()))
                return m.RunStarted(now_ms(), now_ms())
            case m.RunGo():
                return m.RunReady(now_ms(), now_ms()) if lease_id in self.running else None
            case m.RunStop():
                self.ended.add(lease_id)
            case m.RunCollect():
                self.running.pop(lease_id, None)
                return m.RunCollected(bytes(32), 0, now_ms())
            case m.RunDiscard():
                self.running.pop(lease_id, None)
                return m.RunDiscarded(now_ms())
            case m.ChainVerify():
                return m.ChainOpened(EscrowId(lease_id), Tick(1), Tick(NEVER), now_ms())
            case m.ChainClose():
                return m.ChainClosed(lease.promised, Qu(lease.terms.deposit - lease.promised), now_ms())
            case _:
                pass
        return None


def seconds_of(lease_id: LeaseId, effect: m.Effect) -> float:
    """Some containers are there at once and some take long, to start or to go."""
    return (0.01, 0.6, 20.0)[hashlib.sha256(lease_id + type(effect).__name__.encode()).digest()[0] % 3]


def check_fits(taken: list[Terms]) -> None:
    """The model: it adds up what the wishes and digests say."""
    cards = Counter(digest for terms in taken for digest in terms.gpu_digests)
    assert max(cards.values(), default=0) <= 1, "a card was sold twice"
    for name in ("cpu_millis", "memory_mib", "disk_mib"):
        assert sum(getattr(terms.wish, name) for terms in taken) <= getattr(MACHINE, name), f"oversold {name}"


@dataclass
class Shop:
    """One life of the daemon."""

    leases: Leases
    hardware: Hardware
    well: set[int]
    desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        files = JobFiles(Path("nowhere"), inline)
        self.desk = Desk(PROVIDER, self.leases, files, None, now_ms, self.house, self.house, trio.Lock())

    def house(self) -> House:
        fit = replace(MACHINE, gpus=tuple(card for n, card in enumerate(MACHINE.gpus) if n in self.well))
        taken = [one.terms for one in self.leases.active() if holds_capacity(one)]
        check_fits(taken)
        return replace(HOUSE, free=free_of(fit, taken))

    async def quote(self, request: QuoteRequest) -> Signed | None:
        """Refused only when it does not fit."""
        free = self.house().free
        wish = request.wish
        fits = wish.gpu_count <= len(free.gpus) and all(
            getattr(wish, name) <= getattr(free, name) for name in ("cpu_millis", "memory_mib", "disk_mib")
        )
        try:
            terms = await self.desk.answer(verify(CALLER.sign(request)))
        except CapacityTaken:
            assert not fits, "capacity that is there was refused"
            return None
        assert fits and isinstance(terms, Terms)
        return verify(PROVIDER.sign(terms))

    async def accept(self, signed: Signed) -> LeaseId | None:
        try:
            await self.desk.answer(verify(CALLER.sign(Accept(signed.raw, ()))))
        except QubixError:
            return None
        return lease_id_of(signed.raw)

    async def tell_ends(self) -> None:
        """What the watchers do: an end of a job becomes an event."""
        for one in self.leases.active():
            if one.lease_id in self.hardware.ended and one.container_at and not one.exited:
                event = m.RunExited(0, "exited", one.container_at, now_ms(), now_ms())
                await self.leases.feed(one.lease_id, event)


@asynccontextmanager
async def life(store: Store, hardware: Hardware, well: set[int]) -> AsyncIterator[Shop]:
    leases = Leases(store, now_ms)
    async with trio.open_nursery() as nursery:
        await nursery.start(leases.run, hardware)
        yield Shop(leases, hardware, well)
        nursery.cancel_scope.cancel()


Deed = tuple[Any, ...]


def some_story(chance: random.Random) -> list[Deed]:
    """Long ones find more than short ones: what is in the way must first have got there."""
    return [some_deed(chance) for _ in range(25)]


def some_deed(chance: random.Random) -> Deed:
    match chance.choice("rrsssteevfiwxd"):
        case "r":
            return "rent", [some_wish(chance) for _ in range(chance.choice([1, 2, 3]))], chance.random() < 0.8
        case "s":
            return "sleep", chance.choice([0.1, 0.6, 3.0, 15.0, 400.0])
        case "d":
            return ("die",)
        case ("w" | "x") as letter:
            return {"w": "well", "x": "sick"}[letter], chance.choice([0, 1])
        case letter:
            return {"t": "stop", "e": "end", "v": "vanish", "f": "fund", "i": "inputs"}[
                letter
            ], chance.randrange(8)


def some_wish(chance: random.Random) -> Wish:
    return Wish(
        gpu_model="",
        gpu_count=chance.choice([0, 1, 1, 2]),
        gpu_vram_mib=0,
        cpu_millis=chance.choice([500, 1_500, 4_000]),
        memory_mib=chance.choice([512, 2_048, 3_000]),
        disk_mib=chance.choice([100, 600]),
    )


async def do(shop: Shop, deed: tuple[Any, ...], made: list[LeaseId], nonces: count[int]) -> None:
    match deed:
        case ("rent", wanted, at_once):
            for lease_id in await rent(shop, wanted, nonces):
                made.append(lease_id)
                for name in ("fund", "inputs") if at_once else ():
                    await shop.leases.feed(lease_id, event_of(name))
        case ("sleep", seconds):
            await trio.sleep(seconds)
        case ("sick", card):
            shop.well.discard(card)
        case ("well", card):
            shop.well.add(card)
        case (name, number) if made:
            lease_id = made[number % len(made)]
            if name == "end":
                shop.hardware.ended.add(lease_id)
            else:
                await shop.leases.feed(lease_id, event_of(name))
    await shop.tell_ends()
    shop.house()
    check_fits(list(shop.hardware.running.values()))


def event_of(name: str) -> m.Event:
    match name:
        case "fund":
            return m.ReceiveFunded(EscrowId(bytes(32)), Tick(1), now_ms())
        case "inputs":
            return m.ReceiveInputs(now_ms())
        case "stop":
            return m.ReceiveStop("because", now_ms())
        case _:
            return m.ChainClosed(Qu(0), Qu(1), now_ms())


async def rent(shop: Shop, wanted: list[Wish], nonces: count[int]) -> list[LeaseId]:
    """Everybody asks, then everybody accepts at the same moment."""
    quotes, made = [], list[LeaseId]()
    for wish in wanted:
        request = replace(REQUEST, wish=wish, nonce=next(nonces).to_bytes(32, "big"))
        if quote := await shop.quote(request):
            quotes.append(quote)
    async with trio.open_nursery() as nursery:

        async def accept(quote: Signed) -> None:
            if lease_id := await shop.accept(quote):
                made.append(lease_id)

        for quote in quotes:
            nursery.start_soon(accept, quote)
    return made


async def history(story: list[tuple[Any, ...]]) -> None:
    hardware, well, made, nonces = Hardware(), {0, 1}, list[LeaseId](), count()
    lives: list[list[tuple[Any, ...]]] = [[]]
    for deed in story:
        lives[-1].append(deed)
        if deed == ("die",):
            lives.append([])
    async with open_store(":memory:", inline) as store:
        for deeds_of_one_life in lives:
            async with life(store, hardware, well) as shop:
                for deed in deeds_of_one_life:
                    await do(shop, deed, made, nonces)
        hardware.hurry = True
        async with life(store, hardware, well) as shop:
            await everything_is_free_in_the_end(shop, made)


async def everything_is_free_in_the_end(shop: Shop, made: list[LeaseId]) -> None:
    for lease_id in made:
        with suppress(QubixError):
            await shop.leases.feed(lease_id, m.ReceiveStop("because", now_ms()))
    with trio.fail_after(3_600):
        while shop.leases.active():
            await shop.tell_ends()
            await trio.sleep(1)
    shop.well.update((0, 1))
    assert shop.house().free == MACHINE and not shop.hardware.running
    for lease_id in made:
        assert (await shop.leases.get(lease_id)).phase in TERMINAL


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_history_sells_anything_twice(seed: int) -> None:
    story = some_story(random.Random(seed))
    trio.run(history, story, clock=trio.testing.MockClock(autojump_threshold=0))


def test_the_model_sees_what_is_oversold() -> None:
    for twice in (terms_of(1, 500), terms_of(0, 3_000)):
        check_fits([twice])
        with pytest.raises(AssertionError):
            check_fits([twice, twice])


def terms_of(gpus: int, cpu_millis: int) -> Terms:
    wish = Wish("", gpus, 0, cpu_millis, 512, 100)
    return make_terms(replace(HOUSE, free=MACHINE), replace(REQUEST, wish=wish), CALLER.public, NOW)
