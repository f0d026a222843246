"""Real libp2p nodes on loopback: streams, gossip, redialling, silence."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from protocol.errors import ConfigInvalid, MessageTooLarge, PeerUnreachable, PortBusy, StreamBroken
from protocol.units import PeerKey
from qubixd.wire import MAX_GOSSIP_BYTES, Stream
from qubixd.wire_libp2p import WireConfig, open_wire, peer_id_of, peer_key_of
from tests.support.wire_nodes import (
    ECHO,
    FAST,
    PATIENCE_SECONDS,
    TOPIC,
    Inbox,
    assert_echoes,
    connected,
    gossip_until,
    host_and_port,
    node,
    read_all,
    seed_of,
    until,
)

FIVE_MB = bytes(range(256)) * 20_480


async def test_two_nodes_gossip_both_ways() -> None:
    async with node(1) as a, node(2, a.addresses) as b:
        inboxes = {wire.peer_key: Inbox() for wire in (a, b)}
        for wire in (a, b):
            wire.subscribe(TOPIC, inboxes[wire.peer_key])
        await connected((a, b))
        await gossip_until(a, inboxes[b.peer_key], b"from a")
        await gossip_until(b, inboxes[a.peer_key], b"from b")
        assert inboxes[b.peer_key].messages[0][1] == a.peer_key


@pytest.mark.parametrize("middle_listens", [True, False], ids=["forwarded", "introduced"])
async def test_two_nodes_meet_through_one_bootstrap_node(middle_listens: bool) -> None:
    async with node(1) as middle, node(2, middle.addresses) as a, node(3, middle.addresses) as b:
        inboxes = [Inbox(), Inbox()]
        for wire, inbox in zip((a, b), inboxes, strict=True):
            wire.subscribe(TOPIC, inbox)
        if middle_listens:
            middle.subscribe(TOPIC, Inbox())
        await connected((a, middle), (b, middle))
        await gossip_until(a, inboxes[1], b"hello b")
        await gossip_until(b, inboxes[0], b"hello a")


async def test_publishing_without_joining_arrives() -> None:
    async with node(1) as a, node(2, a.addresses) as b:
        inbox = Inbox()
        a.subscribe(TOPIC, inbox)
        await connected((a, b))
        await gossip_until(b, inbox, b"from outside")


async def test_who_leaves_a_topic_hears_nothing_more_until_it_joins_again() -> None:
    inbox, other = Inbox(), Inbox()
    async with node(1) as alice, node(2, alice.addresses) as bob, node(3, alice.addresses) as carol:
        bob.subscribe(TOPIC, inbox)
        carol.subscribe(TOPIC, other)
        await connected((alice, bob), (alice, carol))
        await gossip_until(alice, inbox, b"first")
        bob.unsubscribe(TOPIC)
        bob.unsubscribe("never joined")
        heard = len(inbox.messages)
        await gossip_until(alice, other, b"second")
        await gossip_until(alice, other, b"third")
        assert len(inbox.messages) == heard
        for _ in range(3):  # the last word counts
            bob.subscribe(TOPIC, inbox)
            bob.unsubscribe(TOPIC)
        bob.subscribe(TOPIC, inbox)
        await gossip_until(alice, inbox, b"fourth")


async def test_a_round_trip_is_measured_over_the_open_connection_or_a_new_one() -> None:
    async with node(1) as alice, node(2) as bob:
        assert alice.remote_ip(bob.peer_key) is None
        seconds = await alice.round_trip(bob.peer_key, bob.addresses)
        assert 0 < seconds < 10
        await connected((alice, bob))
        assert alice.remote_ip(bob.peer_key) == "127.0.0.1"
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(bob.round_trip, alice.peer_key)
        with pytest.raises(PeerUnreachable):
            await alice.round_trip(PeerKey(bytes(32)))


async def test_five_megabytes_both_ways_and_half_close() -> None:
    async with node(1) as a, node(2, a.addresses) as b, trio.open_nursery() as nursery:
        stream = await b.open(a.peer_key, ECHO, a.addresses)

        async def send() -> None:
            await stream.send_all(FIVE_MB)
            await stream.send_eof()

        nursery.start_soon(send)
        assert await read_all(stream) == FIVE_MB
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


async def test_closing_without_end_breaks_the_other_side() -> None:
    broken = trio.Event()

    async def reader(stream: Stream, peer: PeerKey) -> None:
        try:
            await read_all(stream)
        except trio.BrokenResourceError as error:
            assert isinstance(error, StreamBroken)
            broken.set()
            raise

    async with node(1) as a, node(2) as b:
        a.serve("/reader/1", reader)
        stream = await b.open(a.peer_key, "/reader/1", a.addresses)
        await stream.send_all(b"half of it")
        await stream.aclose()
        with trio.fail_after(PATIENCE_SECONDS):
            await broken.wait()
        assert a.counters.handler_errors == 0
        await assert_echoes(b, a)


async def test_what_a_handler_sent_before_it_returned_arrives() -> None:
    async def talks(stream: Stream, peer: PeerKey) -> None:
        await stream.send_all(FIVE_MB[:200_000])

    async with node(1) as a, node(2) as b:
        a.serve("/talks/1", talks)
        async with await b.open(a.peer_key, "/talks/1", a.addresses) as stream:
            await assert_echoes(b, a)  # by now everything has arrived
            assert await read_all(stream) == FIVE_MB[:200_000]


@pytest.mark.slow
async def test_a_reader_that_stalls_for_six_seconds_loses_nothing() -> None:
    async def slow_reader(stream: Stream, peer: PeerKey) -> None:
        await trio.sleep(6)
        await stream.send_all(len(await read_all(stream)).to_bytes(4, "big"))

    async with node(1) as a, node(2) as b:
        a.serve("/slow/1", slow_reader)
        stream = await b.open(a.peer_key, "/slow/1", a.addresses)
        await stream.send_all(FIVE_MB)
        await stream.send_eof()
        assert int.from_bytes(await read_all(stream), "big") == len(FIVE_MB)


async def test_gossip_of_a_restarted_peer_is_new() -> None:
    inbox = Inbox()
    async with node(1) as a:
        a.subscribe(TOPIC, inbox)
        async with node(2, a.addresses) as first:
            await gossip_until(first, inbox, b"before")
            for number in range(200):  # a numbering from the clock's seconds would repeat these
                await first.publish(TOPIC, b"more %d" % number)
            await until(lambda: inbox.count(b"more 199") == 1)
        async with node(2, a.addresses) as again:
            await gossip_until(again, inbox, b"after")


async def test_a_bootstrap_peer_is_dialled_for_ever() -> None:
    async with node(2) as first:
        known = first.addresses
    port = host_and_port(known[0])[1]
    async with node(3, known, limits=replace(FAST, redial_attempts=0)) as c:
        for _ in range(2):
            async with node(2, port=port) as again:
                await connected((c, again))
            await until(lambda: c.peers() == ())


async def test_a_lost_peer_that_we_dialled_is_dialled_again() -> None:
    async with node(1) as a:
        async with node(2) as b:
            port = host_and_port(b.addresses[0])[1]
            await assert_echoes(a, b)
        await until(lambda: a.peers() == ())
        async with node(2, port=port) as b:
            await connected((a, b))


_CHILD = """
import trio
from qubixd.wire_libp2p import WireConfig, open_wire
async def main():
    async with open_wire(WireConfig("127.0.0.1", 0, ()), bytes([9]) * 32) as wire:
        print(wire.addresses[0], flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


async def test_silent_death_is_noticed() -> None:
    watchful = replace(FAST, silence_seconds=2.5)
    async with trio.open_nursery() as nursery, node(1, limits=watchful) as a:
        child: trio.Process = await nursery.start(_start_child)
        try:
            assert child.stdout is not None
            address = (await child.stdout.receive_some()).decode().strip()
            stream = await a.open(peer_key_of(address.rsplit("/", 1)[1]), "/ipfs/ping/1.0.0", [address])
            child.send_signal(signal.SIGSTOP)
            with trio.fail_after(PATIENCE_SECONDS), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            await until(lambda: a.peers() == ())
        finally:
            child.kill()


async def _start_child(task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(
        [sys.executable, "-c", _CHILD],
        cwd=Path(__file__).parents[2],
        capture_stdout=False,
        stdout=-1,
        check=False,
        task_status=task_status,
    )


async def test_the_right_address_is_found_among_wrong_ones() -> None:
    async with node(1) as a, node(2) as b, node(3) as c:
        wrong_key = c.addresses[0].rsplit("/", 1)[0] + "/" + peer_id_of(a.peer_key)
        closed = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id_of(a.peer_key)}"
        await (await b.open(a.peer_key, ECHO, [closed, wrong_key, *a.addresses])).aclose()
        with pytest.raises(PeerUnreachable, match="does not answer"):
            await c.open(a.peer_key, ECHO, [closed, wrong_key])


async def test_what_cannot_be_opened_says_why() -> None:
    async with node(1) as a, node(2) as b:
        with pytest.raises(PeerUnreachable, match="no address"):
            await a.open(b.peer_key, ECHO)
        with pytest.raises(PeerUnreachable, match="does not speak /nothing/1"):
            await a.open(b.peer_key, "/nothing/1", b.addresses)
        with pytest.raises(PeerUnreachable, match="itself"):
            await a.open(a.peer_key, ECHO, a.addresses)
        with pytest.raises(ConfigInvalid):
            await a.open(b.peer_key, ECHO, ["somewhere"])
        with pytest.raises(MessageTooLarge):
            await a.publish(TOPIC, bytes(MAX_GOSSIP_BYTES + 1))


async def test_a_busy_port_is_named() -> None:
    async with node(1) as a:
        port = host_and_port(a.addresses[0])[1]
        with pytest.raises(PortBusy, match=f"port {port}"):
            async with node(2, port=port):
                pass


async def test_new_peers_are_announced_once() -> None:
    async with node(1) as a:
        heard: list[PeerKey] = []
        a.on_peer(heard.append)
        async with node(2, a.addresses) as b:
            await connected((a, b))
            await assert_echoes(a, b)
        await until(lambda: a.peers() == ())
        assert heard == [b.peer_key]


async def test_announced_addresses_replace_the_local_ones() -> None:
    config = WireConfig("127.0.0.1", 0, (), announce=("/ip4/192.0.2.7/tcp/4001",))
    async with open_wire(config, seed_of(1), FAST) as wire:
        assert wire.addresses == (f"/ip4/192.0.2.7/tcp/4001/p2p/{peer_id_of(wire.peer_key)}",)


async def test_an_error_of_the_block_comes_out_bare() -> None:
    with pytest.raises(KeyError):
        async with node(1):
            raise KeyError("mine")


def test_peer_ids_and_keys_are_two_forms_of_one_thing() -> None:
    key = PeerKey(bytes(range(32)))
    assert peer_key_of(peer_id_of(key)) == key
    for wrong in ("", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "0OIl", peer_id_of(key)[:-1]):
        with pytest.raises(Exception, match="not a peer id"):
            peer_key_of(wrong)
