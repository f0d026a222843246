"""Which places a node keeps at relays: when it needs some, whom it asks, what it does when one is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from protocol.errors import PeerUnreachable
from protocol.relay_messages import Reserve, Reserved
from protocol.units import PeerKey, Qu, Seconds, UnixMs
from qubixd.relay import RELAY_PROTOCOL, Relay, RelayLimits
from qubixd.reservations import Reservations, ask
from qubixd.talk import receive_bare, send_bare
from qubixd.wire import Outside, Stream, Wire
from qubixd.wire_libp2p import peer_id_of
from tests.support.memory_wire import MemoryNet, MemoryWire

HOME, A, B, C = (PeerKey(bytes([number]) * 32) for number in range(1, 5))
UNREACHABLE = Outside(("203.0.113.9",), False)


@dataclass
class Town:
    """A node, and three that relay."""

    net: MemoryNet
    wire: MemoryWire
    kept: Reservations
    relays: dict[PeerKey, Relay]
    changes: list[int]

    @property
    def at(self) -> set[PeerKey]:
        assert {used.peer for used in self.kept.relays()} == set(self.wire.relays)
        return {peer for peer, relay in self.relays.items() if HOME in relay.places}


@asynccontextmanager
async def town(
    chosen: Mapping[PeerKey, Sequence[str]] | None = None,
    *,
    automatic: bool = True,
    limits: RelayLimits | None = None,
) -> AsyncIterator[Town]:
    net = MemoryNet()
    net.ips |= {HOME: "10.0.0.7", A: "198.51.100.1", B: "198.51.100.2", C: "198.51.100.3"}
    async with trio.open_nursery() as nursery:
        relays = {}
        for key in (A, B, C):
            wire = await nursery.start(_wire, net, key)
            relays[key] = Relay(wire, lambda: UnixMs(0), limits=limits)
        home = await nursery.start(_wire, net, HOME)
        kept, changes = Reservations(home, chosen, automatic=automatic), list[int]()
        kept.on_change.append(lambda: changes.append(len(kept.relays())))
        await nursery.start(kept.run)
        yield Town(net, net.wires[HOME], kept, relays, changes)
        nursery.cancel_scope.cancel()


async def _wire(net: MemoryNet, key: PeerKey, task_status: trio.TaskStatus[Wire]) -> None:
    async with net.wire(key) as wire:
        task_status.started(wire)
        await trio.sleep_forever()


async def test_who_is_reached_needs_no_relay_and_who_is_not_keeps_two(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with town() as t:
        await trio.sleep(60)
        assert t.at == set() and t.changes == []
        t.wire.outside = Outside(("10.0.0.7",), None)  # nobody has tried, but there is no router between
        await trio.sleep(60)
        assert t.at == set()
        t.wire.outside = UNREACHABLE
        await trio.sleep(60)
        assert len(t.at) == 2 and t.changes[-1] == 2
        for used in t.kept.relays():
            assert used.addresses == (f"/ip4/{t.net.ips[used.peer]}/tcp/4001/p2p/{peer_id_of(used.peer)}",)
            assert used.free_bytes > 0 and used.observed == "10.0.0.7:4001"
        assert sum("/p2p-circuit" in address for address in t.wire.addresses) == 2
        t.wire.outside = Outside(("203.0.113.9",), True)
        await trio.sleep(60)
        assert t.at == set() and t.changes[-1] == 0
        assert not any("/p2p-circuit" in address for address in t.wire.addresses)


async def test_a_router_is_noticed_before_anybody_has_tried(autojump_clock: trio.testing.MockClock) -> None:
    async with town() as t:
        t.wire.outside = Outside(("203.0.113.9",), None)
        await trio.sleep(5)
        assert len(t.at) == 2


async def test_named_relays_are_kept_whatever_others_say(autojump_clock: trio.testing.MockClock) -> None:
    way = f"/ip4/198.51.100.2/tcp/443/p2p/{peer_id_of(B)}"
    async with town({B: (way,)}, automatic=False) as t:
        for outside in (Outside(), UNREACHABLE):
            t.wire.outside = outside
            await trio.sleep(10)
            assert t.at == {B} and way in t.kept.relays()[0].addresses
        t.kept.rented = lambda: {C: ()}
        t.kept.recheck()
        await trio.sleep(10)
        assert t.at == {B, C}


async def test_named_ones_come_before_those_that_were_found(autojump_clock: trio.testing.MockClock) -> None:
    async with town() as t:
        t.wire.outside = UNREACHABLE
        await trio.sleep(10)
        found = t.at
        missing = ({A, B, C} - found).pop()
        t.kept.rented = lambda: {missing: (), next(iter(found)): ()}
        await trio.sleep(30)
        assert t.at == {missing, next(iter(found))}


async def test_a_lost_place_is_made_good_elsewhere_and_full_relays_are_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with town() as t:
        t.wire.outside = UNREACHABLE
        await trio.sleep(10)
        gone = next(iter(t.at))
        t.net.cut(HOME, gone)
        await trio.sleep(10)
        assert len(t.at - {gone}) == 2
    async with town(limits=RelayLimits(places=0)) as t:
        t.wire.outside = UNREACHABLE
        await trio.sleep(3_600)
        assert t.at == set() and t.changes == []


async def test_places_are_renewed_before_their_life_is_over(autojump_clock: trio.testing.MockClock) -> None:
    async with town(limits=RelayLimits(life_seconds=100)) as t:
        t.wire.outside = UNREACHABLE
        await trio.sleep(2_000)
        assert len(t.at) == 2 and t.changes == [1, 2]


async def test_what_a_relay_says_of_itself_is_told_only_if_it_is_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    name, other = peer_id_of(A), peer_id_of(B)
    said = (
        f"/ip4/203.0.113.1/tcp/4001/p2p/{other}",
        f"/ip4/10.1.1.1/tcp/4001/p2p/{name}",
        f"/ip4/198.51.100.9/tcp/1/p2p/{other}/p2p-circuit/p2p/{name}",
        f"/ip4/198.51.100.9/tcp/99999/p2p/{name}",
        f"/ip6/2001:db8::1%\x1b[31m/tcp/443/p2p/{name}",
        f"/ip4/198.51.100.1/tcp/4001/p2p/{name}",
        f"/ip4/198.51.100.1/tcp/443/{'x' * 170}/p2p/{name}",
        f"/ip4/198.51.100.1/tcp/5/p2p/{name}",
    )

    async def relay(stream: Stream, peer: PeerKey) -> None:
        await receive_bare(stream, Reserve)
        await send_bare(stream, Reserved("1.2.3.4:5", 0, 0, Qu(0), Seconds(60), addresses=said))
        await stream.receive_some()

    async with town({A: ()}, automatic=False) as t:
        t.net.wires[A].serve(RELAY_PROTOCOL, relay)
        t.net.cut(HOME, A)
        t.net.heal(HOME, A)
        t.kept.recheck()
        await trio.sleep(20)
        where = f"/ip4/198.51.100.1/tcp/443/p2p/{name}"  # whatever else it had said of it
        assert t.kept.relays()[0].addresses == (said[5], where)


async def test_a_relay_can_be_asked_what_it_grants() -> None:
    net = MemoryNet()
    async with net.wire(HOME) as home, net.wire(A) as relay, net.wire(B):
        Relay(relay, lambda: UnixMs(0)).price_qu_per_hour = Qu(5)
        assert (await ask(home, A)).price_qu_per_hour == 5
        with pytest.raises(PeerUnreachable, match="does not speak"):
            await ask(home, B)
