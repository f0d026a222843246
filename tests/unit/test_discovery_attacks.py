"""Hostile peers of discovery: every limit holds, is counted, and honest offers arrive all the same."""

from __future__ import annotations

import os
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import trio
from trio.testing import MockClock

import ledger.offers
from protocol import messages
from protocol.errors import WireError
from protocol.messages import Ack, Directory, GetOffers, Heartbeat, Liveness, OfferBatch, Refusal
from protocol.units import PeerKey, UnixMs
from qubixd import directory, discovery, library, offers, register, sync
from qubixd.liveness import LIVENESS_TOPIC
from qubixd.offers import TOPIC
from qubixd.wire import Stream, StreamCut, Wire, receive_frame, send_frame
from tests.support.deals import CONTRACT, NETWORK, offer
from tests.support.discovery import Shop, key_of, running, until
from tests.support.memory_wire import MemoryNet
from tests.support.world_jobs import now_ms

pytestmark = pytest.mark.attack
MARKET_TOPIC = TOPIC + "RTX_40"
PROTOCOLS = (sync.PROTOCOL, directory.PROTOCOL, discovery.RECORDS_PROTOCOL)
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


def mallorys(sequence: int = 1, **changes: object) -> bytes:
    return MALLORY.sign(replace(offer(sequence, now_ms()), gpu_class="RTX_4090", name="mallory", **changes))  # type: ignore[arg-type]  # fields of an offer


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


# --- directories --------------------------------------------------------------------------------


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


async def test_a_flood_of_directories_pushes_no_proven_one_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register, "MAX_KNOWN", 64)
    async with arena() as at:
        await trio.sleep(120)
        for number in range(200):
            key = key_of(f"fake-{number}")
            await at.mallory.publish(directory.RECORDS_TOPIC, key.sign(record(key.public, number)))
            await trio.sleep(0.1)
        await trio.sleep(5)
        honest = {at.dora.peer, at.dave.peer}
        for one in (at.bob, at.alice):
            assert len(one.discovery.register) <= 64
            assert one.discovery.counters["directory.no_room"] > 0
            assert {peer for peer, _ in one.discovery.directories.in_use()} == honest
        at.net.cut(at.bob.peer, at.dora.peer)
        at.net.heal(at.bob.peer, at.dora.peer)
        await until(lambda: honest <= set(at.bob.discovery.directories.reading), 300)


async def test_directories_of_one_network_are_one_whatever_their_records_say(
    autojump_clock: MockClock,
) -> None:
    net, dora, dave = (
        MemoryNet(delay_seconds=0.02),
        Shop("dora", directory=True),
        Shop("dave", directory=True),
    )
    alice, bob = Shop("alice", 7), Shop("bob")
    net.ips[dora.peer], net.ips[dave.peer] = "66.1.0.1", "77.1.0.1"
    async with running(net, dora), running(net, dave):
        await trio.sleep(5)
        net.ips[dave.peer] = "66.1.0.2"  # now that its record names another network
        async with running(net, alice), running(net, bob):
            await trio.sleep(60)
            assert len(bob.discovery.directories.in_use()) == 2
            assert not alice.service.settled and not bob.service.served
            assert bob.seen["alice"] == 7, "gossip goes on"


Serve = Callable[[Stream, PeerKey], Awaitable[None]]


def batch(offers: bytes, alive: bytes = b"", cursor: int = 1, complete: bool = False) -> bytes:
    return messages.encode(OfferBatch(b"mallorys", cursor, complete, offers, alive))


async def bomb(stream: Stream, peer: PeerKey) -> None:
    await send_frame(stream, batch(zlib.compress(bytes(40 << 20), 9)))
    await trio.sleep_forever()


async def forgeries(stream: Stream, peer: PeerKey) -> None:
    wrong = [mallorys(number)[:-1] + b"\0" for number in range(50)]
    await send_frame(stream, batch(sync.pack(wrong)))
    await trio.sleep_forever()


async def no_zlib(stream: Stream, peer: PeerKey) -> None:
    await send_frame(stream, batch(b"what is this"))
    await trio.sleep_forever()


async def half_a_sighting(stream: Stream, peer: PeerKey) -> None:
    await send_frame(stream, batch(b"", bytes(10)))
    await trio.sleep_forever()


async def endless(stream: Stream, peer: PeerKey) -> None:
    """Complete, and then the same again and again."""
    while True:
        await send_frame(stream, batch(sync.pack([mallorys()] * 900), complete=True))


async def something_else(stream: Stream, peer: PeerKey) -> None:
    await send_frame(stream, messages.encode(Ack()))
    await trio.sleep_forever()


@pytest.mark.parametrize("serve", [bomb, forgeries, no_zlib, half_a_sighting, endless, something_else])
async def test_a_directory_that_breaks_the_rules_is_left_alone(
    autojump_clock: MockClock, serve: Serve
) -> None:
    net = MemoryNet(delay_seconds=0.02)
    bob = Shop("bob", use=("mallory", "dora"))
    async with net.wire(MALLORY.public) as mallory, running(net, Shop("dora", directory=True)):
        mallory.serve(sync.PROTOCOL, serve)
        async with running(net, Shop("alice", 7)), running(net, bob):
            await until(lambda: bob.discovery.counters["directory.broke_the_rules"] == 1, 200)
            assert bob.seen["alice"] == 7
            await trio.sleep(20)
            assert bob.discovery.counters["directory.broke_the_rules"] == 1


async def test_a_silent_directory_is_replaced(autojump_clock: MockClock) -> None:
    async def silent(stream: Stream, peer: PeerKey) -> None:
        await send_frame(stream, batch(b"", complete=True))
        await trio.sleep_forever()

    net = MemoryNet(delay_seconds=0.02)
    bob = Shop("bob", use=("mallory",))
    async with AsyncExitStack() as stack:
        mallory = await stack.enter_async_context(net.wire(MALLORY.public))
        mallory.serve(sync.PROTOCOL, silent)
        for shop in (Shop("dora", directory=True), Shop("dave", directory=True), Shop("alice", 7), bob):
            await stack.enter_async_context(running(net, shop))
        await until(lambda: MALLORY.public in dict(bob.discovery.directories.in_use()), 10)
        await until(lambda: bob.discovery.counters["directory.lost"] > 0, 60)
        await trio.sleep(6)
        assert MALLORY.public not in bob.discovery.directories.reading
        assert bob.service.served and bob.seen == {"alice": 7}


async def test_a_directory_that_hides_offers_is_replaced(
    autojump_clock: MockClock,
) -> None:
    async def hiding(stream: Stream, peer: PeerKey) -> None:
        while True:
            await send_frame(stream, batch(b"", complete=True))
            await trio.sleep(10)

    net = MemoryNet(delay_seconds=0.02)
    bob = Shop("bob")
    async with AsyncExitStack() as stack:
        mallory = await stack.enter_async_context(net.wire(MALLORY.public))
        mallory.serve(sync.PROTOCOL, hiding)
        for name in ("dora", "dave", "dick"):
            await stack.enter_async_context(running(net, Shop(name, directory=True)))
        for number in range(10):
            await stack.enter_async_context(running(net, Shop(f"alice-{number}", 7)))
        await stack.enter_async_context(running(net, bob))
        await mallory.publish(directory.RECORDS_TOPIC, MALLORY.sign(record(MALLORY.public)))
        await trio.sleep(1)
        net.cut(bob.peer, key_of("dora").public)
        net.cut(bob.peer, key_of("dave").public)  # so that the liar is chosen
        await until(lambda: MALLORY.public in dict(bob.discovery.directories.in_use()), 60)
        net.heal(bob.peer, key_of("dora").public)
        net.heal(bob.peer, key_of("dave").public)
        await until(lambda: bob.discovery.counters["directory.hides_offers"] == 1, 600)
        await trio.sleep(10)
        assert MALLORY.public not in bob.discovery.directories.reading
        assert len(bob.seen) == 10
