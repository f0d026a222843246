"""The door for packets from the local network: only near peers get through, few at a time, and whatever a
stranger sends, it stays small."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from protocol.errors import PeerUnreachable
from protocol.signing import NodeKey
from protocol.units import PeerKey
from qubixd.wire import WireCounters
from qubixd.wire_libp2p import mdns, peer_id_of
from qubixd.wire_libp2p.mdns import AGAIN_SECONDS, MAX_NEIGHBOURS, MAX_WAITING, PACKETS_PER_SECOND, Neighbours
from qubixd.wire_libp2p.mdns_format import answer, question

Clock = trio.testing.MockClock
NEAR = "192.168.7.20"


class Node:
    """As much of a wire and its address book as finding neighbours takes."""

    def __init__(self) -> None:
        self.peer_key = key(0)
        self.counters = WireCounters()
        self.addresses: tuple[str, ...] = (f"/ip4/192.168.7.1/tcp/1/p2p/{peer_id_of(key(0))}",)
        self.dialled: list[tuple[str, list[str]]] = []
        self.met: list[PeerKey] = []

    def peers(self) -> tuple[PeerKey, ...]:
        return tuple(self.met)

    def connected(self, peer: Any) -> bool:
        return str(peer) in map(peer_id_of, self.met)

    async def dial(self, peer: Any, rumoured: Sequence[Any]) -> None:
        self.dialled.append((str(peer), list(map(str, rumoured))))
        await trio.lowlevel.checkpoint()
        raise PeerUnreachable("nobody there")


def key(number: int) -> PeerKey:
    return NodeKey(hashlib.sha256(b"%d" % number).digest()).public


def telling(number: int, *addresses: str) -> bytes:
    """The packet of a node at some addresses ("/ip4/...")."""
    at = addresses or (f"/ip4/{NEAR}/tcp/4001",)
    return answer("name", tuple(f"{one}/p2p/{peer_id_of(key(number))}" for one in at))


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def door(node: Node, monkeypatch: pytest.MonkeyPatch) -> Neighbours:
    made: Any = node
    door = Neighbours(made, made, "0.0.0.0")
    door._interfaces = (ipaddress.IPv4Interface("192.168.7.1/24"),)
    return door


async def dialled(door: Neighbours, node: Node) -> list[tuple[str, list[str]]]:
    """What is dialled of all that waits."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door._dial)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    return node.dialled


async def test_a_neighbour_is_dialled_where_it_says(
    door: Neighbours, node: Node, autojump_clock: Clock
) -> None:
    door.heard(telling(1), NEAR)
    assert await dialled(door, node) == [(peer_id_of(key(1)), [f"/ip4/{NEAR}/tcp/4001"])]


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/8.8.8.8/tcp/4001",
        "/ip4/127.0.0.1/tcp/22",
        "/ip4/192.168.8.20/tcp/4001",
        "/ip6/fe80::1/tcp/4001",
        "/dns4/example.org/tcp/4001",
        "/ip4/192.168.7.20/udp/4001",
    ],
)
async def test_an_address_that_is_not_near_is_not_dialled(
    door: Neighbours, node: Node, address: str, autojump_clock: Clock
) -> None:
    door.heard(telling(1, address), NEAR)
    assert await dialled(door, node) == []


async def test_a_packet_from_afar_is_not_read(door: Neighbours, node: Node) -> None:
    door.heard(telling(1), "8.8.8.8")
    assert node.counters.by_reason == {"mdns.from_afar": 1}
    assert door._found.statistics().current_buffer_used == 0


async def test_nobody_is_dialled_twice_in_a_minute(
    door: Neighbours, node: Node, autojump_clock: Clock
) -> None:
    for _ in range(3):
        door.heard(telling(1), NEAR)
    assert len(await dialled(door, node)) == 1
    await trio.sleep(AGAIN_SECONDS)
    door.heard(telling(1), NEAR)
    assert len(await dialled(door, node)) == 2


async def test_this_node_itself_and_known_peers_are_not_dialled(
    door: Neighbours, node: Node, autojump_clock: Clock
) -> None:
    node.met = [key(2)]
    for number in (0, 2):
        door.heard(telling(number), NEAR)
    assert await dialled(door, node) == []
    node.met = [key(number) for number in range(10, 10 + mdns.ENOUGH_PEERS)]
    door.heard(telling(3), NEAR)
    assert await dialled(door, node) == []


async def test_only_two_addresses_of_one_peer_are_tried(
    door: Neighbours, node: Node, autojump_clock: Clock
) -> None:
    door.heard(telling(1, *(f"/ip4/192.168.7.{n}/tcp/1" for n in range(2, 10))), NEAR)
    assert [len(addresses) for _, addresses in await dialled(door, node)] == [2]


async def test_a_question_is_answered(door: Neighbours) -> None:
    assert not door._asked.is_set()
    door.heard(question(), NEAR)
    assert door._asked.is_set()


async def test_only_addresses_of_a_link_are_told_there(door: Neighbours, node: Node) -> None:
    node.addresses = (*node.addresses, f"/ip4/10.1.2.3/tcp/1/p2p/{peer_id_of(key(0))}")
    assert list(door._records().values()) == [answer(door._name, node.addresses[:1])]


async def test_a_flood_is_cut_off_and_remembered_by_few(
    door: Neighbours, node: Node, autojump_clock: Clock
) -> None:
    await trio.sleep(10)
    floods = 40
    for second in range(floods):
        for number in range(PACKETS_PER_SECOND * 2):
            door.heard(telling(1 + number % 7 + 10 * second), NEAR)
            door.heard(b"\xff" * 1_472, NEAR)
        await trio.sleep(1)
    seen = 4 * PACKETS_PER_SECOND * floods
    assert node.counters.by_reason["mdns.flood"] >= seen - PACKETS_PER_SECOND * (floods + 1)
    assert len(door._tried) <= MAX_NEIGHBOURS
    assert door._found.statistics().current_buffer_used <= MAX_WAITING
    assert node.counters.by_reason["mdns.malformed"] > 0
    assert set(node.counters.by_reason) <= {"mdns.flood", "mdns.malformed", "mdns.too_many"}


async def test_a_quiet_neighbour_is_heard_after_a_flood(
    door: Neighbours, node: Node, autojump_clock: Clock
) -> None:
    for _ in range(10 * PACKETS_PER_SECOND):
        door.heard(b"noise", NEAR)
    await trio.sleep(1)
    door.heard(telling(5), NEAR)
    assert [peer for peer, _ in await dialled(door, node)] == [peer_id_of(key(5))]
