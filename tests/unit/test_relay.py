"""A relay over wires in memory: places, joined streams, what is counted, and who is sent away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import trio
import trio.testing

from protocol.errors import PeerRefused, QubixError, RelayAllowanceUsed, StreamBroken
from protocol.messages import Ack
from protocol.relay_messages import Connect, Incoming, Reserve, Reserved
from protocol.units import PeerKey, Qu, UnixMs
from qubixd.relay import RELAY_PROTOCOL, RELAYED_PROTOCOL, Relay, RelayLimits
from qubixd.relay_account import Accounts, Allowance
from qubixd.talk import receive_bare, send_bare
from qubixd.wire import Stream, Wire
from tests.support.memory_wire import MemoryNet

RELAY, HOME, CALLER, STRANGER = (PeerKey(bytes([number]) * 32) for number in range(1, 5))
DAY_MS = 86_400_000


@dataclass
class Stage:
    """A relay, a node at home that has a place there, and a caller."""

    net: MemoryNet
    relay: Relay
    clock: list[int]
    home: Wire
    caller: Wire
    came: list[PeerKey]

    async def place(self, wire: Wire) -> tuple[Stream, Reserved]:
        stream = await wire.open(RELAY, RELAY_PROTOCOL)
        await send_bare(stream, Reserve())
        return stream, await receive_bare(stream, Reserved)

    async def join(self, wire: Wire | None = None, target: PeerKey = HOME) -> Stream:
        stream = await (wire or self.caller).open(RELAY, RELAY_PROTOCOL)
        await send_bare(stream, Connect(target))
        await receive_bare(stream, Ack)
        return stream


@asynccontextmanager
async def stage(
    allowance: Allowance | None = None, limits: RelayLimits | None = None
) -> AsyncIterator[Stage]:
    net, clock = MemoryNet(), [0]
    net.ips |= {HOME: "198.51.100.1", CALLER: "198.51.100.2", STRANGER: "198.51.100.3"}
    async with net.wire(RELAY) as relay, net.wire(HOME) as home, net.wire(CALLER) as caller:
        service = Relay(relay, lambda: UnixMs(clock[0]), allowance, limits)
        found = Stage(net, service, clock, home, caller, [])

        async def echo(stream: Stream, peer: PeerKey) -> None:
            assert peer == RELAY
            found.came.append((await receive_bare(stream, Incoming)).source)
            await send_bare(stream, Ack())
            while chunk := await stream.receive_some():
                await stream.send_all(chunk)

        home.serve(RELAYED_PROTOCOL, echo)
        yield found
        assert not relay.counters.handler_errors and not home.counters.handler_errors


async def echoes(stream: Stream, data: bytes) -> bool:
    await stream.send_all(data)
    received = b""
    while len(received) < len(data) and (chunk := await stream.receive_some()):
        received += chunk
    return received == data


async def test_a_joined_stream_carries_bytes_and_their_end_both_ways() -> None:
    async with stage() as at:
        place, granted = await at.place(at.home)
        assert granted.observed == "198.51.100.1:4001" and granted.used_bytes == 0
        async with await at.join() as stream:
            assert await echoes(stream, b"hello" * 10_000)
            assert at.relay.joins == 1 and at.came == [CALLER]
            await stream.send_eof()
            assert not await stream.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        assert at.relay.joins == 0
        assert at.relay.carried(CALLER) == at.relay.carried(HOME) == (50_000, 50_000)
        await place.aclose()


async def refused(joining: object, code: str) -> None:
    with pytest.raises(PeerRefused) as caught:
        await joining  # type: ignore[misc]  # any awaitable
    assert caught.value.refusal_code == code


async def test_nobody_is_reached_who_has_no_place() -> None:
    async with stage() as at, at.net.wire(STRANGER):
        await refused(at.join(), "relay.target_away")
        place, _ = await at.place(at.home)
        await refused(at.join(target=STRANGER), "relay.target_away")
        await refused(at.join(target=RELAY), "relay.target_away")
        await refused(at.join(at.home), "relay.refused")
        await place.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await refused(at.join(), "relay.target_away")
        assert at.came == [] and at.relay.places == ()


async def test_a_target_that_has_gone_is_not_dialled() -> None:
    async with stage() as at:
        await at.place(at.home)
        at.net.cut(RELAY, HOME)
        await refused(at.join(), "relay.target_away")


async def test_who_comes_through_a_relay_gets_nothing_of_another() -> None:
    async with stage() as at:
        at.net.relays[frozenset((RELAY, CALLER))] = STRANGER
        await refused(at.place(at.caller), "relay.refused")
        await refused(at.join(), "relay.refused")


async def test_a_target_may_say_no() -> None:
    async def no(stream: Stream, peer: PeerKey) -> None:
        await stream.receive_some()
        await send_bare(stream, Reserve())

    async with stage() as at:
        at.home.serve(RELAYED_PROTOCOL, no)
        await at.place(at.home)
        await refused(at.join(), "wire.message_invalid")
        assert at.relay.joins == 0


async def test_a_place_lasts_as_long_as_it_is_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    async with stage() as at:
        place, granted = await at.place(at.home)
        for _ in range(3):
            await trio.sleep(granted.life_seconds - 1)
            await send_bare(place, Reserve())
            await receive_bare(place, Reserved)
        assert list(at.relay.places) == [HOME]
        again, _ = await at.place(at.home)
        assert not await place.receive_some(), "a newer stream takes its place"
        await trio.sleep(granted.life_seconds + 1)
        assert not at.relay.places
        with pytest.raises(StreamBroken):
            await again.receive_some()


async def test_what_would_be_granted_can_be_asked_without_a_place() -> None:
    async with stage() as at:
        at.relay.price_qu_per_hour = Qu(7)
        at.relay.rented = CALLER.__eq__
        stream = await at.caller.open(RELAY, RELAY_PROTOCOL)
        await send_bare(stream, Reserve(ask_only=True))
        granted = await receive_bare(stream, Reserved)
        assert (granted.price_qu_per_hour, granted.bytes_per_second) == (7, 0)
        assert not await stream.receive_some() and at.relay.places == ()


async def test_free_bytes_are_counted_for_both_ends_and_come_back_the_next_day() -> None:
    async with stage(Allowance(free_bytes=300_000, bytes_per_second=0)) as at:
        await at.place(at.home)
        stream = await at.join()
        assert await echoes(stream, bytes(100_000))
        with pytest.raises(trio.BrokenResourceError):
            await echoes(stream, bytes(100_000))
            await echoes(stream, bytes(1))
        await refused(at.join(), "relay.allowance_used")
        at.clock[0] += DAY_MS
        assert await echoes(await at.join(), bytes(100_000))
        _, granted = await at.place(at.home)
        assert granted.used_bytes == 200_000


@pytest.mark.parametrize("who", [CALLER, HOME])
async def test_a_rented_relay_counts_nothing_as_free_and_does_not_wait(
    who: PeerKey, autojump_clock: trio.testing.MockClock
) -> None:
    async with stage(Allowance(free_bytes=1_000, bytes_per_second=1_000)) as at:
        at.relay.rented = who.__eq__
        await at.place(at.home)
        began = trio.current_time()
        stream = await at.join()
        assert await echoes(stream, bytes(100_000))
        assert trio.current_time() == began
        at.relay.rented = STRANGER.__eq__  # the rent is over while the stream is open
        with pytest.raises(trio.BrokenResourceError):
            await echoes(stream, bytes(5_000))
            await echoes(stream, bytes(1))


async def test_a_peer_goes_at_its_pace(autojump_clock: trio.testing.MockClock) -> None:
    async with stage(Allowance(bytes_per_second=100_000)) as at:
        await at.place(at.home)
        stream = await at.join()
        began = trio.current_time()
        assert await echoes(stream, bytes(500_000))
        assert 8 <= trio.current_time() - began <= 10.5  # both ways, less one second's worth at once


async def test_many_keys_at_one_address_have_few_allowances() -> None:
    accounts = Accounts(
        Allowance(free_bytes=100, free_bytes_per_ip=250, bytes_per_second=0), lambda: UnixMs(0)
    )
    keys = [PeerKey(bytes([number]) * 32) for number in range(10, 20)]
    carried = 0
    with pytest.raises(RelayAllowanceUsed, match="address"):
        for key in keys:
            await accounts.allow((key, "192.0.2.1"), (HOME, "home"), 100)
            accounts._of(HOME).free = accounts._of("home").free = 0
            carried += 100
    assert carried == 300


async def test_a_relay_gives_away_so_much_and_no_more() -> None:
    allowance = Allowance(free_bytes_in_all=1_000, bytes_per_second=0)
    accounts = Accounts(allowance, lambda: UnixMs(0))
    await accounts.allow((CALLER, "a"), (HOME, "b"), 1_000)
    with pytest.raises(RelayAllowanceUsed):
        accounts.check(STRANGER, "c")


async def test_places_and_joined_streams_are_limited() -> None:
    few = RelayLimits(places=8, places_per_ip=1, joined=3, joined_per_peer=2, joined_per_ip=8)
    async with stage(limits=few) as at, at.net.wire(STRANGER) as stranger:
        at.net.ips[STRANGER] = at.net.ips[HOME]
        await at.place(at.home)
        await at.place(at.home)  # its own place is not in its way
        await refused(at.place(stranger), "relay.full")
        first, _ = await at.join(), await at.join()
        await refused(at.join(), "relay.full")
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await at.join()
    for fewer in (replace(few, joined_per_pair=1), replace(few, joined_per_ip=1)):
        async with stage(limits=fewer) as at:
            await at.place(at.home)
            await at.join()
            await refused(at.join(), "relay.full")
    async with stage(limits=replace(few, joined=1)) as at:
        await at.place(at.home)
        await at.join()
        await refused(at.join(), "relay.full")


async def test_an_address_of_the_newer_internet_counts_with_its_neighbours() -> None:
    async with stage(limits=RelayLimits(places_per_ip=1)) as at, at.net.wire(STRANGER) as stranger:
        at.net.ips |= {HOME: "2001:db8::1", STRANGER: "2001:db8::ffff:2", CALLER: "2001:db8:0:1::1"}
        await at.place(at.home)
        await refused(at.place(stranger), "relay.full")
        await at.place(at.caller)


async def test_who_asks_without_end_is_told_to_wait() -> None:
    async with stage() as at:
        codes = set()
        for _ in range(40):
            try:
                await at.join()
            except PeerRefused as error:
                codes.add(error.refusal_code)
        assert codes == {"relay.target_away", "peer.asked_too_often"}


async def test_joined_streams_in_which_nothing_moves_end(autojump_clock: trio.testing.MockClock) -> None:
    async with stage() as at:
        await at.place(at.home)
        stream = await at.join()
        assert await echoes(stream, b"x")
        with pytest.raises(StreamBroken):
            await stream.receive_some()
        assert at.relay.joins == 0


@pytest.mark.parametrize("message", [Ack(), Incoming(CALLER), Reserved("", 0, 0, Qu(0), 0)])  # type: ignore[arg-type]  # a plain number of seconds
async def test_other_messages_are_refused(message: object) -> None:
    async with stage() as at:
        stream = await at.caller.open(RELAY, RELAY_PROTOCOL)
        await send_bare(stream, message)
        with pytest.raises(QubixError):
            await receive_bare(stream, Ack if not isinstance(message, Ack) else Reserved)
