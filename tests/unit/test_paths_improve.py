"""Better ways are looked for while they matter: ever more rarely, and at once when the network is another."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from protocol.errors import PeerUnreachable
from protocol.paths import PathKind
from protocol.units import PeerKey
from qubixd.link import LinkView
from qubixd.paths.changes import POLL_SECONDS, Changes
from qubixd.paths.improve import JITTER, PAUSES_SECONDS, Improver
from qubixd.paths.moving import PAUSES_SECONDS as TOLD_SECONDS
from qubixd.paths.moving import Herald

BOB = PeerKey(b"b" * 32)


class SomeLinks:
    """Links whose kind and number of streams a test sets; it notes when better ways were looked for."""

    def __init__(self, kind: PathKind | None = PathKind.RELAYED) -> None:
        self.on_change: list[Callable[[PeerKey], None]] = []
        self.kind = kind
        self.tried: list[float] = []
        self.better: PathKind | None = None

    def peers(self) -> tuple[PeerKey, ...]:
        return (BOB,)

    def view(self, peer: PeerKey) -> LinkView | None:
        return LinkView(self.kind, None, 0, 0, 0, 0, 0, "") if self.kind else None

    async def improve(self, peer: PeerKey) -> bool:
        self.tried.append(trio.current_time())
        if self.better is None:
            return False
        self.becomes(self.better)
        return True

    def becomes(self, kind: PathKind | None) -> None:
        self.kind = kind
        for callback in self.on_change:
            callback(BOB)


@asynccontextmanager
async def improving(links: SomeLinks) -> AsyncIterator[Improver]:
    async with trio.open_nursery() as nursery:
        improver = Improver(links)
        await nursery.start(improver.run)
        yield improver
        nursery.cancel_scope.cancel()


async def test_ever_more_rarely(autojump_clock: MockClock) -> None:
    links = SomeLinks()
    start = trio.current_time()
    async with improving(links):
        await trio.sleep(4_000)
    gaps = [at - before for before, at in zip([start, *links.tried], links.tried, strict=False)]
    expected = [*PAUSES_SECONDS, PAUSES_SECONDS[-1], PAUSES_SECONDS[-1]]
    for gap, pause in zip(gaps, expected, strict=False):
        assert pause * (1 - JITTER) <= gap <= pause * (1 + JITTER)
    assert len(links.tried) >= len(expected)


@pytest.mark.parametrize("kind", [PathKind.DIRECT, PathKind.PUNCHED, None])
async def test_what_is_good_or_not_used_costs_nothing(
    kind: PathKind | None, autojump_clock: MockClock
) -> None:
    links = SomeLinks(kind)
    async with improving(links):
        await trio.sleep(10_000)
    assert links.tried == []


async def test_once_it_is_good_it_is_left_alone(autojump_clock: MockClock) -> None:
    links = SomeLinks()
    links.better = PathKind.PUNCHED
    async with improving(links):
        await trio.sleep(10_000)
        assert len(links.tried) == 1
        links.better = None
        links.becomes(PathKind.RELAYED)
        await trio.sleep(PAUSES_SECONDS[0] * (1 + JITTER))
        assert len(links.tried) == 2, "and from the first pause on, once it is worse again"


async def test_at_once_when_the_network_is_another(autojump_clock: MockClock) -> None:
    links = SomeLinks()
    async with improving(links) as improver:
        await trio.sleep(1_000)
        before = len(links.tried)
        now = trio.current_time()
        improver.again()
        await trio.sleep(1)
        assert links.tried[before:] == [now]


# What is noticed


@pytest.fixture
def no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the kernel tells nothing of interfaces."""
    monkeypatch.delattr(socket, "AF_NETLINK", raising=False)


@asynccontextmanager
async def watching(addresses: list[frozenset[str]]) -> AsyncIterator[list[float]]:
    """When changes of the last of `addresses` were told."""
    told: list[float] = []
    watcher = Changes(lambda: addresses[-1])
    watcher.on_change.append(lambda: told.append(trio.current_time()))
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        yield told
        nursery.cancel_scope.cancel()


async def test_another_address_is_noticed_without_news(no_news: None, autojump_clock: MockClock) -> None:
    addresses = [frozenset({"192.168.1.2"})]
    async with watching(addresses) as told:
        await trio.sleep(100)
        assert told == []
        addresses.append(frozenset({"192.168.7.7"}))
        await trio.sleep(POLL_SECONDS + 1)
        assert len(told) == 1
        await trio.sleep(100)
        assert len(told) == 1


async def test_a_machine_that_slept_notices(
    no_news: None, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock has jumped while its own time stood still."""
    clock = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0] + trio.current_time())
    async with watching([frozenset({"192.168.1.2"})]) as told:
        await trio.sleep(100)
        assert told == []
        clock[0] += 3_600
        await trio.sleep(POLL_SECONDS + 1)
        assert len(told) == 1


# What is told


async def test_peers_are_told_until_they_know(autojump_clock: MockClock) -> None:
    told: list[PeerKey] = []
    reachable_at = trio.current_time() + 5

    async def tell(peer: PeerKey) -> None:
        if trio.current_time() < reachable_at:
            raise PeerUnreachable("not yet")
        told.append(peer)

    async with heralding(tell) as herald:
        herald.moved([BOB])
        await trio.sleep(100)
        assert told == [BOB]


async def test_a_second_move_starts_it_anew(autojump_clock: MockClock) -> None:
    tried: list[float] = []

    async def tell(peer: PeerKey) -> None:
        tried.append(trio.current_time())
        raise PeerUnreachable("not yet")

    async with heralding(tell) as herald:
        herald.moved([BOB])
        await trio.sleep(30)
        herald.moved([])
        before, now = len(tried), trio.current_time()
        await trio.sleep(2)
        assert tried[before:] == [now + TOLD_SECONDS[0]], "at once, and those of before, too"
        await trio.sleep(200)
        count = len(tried)
        await trio.sleep(1_000)
        assert len(tried) == count, "it gives up"


@asynccontextmanager
async def heralding(tell: Callable[[PeerKey], Awaitable[None]]) -> AsyncIterator[Herald]:
    async with trio.open_nursery() as nursery:
        herald = Herald(tell)
        await nursery.start(herald.run)
        yield herald
        nursery.cancel_scope.cancel()
