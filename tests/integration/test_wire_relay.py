"""Real nodes on loopback that meet through a relay: everything goes over it, direct is better, and a relay
that misbehaves can only cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import trio

from protocol.errors import ConfigInvalid, PeerUnreachable
from protocol.messages import Ack
from protocol.paths import PathKind
from protocol.relay_messages import Connect, Incoming, Reserve, Reserved
from protocol.units import PeerKey, UnixMs
from qubixd.relay import RELAY_PROTOCOL, RELAYED_PROTOCOL, Relay
from qubixd.relay_account import Allowance
from qubixd.talk import receive_bare, send_bare
from qubixd.wire import Stream, Wire
from qubixd.wire_libp2p import Limits, peer_id_of
from qubixd.wire_libp2p.addresses import is_circuit, split_address
from qubixd.wire_libp2p.identity import libp2p_id
from qubixd.wire_libp2p.node import Libp2pWire
from qubixd.wire_libp2p.yamux import Yamux
from tests.support.wire_nodes import (
    ECHO,
    FAST,
    PATIENCE_SECONDS,
    TOPIC,
    Inbox,
    assert_echoes,
    connected,
    gossip_until,
    node,
    read_all,
    until,
)


@dataclass
class Scene:
    """A relay and a node that is reached through it; `way` is its address there."""

    relay: Wire
    service: Relay
    home: Wire
    place: Stream

    @property
    def way(self) -> str:
        return self.home.addresses[-1]


@asynccontextmanager
async def scene(
    allowance: Allowance | None = None, limits: Limits = FAST, *, hidden: bool = True
) -> AsyncIterator[Scene]:
    async with (
        node(1, limits=limits) as relay,
        node(2, relay.addresses, limits=limits, hidden=hidden) as home,
    ):
        service = Relay(relay, lambda: UnixMs(0), allowance)
        await connected((home, relay))
        place = await take_place(home, relay)
        yield Scene(relay, service, home, place)


async def take_place(home: Wire, relay: Wire) -> Stream:
    place = await home.open(relay.peer_key, RELAY_PROTOCOL)
    await send_bare(place, Reserve())
    await receive_bare(place, Reserved)
    home.be_reached_through({relay.peer_key: relay.addresses[:1]})
    return place


async def test_everything_goes_through_a_relay_and_gossip_does_not() -> None:
    heard, inbox = list[PeerKey](), Inbox()

    async def slow(stream: Stream, peer: PeerKey) -> None:
        await stream.send_all(await read_all(stream))

    async with scene() as at, node(3, hidden=True) as caller:
        at.home.on_peer(heard.append)
        at.home.serve("/slow/1", slow)
        at.home.subscribe(TOPIC, inbox)
        assert is_circuit(at.way) and split_address(at.way)[0] == split_address(at.home.addresses[0])[0]
        await (await caller.open(at.home.peer_key, ECHO, [at.way])).aclose()
        for one, other in ((caller, at.home), (at.home, caller)):
            assert one.path_of(other.peer_key) is PathKind.RELAYED
            assert one.relay_of(other.peer_key) == at.relay.peer_key
            assert one.remote_ip(other.peer_key) is None is one.remote_address(other.peer_key)
            await assert_echoes(one, other)
            assert await one.round_trip(other.peer_key) > 0
        assert caller.path_of(at.relay.peer_key) is PathKind.WIRE and heard == [caller.peer_key]
        data = bytes(range(256)) * 4_000
        stream = await caller.open(at.home.peer_key, "/slow/1")
        await stream.send_all(data)
        await stream.send_eof()
        assert await read_all(stream) == data
        received, sent = at.service.carried(caller.peer_key)
        assert received > len(data) < sent and at.service.joins == 1
        await caller.publish(TOPIC, b"over the relay?")
        await gossip_until(at.relay, inbox, b"from the relay")
        assert inbox.count(b"over the relay?") == 0
        assert [peer for _, peer in inbox.messages] == [at.relay.peer_key] * len(inbox.messages)


async def test_a_direct_connection_takes_over_where_one_can_be_had() -> None:
    quick = replace(FAST, ping_seconds=0.1, relayed_idle_seconds=0.2)
    async with scene(limits=quick, hidden=False) as at, node(3, limits=quick) as caller:
        stream = await caller.open(at.home.peer_key, ECHO, [at.way])
        # who is asked for its peers tells its own addresses, and is tried there
        await until(lambda: caller.path_of(at.home.peer_key) is PathKind.WIRE)
        assert caller.relay_of(at.home.peer_key) is None
        await stream.send_all(b"still the old way")
        assert await stream.receive_some() == b"still the old way"
        await assert_echoes(caller, at.home)
        assert at.service.joins == 1
        await stream.aclose()
        await until(lambda: at.service.joins == 0)  # what is not used ends
        await assert_echoes(caller, at.home)
        assert caller.peers().count(at.home.peer_key) == 1


async def test_plain_addresses_come_first_and_are_tried_again_while_there_are_only_relays() -> None:
    quick = replace(FAST, improve_seconds=(0.2,) * 20)
    async with scene(limits=quick, hidden=False) as at:
        async with node(3, limits=quick) as caller:
            await (await caller.open(at.home.peer_key, ECHO, [at.way, at.home.addresses[0]])).aclose()
            assert caller.path_of(at.home.peer_key) is PathKind.WIRE and at.service.joins == 0
        closed = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id_of(at.home.peer_key)}"
        silent = replace(quick, relay_after_seconds=0.2)
        async with node(4, limits=silent, hidden=True) as caller, black_hole() as port:
            hole = closed.replace("/tcp/1/", f"/tcp/{port}/")
            await (await caller.open(at.home.peer_key, ECHO, [at.way, hole])).aclose()
            assert caller.path_of(at.home.peer_key) is PathKind.RELAYED  # long before the hole gave up


@asynccontextmanager
async def black_hole() -> AsyncIterator[int]:
    """A port that takes connections and says nothing."""
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


async def test_a_relayed_connection_that_nobody_uses_ends_and_comes_back_when_wanted() -> None:
    quick = replace(FAST, ping_seconds=0.1, relayed_idle_seconds=0.3)
    async with scene(limits=quick) as at, node(3, limits=quick, hidden=True) as caller:
        for _ in range(2):
            await (await caller.open(at.home.peer_key, ECHO, [at.way])).aclose()
            assert caller.path_of(at.home.peer_key) is PathKind.RELAYED
            await until(lambda: caller.path_of(at.home.peer_key) is None and at.service.joins == 0)


async def test_without_its_place_a_node_is_not_reached() -> None:
    async with scene() as at, node(3, hidden=True) as caller:
        way = at.way
        await at.place.aclose()
        await until(lambda: not at.service.places)
        with pytest.raises(PeerUnreachable, match="has no place at this relay now"):
            await caller.open(at.home.peer_key, ECHO, [way])
        at.place = await take_place(at.home, at.relay)
        at.home.be_reached_through({})
        assert not any(map(is_circuit, at.home.addresses))
        with pytest.raises(PeerUnreachable, match="has not asked to be reached through you"):
            await caller.open(at.home.peer_key, ECHO, [way])
        nobody = way.rpartition("/")[0] + "/" + peer_id_of(PeerKey(bytes(32)))
        with pytest.raises(PeerUnreachable):
            await caller.open(PeerKey(bytes(32)), ECHO, [nobody])


async def test_a_used_up_allowance_is_told_to_the_next_who_asks() -> None:
    async with (
        scene(Allowance(free_bytes=200_000, bytes_per_second=0)) as at,
        node(3, hidden=True) as caller,
    ):
        stream = await caller.open(at.home.peer_key, ECHO, [at.way])
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE_SECONDS):
            while True:
                await stream.send_all(bytes(20_000))
                await stream.receive_some()
        await until(lambda: caller.path_of(at.home.peer_key) is None)
        with pytest.raises(PeerUnreachable, match="used up"):
            await caller.open(at.home.peer_key, ECHO, [at.way])


# Relays that misbehave


Tamper = Callable[[bytes], bytes]


def _swap_halves(chunk: bytes) -> bytes:
    return chunk[len(chunk) // 2 :] + chunk[: len(chunk) // 2]


def _flip(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


def _repeat(chunk: bytes) -> bytes:
    return chunk + chunk


def _drop(chunk: bytes) -> bytes:
    return chunk[:-3]


async def _bad_relay(wire: Wire, join: Callable[[Stream, PeerKey, PeerKey], Awaitable[None]]) -> None:
    """Takes reservations and joins in its own manner."""

    async def answer(stream: Stream, peer: PeerKey) -> None:
        message = await receive_bare(stream, object)
        if isinstance(message, Reserve):
            await send_bare(stream, Reserved("127.0.0.1:1", 0, 0, 0, 3_600))  # type: ignore[arg-type]  # plain numbers
            await stream.receive_some()
        elif isinstance(message, Connect):
            await join(stream, peer, message.target)

    wire.serve(RELAY_PROTOCOL, answer)


async def _pass_on(a: Stream, b: Stream, tamper: Tamper, clean: int) -> None:
    """Bytes from one to the other; whole until so many have passed."""
    passed = 0
    while chunk := await a.receive_some():
        await b.send_all(chunk if passed < clean else tamper(bytes(chunk)))
        passed += len(chunk)


@pytest.mark.attack
@pytest.mark.parametrize("tamper", [_swap_halves, _flip, _repeat, _drop])
@pytest.mark.parametrize("clean", [0, 30_000], ids=["handshake", "later"])
async def test_a_relay_that_changes_anything_cuts(tamper: Tamper, clean: int) -> None:
    limits = replace(FAST, dial_seconds=3.0, open_seconds=3.0, handshake_seconds=3.0, silence_seconds=2.0)
    async with (
        node(1) as relay,
        node(2, relay.addresses, limits=limits) as home,
        node(3, limits=limits) as caller,
    ):

        async def join(stream: Stream, peer: PeerKey, target: PeerKey) -> None:
            async with await relay.open(target, RELAYED_PROTOCOL) as other:
                await send_bare(other, Incoming(peer))
                await receive_bare(other, Ack)
                await send_bare(stream, Ack())
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pass_on, stream, other, tamper, clean)
                    nursery.start_soon(_pass_on, other, stream, bytes, 0)

        await _bad_relay(relay, join)
        await connected((home, relay))
        await take_place(home, relay)
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises((PeerUnreachable, trio.BrokenResourceError)):
            stream = await caller.open(home.peer_key, ECHO, [home.addresses[-1]])
            assert clean, "a connection came to be although its handshake was changed"
            while True:  # what comes back is what was sent, until nothing comes back any more
                await stream.send_all(b"x" * 1_000)
                assert set(await stream.receive_some()) == set(b"x")
        for one, other in ((caller, relay), (home, relay)):
            await assert_echoes(one, other)
        assert home.counters.handler_errors == caller.counters.handler_errors == 0


@pytest.mark.attack
async def test_a_relay_that_brings_another_peer_gets_no_connection() -> None:
    limits = replace(FAST, dial_seconds=5.0)
    async with (
        node(1) as relay,
        node(2, relay.addresses, limits=limits, hidden=True) as home,
        node(3, relay.addresses, hidden=True) as other,
        node(4, limits=limits, hidden=True) as caller,
    ):

        async def join(stream: Stream, peer: PeerKey, target: PeerKey) -> None:
            async with await relay.open(other.peer_key, RELAYED_PROTOCOL) as wrong:
                await send_bare(wrong, Incoming(peer))
                await receive_bare(wrong, Ack)
                await send_bare(stream, Ack())
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pass_on, stream, wrong, bytes, 0)
                    nursery.start_soon(_pass_on, wrong, stream, bytes, 0)

        await _bad_relay(relay, join)
        await connected((home, relay), (other, relay))
        for one in (home, other):
            await take_place(one, relay)
        with pytest.raises(PeerUnreachable, match="not that peer"):
            await caller.open(home.peer_key, ECHO, [home.addresses[-1]])
        assert home.peer_key not in caller.peers() and caller.peer_key not in home.peers()


@pytest.mark.attack
async def test_a_relay_that_names_the_wrong_source_brings_nobody() -> None:
    async with (
        node(1) as relay,
        node(2, relay.addresses, hidden=True) as home,
        node(4, hidden=True) as caller,
    ):

        async def join(stream: Stream, peer: PeerKey, target: PeerKey) -> None:
            async with await relay.open(target, RELAYED_PROTOCOL) as other:
                await send_bare(other, Incoming(PeerKey(bytes(32))))
                await receive_bare(other, Ack)
                await send_bare(stream, Ack())
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pass_on, stream, other, bytes, 0)
                    nursery.start_soon(_pass_on, other, stream, bytes, 0)

        await _bad_relay(relay, join)
        await connected((home, relay))
        await take_place(home, relay)
        with pytest.raises((PeerUnreachable, trio.BrokenResourceError)):
            stream = await caller.open(home.peer_key, ECHO, [home.addresses[-1]])
            await stream.receive_some()
        await until(lambda: caller.peer_key not in home.peers())


@pytest.mark.parametrize(
    "text",
    [
        "{relay}/p2p-circuit",
        "{relay}/p2p-circuit/p2p/{relay_id}/p2p-circuit/p2p/{me}",
        "/p2p/{relay_id}/p2p-circuit/p2p/{me}",
        "/p2p-circuit/p2p/{me}",
        "{relay}/p2p/{me}",
        "/ip4/127.0.0.1/p2p/{relay_id}/p2p-circuit/p2p/{me}",
    ],
)
def test_addresses_have_one_relay_that_can_be_dialled(text: str) -> None:
    relay_id, me = (peer_id_of(PeerKey(bytes([number]) * 32)) for number in (1, 2))
    relay = f"/ip4/127.0.0.1/tcp/4001/p2p/{relay_id}"
    with pytest.raises(ConfigInvalid):
        split_address(text.format(relay=relay, relay_id=relay_id, me=me))
    peer, way = split_address(f"{relay}/p2p-circuit/p2p/{me}")
    assert str(peer) == me and str(way) == f"{relay}/p2p-circuit" and is_circuit(way)


async def test_a_relay_that_does_not_answer_does_not_keep_the_next_one_waiting() -> None:
    quick = replace(FAST, relay_after_seconds=0.1, relay_stagger_seconds=0.2)
    async with scene(limits=quick) as at, node(3, limits=quick, hidden=True) as caller, black_hole() as port:
        name = peer_id_of(at.home.peer_key)
        deaf = f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id_of(PeerKey(bytes(31) + b'1'))}/p2p-circuit/p2p/{name}"
        elsewhere = at.way.replace(
            at.relay.addresses[0].split("/")[4], str(port), 1
        )  # the same relay's, shut
        with trio.fail_after(FAST.dial_seconds / 2):
            await (await caller.open(at.home.peer_key, ECHO, [at.way, elsewhere, deaf])).aclose()
        assert caller.relay_of(at.home.peer_key) == at.relay.peer_key


async def test_a_connection_from_which_nothing_comes_any_more_is_not_the_one_that_is_taken() -> None:
    async with scene() as at, node(3, hidden=True) as caller:
        stuck = await caller.open(at.home.peer_key, ECHO, [at.way])
        assert isinstance(caller, Libp2pWire)
        (old,) = caller.swarm.get_connections(libp2p_id(at.home.peer_key))
        assert isinstance(old.muxed_conn, Yamux)
        old.muxed_conn.round_trip = trio.sleep_forever  # type: ignore[method-assign]  # as one whose path is dead
        old.muxed_conn.heard_at -= 100
        relay, address = split_address(at.relay.addresses[0])
        await caller.peer_book.through_relay(libp2p_id(at.home.peer_key), relay, [address])
        old.muxed_conn.heard_at -= 100
        with trio.fail_after(FAST.open_seconds / 2):
            assert await caller.round_trip(at.home.peer_key) > 0
        async with await caller.open(at.home.peer_key, ECHO) as stream:
            assert len(old.get_streams()) == 1, "the new stream takes the new connection"
            await stream.send_eof()
        await stuck.aclose()
