"""A Wire in memory: many nodes in one trio run, with links that cut, delay, repeat and reorder.

    net = MemoryNet(seed=7, delay_seconds=0.05)
    async with net.wire(alice) as a, net.wire(bob) as b: ...
    net.cut(alice, bob); net.heal(alice, bob)
    net.link(alice, bob).duplicate = 0.5

Every node is connected with every other, unless the link is cut. Gossip is flooded over the links as a
real mesh does, each hop asking the receiver's validator. All waiting is trio's, so the autojump clock
works; all chance comes from one seeded generator, so a run repeats.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Final

import trio

from protocol.errors import MessageTooLarge, PeerUnreachable, QubixError
from protocol.units import PeerKey
from qubixd.wire import (
    MAX_GOSSIP_BYTES,
    GossipValidator,
    Stream,
    StreamCut,
    StreamHandler,
    Verdict,
    Wire,
    WireCounters,
)

log = logging.getLogger(__name__)

_PIPE_BYTES: Final = 256 * 1024
"""Sent and not yet read, as in the real wire's window."""


@dataclass
class Link:
    """How the path between two nodes behaves; change the fields at any time."""

    delay_seconds: float = 0.0
    duplicate: float = 0.0
    """Chance that a gossip message is seen by the validator twice, as after the real wire forgot it."""
    reorder_seconds: float = 0.0
    """Gossip is delayed by up to this much more, each message on its own."""
    is_cut: bool = False


class _Pipe:
    """One direction of a stream."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.chunks: deque[tuple[float, bytes]] = deque()
        """(when it may be read, bytes); b"" is the end."""
        self.size = 0
        self.broken: str | None = None
        self.changed = trio.lowlevel.ParkingLot()

    def put(self, data: bytes) -> None:
        self.chunks.append((trio.current_time() + self.link.delay_seconds, data))
        self.size += len(data)
        self.changed.unpark_all()

    def cut(self, reason: str) -> None:
        self.broken = self.broken or reason
        self.changed.unpark_all()

    async def wait_readable(self) -> None:
        while not self.broken:
            if not self.chunks:
                await self.changed.park()
            elif self.chunks[0][0] > trio.current_time():
                with trio.move_on_at(self.chunks[0][0]):
                    await self.changed.park()
            else:
                return

    def take(self, most: int) -> bytes:
        """From the head chunk; the end stays there to be read again."""
        at, data = self.chunks[0]
        if data:
            self.chunks.popleft()
            if len(data) > most:
                self.chunks.appendleft((at, data[most:]))
        self.size -= len(data[:most])
        self.changed.unpark_all()
        return data[:most]


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end; `aclose` without `send_eof` resets the other end."""

    def __init__(self, outgoing: _Pipe, incoming: _Pipe) -> None:
        self._out, self._in = outgoing, incoming
        self._closed = self._eof_sent = False
        self._busy: set[str] = set()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if what in self._busy:
            raise trio.BusyResourceError(f"another task is {what} on this stream")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            self._check_writable()
            rest = bytes(data)
            while rest:
                while (room := _PIPE_BYTES - self._out.size) <= 0 and not self._out.broken:
                    await self._out.changed.park()
                self._check_writable()
                self._out.put(rest[:room])
                rest = rest[room:]

    def _check_writable(self) -> None:
        if self._closed or self._eof_sent:
            raise trio.ClosedResourceError("this side of the stream is closed")
        self._check_broken(self._out)

    def _check_broken(self, pipe: _Pipe) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the stream is closed")
        if pipe.broken:
            raise StreamCut(f"the stream to the peer broke: {pipe.broken}")

    async def wait_send_all_might_not_block(self) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            while self._out.size >= _PIPE_BYTES and not (self._closed or self._out.broken):
                await self._out.changed.park()

    async def send_eof(self) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("the stream is closed")
            if not self._eof_sent:
                self._eof_sent = True
                self._out.put(b"")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._alone("receiving"):
            await trio.lowlevel.checkpoint()
            self._check_broken(self._in)
            await self._in.wait_readable()
            self._check_broken(self._in)
            return self._in.take(max_bytes or 65_536)

    async def aclose(self) -> None:
        self.finish() if self._eof_sent else self.abort("the peer reset the stream")
        await trio.lowlevel.checkpoint()

    def finish(self) -> None:
        """Close in good order: what was sent still arrives."""
        if not (self._eof_sent or self._closed):
            self._out.put(b"")
        self._eof_sent = self._closed = True
        self._in.changed.unpark_all()
        self._out.changed.unpark_all()

    def abort(self, reason: str) -> None:
        """Reset both directions; nothing happens to a stream that is finished."""
        if not self._closed:
            self._closed = True
            self._out.cut(reason)
            self._in.cut(reason)


class MemoryWire:
    """One node's end of the net; see qubixd.wire.Wire."""

    def __init__(self, net: MemoryNet, key: PeerKey, nursery: trio.Nursery) -> None:
        self._net, self._key, self._nursery = net, key, nursery
        self._counters = WireCounters()
        self._handlers: dict[str, StreamHandler] = {}
        self._validators: dict[str, GossipValidator] = {}
        self._callbacks: list[Callable[[PeerKey], None]] = []
        self._seen: set[int] = set()

    @property
    def peer_key(self) -> PeerKey:
        return self._key

    @property
    def addresses(self) -> tuple[str, ...]:
        return (f"/memory/{self._key.hex()}",)

    @property
    def counters(self) -> WireCounters:
        return self._counters

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    def subscribe(self, topic: str, validator: GossipValidator) -> None:
        self._validators[topic] = validator

    def on_peer(self, callback: Callable[[PeerKey], None]) -> None:
        self._callbacks.append(callback)

    def peers(self) -> tuple[PeerKey, ...]:
        return tuple(key for key in self._net.wires if self._net.joined(self._key, key))

    async def open(self, peer: PeerKey, protocol: str, addresses: Sequence[str] = ()) -> Stream:
        await trio.sleep(2 * self._net.link(self._key, peer).delay_seconds)
        if not self._net.joined(self._key, peer):
            self._counters.dials_failed += 1
            raise PeerUnreachable(f"peer {peer.hex()[:8]} does not answer")
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
    ) -> None:
        self.random = random.Random(seed)
        self.wires: dict[PeerKey, MemoryWire] = {}
        self.message_numbers = itertools.count()
        self._default = Link(delay_seconds, duplicate, reorder_seconds)
        self._links: defaultdict[frozenset[PeerKey], Link] = defaultdict(lambda: replace(self._default))
        self._pipes: defaultdict[frozenset[PeerKey], list[_Pipe]] = defaultdict(list)

    @asynccontextmanager
    async def wire(self, peer_key: PeerKey) -> AsyncIterator[Wire]:
        """A running node; leaving the block is its sudden death. An error of the block comes out as it
        is, as from `open_wire`."""
        assert peer_key not in self.wires, "this node is already running"
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            wire = self.wires[peer_key] = MemoryWire(self, peer_key, nursery)
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
        del self.wires[peer_key]
        for pair in [pair for pair in self._pipes if peer_key in pair]:
            self._break_streams(pair, "the peer is gone")

    def link(self, a: PeerKey, b: PeerKey) -> Link:
        """The link between two nodes, the same both ways."""
        return self._links[frozenset((a, b))]

    def cut(self, a: PeerKey, b: PeerKey) -> None:
        """Break all streams between two nodes and refuse new ones."""
        self.link(a, b).is_cut = True
        self._break_streams(frozenset((a, b)), "the connection is gone")

    def heal(self, a: PeerKey, b: PeerKey) -> None:
        """Let two nodes find each other again."""
        self.link(a, b).is_cut = False
        if a in self.wires and b in self.wires:
            self.wires[a]._nursery.start_soon(self._connect, a, b)

    def joined(self, a: PeerKey, b: PeerKey) -> bool:
        """Whether two nodes have a connection."""
        return a != b and a in self.wires and b in self.wires and not self.link(a, b).is_cut

    async def _connect(self, a: PeerKey, b: PeerKey) -> None:
        await trio.sleep(self.link(a, b).delay_seconds)
        if self.joined(a, b):
            self.wires[a].greet(b)
            self.wires[b].greet(a)

    def stream_pair(self, a: PeerKey, b: PeerKey) -> tuple[MemoryStream, MemoryStream]:
        """The two ends of a new stream."""
        pair = frozenset((a, b))
        there, back = _Pipe(self.link(a, b)), _Pipe(self.link(a, b))
        self._pipes[pair] = [pipe for pipe in self._pipes[pair] if not pipe.broken] + [there, back]
        return MemoryStream(there, back), MemoryStream(back, there)

    def _break_streams(self, pair: frozenset[PeerKey], reason: str) -> None:
        for pipe in self._pipes.pop(pair, []):
            pipe.cut(reason)

    def spread(self, sender: MemoryWire, topic: str, data: bytes, number: int) -> None:
        """Send a gossip message over every link of a node."""
        for key in sender.peers():
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
