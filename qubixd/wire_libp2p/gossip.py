"""Gossip: what is published, what is believed, who is punished.

A message is judged in one go, without a pause between looking and marking: size, topic, author's key,
seen before, signature, and then the topic's own validator. Only what passed the signature is marked as
seen, so nobody can suppress a message by sending a forgery first.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import signature_validator

from protocol.errors import MessageInvalid, MessageTooLarge
from qubixd.wire import MAX_GOSSIP_BYTES, GossipValidator, Verdict, WireCounters
from qubixd.wire_libp2p.identity import key_of
from qubixd.wire_libp2p.limits import Limits
from qubixd.wire_libp2p.patches import MAX_RPC_BYTES, GuardedPubsub, Router
from qubixd.wire_libp2p.yamux_stream import YamuxStream

log = logging.getLogger(__name__)

MESHSUB: Final = TProtocol("/meshsub/1.1.0")
_VARINT_BYTES: Final = 3
"""Enough for MAX_RPC_BYTES."""
_SEEN_SECONDS: Final = 600.0
_SEEN_MAX: Final = 100_000


class Seen:
    """Message ids of the last ten minutes, bounded."""

    def __init__(self) -> None:
        self._ids: OrderedDict[bytes, float] = OrderedDict()

    def has(self, message_id: bytes) -> bool:
        return message_id in self._ids

    def add(self, message_id: bytes) -> bool:
        """True if it is new."""
        now = trio.current_time()
        while self._ids and (
            len(self._ids) >= _SEEN_MAX or now - next(iter(self._ids.values())) > _SEEN_SECONDS
        ):
            self._ids.popitem(last=False)
        new = message_id not in self._ids
        self._ids.setdefault(message_id, now)
        return new


class TokenBucket:
    """`rate` a second, `burst` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, float(burst)
        self._tokens, self._at = float(burst), trio.current_time()

    async def take(self) -> None:
        """Wait for one token."""
        now = trio.current_time()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - 1
        self._at = now
        if self._tokens < 0:
            await trio.sleep(-self._tokens / self._rate)


class Gossip:
    """The node's side of gossipsub. `punish` is told of every rejected message."""

    def __init__(
        self,
        host: BasicHost,
        limits: Limits,
        counters: WireCounters,
        punish: Callable[[ID, str], None],
    ) -> None:
        self._limits, self._counters, self._punish = limits, counters, punish
        self._validators: dict[str, GossipValidator] = {}
        self._buckets: dict[ID, TokenBucket] = {}
        self._telling = trio.Lock()
        self._seen = Seen()
        self.router = Router(
            [MESHSUB],
            degree=6,
            degree_low=4,
            degree_high=12,
            heartbeat_interval=1,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            max_pending_messages_per_peer=16,
        )
        self.router.on_drop = lambda: self._count("no room in a peer's queue")
        self.pubsub = GuardedPubsub(host, self.router, strict_signing=True)
        self._configure(self.pubsub)

    def _configure(self, pubsub: GuardedPubsub) -> None:
        pubsub.seen_messages.stop()
        pubsub.seen_messages = self._seen  # type: ignore[assignment]  # has what libp2p uses of it
        pubsub.counter = time.time_ns()
        pubsub.judge = self._judge
        pubsub.wait_turn = self._wait_turn
        pubsub.read_frames = read_frames

    def subscribe(self, topic: str, validator: GossipValidator) -> None:
        """Join from now on; peers learn of it in the background."""
        self._validators[topic] = validator
        self._tell_soon(topic)

    def unsubscribe(self, topic: str) -> None:
        """Leave from now on; peers learn of it in the background."""
        if self._validators.pop(topic, None) is not None:
            self._tell_soon(topic)

    def _tell_soon(self, topic: str) -> None:
        with suppress(RuntimeError):  # the wire is closing and takes no new tasks
            self.pubsub.manager.run_task(self._tell, topic)

    async def _tell(self, topic: str) -> None:
        """One change at a time, and always towards what is wanted by now."""
        async with self._telling:
            try:
                if topic in self._validators and topic not in self.pubsub.topic_ids:
                    await self.pubsub.subscribe(topic)
                elif topic not in self._validators:
                    await self.pubsub.unsubscribe(topic)
            except OSError as error:  # the same: its listener is closed already
                log.debug("nobody is told of topic %s any more: %s", topic, error)

    async def publish(self, topic: str, data: bytes) -> None:
        if len(data) > MAX_GOSSIP_BYTES:
            raise MessageTooLarge(f"a message of {len(data)} bytes; gossip takes {MAX_GOSSIP_BYTES}")
        await self.pubsub.publish(topic, data)
        await trio.lowlevel.checkpoint()  # a burst of our own must not fill the queues before they drain

    def forget(self, peer: ID) -> None:
        """The peer is gone."""
        self._buckets.pop(peer, None)

    async def _wait_turn(self, peer: ID) -> None:
        bucket = self._buckets.get(peer)
        if bucket is None:
            bucket = self._buckets[peer] = TokenBucket(self._limits.gossip_rate, self._limits.gossip_burst)
        await bucket.take()

    def _judge(self, forwarder: ID, message: rpc_pb2.Message) -> bool:
        """True: forward it. The validator runs at most once per message."""
        validator = self._validators.get(message.topicIDs[0]) if len(message.topicIDs) == 1 else None
        if len(message.data) > MAX_GOSSIP_BYTES:
            return self._reject(forwarder, "a message too large")
        if validator is None:
            return self._ignore("unknown topic")
        if len(message.seqno) > 8 or key_of(ID(message.from_id)) is None:
            return self._reject(forwarder, "an author without a key")
        if self._seen.has(message.from_id + message.seqno):
            return self._ignore("duplicate")
        if message.from_id == self.pubsub.my_id.to_bytes():
            return self._ignore("our own message, from before a restart")
        if not _signed(message):
            return self._reject(forwarder, "a bad signature")
        self._seen.add(message.from_id + message.seqno)
        return self._ask(validator, forwarder, message)

    def _ask(self, validator: GossipValidator, forwarder: ID, message: rpc_pb2.Message) -> bool:
        key = key_of(forwarder)
        assert key is not None, "only Ed25519 peers have connections"
        self._counters.gossip_in += 1
        try:
            verdict = validator(message.data, key)
        except Exception:
            log.warning("the validator of %s failed", message.topicIDs[0], exc_info=True)
            self._counters.handler_errors += 1
            return False
        if verdict is Verdict.REJECT:
            return self._reject(forwarder, "an invalid message")
        return verdict is Verdict.ACCEPT or self._ignore("ignored")

    def _reject(self, forwarder: ID, reason: str) -> bool:
        self._counters.gossip_rejected += 1
        self._punish(forwarder, reason)
        return False

    def _ignore(self, reason: str) -> bool:
        self._counters.gossip_ignored += 1
        self._count(reason)
        return False

    def _count(self, reason: str) -> None:
        self._counters.by_reason[reason] = self._counters.by_reason.get(reason, 0) + 1


def _signed(message: rpc_pb2.Message) -> bool:
    """libp2p's check; a malformed key or signature is a wrong one."""
    try:
        return signature_validator(message)
    except Exception:
        return False


async def read_frames(stream: INetStream) -> AsyncIterator[bytes]:
    """The varint-prefixed messages of a pubsub stream until its end; MessageInvalid on anything else."""
    assert isinstance(stream, NetStream)
    inner = stream.muxed_stream
    assert isinstance(inner, YamuxStream)
    buffer = bytearray()
    while True:
        while (cut := _first_frame(buffer)) is not None:
            start, end = cut
            payload = bytes(buffer[start:end])
            del buffer[:end]
            yield payload
        chunk = await inner.receive(MAX_RPC_BYTES)
        if not chunk:
            return
        buffer += chunk


def _first_frame(buffer: bytearray) -> tuple[int, int] | None:
    """Where the first whole message lies, or None; MessageInvalid if it announces too much."""
    size = 0
    for index, byte in enumerate(buffer[:_VARINT_BYTES]):
        size |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            if size > MAX_RPC_BYTES:
                raise MessageInvalid(f"a gossip message of {size} bytes was announced")
            end = index + 1 + size
            return (index + 1, end) if len(buffer) >= end else None
    if len(buffer) >= _VARINT_BYTES:
        raise MessageInvalid("a gossip message without a sensible length")
    return None
