"""Hostile peers of discovery: every limit holds, is counted, and honest offers arrive all the same."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

import ledger.offers
from protocol import messages
from protocol.errors import WireError
from protocol.messages import Ack, GetOffers, Heartbeat, Liveness, OfferBatch, Refusal
from protocol.units import UnixMs
from qubixd import directory, discovery, library, offers, sync
from qubixd.liveness import LIVENESS_TOPIC
from qubixd.offers import TOPIC
from qubixd.wire import Stream, StreamCut, receive_frame, send_frame
from tests.support.deals import offer
from tests.support.discovery import Shop, key_of, running, until
from tests.support.discovery_arena import MALLORY, Arena, arena, mallorys, record
from tests.support.memory_wire import MemoryNet
from tests.support.world_jobs import now_ms

pytestmark = pytest.mark.attack
MARKET_TOPIC = TOPIC + "RTX_40"
PROTOCOLS = (sync.PROTOCOL, directory.PROTOCOL, discovery.RECORDS_PROTOCOL)


async def pour(stream: Stream, megabytes: int = 10) -> None:
    """Junk until the other side has enough of it."""
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(megabytes * 16):
            await stream.send_all(os.urandom(65_536))
        await stream.receive_some()
        raise StreamCut("it ended in good order")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_ten_megabytes_of_junk(autojump_clock: MockClock, protocol: str) -> None:
    async with arena() as at:
        for target in (at.dora, at.bob):
            if protocol == directory.PROTOCOL and target is at.bob:
                continue
            stream = await at.mallory.open(target.peer, protocol)
            async with stream:
                with trio.move_on_after(60) as scope:
                    await pour(stream)
                assert not scope.cancelled_caught or protocol == discovery.RECORDS_PROTOCOL, "nobody reads it"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_streams_that_say_nothing_are_ended(autojump_clock: MockClock, protocol: str) -> None:
    async with arena() as at:
        streams = [await at.mallory.open(at.dora.peer, protocol) for _ in range(200)]
        await trio.sleep(30)
        for stream in streams:
            with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
                raise StreamCut("it ended in good order")


async def test_one_peer_holds_two_places_only(autojump_clock: MockClock) -> None:
    async with arena() as at:
        question = messages.encode(GetOffers((), b"", 0, 100_000, follow=True))
        refusals = 0
        for _ in range(12):
            stream = await at.mallory.open(at.dora.peer, sync.PROTOCOL)
            await send_frame(stream, question)
            frame = await receive_frame(stream, sync.MAX_FRAME)
            refusals += isinstance(messages.decode(frame or b""), Refusal)
        assert refusals == 10 == at.dora.discovery.counters["book.full"]


async def test_one_peer_asks_so_often_only(autojump_clock: MockClock) -> None:
    async with arena() as at:
        question = messages.encode(GetOffers((), b"", 0, 100_000, follow=False))
        for _ in range(30):
            async with await at.mallory.open(at.dora.peer, sync.PROTOCOL) as stream:
                await send_frame(stream, question)
                await receive_frame(stream, sync.MAX_FRAME)
            async with await at.mallory.open(at.dora.peer, discovery.RECORDS_PROTOCOL) as stream:
                await receive_frame(stream, messages.MAX_OFFER_BYTES)
        assert at.dora.discovery.counters["book.too_often"] == 30 - library.QUESTIONS[1]
        assert at.dora.discovery.counters["directory.asked_too_often"] >= 30 - discovery.QUESTIONS[1] - 2


async def test_many_questions_look_at_all_signs_of_life_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 100,000 offers each look takes a fifth of a second, in which nobody else has a turn."""
    async with arena() as at:
        looks = 0
        signs = at.dora.discovery.book.signs

        def counted() -> object:
            nonlocal looks
            looks += 1
            return signs()

        monkeypatch.setattr(at.dora.discovery.book, "signs", counted)
        for number in range(10):
            markets = (f"no market {number}",) if number else ("RTX_40",)
            async with await at.mallory.open(at.dora.peer, sync.PROTOCOL) as stream:
                await send_frame(stream, messages.encode(GetOffers(markets, b"", 0, 1, follow=False)))
                batch = messages.decode(await receive_frame(stream, sync.MAX_FRAME) or b"", sync.MAX_FRAME)
                assert isinstance(batch, OfferBatch) and bool(batch.alive) is not bool(number)
        assert looks < 5


# --- heartbeats ---------------------------------------------------------------------------------


async def beat(at: Arena, first: bytes, *frames: bytes) -> bool:
    """Whether the directory takes all of it from the hostile peer."""
    stream = await at.mallory.open(at.dora.peer, directory.PROTOCOL)
    async with stream:
        try:
            await send_frame(stream, first)
            await receive_frame(stream, 1_024)
            for frame in frames:
                await send_frame(stream, frame)
            with trio.move_on_after(1):
                return await receive_frame(stream, 1_024) is not None
        except (trio.BrokenResourceError, WireError):
            return False
        return True


async def test_heartbeats_of_others_are_refused(autojump_clock: MockClock) -> None:
    async with arena() as at:
        own = at.alice.service.own
        assert own is not None
        for first, frames, counter in (
            (own.raw, (), "heartbeat.not_its_own"),
            (mallorys(), (own.raw,), "heartbeat.not_its_own"),
            (mallorys(2), (messages.encode(Heartbeat(own.offer.sequence)),), "heartbeat.unknown_offer"),
            (mallorys(3), (messages.encode(Ack()),), "heartbeat.malformed"),
            (mallorys(4, network="other"), (), "heartbeat.bad_offer"),
        ):
            before = at.dora.discovery.counters[counter]
            assert not await beat(at, first, *frames)
            assert at.dora.discovery.counters[counter] == before + 1
        assert await beat(at, mallorys(5), messages.encode(Heartbeat(5)))


async def test_a_flood_of_heartbeats_ends_its_stream(autojump_clock: MockClock) -> None:
    async with arena() as at:
        assert not await beat(at, mallorys(), *[messages.encode(Heartbeat(1))] * 1_000)
        assert at.dora.discovery.counters["heartbeat.too_often"] == 1


async def test_places_run_out_for_a_network_before_they_run_out_for_all(autojump_clock: MockClock) -> None:
    net = MemoryNet()
    dora = Shop("dora", directory=True, places=20)
    async with running(net, dora), AsyncExitStack() as stack:
        taken: dict[str, int] = {}
        for number in range(60):
            key = key_of(f"sybil-{number}")
            net.ips[key.public] = f"10.{number % 2 if number < 40 else number}.0.{number}"
            wire = await stack.enter_async_context(net.wire(key.public))
            stream = await wire.open(dora.peer, directory.PROTOCOL)
            await send_frame(stream, key.sign(replace(offer(1, now_ms()), name=str(number))))
            answer = messages.decode(await receive_frame(stream, 1_024) or b"")
            network = net.ips[key.public].rpartition(".0.")[0]
            taken[network] = taken.get(network, 0) + isinstance(answer, Ack)
        crowd = taken.pop("10.0") + taken.pop("10.1")
        assert crowd == 10 and sum(taken.values()) == 10
        assert dora.discovery.counters["heartbeat.no_place"] == 40


# --- gossip -------------------------------------------------------------------------------------


async def test_liveness_of_strangers_is_not_heard(autojump_clock: MockClock) -> None:
    async with arena() as at:
        ghost = key_of("ghost")
        raw = ghost.sign(replace(offer(1, now_ms()), gpu_class="RTX_4090", name="ghost"))
        at.dora.discovery.book.consider(raw, now_ms())
        for _ in range(10):
            await trio.sleep(20)
            lie = Liveness(now_ms(), ghost.public[:8] + b"\0")
            await at.mallory.publish(LIVENESS_TOPIC, MALLORY.sign(lie))
        await trio.sleep(1)
        assert at.dora.discovery.counters["liveness.of_a_stranger"] == 10
        assert "ghost" not in at.dora.seen


async def test_lies_of_a_directory_last_as_long_as_it_tells_them(autojump_clock: MockClock) -> None:
    """They cost a failed quote each; nobody who lives is harmed."""
    async with arena() as at:
        await at.mallory.publish(directory.RECORDS_TOPIC, MALLORY.sign(record(MALLORY.public)))
        raw = key_of("ghost").sign(replace(offer(1, now_ms()), gpu_class="RTX_4090", name="ghost"))
        at.dora.discovery.book.consider(raw, now_ms())
        for _ in range(10):
            await trio.sleep(20)
            lie = Liveness(now_ms(), key_of("ghost").public[:8] + b"\0")
            await at.mallory.publish(LIVENESS_TOPIC, MALLORY.sign(lie))
            assert "ghost" in at.bob.seen and "alice" in at.bob.seen
        for number in range(200):
            await at.mallory.publish(LIVENESS_TOPIC, MALLORY.sign(Liveness(UnixMs(now_ms() + number), b"")))
            await trio.sleep(0.001)
        await at.mallory.publish(LIVENESS_TOPIC, MALLORY.sign(Liveness(UnixMs(now_ms() + 500), b"odd")))
        await at.mallory.publish(LIVENESS_TOPIC, b"no envelope")
        await until(lambda: "ghost" not in at.bob.seen, 120)
        assert "alice" in at.bob.seen
        assert at.dora.discovery.counters["liveness.too_often"] > 100
        assert at.dora.discovery.counters["liveness.malformed"] == 2


@pytest.mark.parametrize("identities", [1, 1_000])
async def test_a_flood_of_offers(autojump_clock: MockClock, identities: int) -> None:
    """With one signer it is his own offer that changes; with a thousand all are new."""
    async with arena() as at:
        keys = [key_of(f"flood-{number}") for number in range(identities)]
        for number in range(2_000):
            template = replace(offer(number, now_ms()), gpu_class="RTX_4090", name="flood")
            await at.mallory.publish(MARKET_TOPIC, keys[number % identities].sign(template))
            await trio.sleep(0.001)
        await trio.sleep(2)
        reason = "offer.too_often" if identities == 1 else "offer.too_many_newcomers"
        assert at.dora.discovery.counters[reason] > 400
        assert at.bob.seen["alice"] == 7


async def test_a_flood_of_identities_does_not_fill_the_ledger(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the book has no room for any more does not stay on the disk for an hour."""
    monkeypatch.setattr(offers, "SPARE_ROWS", 50)
    net, bob = MemoryNet(delay_seconds=0.02), Shop("bob")
    store = await bob_and_flood(net, bob)
    assert len(store) <= 40 + 2 * 50


async def bob_and_flood(net: MemoryNet, bob: Shop) -> tuple[object, ...]:
    """What a small node has written down after 600 identities."""
    async with running(net, bob, places=40), net.wire(MALLORY.public) as mallory:
        await trio.sleep(2)
        for number in range(600):
            template = replace(offer(number, now_ms()), gpu_class="RTX_4090", name="flood")
            await mallory.publish(MARKET_TOPIC, key_of(f"flood-{number}").sign(template))
            await trio.sleep(0.06)
        await trio.sleep(2)
        assert bob.discovery.book.dropped["offer.too_many_newcomers"] == 0
        return await ledger.offers.known(bob.discovery._store)


async def test_an_offer_in_the_wrong_market_is_not_passed_on(autojump_clock: MockClock) -> None:
    async with arena() as at:
        await at.mallory.publish(TOPIC + "CPU", mallorys())
        await trio.sleep(1)
        assert at.dora.discovery.counters["offer.wrong_topic"] == 1
