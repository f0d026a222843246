"""Two daemons' paths over real wires on loopback: direct, dialled back, over the wire; and strangers."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import pytest
import trio
from trio.testing import memory_stream_pair

from protocol.errors import PeerRefused, PeerUnreachable, StreamBroken
from protocol.messages import DialBack
from protocol.paths import PathKind
from qubixd.link.carriers import StreamCarrier
from qubixd.paths import answers, offers
from qubixd.paths.dialler import LINK_PROTOCOL
from qubixd.paths.endpoints import Endpoint
from qubixd.paths.offers import PATHS_PROTOCOL
from qubixd.paths.punch import free_port
from qubixd.paths.surroundings import Seen
from qubixd.talk import ask
from qubixd.wire_libp2p.identity import peer_id_of
from tests.support.path_ends import OPENING, End, befriend, built, end, says
from tests.support.wire_nodes import connected, host_and_port

pytestmark = pytest.mark.timeout(60)


async def reached(a: End, b: End) -> PathKind:
    """How a stream from a to b travels; it works."""
    with trio.fail_after(20):
        stream = await a.links.open(b.key.public, OPENING, b.wire.addresses)
        assert await says(stream, b"hello") == b"hello"
    view = a.links.view(b.key.public)
    assert view is not None
    await stream.aclose()
    return view.kind


@pytest.fixture
async def open_end() -> AsyncIterator[End]:
    async with end(1) as one:
        yield one


@pytest.fixture
async def hidden_end(open_end: End) -> AsyncIterator[End]:
    """It cannot be dialled; it has dialled the other."""
    async with end(2, open_end.wire.addresses, hidden=True) as two:
        befriend(open_end, two)
        await connected((open_end.wire, two.wire))
        yield two


async def test_directly(open_end: End, hidden_end: End) -> None:
    assert await reached(hidden_end, open_end) is PathKind.DIRECT
    assert (view := open_end.links.view(hidden_end.key.public)) and view.kind is PathKind.DIRECT


async def test_directly_by_ip6() -> None:
    async with end(1, host="::1") as one, end(2, one.wire.addresses, host="::1") as two:
        befriend(one, two)
        assert await reached(two, one) is PathKind.DIRECT
        view = two.links.view(one.key.public)
        assert view is not None and view.address.startswith("[::1]:")


async def test_the_one_that_cannot_be_dialled_dials_back(open_end: End, hidden_end: End) -> None:
    assert await reached(open_end, hidden_end) is PathKind.DIRECT


async def test_over_the_wire_where_neither_can_be_dialled() -> None:
    port = free_port()
    async with end(1, port=port, hidden=True) as one, end(2, [at(one, port)], hidden=True) as two:
        befriend(one, two)
        await connected((one.wire, two.wire))
        assert await reached(one, two) is PathKind.WIRE
        assert await reached(two, one) is PathKind.WIRE


def at(one: End, port: int) -> str:
    """Where it listens, whatever it says."""
    return f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id_of(one.key.public)}"


async def test_a_daemon_that_started_anew_has_another_certificate(open_end: End) -> None:
    async with end(2) as two:
        befriend(open_end, two)
        _, port = host_and_port(two.wire.addresses[0])
        assert await reached(open_end, two) is PathKind.DIRECT
    async with end(2, port=port) as again:
        befriend(open_end, again)
        assert await reached(open_end, again) is PathKind.DIRECT


async def test_a_connection_that_comes_while_the_daemon_ends_is_closed(open_end: End) -> None:
    """Its peer would wait for the first word, and try nothing else meanwhile."""
    ours, theirs = memory_stream_pair()
    ending = built(open_end.wire, open_end.key)  # its links do not run any more
    with pytest.raises(StreamBroken, match="ends"):
        await ending.paths._give(open_end.key.public, StreamCarrier(ours, PathKind.DIRECT, "in memory"))
    assert await theirs.receive_some() == b""


async def test_one_that_comes_too_late_for_whoever_waited_is_closed_while_the_daemon_ends(
    open_end: End,
) -> None:
    ours, theirs = memory_stream_pair()
    ending, peer = built(open_end.wire, open_end.key), open_end.key.public
    async with ending.paths._awaiting(peer):
        ending.paths._awaited[peer].pop(0).send_nowait(StreamCarrier(ours, PathKind.DIRECT, "in memory"))
    with trio.fail_after(5):
        assert await theirs.receive_some() == b""
    assert not ending.paths._awaited


async def test_a_lost_wire_does_not_matter_to_who_knows_the_way(open_end: End, hidden_end: End) -> None:
    """What a peer said once is enough to dial it, though the wire cannot be had."""
    await reached(hidden_end, open_end)
    for friend in (open_end, hidden_end):
        friend.paths._moved()
    carrier = await hidden_end.paths.carrier(open_end.key.public, ())
    assert carrier.kind is PathKind.DIRECT
    await carrier.aclose()


async def test_a_stranger_gets_nowhere(open_end: End) -> None:
    async with end(6, open_end.wire.addresses) as stranger:
        stranger.friends.add(open_end.key.public)
        peer = open_end.key.public
        with pytest.raises(PeerRefused) as refused:
            await stranger.paths.carrier(peer, open_end.wire.addresses)
        assert refused.value.refusal_code == "lease.unknown"
        with pytest.raises(PeerRefused):
            await ask(stranger.wire, stranger.key, peer, DialBack(b"n" * 32), protocol=PATHS_PROTOCOL)
        with pytest.raises((trio.BrokenResourceError, PeerUnreachable)):
            stream = await stranger.wire.open(peer, LINK_PROTOCOL)
            await stream.receive_some()
        assert not open_end.links.peers()


async def test_a_certificate_of_nobody_is_not_let_in(open_end: End, hidden_end: End) -> None:
    """The right address and the right pin, but a certificate that was never told."""
    await reached(hidden_end, open_end)
    known = hidden_end.paths._offers.of(open_end.key.public)
    assert known is not None
    async with end(6) as stranger:
        stranger.friends.add(open_end.key.public)
        with pytest.raises(PeerUnreachable):
            await stranger.paths.dial(known)


async def test_who_asks_to_be_dialled_too_often_is_told(
    open_end: End, hidden_end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FAILED_SECONDS", 0.05)
    asker, peer = hidden_end, open_end.key.public
    codes = []
    await ask(asker.wire, asker.key, peer, asker.paths._offers.own(), protocol=PATHS_PROTOCOL)
    for _ in range(12):
        with pytest.raises(PeerRefused) as refused:
            await ask(asker.wire, asker.key, peer, DialBack(b"n" * 32), protocol=PATHS_PROTOCOL)
        codes.append(refused.value.refusal_code)
    assert codes[0] == "net.peer_unreachable"
    assert codes[-1] == "quote.capacity_taken"


async def test_who_asks_to_be_dialled_is_not_told_what_is_there(open_end: End, hidden_end: End) -> None:
    """Neither by words nor by time: it may have named somebody else's port."""
    told = []

    async def dialled(port: int) -> None:
        offer = replace(hidden_end.paths._offers.own(), addresses=(f"/ip4/127.0.0.1/tcp/{port}",))
        began = trio.current_time()
        await ask(hidden_end.wire, hidden_end.key, open_end.key.public, offer, protocol=PATHS_PROTOCOL)
        with pytest.raises(PeerRefused) as refused:
            await ask(
                hidden_end.wire,
                hidden_end.key,
                open_end.key.public,
                DialBack(b"n" * 32),
                protocol=PATHS_PROTOCOL,
            )
        told.append(str(refused.value))
        assert trio.current_time() - began >= answers.FAILED_SECONDS

    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"SSH-2.0-other\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, greet, 0, host="127.0.0.1"))
        await dialled(listeners[0].socket.getsockname()[1])
        await dialled(1)
        nursery.cancel_scope.cancel()
    assert told[0] == told[1]


async def test_nobody_is_dialled_who_has_not_said_where(open_end: End, hidden_end: End) -> None:
    with pytest.raises(PeerRefused) as refused:
        await ask(
            hidden_end.wire,
            hidden_end.key,
            open_end.key.public,
            DialBack(b"n" * 32),
            protocol=PATHS_PROTOCOL,
        )
    assert refused.value.refusal_code == "wire.message_invalid"


async def test_how_it_looks_from_outside(hidden_end: End, open_end: End) -> None:
    """The one who has dialled somebody knows its outer address; the other has nobody to ask."""
    seen = await hidden_end.paths.look()
    assert seen.nat == "none"
    assert seen.outside[0].startswith("127.0.0.1:")
    assert (await open_end.paths.look()).nat == ""


async def test_nobody_tells_the_certificate_of_another(open_end: End, hidden_end: End) -> None:
    """Else it would be taken for the other when that one comes."""
    told = hidden_end.paths._offers.own()
    async with end(6, open_end.wire.addresses) as third:
        befriend(open_end, third)
        with pytest.raises(PeerRefused) as refused:
            await ask(third.wire, third.key, open_end.key.public, told, protocol=PATHS_PROTOCOL)
    assert refused.value.refusal_code == "wire.message_invalid"


async def test_a_neighbour_of_another_network_is_not_dialled(
    open_end: End, hidden_end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Homes have the same private addresses: where the world sees them tells them apart."""
    monkeypatch.setattr(offers, "own_networks", lambda: (ipaddress.ip_network("192.168.1.0/24"),))
    mine = hidden_end.paths._offers
    peer = open_end.key.public
    named = ("/ip4/192.168.1.77/tcp/4001",)
    told = replace(open_end.paths._offers.own(), addresses=named, outside="11.0.0.1")
    assert mine.heard(peer, told).side.ends, "as long as nobody knows better"
    hidden_end.paths._around._seen = Seen("cone", (Endpoint("11.0.0.2", 5_000),))
    assert not mine.heard(peer, told).side.ends
    hidden_end.paths._around._seen = Seen("cone", (Endpoint("11.0.0.1", 5_000),))
    assert mine.heard(peer, told).side.ends
    monkeypatch.setattr(hidden_end.wire, "remote_ip", lambda _: "11.0.0.3")
    assert not mine.heard(peer, told).side.ends, "its word does not outweigh where it comes from"


async def test_who_says_that_it_moved_makes_the_other_doubt_its_links(
    open_end: End, hidden_end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reached(hidden_end, open_end)
    doubted = trio.Event()
    monkeypatch.setattr(open_end.links, "suspect", lambda peer: doubted.set())
    monkeypatch.setattr(hidden_end.paths._around, "_looked", _elsewhere)
    hidden_end.paths._moved()
    with trio.fail_after(30):
        await doubted.wait()


async def _elsewhere() -> Seen:
    return Seen("cone", (Endpoint("11.0.0.9", 5_000),))
