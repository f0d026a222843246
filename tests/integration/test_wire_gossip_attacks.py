"""Hostile gossip against a running node. The arena asserts, after every attack, that an honest peer is
served as before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_uvarint

from protocol.units import PeerKey
from qubixd.wire import MAX_GOSSIP_BYTES, Verdict, Wire
from tests.support.wire_arena import LIMITS, arena
from tests.support.wire_nodes import (
    ECHO,
    Hostile,
    gossip_until,
    hostile,
    rpc,
    until,
)

pytestmark = pytest.mark.attack


def _unsigned(enemy: Hostile, number: int) -> rpc_pb2.Message:
    message = enemy.message(b"bad", number)
    message.signature = b""
    return message


def _forged(enemy: Hostile, number: int) -> rpc_pb2.Message:
    message = enemy.message(b"bad", number)
    message.data = b"bad and changed"
    return message


def _key_of_another_kind(enemy: Hostile, number: int) -> rpc_pb2.Message:
    message = enemy.message(b"bad", number)
    message.from_id, message.key = bytes.fromhex("1220") + os.urandom(32), b"\xff\xff\xff garbage"
    return message


def _point_not_on_the_curve(enemy: Hostile, number: int) -> rpc_pb2.Message:
    message = enemy.message(b"bad", number)
    message.from_id, message.key = bytes.fromhex("002408011220") + b"\x02" * 32, b"\x08\x01"
    return message


def _no_author(enemy: Hostile, number: int) -> rpc_pb2.Message:
    message = enemy.message(b"bad", number)
    message.from_id = b""
    return message


def _huge(enemy: Hostile, number: int) -> rpc_pb2.Message:
    return enemy.message(b"bad" + bytes(MAX_GOSSIP_BYTES), number)


def _long_number(enemy: Hostile, number: int) -> rpc_pb2.Message:
    message = enemy.message(b"bad", number)
    message.seqno = bytes(1_000)
    return message


@pytest.mark.parametrize(
    "make",
    [_unsigned, _forged, _key_of_another_kind, _point_not_on_the_curve, _no_author, _huge, _long_number],
)
async def test_bad_messages_are_counted_and_their_bearer_is_shut_out(
    make: Callable[[Hostile, int], rpc_pb2.Message],
) -> None:
    async with arena() as at:
        async with hostile(at.node) as enemy:
            await enemy.gossip(*(make(enemy, n) for n in range(LIMITS.rejects_before_drop - 1)))
            await until(lambda: at.node.counters.gossip_rejected == LIMITS.rejects_before_drop - 1)
            assert enemy.key in at.node.peers()
            await enemy.gossip(make(enemy, 99))
            await enemy.gone()
            assert at.node.counters.peers_dropped == 1 and at.judged(b"bad") == 0
        async with hostile(at.node) as again:
            await again.gone()


async def test_who_was_shut_out_is_let_in_again_when_the_time_is_over() -> None:
    limits = replace(LIMITS, ban_seconds=1.0)
    async with arena(limits) as at:
        async with hostile(at.node) as enemy:
            await enemy.gossip(*(_unsigned(enemy, n) for n in range(limits.rejects_before_drop)))
            await enemy.gone()
        await trio.sleep(limits.ban_seconds)
        async with hostile(at.node) as forgiven:
            await forgiven.stream(ECHO)


async def test_messages_our_validator_rejects_count_too() -> None:
    async with arena() as at, hostile(at.node) as enemy:
        at.inbox.verdict = Verdict.REJECT
        await enemy.gossip(*(enemy.message(b"bad", n) for n in range(LIMITS.rejects_before_drop)))
        await enemy.gone()
        assert at.judged(b"bad") == LIMITS.rejects_before_drop
        at.inbox.verdict = Verdict.ACCEPT


async def test_a_failing_validator_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fails(data: bytes, source: PeerKey) -> Verdict:
        raise RuntimeError("a bug of ours")

    async with arena() as at, hostile(at.node) as enemy:
        at.node.subscribe("other", fails)
        await enemy.gossip(enemy.message(b"x", 1, "other"))
        await until(lambda: at.node.counters.handler_errors == 1)
        assert "validator" in caplog.text


async def test_a_message_sent_fifty_times_is_judged_once() -> None:
    async with arena() as at, hostile(at.node) as enemy, hostile(at.node, 67) as accomplice:
        message = enemy.message(b"replay", 1)
        await enemy.gossip(*[message] * 20)
        await accomplice.gossip(*[message] * 30)
        await until(lambda: at.node.counters.by_reason.get("duplicate", 0) >= 49)
        assert at.judged(b"replay") == 1


async def test_a_forgery_sent_first_does_not_suppress_the_real_message() -> None:
    async with arena() as at, hostile(at.node) as enemy:
        await enemy.gossip(_forged(enemy, 7))
        await until(lambda: at.node.counters.gossip_rejected == 1)
        await enemy.gossip(enemy.message(b"real", 7))
        await until(lambda: at.judged(b"real") == 1)


async def test_a_flood_is_read_slowly_and_honest_gossip_passes() -> None:
    async with arena() as at, hostile(at.node) as enemy, trio.open_nursery() as nursery:
        flood = [enemy.message(b"flood", n) for n in range(2_000)]
        started = trio.current_time()
        for first in range(0, len(flood), 100):
            nursery.start_soon(enemy.gossip, *flood[first : first + 100])
        await gossip_until(at.honest, at.inbox, b"in between")
        await until(lambda: at.judged(b"flood") >= LIMITS.gossip_burst)
        allowed = LIMITS.gossip_burst + LIMITS.gossip_rate * (trio.current_time() - started) + 1
        assert at.judged(b"flood") <= allowed
        nursery.cancel_scope.cancel()


async def test_a_burst_is_forwarded_whole() -> None:
    async with arena(replace(LIMITS, gossip_burst=400)) as at, hostile(at.node) as eager:
        await gossip_until(at.node, at.back, b"the mesh has formed")
        await eager.gossip(*(eager.message(b"burst %d" % n, n) for n in range(200)))
        await until(lambda: sum(data.startswith(b"burst") for data, _ in at.back.messages) == 200)


async def test_topics_a_peer_invents_are_not_remembered() -> None:
    async with arena() as at, hostile(at.node) as enemy:
        names = [f"invented-{n}" for n in range(500)]
        control = rpc_pb2.ControlMessage(
            ihave=[rpc_pb2.ControlIHave(topicID=name) for name in names],
            graft=[rpc_pb2.ControlGraft(topicID=name) for name in names],
            prune=[rpc_pb2.ControlPrune(topicID=name) for name in names],
        )
        subscriptions = [rpc_pb2.RPC.SubOpts(subscribe=True, topicid="s" * n) for n in range(100, 200)]
        stream = await enemy.stream("/meshsub/1.1.0")
        for part in (rpc_pb2.RPC(control=control), rpc_pb2.RPC(subscriptions=subscriptions)):
            payload = part.SerializeToString()
            await stream.send(encode_uvarint(len(payload)) + payload)
        await stream.send(rpc(enemy.message(b"after", 1)))
        await until(lambda: at.judged(b"after") == 1)
        assert not {"invented-0", "s" * 150} & _topics_remembered(at.node)


def _topics_remembered(wire: Wire) -> set[str]:
    gossip = wire.gossip  # type: ignore[attr-defined]  # what the libp2p wire is made of
    router = gossip.router
    kept = [gossip.pubsub.peer_topics, router.mesh, router.back_off]
    kept += [*router.graft_flood_tracking.values(), *router.ihave_message_limits.values()]
    return {topic for mapping in kept for topic in mapping}
