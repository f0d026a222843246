"""The rest of a market around one real node: peers that cost next to nothing but say what real ones say.

Each peer is a real connection (TCP, Noise, Yamux) with its own key and address. Neighbours take part in
gossip: they subscribe to all topics, graft the node into their meshes, hand it what the market publishes
and throw away what it forwards. Providers keep a stream of heartbeats. Signatures are real everywhere.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.io.exceptions import IOException
from libp2p.pubsub.pb import rpc_pb2
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from libp2p.utils.varint import encode_uvarint

from protocol import messages
from protocol.messages import SIGHTING_BYTES, Ack, Directory, GetOffers, Heartbeat, Liveness
from protocol.signing import NodeKey
from protocol.units import UnixMs
from qubixd.wire import FRAME_HEADER_BYTES
from qubixd.wire_libp2p.yamux_stream import YamuxStream
from tests.support.market_child import (
    CONTRACT_INDEX,
    NETWORK,
    Child,
    all_topics,
    key_of,
    now_ms,
    offer_of,
    seed_of,
    topic_of,
)
from tests.support.wire_nodes import Hostile, hostile_with, rpc, selection, signed

HEARTBEATS_PER_PROVIDER: Final = 3
PROVIDERS_PER_DIRECTORY: Final = 300
NEIGHBOURS: Final = 6
COPIES: Final = 2
"""How many neighbours bring a node each message, in a mesh of six."""
LIFE_S: Final = 2_520.0
"""A settled provider renews its offer at 60 to 80 % of an hour."""
CHANGES_PER_S: Final = 1 / 10_800
"""And it changes as often: a lease begins or ends there every three hours."""
REPORT_S: Final = 29.0
RECORD_S: Final = 630.0
FOLLOWERS: Final = 20


@dataclass
class Crowd:
    """A market of `providers`, of whom the first few hundred are here with a connection."""

    node: Child
    providers: int
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    neighbours: list[tuple[Hostile, YamuxStream]] = field(default_factory=list)
    said: int = 0
    """Gossip messages handed to the node."""
    _number: int = 0

    @property
    def directories(self) -> int:
        return math.ceil(self.providers * HEARTBEATS_PER_PROVIDER / PROVIDERS_PER_DIRECTORY)

    @property
    def rates(self) -> dict[str, float]:
        """Gossip messages a second in the whole market."""
        return {
            "offers": self.providers * (1 / LIFE_S + CHANGES_PER_S),
            "liveness": self.directories / REPORT_S,
            "records": self.directories / RECORD_S,
        }

    async def say(self, topic: str, data: bytes) -> None:
        """Some author in the market publishes; a few neighbours bring it here."""
        self._number += 1
        author = self.neighbours[self._number % len(self.neighbours)][0]
        message = signed(author.keys, data, now_ms() * 1_000_000 + self._number, topic)
        self.said += 1
        for neighbour, stream in self.chance.sample(self.neighbours, min(COPIES, len(self.neighbours))):
            del neighbour
            await stream.send(rpc(message))

    async def offers(self) -> None:
        """One after the other publishes its offer again."""
        for at in self._moments(self.rates["offers"]):
            await trio.sleep_until(at)
            number = self.chance.randrange(PROVIDERS_PER_DIRECTORY, self.providers)  # not one of those here
            offer = offer_of(number, now_ms())
            await self.say(topic_of(offer), key_of(number).sign(offer))

    async def liveness(self) -> None:
        """The other directories report whom they heard."""
        ages = bytes(range(30))
        for turn, at in enumerate(self._moments(self.rates["liveness"])):
            await trio.sleep_until(at)
            directory = turn % self.directories
            first = directory * PROVIDERS_PER_DIRECTORY
            heard = (key_of((first + n) % self.providers).public[:8] for n in range(PROVIDERS_PER_DIRECTORY))
            alive = b"".join(key + ages[n % 30 : n % 30 + 1] for n, key in enumerate(heard))
            assert len(alive) == PROVIDERS_PER_DIRECTORY * SIGHTING_BYTES
            key = NodeKey(seed_of("directory", directory))
            await self.say("/qubix/liveness/1", key.sign(Liveness(now_ms(), alive)))

    async def records(self) -> None:
        """The other directories say that they are there."""
        for turn, at in enumerate(self._moments(self.rates["records"])):
            await trio.sleep_until(at)
            await self.record(turn % self.directories)

    async def record(self, directory: int) -> None:
        now = now_ms()
        address = f"/ip4/10.{directory // 250 % 250}.{directory % 250}.1/tcp/4001"
        said = Directory(now, now, UnixMs(now + 1_800_000), False, NETWORK, CONTRACT_INDEX, "", 9, (address,))
        await self.say("/qubix/directories/1", NodeKey(seed_of("directory", directory)).sign(said))

    def _moments(self, rate: float) -> Iterator[float]:
        at = trio.current_time() + self.chance.random() / rate
        while True:
            yield at
            at += self.chance.expovariate(rate)


@asynccontextmanager
async def crowd(node: Child, providers: int, heartbeats: int, followers: int) -> AsyncIterator[Crowd]:
    """A market of that size around a node; leaves when the block ends."""
    made = Crowd(node, providers)
    async with trio.open_nursery() as nursery:
        for number in range(NEIGHBOURS):
            neighbour = await nursery.start(_peer, node, seed_of("neighbour", number), number)
            made.neighbours.append((neighbour, await _join(neighbour)))
        for number in range(heartbeats):
            peer = await nursery.start(_peer, node, seed_of("provider", number), 10 + number)
            await nursery.start(_beat, peer, number)
        for number in range(followers):
            peer = await nursery.start(_peer, node, seed_of("follower", number), 1_000 + number)
            nursery.start_soon(_follow, peer)
        yield made
        nursery.cancel_scope.cancel()


async def speak(made: Crowd, nursery: trio.Nursery) -> None:
    """Let the market talk, until the nursery is cancelled."""
    for part in (made.offers, made.liveness, made.records):
        nursery.start_soon(part)


async def _peer(node: Child, seed: bytes, place: int, task_status: trio.TaskStatus[Hostile]) -> None:
    """One connection, from an address of its own."""
    source = f"127.{1 + place % 250}.{1 + place // 250}.1"
    async with hostile_with(node, create_new_key_pair(seed), source) as peer:
        task_status.started(peer)
        with trio.move_on_after(math.inf):
            await _take_streams(peer)


async def _take_streams(peer: Hostile) -> None:
    """Let the node open what it likes: agree to gossip and read it, decline everything else."""
    async with trio.open_nursery() as nursery:
        while True:
            try:
                stream = await peer.muxed.accept_stream()
            except MuxedConnError:
                return
            assert isinstance(stream, YamuxStream)
            nursery.start_soon(_agree, stream)


async def _agree(stream: YamuxStream) -> None:
    wanted = selection("/multistream/1.0.0") + selection("/meshsub/1.1.0")
    heard = b""
    try:
        while len(heard) < len(wanted) and (chunk := await stream.receive(4_096)):
            heard += chunk
        if not heard.startswith(wanted):
            await stream.send(selection("/multistream/1.0.0") + selection("na"))
            await stream.close()
            return
        await stream.send(wanted)
        while await stream.receive(65_536):
            pass
    except (IOException, MuxedConnError, MuxedStreamError):
        return


async def _join(neighbour: Hostile) -> YamuxStream:
    """A pubsub stream on which all topics are subscribed and grafted."""
    stream = await neighbour.stream("/meshsub/1.1.0")
    part = rpc_pb2.RPC(
        subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=topic) for topic in all_topics()],
        control=rpc_pb2.ControlMessage(graft=[rpc_pb2.ControlGraft(topicID=topic) for topic in all_topics()]),
    ).SerializeToString()
    await stream.send(encode_uvarint(len(part)) + part)
    return stream


async def _beat(
    peer: Hostile, number: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    stream = await peer.stream("/qubix/heartbeat/1")
    at = now_ms()
    await stream.send(_frame(key_of(number).sign(offer_of(number, at))))
    answer = await stream.receive(1_024)
    assert messages.decode(answer[FRAME_HEADER_BYTES:]) == Ack()
    task_status.started()
    await trio.sleep(random.Random(number).random() * REPORT_S)
    while True:
        await stream.send(_frame(messages.encode(Heartbeat(at))))
        await trio.sleep(REPORT_S)


async def _follow(peer: Hostile) -> None:
    stream = await peer.stream("/qubix/book/1")
    await stream.send(_frame(messages.encode(GetOffers((), b"", 0, 100_000, follow=True))))
    while await stream.receive(262_144):
        pass


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(FRAME_HEADER_BYTES, "big") + body
