"""Renting a relay: a lease without a job, through real nodes and the real contract, on a virtual clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol import lease_model as m
from protocol.errors import BalanceTooLow, ConfigInvalid, PeerRefused, PriceAboveLimit, RelayNotForRent
from protocol.lease_state import Lease, Phase
from protocol.messages import Ack, Offer, Terms
from protocol.relay_messages import Connect, Incoming, Reserve, Reserved
from protocol.units import MAX_QU, PeerKey, Qu, Seconds, UnixMs, fee_of
from qubixd.relay import RELAY_PROTOCOL, RELAYED_PROTOCOL
from qubixd.relay_hire import relay_job, rent
from qubixd.reservations import ask
from qubixd.talk import receive_bare, send_bare
from qubixd.wire import Stream
from tests.support.world import PRICE, Person, World, fast_root
from tests.support.world_jobs import job, now_ms

MANY_STEPS = 15
"""Commits of one side, from the lease to its end."""


async def start(world: World) -> tuple[Person, Person]:
    """A relay that offers nothing else, and somebody who needs it."""
    relay = await world.start("rita", relay=True, relay_price=PRICE)
    caller = await world.start("bob")
    with trio.fail_after(60):
        while not relay.up.provider.can_settle:
            await trio.sleep(0.1)
    return relay, caller


async def joined(world: World, caller: Person, relay: Person) -> Stream:
    """A stream of the caller's with somebody who has a place at the relay and gives all bytes back."""
    harry = world.people.get("harry") or await world.start("harry")

    async def echo(stream: Stream, peer: PeerKey) -> None:
        await receive_bare(stream, Incoming)
        await send_bare(stream, Ack())
        while chunk := await stream.receive_some(65_536):
            await stream.send_all(chunk)

    harry.up.parts.wire.serve(RELAYED_PROTOCOL, echo)
    place = await harry.up.parts.wire.open(relay.peer, RELAY_PROTOCOL)
    await send_bare(place, Reserve())
    await receive_bare(place, Reserved)
    stream = await caller.up.parts.wire.open(relay.peer, RELAY_PROTOCOL)
    await send_bare(stream, Connect(harry.peer))
    await receive_bare(stream, Ack)
    return stream


async def there_and_back(stream: Stream, count: int) -> float:
    """Seconds that so many bytes take."""
    began, left = trio.current_time(), count
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, bytes(count))
        while left:
            left -= len(await stream.receive_some(65_536))
    return trio.current_time() - began


async def rented(world: World, relay: Person, caller: Person, seconds: int, most: int = MAX_QU) -> Lease:
    addresses = relay.up.parts.wire.addresses
    return await rent(caller.up.hiring, relay.peer, addresses, Seconds(seconds), max_price=Qu(most))


async def until_running(world: World, lease: Lease, *people: Person) -> None:
    for person in people:
        await world.until(lease.lease_id, person, lambda one: one.phase is Phase.RUNNING)


async def test_while_it_is_rented_the_renters_traffic_is_paid_for(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path) as world:
        relay, bob = await start(world)
        before = world.balance(relay), world.balance(bob)
        assert not relay.up.office.is_paid(bob.peer)
        lease = await rented(world, relay, bob, 10)
        await until_running(world, lease, relay, bob)
        assert relay.up.office.is_paid(bob.peer)
        assert not relay.up.office.is_paid(relay.peer)
        served, paid = await world.until_ended(lease.lease_id, relay, bob)
        assert (served.phase, paid.phase, paid.reason) == (Phase.DONE, Phase.DONE, "lease.duration_reached")
        assert not relay.up.office.is_paid(bob.peer)
        assert paid.paid == served.paid == 10_000
        assert world.balance(relay) - before[0] == 10_000 - fee_of(Qu(10_000))
        assert before[1] - world.balance(bob) == 10_000
        world.check_conservation()


async def test_a_relay_takes_no_capacity_and_needs_no_engine_also_where_jobs_run_beside(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path) as world:
        rita = await world.start("rita", provider=True, relay=True, relay_price=PRICE)
        bob = await world.start("bob")
        await world.until_offered(bob)
        free = rita.up.provider.house().free
        lease = await rented(world, rita, bob, 60)
        await until_running(world, lease, rita, bob)
        assert rita.up.provider.house().free == free
        work = await world.rent(bob, job(seconds=5))
        await world.until_ended(work.lease_id, rita, bob)
        assert rita.engine.starts == [work.lease_id]
        assert rita.up.office.is_paid(bob.peer)


async def test_what_goes_through_is_on_the_meters_of_both_sides_also_after_a_restart(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path) as world:
        relay, bob = await start(world)
        await there_and_back(await joined(world, bob, relay), 5_000)  # before it was rented
        lease = await rented(world, relay, bob, 3_600)
        await until_running(world, lease, relay, bob)
        await trio.sleep(3)
        await there_and_back(await joined(world, bob, relay), 700)
        await trio.sleep(90)  # until it is in the ledger
        last = relay.up.metering.meters.since(lease.lease_id, UnixMs(0))[-1]
        assert (last.received_bytes, last.sent_bytes, last.cpu_millis) == (700, 700, 0)
        await world.kill(relay)
        await world.start("rita")
        await trio.sleep(3)
        await there_and_back(await joined(world, bob, relay), 22)
        await trio.sleep(90)
        for person in (relay, bob):
            last = person.up.metering.meters.since(lease.lease_id, UnixMs(0))[-1]
            assert (last.received_bytes, last.sent_bytes) == (722, 722)


async def test_while_it_is_rented_neither_limit_holds(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """For the connections of whoever has rented it, also those that were there before."""
    async with World(tmp_path) as world:
        relay, bob = await start(world)
        stream, wire = await joined(world, bob, relay), bob.up.parts.wire
        free = await ask(wire, relay.peer)
        slow = await there_and_back(stream, 3 * free.bytes_per_second)
        assert slow > 3
        used = (await ask(wire, relay.peer)).used_bytes
        assert used == 6 * free.bytes_per_second
        lease = await rented(world, relay, bob, 60)
        await until_running(world, lease, relay, bob)
        paid = await ask(wire, relay.peer)
        assert paid.bytes_per_second == 0
        assert await there_and_back(stream, 3 * free.bytes_per_second) < slow / 3
        assert (await ask(wire, relay.peer)).used_bytes == used, "nothing of it was counted"
        await world.until_ended(lease.lease_id, relay, bob)
        assert (await ask(wire, relay.peer)).bytes_per_second == free.bytes_per_second
        assert await there_and_back(stream, 3 * free.bytes_per_second) > slow / 2


async def test_the_time_in_which_the_relay_was_away_is_not_billed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path) as world:
        relay, bob = await start(world)
        lease = await rented(world, relay, bob, 100)
        await until_running(world, lease, relay, bob)
        await trio.sleep(20)
        await world.kill(relay)
        await trio.sleep(50)
        await world.start("rita")
        assert relay.up.office.is_paid(bob.peer)
        began = trio.current_time()
        await world.until_ended(lease.lease_id, relay)
        assert trio.current_time() - began > 75
        served, paid = await world.until_ended(lease.lease_id, relay, bob)
        assert served.paid == paid.paid == 100_000
        world.check_conservation()


async def test_without_vouchers_the_allowance_goes_and_comes_back_with_them(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path) as world:
        relay, bob = await start(world)
        lease = await rented(world, relay, bob, 1_000)
        await until_running(world, lease, relay, bob)
        world.net.cut(relay.peer, bob.peer)
        await world.until(lease.lease_id, relay, lambda one: one.phase is Phase.PAUSED)
        assert not relay.up.office.is_paid(bob.peer)
        world.net.heal(relay.peer, bob.peer)
        await until_running(world, lease, relay)
        assert relay.up.office.is_paid(bob.peer)
        await bob.up.leases.feed(lease.lease_id, m.ActionStop(now_ms()))
        served, paid = await world.until_ended(lease.lease_id, relay, bob)
        assert (paid.phase, paid.reason) == (Phase.CANCELLED, "lease.stopped_by_caller")
        assert served.paid == paid.paid < 60_000


async def test_what_is_no_relay_or_asks_more_is_not_rented(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path) as world:
        relay, bob = await start(world)
        alice = await world.start("alice", provider=True)
        with pytest.raises(PeerRefused) as refused:
            await rented(world, alice, bob, 10)
        assert refused.value.refusal_code == RelayNotForRent.code
        with pytest.raises(PeerRefused) as refused:
            await rented(world, relay, bob, 10, most=PRICE - 1)
        assert refused.value.refusal_code == PriceAboveLimit.code
        with pytest.raises(BalanceTooLow):
            await rented(world, relay, bob, 10_000_000)
        asked = bob.up.hiring.request(relay_job(Seconds(10)), bytes(32), Qu(MAX_QU))
        larger = replace(asked, wish=replace(asked.wish, disk_mib=64))
        with pytest.raises(PeerRefused) as refused:
            await bob.up.hiring.quote(larger, relay.peer, (), _never)
        assert refused.value.refusal_code == ConfigInvalid.code
        assert not bob.up.leases.active() and not relay.up.leases.active()
        assert not list((bob.root / "waiting").iterdir())


def _never(terms: Terms) -> Offer:
    raise AssertionError("there are no terms")


@pytest.mark.parametrize("who", ["rita", "bob"])
async def test_killed_at_any_of_its_steps_a_relays_lease_goes_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, who: str
) -> None:
    """One life ends right after each other commit of a short lease."""
    with fast_root(tmp_path) as root:
        for step in range(1, 100, 2):
            if not await _survives(root / str(step), who, step):
                assert step > MANY_STEPS
                return
    raise AssertionError("the lease never ended without a death")


async def _survives(root: Path, who: str, step: int) -> bool:
    """Whether somebody died at all."""
    async with World(root) as world:
        relay, bob = await start(world)
        victim = world.people[who]
        lease = await rented(world, relay, bob, 3)
        deaths = victim.deaths
        victim.kill_after = victim.commits + step
        world.nursery.start_soon(_revive, world, victim)
        served, paid = await world.until_ended(lease.lease_id, relay, bob)
        died, victim.kill_after = victim.deaths > deaths, None
        assert served.paid == paid.paid <= 3_000
        assert (paid.phase, paid.paid) == (Phase.DONE, 3_000) or died
        world.check_conservation()
        return died


async def _revive(world: World, victim: Person) -> None:
    while True:
        await victim.dead.wait()
        await trio.sleep(2)
        await world.start(victim.name)
