"""A Wire in memory: many nodes in one trio run, with links that cut, delay, repeat and reorder.

    net = MemoryNet(seed=7, delay_seconds=0.05)
    async with net.wire(alice) as a, net.wire(bob) as b: ...
    net.cut(alice, bob); net.heal(alice, bob)
    net.link(alice, bob).duplicate = 0.5

Every node is connected with every other, unless the link is cut; with `MemoryNet(mesh=6)` only those
that `net.join(a, b)` or an opened stream has brought together are, and a node passes gossip on to 6 of
them, which lets thousands of nodes live in one net. Gossip is flooded over the links as a
real mesh does, each hop asking the receiver's validator. All waiting is trio's, so the autojump clock
works; all chance comes from one seeded generator, so a run repeats.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import trio

from protocol.errors import MessageTooLarge, PeerUnreachable, QubixError
from protocol.paths import PathKind
from protocol.units import PeerKey
from qubixd.wire import (
    MAX_GOSSIP_BYTES,
    GossipValidator,
    Outside,
    SocketHandler,
    Stream,
    StreamHandler,
    Verdict,
    Wire,
    WireCounters,
)
from tests.support.memory_stream import Link, MemoryStream, Pipe

log = logging.getLogger(__name__)

_SILENCE_SECONDS: Final = 30.0
"""Pings of the real wire every 10 s, and 20 s without a byte."""


class MemoryWire:
    """One node's end of the net; see qubixd.wire.Wire."""

    def __init__(self, net: MemoryNet, key: PeerKey, nursery: trio.Nursery) -> None:
        self._net, self._key, self._nursery = net, key, nursery
        self._counters = WireCounters()
        self._handlers: dict[str, StreamHandler] = {}
        self._validators: dict[str, GossipValidator] = {}
        self._callbacks: list[Callable[[PeerKey], None]] = []
        self._seen: set[int] = set()
        self.outside = Outside()
        """What `observed` says; tests set it."""
        self.socket_handlers: dict[int, SocketHandler] = {}
        self.relays: dict[PeerKey, Sequence[str]] = {}
        self.met: dict[PeerKey, None] = {}
        """Who is connected, in a net with a mesh."""

    @property
    def peer_key(self) -> PeerKey:
        return self._key

    @property
    def addresses(self) -> tuple[str, ...]:
        ip = self._net.ips.get(self._key)
        relayed = (f"{way}/p2p-circuit/{self._key.hex()}" for ways in self.relays.values() for way in ways)
        return (f"/ip4/{ip}/tcp/4001" if ip else f"/memory/{self._key.hex()}", *relayed)

    @property
    def counters(self) -> WireCounters:
        return self._counters

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    def subscribe(self, topic: str, validator: GossipValidator) -> None:
        self._validators[topic] = validator

    def unsubscribe(self, topic: str) -> None:
        self._validators.pop(topic, None)

    async def round_trip(self, peer: PeerKey, addresses: Sequence[str] = ()) -> float:
        began = trio.current_time()
        await trio.sleep(2 * self._net.link(self._key, peer).delay_seconds)
        self._net.meet(self._key, peer)
        return trio.current_time() - began

    def remote_ip(self, peer: PeerKey) -> str | None:
        return self._net.ips.get(peer, "127.0.0.1") if self._net.joined(self._key, peer) else None

    def remote_address(self, peer: PeerKey) -> str | None:
        ip = self.remote_ip(peer)
        return f"{ip}:{self._net.ports.get(peer, 4001)}" if ip else None

    def path_of(self, peer: PeerKey) -> PathKind | None:
        if not self._net.joined(self._key, peer):
            return None
        return PathKind.RELAYED if self.relay_of(peer) else PathKind.WIRE

    def relay_of(self, peer: PeerKey) -> PeerKey | None:
        return self._net.relays.get(frozenset((self._key, peer)))

    def observed(self) -> Outside:
        return self.outside

    def dialled(self) -> tuple[tuple[str, int], ...]:
        return tuple((self.remote_ip(peer) or "", 4001) for peer in self.peers() if not self.relay_of(peer))

    def recheck(self) -> None:
        for peer in list(self._net.wires):
            if self._net.link(self._key, peer).is_dumb:
                self._net.cut(self._key, peer)

    def take_sockets(self, first: int, handler: SocketHandler) -> None:
        self.socket_handlers[first] = handler

    async def reaches(self, peer: PeerKey, port: int) -> bool:
        await trio.lowlevel.checkpoint()
        return (peer, port) in self._net.open_ports

    def be_reached_through(self, relays: Mapping[PeerKey, Sequence[str]]) -> None:
        self.relays = dict(relays)

    def on_peer(self, callback: Callable[[PeerKey], None]) -> None:
        self._callbacks.append(callback)

    def peers(self) -> tuple[PeerKey, ...]:
        known = self.met if self._net.mesh else self._net.wires
        return tuple(key for key in known if self._net.joined(self._key, key))

    async def open(self, peer: PeerKey, protocol: str, addresses: Sequence[str] = ()) -> Stream:
        await trio.sleep(2 * self._net.link(self._key, peer).delay_seconds)
        self._net.meet(self._key, peer)
        other = self._net.wires[peer]
        if protocol not in other._handlers:
            raise PeerUnreachable(f"peer {peer.hex()[:8]} does not speak {protocol}")
        mine, theirs = self._net.stream_pair(self._key, peer)
        other._nursery.start_soon(other._handle, protocol, theirs, self._key)
        return mine

    async def _handle(self, protocol: str, stream: MemoryStream, peer: PeerKey) -> None:
        self._counters.streams_in += 1
        try:
            await self._handlers[protocol](stream, peer)
            stream.finish()
        except* Exception as errors:
            if _expected(errors):
                log.debug("stream %s of %s: %r", protocol, peer.hex()[:8], errors.exceptions)
            else:
                self._counters.handler_errors += 1
                log.warning("handler %s failed for %s", protocol, peer.hex()[:8], exc_info=True)
        finally:
            stream.abort("the handler ended early")

    async def publish(self, topic: str, data: bytes) -> None:
        if len(data) > MAX_GOSSIP_BYTES:
            raise MessageTooLarge(f"a message of {len(data)} bytes; gossip takes {MAX_GOSSIP_BYTES}")
        await trio.lowlevel.checkpoint()
        number = next(self._net.message_numbers)
        self._seen.add(number)
        self._net.spread(self, topic, data, number)

    def deliver(self, topic: str, data: bytes, number: int, forwarder: PeerKey, again: bool) -> None:
        """A gossip message arrives; `again` passes the memory of what was seen."""
        validator = self._validators.get(topic)
        if validator is None or (number in self._seen and not again):
            return
        self._seen.add(number)
        self._counters.gossip_in += 1
        try:
            verdict = validator(data, forwarder)
        except Exception:
            self._counters.handler_errors += 1
            log.warning("the validator of %s failed", topic, exc_info=True)
            return
        self._counters.gossip_rejected += verdict is Verdict.REJECT
        self._counters.gossip_ignored += verdict is Verdict.IGNORE
        if verdict is Verdict.ACCEPT and not again:
            self._net.spread(self, topic, data, number)

    def listens_to(self, topic: str) -> bool:
        return topic in self._validators

    def greet(self, peer: PeerKey) -> None:
        """Tell the callbacks of a new connection."""
        for callback in self._callbacks:
            callback(peer)


class MemoryNet:
    """The links between all nodes; new links behave as the keywords say."""

    def __init__(
        self,
        *,
        seed: int = 0,
        delay_seconds: float = 0.0,
        duplicate: float = 0.0,
        reorder_seconds: float = 0.0,
        mesh: int = 0,
    ) -> None:
        self.mesh = mesh
        self.ips: dict[PeerKey, str] = {}
        """Where nodes seem to be; 127.0.0.1 if nothing is said."""
        self.ports: dict[PeerKey, int] = {}
        """From which port their connections seem to come; 4001 if nothing is said."""
        self.open_ports: set[tuple[PeerKey, int]] = set()
        """Where others reach them."""
        self.relays: dict[frozenset[PeerKey], PeerKey] = {}
        """Who carries the connection of two nodes."""
        self.random = random.Random(seed)
        self.wires: dict[PeerKey, MemoryWire] = {}
        self.message_numbers = itertools.count()
        self._default = Link(delay_seconds, duplicate, reorder_seconds)
        self._links: defaultdict[frozenset[PeerKey], Link] = defaultdict(lambda: replace(self._default))
        self._pipes: defaultdict[frozenset[PeerKey], list[Pipe]] = defaultdict(list)

    @asynccontextmanager
    async def wire(self, peer_key: PeerKey) -> AsyncIterator[Wire]:
        """A running node; leaving the block is its sudden death. An error of the block comes out as it
        is, as from `open_wire`."""
        assert peer_key not in self.wires, "this node is already running"
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            wire = self.wires[peer_key] = MemoryWire(self, peer_key, nursery)
            if not self.mesh:
                for other in self.wires:
                    nursery.start_soon(self._connect, peer_key, other)
            try:
                yield wire
            except Exception as error:
                failure = error
            finally:
                self._remove(peer_key)
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _remove(self, peer_key: PeerKey) -> None:
        met = self.wires.pop(peer_key).met
        for other in met:
            if other in self.wires:
                self.wires[other].met.pop(peer_key, None)
        partners = met if self.mesh else [key for pair in self._pipes if peer_key in pair for key in pair]
        for other in partners:
            self._break_streams(frozenset((peer_key, other)), "the peer is gone")

    def link(self, a: PeerKey, b: PeerKey) -> Link:
        """The link between two nodes, the same both ways."""
        return self._links[frozenset((a, b))]

    def cut(self, a: PeerKey, b: PeerKey) -> None:
        """Break all streams between two nodes and refuse new ones."""
        self.link(a, b).is_cut = True
        self._break_streams(frozenset((a, b)), "the connection is gone")

    def pull_cable(self, a: PeerKey) -> None:
        """Nothing from or to this node arrives; both ends notice when their pings stay without an answer."""
        for b in self.wires:
            if a != b:
                self.link(a, b).is_cut = self.link(a, b).is_dumb = True
                self.wires[a]._nursery.start_soon(self._notice_silence, a, b)

    async def _notice_silence(self, a: PeerKey, b: PeerKey) -> None:
        await trio.sleep(_SILENCE_SECONDS)
        if self.link(a, b).is_cut:
            self._break_streams(frozenset((a, b)), "the peer has fallen silent")

    def heal(self, a: PeerKey, b: PeerKey) -> None:
        """Let two nodes find each other again."""
        self.link(a, b).is_cut = self.link(a, b).is_dumb = False
        if a in self.wires and b in self.wires:
            self.wires[a]._nursery.start_soon(self._connect, a, b)

    def meet(self, a: PeerKey, b: PeerKey) -> None:
        """Node `a` dials node `b`, if they have no connection yet; PeerUnreachable."""
        if not self.joined(a, b):
            self.wires[a].counters.dials_failed += 1
            raise PeerUnreachable(f"peer {b.hex()[:8]} does not answer")
        if self.mesh and b not in self.wires[a].met:
            self.join(a, b)

    def join(self, a: PeerKey, b: PeerKey) -> None:
        """Bring two nodes of a net with a mesh together."""
        self.wires[a].met[b] = self.wires[b].met[a] = None
        self.wires[a]._nursery.start_soon(self._connect, a, b)

    def joined(self, a: PeerKey, b: PeerKey) -> bool:
        """Whether two nodes have, or at once can have, a connection."""
        return a != b and a in self.wires and b in self.wires and not self.link(a, b).is_cut

    async def _connect(self, a: PeerKey, b: PeerKey) -> None:
        await trio.sleep(self.link(a, b).delay_seconds)
        if self.joined(a, b):
            self.wires[a].greet(b)
            self.wires[b].greet(a)

    def stream_pair(self, a: PeerKey, b: PeerKey) -> tuple[MemoryStream, MemoryStream]:
        """The two ends of a new stream."""
        pair = frozenset((a, b))
        there, back = Pipe(self.link(a, b)), Pipe(self.link(a, b))
        self._pipes[pair] = [pipe for pipe in self._pipes[pair] if not pipe.broken] + [there, back]
        return MemoryStream(there, back), MemoryStream(back, there)

    def _break_streams(self, pair: frozenset[PeerKey], reason: str) -> None:
        for pipe in self._pipes.pop(pair, []):
            pipe.cut(reason)

    def spread(self, sender: MemoryWire, topic: str, data: bytes, number: int) -> None:
        """Send a gossip message over every link of a node."""
        targets = [key for key in sender.peers() if self.wires[key].listens_to(topic)]
        if self.mesh and len(targets) > self.mesh:
            targets = self.random.sample(targets, self.mesh)
        for key in targets:
            link = self.link(sender.peer_key, key)
            copies = 2 if self.random.random() < link.duplicate else 1
            for copy in range(copies):
                wait = link.delay_seconds + self.random.uniform(0, link.reorder_seconds)
                self.wires[key]._nursery.start_soon(
                    self._arrive, wait, sender.peer_key, key, topic, data, number, copy > 0
                )

    async def _arrive(
        self, wait: float, source: PeerKey, target: PeerKey, topic: str, data: bytes, number: int, again: bool
    ) -> None:
        await trio.sleep(wait)
        if self.joined(source, target):
            self.wires[target].deliver(topic, data, number, source, again)


def _expected(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_expected(inner) for inner in error.exceptions)
    return isinstance(error, QubixError | trio.BrokenResourceError)
