"""Offers between nodes on the in-memory wire: gossip, snapshots, refreshing, restarts, hostile servers."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol import messages, signing
from protocol.errors import StreamBroken
from protocol.messages import GetOffers, OfferBatch
from protocol.signing import NodeKey
from protocol.units import PeerKey, Qu, UnixMs
from qubixd.book import ALIVE_MS
from qubixd.offers import LIFE_MS, LOOK_AGAIN_SECONDS, REISSUE_SECONDS, SNAPSHOT_TIMEOUT_S, TOPIC
from qubixd.sync import MAX_FRAME, PROTOCOL, unpack
from qubixd.wire import Stream, receive_frame, send_frame
from tests.support.deals import offer
from tests.support.discovery import Shop, key_of, running
from tests.support.memory_wire import MemoryNet, MemoryWire
from tests.support.world_jobs import now_ms

Clock = trio.testing.MockClock
MARKET_TOPIC = TOPIC + "RTX_40"


async def test_an_offer_reaches_everybody_and_a_late_joiner_asks_for_it(autojump_clock: Clock) -> None:
    net = MemoryNet(delay_seconds=0.01)
    async with running(net, Shop("bob")) as bob, running(net, Shop("alice", 7)):
        await trio.sleep(1)
        assert bob.seen == {"alice": 7}
        async with running(net, Shop("carol")) as carol:
            await trio.sleep(1)
            assert carol.seen == {"alice": 7}


async def test_an_offer_that_missed_snapshot_and_gossip_is_asked_for(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(self: MemoryWire, topic: str, data: bytes) -> None:
        """As when the other side has not subscribed yet."""

    monkeypatch.setattr(MemoryWire, "publish", lost)
    net = MemoryNet()
    async with running(net, Shop("bob")) as bob, running(net, Shop("alice", 7, withdrawn=True)) as alice:
        await trio.sleep(1)
        alice.withdrawn = False
        alice.service.changed()
        await trio.sleep(2 * LOOK_AGAIN_SECONDS)
        assert bob.seen == {"alice": 7}


async def test_a_late_joiner_hears_of_a_provider_it_cannot_reach(autojump_clock: Clock) -> None:
    """Whoever relays an offer passes on the provider's own envelope."""
    net = MemoryNet()
    net.cut(key_of("alice").public, key_of("carol").public)
    async with running(net, Shop("alice", 7)) as alice, running(net, Shop("bob")):
        await trio.sleep(1)
        async with running(net, Shop("carol")) as carol:
            await trio.sleep(1)
            entry = carol.discovery.book.get(alice.key.public, now_ms())
            assert entry is not None and alice.service.own is not None
            assert entry.raw == alice.service.own.raw


async def test_an_offer_is_issued_again_while_its_maker_lives_and_gone_when_it_does_not(
    autojump_clock: Clock,
) -> None:
    net = MemoryNet()
    async with running(net, Shop("bob")) as bob:
        async with running(net, Shop("alice", 7)) as alice:
            for _ in range(100):
                await trio.sleep(LIFE_MS / 1_000 / 20)
                assert bob.seen == {"alice": 7}
            assert alice.service.own is not None
            gossiped = bob.discovery.book.cursor
            assert gossiped <= 1 + 5 * LIFE_MS / 1_000 / REISSUE_SECONDS[0], "no more often than said"
        await trio.sleep(ALIVE_MS / 1_000 + 1)
        assert bob.seen == {}


async def test_a_change_is_gossiped_at_once(autojump_clock: Clock) -> None:
    net = MemoryNet(delay_seconds=0.01)
    async with running(net, Shop("bob")) as bob, running(net, Shop("alice", 7)) as alice:
        await trio.sleep(1)
        alice.price = 9
        alice.service.changed()
        await trio.sleep(0.1)
        assert bob.seen == {"alice": 9}
        alice.withdrawn = True
        alice.service.changed()
        await trio.sleep(0.1)
        assert bob.seen == {}
        alice.withdrawn = False
        alice.service.changed()
        await trio.sleep(0.1)
        assert bob.seen == {"alice": 9}


async def test_duplicated_and_reordered_gossip_ends_at_the_newest(autojump_clock: Clock) -> None:
    net = MemoryNet(seed=3, delay_seconds=0.01, duplicate=0.5, reorder_seconds=0.5)
    async with running(net, Shop("bob")) as bob, running(net, Shop("alice", 1)) as alice:
        for price in range(2, 12):
            alice.price = price
            alice.service.changed()
            await trio.sleep(0.05)
        await trio.sleep(2)
        assert bob.seen == {"alice": 11}
        assert bob.discovery.book.dropped["offer.replayed"] > 0
        assert set(bob.discovery.book.dropped) <= {"offer.known", "offer.replayed"}


async def test_replays_are_refused_after_a_restart(autojump_clock: Clock, tmp_path: Path) -> None:
    net = MemoryNet()
    ledger = tmp_path / "bob.sqlite"
    old = key_of("alice").sign(replace(offer(1, now_ms()), gpu_class="RTX_4090", name="alice"))
    new = key_of("alice").sign(
        replace(offer(2, now_ms()), gpu_class="RTX_4090", name="alice", price_qu_per_hour=Qu(9))
    )
    async with net.wire(key_of("mallory").public) as mallory:
        async with running(net, Shop("bob"), ledger) as bob:
            await mallory.publish(MARKET_TOPIC, old)
            await mallory.publish(MARKET_TOPIC, new)
            await trio.sleep(3)  # the sweep writes the news down
            assert bob.seen == {"alice": 9}
        async with running(net, Shop("bob"), ledger) as bob:
            assert bob.seen == {"alice": 9}, "the book is refilled from the ledger"
            await mallory.publish(MARKET_TOPIC, old)
            await trio.sleep(1)
            assert bob.seen == {"alice": 9}
            assert bob.discovery.book.dropped["offer.replayed"] == 1


async def test_own_sequences_rise_across_restarts_and_a_clock_set_back(
    autojump_clock: Clock, tmp_path: Path
) -> None:
    net = MemoryNet()
    sequences = []
    for clock in (now_ms, now_ms, lambda: UnixMs(now_ms() - 3_600_000)):
        async with running(net, Shop("alice", 7, clock=clock), tmp_path / "alice.sqlite") as alice:
            await trio.sleep(1)
            assert alice.service.own is not None
            sequences.append(alice.service.own.offer.sequence)
    assert sequences == sorted(set(sequences))


# --- hostile servers of snapshots ---------------------------------------------------------------

Serve = Callable[[Stream, PeerKey], Awaitable[None]]


async def junk(stream: Stream, peer: PeerKey) -> None:
    for number in range(50):
        await send_frame(stream, b"\xc1" * number)


async def endless(stream: Stream, peer: PeerKey) -> None:
    raw = key_of("ghost").sign(replace(offer(1, now_ms()), gpu_class="RTX_4090", name="ghost"))
    while True:
        await send_frame(stream, raw)
        await trio.sleep(0.01)


async def stalled(stream: Stream, peer: PeerKey) -> None:
    await trio.sleep_forever()


async def half_a_frame(stream: Stream, peer: PeerKey) -> None:
    await stream.send_all(b"\0\0\1\0half")
    await stream.send_eof()


async def huge_frame(stream: Stream, peer: PeerKey) -> None:
    await stream.send_all(b"\xff\xff\xff\xff")
    await trio.sleep_forever()


async def reset(stream: Stream, peer: PeerKey) -> None:
    await stream.aclose()


@pytest.mark.parametrize("serve", [junk, endless, stalled, half_a_frame, huge_frame, reset])
async def test_a_hostile_snapshot_does_no_harm(autojump_clock: Clock, serve: Serve) -> None:
    """The next peer is asked all the same, and nothing but true offers is in the book."""
    net = MemoryNet()
    net.cut(key_of("alice").public, key_of("bob").public)  # gossip of alice's cannot come by itself
    async with net.wire(key_of("mallory").public) as mallory, running(net, Shop("alice", 7)):
        mallory.serve(PROTOCOL, serve)
        async with running(net, Shop("bob")) as bob:
            await trio.sleep(1)  # mallory is asked first
            net.heal(key_of("alice").public, key_of("bob").public)
            await trio.sleep(SNAPSHOT_TIMEOUT_S + 1)
            assert bob.seen.items() >= {"alice": 7}.items()
            assert bob.seen.keys() <= {"alice", "ghost"}


async def ask(net: MemoryNet, asker: NodeKey, request: bytes) -> list[OfferBatch]:
    """What bob's book says to a raw request."""
    async with net.wire(asker.public) as wire:
        stream = await wire.open(key_of("bob").public, PROTOCOL)
        async with stream:
            await send_frame(stream, request)
            await stream.send_eof()
            frames = []
            while (frame := await receive_frame(stream, MAX_FRAME)) is not None:
                frames.append(messages.decode(frame))
            return frames


def providers_in(batches: list[OfferBatch]) -> set[PeerKey]:
    return {signing.verify(raw).signer for batch in batches for raw in unpack(batch.offers)}


def question(limit: int, cursor: int = 0, book: bytes = b"", markets: tuple[str, ...] = ()) -> bytes:
    return messages.encode(GetOffers(markets, book, cursor, limit, follow=False))


async def test_a_snapshot_gives_what_is_asked_for(autojump_clock: Clock) -> None:
    net = MemoryNet()
    async with running(net, Shop("bob")) as bob:
        book, asker = bob.discovery.book, key_of("carol")
        for number in range(5):
            book.consider(key_of(str(number)).sign(offer(1, now_ms())), now_ms())
        assert len(providers_in(await ask(net, asker, question(3)))) == 3
        batches = await ask(net, asker, question(100))
        assert len(providers_in(batches)) == 5 and batches[-1].complete
        assert (batches[-1].book, batches[-1].cursor) == (book.id, book.cursor)
        assert not providers_in(await ask(net, asker, question(100, markets=("CPU",))))
        later = await ask(net, asker, question(100, book.cursor - 2, book.id))
        assert len(providers_in(later)) == 2
        for cursor, name in ((book.cursor + 1, book.id), (2, b"another!")):
            assert len(providers_in(await ask(net, asker, question(100, cursor, name)))) == 5
        assert bob.discovery.counters["book.strange_cursor"] == 2


async def test_what_is_no_question_gets_no_answer(autojump_clock: Clock) -> None:
    net = MemoryNet()
    async with running(net, Shop("bob")) as bob:
        with pytest.raises(StreamBroken):
            await ask(net, key_of("carol"), messages.encode(messages.Ack()))
        assert bob.discovery.counters["book.bad_request"] == 1


async def test_a_peer_that_asks_nothing_is_not_waited_for_for_ever(autojump_clock: Clock) -> None:
    net = MemoryNet()
    async with running(net, Shop("bob")), net.wire(key_of("mallory").public) as wire:
        stream = await wire.open(key_of("bob").public, PROTOCOL)
        with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_a_peer_that_reads_nothing_is_not_waited_for_for_ever(autojump_clock: Clock) -> None:
    net = MemoryNet()
    async with running(net, Shop("bob")) as bob, net.wire(key_of("mallory").public) as wire:
        for number in range(1_000):
            layers = tuple(os.urandom(8) for _ in range(48))  # nothing that could be packed
            raw = key_of(str(number)).sign(replace(offer(1, now_ms()), layers=layers))
            bob.discovery.book.consider(raw, now_ms())
        stream = await wire.open(key_of("bob").public, PROTOCOL)
        await send_frame(stream, question(10_000))
        await stream.send_eof()
        await trio.sleep(SNAPSHOT_TIMEOUT_S + 1)
        with pytest.raises(trio.BrokenResourceError):
            while await stream.receive_some():
                await trio.sleep(0)
        assert bob.discovery.counters["book.slow_reader"] == 1
