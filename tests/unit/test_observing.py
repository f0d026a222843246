"""How a node looks from outside: who is asked, whose word counts, who is tried and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from protocol.errors import MessageInvalid, PeerRefused, PeerUnreachable
from protocol.relay_messages import Observe, Observed
from protocol.units import PeerKey
from qubixd.observing import OBSERVE_PROTOCOL, Observer, is_public, judge, observe
from qubixd.observing import _Word as Word
from qubixd.talk import receive_bare, send_bare
from qubixd.wire import Outside, Stream, Wire
from tests.support.memory_wire import MemoryNet

ME = PeerKey(b"m" * 32)
OTHERS = [PeerKey(bytes([number]) * 32) for number in range(1, 8)]


def word(observer: str, seen: str, *reached: str, tried: bool = True) -> Word:
    return Word(observer, seen, tried, reached)


def test_what_most_say_counts_and_neighbours_count_only_among_themselves() -> None:
    assert judge([]) == Outside()
    here = word("192.168.1.2", "192.168.1.9", "192.168.1.9:4001")
    assert judge([here]) == Outside(("192.168.1.9",), True, ("192.168.1.9:4001",))
    no = word("198.51.100.1", "203.0.113.5")
    assert judge([here, here, no]) == Outside(("203.0.113.5",), False, ())
    yes = word("198.51.100.2", "203.0.113.5", "203.0.113.5:443")
    assert judge([no, yes]) == Outside(("203.0.113.5",), False, ())
    assert judge([no, yes, yes]) == Outside(("203.0.113.5",), True, ("203.0.113.5:443",))
    assert judge([word("198.51.100.1", "203.0.113.5", tried=False)]) == Outside(("203.0.113.5",), None, ())


@pytest.mark.parametrize(
    ("ip", "public"),
    [
        ("203.0.113.7", True),
        ("2001:db8::1", True),
        ("10.1.2.3", False),
        ("100.64.1.1", False),
        ("172.31.0.1", False),
        ("127.0.0.1", False),
        ("fe80::1", False),
        ("nonsense", False),
    ],
)
def test_which_addresses_mean_the_same_everywhere(ip: str, public: bool) -> None:
    assert is_public(ip) is public


@asynccontextmanager
async def observers(net: MemoryNet, *keys: PeerKey) -> AsyncIterator[list[Observer]]:
    """Running nodes, each at an address of its own."""
    async with trio.open_nursery() as nursery:
        found: list[Observer] = []
        for number, key in enumerate(keys, 1):
            net.ips[key] = f"198.51.100.{number}"
            wire = await nursery.start(_wire, net, key)
            found.append(Observer(wire, lambda ip: [4001]))
            nursery.start_soon(found[-1].run)
        yield found
        nursery.cancel_scope.cancel()


async def _wire(net: MemoryNet, key: PeerKey, task_status: trio.TaskStatus[Wire]) -> None:
    async with net.wire(key) as wire:
        task_status.started(wire)
        await trio.sleep_forever()


async def test_nodes_learn_how_they_look_and_again_after_the_network_has_changed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    net = MemoryNet()
    net.open_ports.add((OTHERS[0], 4001))
    async with observers(net, ME, *OTHERS[:3]) as (me, first, *_):
        await trio.sleep(60)
        assert me.outside == Outside(("198.51.100.1",), False)
        assert first.outside == Outside(("198.51.100.2",), True, ("198.51.100.2:4001",))
        net.ips[ME] = "203.0.113.8"
        net.open_ports.add((ME, 4001))
        me.forget()
        assert me.outside == Outside()
        await trio.sleep(60)
        assert me.outside == Outside(("203.0.113.8",), True, ("203.0.113.8:4001",))


async def test_one_address_has_one_voice_and_liars_are_outvoted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    net = MemoryNet()

    async def lie(stream: Stream, peer: PeerKey) -> None:
        await receive_bare(stream, Observe)
        await send_bare(stream, Observed("203.0.113.66:1", reached=True))

    async with observers(net, ME, *OTHERS[:2]) as (me, *_), trio.open_nursery() as nursery:
        for liar in OTHERS[2:6]:
            net.ips[liar] = "198.51.100.66"
            wire = await nursery.start(_wire, net, liar)
            wire.serve(OBSERVE_PROTOCOL, lie)
        await trio.sleep(60)
        assert me.outside == Outside(("198.51.100.1", "203.0.113.66"), False)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("said", ["no address", "198.51.100.1/tcp/1/x:4001", "198.51.100.1:0", "x" * 256])
async def test_what_is_no_address_is_no_word(autojump_clock: trio.testing.MockClock, said: str) -> None:
    """Else a single liar's text would be announced as an address of this node."""
    net = MemoryNet()

    async def lie(stream: Stream, peer: PeerKey) -> None:
        await receive_bare(stream, Observe)
        await send_bare(stream, Observed(said, reached=True))

    async with observers(net, ME) as (me,), trio.open_nursery() as nursery:
        net.ips[OTHERS[0]] = "198.51.100.66"
        wire = await nursery.start(_wire, net, OTHERS[0])
        wire.serve(OBSERVE_PROTOCOL, lie)
        await trio.sleep(60)
        assert me.outside == Outside()
        nursery.cancel_scope.cancel()


async def test_an_address_is_not_tried_without_end(autojump_clock: trio.testing.MockClock) -> None:
    net = MemoryNet()
    async with net.wire(ME) as wire, net.wire(OTHERS[0]) as other:
        Observer(other, lambda ip: [4001])
        refused = 0
        for _ in range(10):
            try:
                await observe(wire, OTHERS[0], 4001)
            except PeerRefused as error:
                assert error.refusal_code == "peer.asked_too_often"
                refused += 1
        assert refused == 6
        assert (await observe(wire, OTHERS[0])).address == "127.0.0.1:4001"
        await trio.sleep(60)
        await observe(wire, OTHERS[0], 4001)


async def test_who_comes_through_a_relay_cannot_be_seen() -> None:
    net = MemoryNet()
    async with net.wire(ME) as wire, net.wire(OTHERS[0]) as other:
        Observer(other, lambda ip: [4001])
        net.relays[frozenset((ME, OTHERS[0]))] = OTHERS[1]
        with pytest.raises(PeerRefused, match="relay"):
            await observe(wire, OTHERS[0])


@pytest.mark.parametrize("garbage", [b"", b"\x00\x00\x00\x01\xc0", b"\xff\xff\xff\xff"])
async def test_garbage_costs_its_stream(garbage: bytes) -> None:
    net = MemoryNet()
    async with net.wire(ME) as wire, net.wire(OTHERS[0]) as other:
        Observer(other, lambda ip: [4001])
        with suppress(trio.BrokenResourceError):
            async with await wire.open(OTHERS[0], OBSERVE_PROTOCOL) as stream:
                await stream.send_all(garbage)
                await stream.send_eof()
                assert not await stream.receive_some()
        assert (await observe(wire, OTHERS[0])).reached is False
        assert other.counters.handler_errors == 0


async def test_a_wrong_answer_is_an_error_and_no_word() -> None:
    net = MemoryNet()

    async def wrong(stream: Stream, peer: PeerKey) -> None:
        await send_bare(stream, Observe())

    async with net.wire(ME) as wire, net.wire(OTHERS[0]) as other:
        other.serve(OBSERVE_PROTOCOL, wrong)
        with pytest.raises(MessageInvalid, match="Observe"):
            await observe(wire, OTHERS[0])
        with pytest.raises(PeerUnreachable):
            await observe(wire, OTHERS[1])
