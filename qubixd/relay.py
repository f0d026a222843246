"""A node that opts in (`--relay`) joins nodes that cannot reach each other.

Who wants to be reached keeps a stream of `/qubix/relay/1` open: that is its place here. Who wants to reach it
asks on another such stream to be joined; the relay opens `/qubix/relayed/1` to the target and passes bytes
both ways. The two make a connection of their own over them, with their own keys, so the relay can read
nothing and change nothing; it can count, slow down and cut. Nobody is reached through it who has not asked
for a place, and nobody is dialled.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import trio

from protocol.errors import (
    AskedTooOften,
    MessageInvalid,
    QubixError,
    RelayFull,
    RelayRefused,
    RelayTargetAway,
    StreamBroken,
)
from protocol.messages import Ack
from protocol.paths import PathKind
from protocol.relay_messages import Connect, Incoming, Reserve, Reserved
from protocol.units import PeerKey, Qu, Seconds, UnixMs
from qubixd.places import Buckets, one_line
from qubixd.relay_account import Accounts, Allowance
from qubixd.talk import patience, receive_bare, refusal_of, send_bare
from qubixd.wire import Stream, Wire

log = logging.getLogger("qubix.relay")

RELAY_PROTOCOL: Final = "/qubix/relay/1"
RELAYED_PROTOCOL: Final = "/qubix/relayed/1"
ASK_SECONDS: Final = 10.0
_CHUNK: Final = 65_536
_QUESTIONS: Final = (0.5, 30.0)
"""Of one peer, a second and at once."""


@dataclass(frozen=True)
class RelayLimits:
    """How many may use a relay at a time."""

    places: int = 256
    places_per_ip: int = 16
    joined: int = 128
    joined_per_peer: int = 32
    joined_per_ip: int = 64
    joined_per_pair: int = 4
    """Two nodes need one connection, or for a moment two; more would take up handshakes at the target."""
    life_seconds: int = 3_600
    """Of a place, unless it is asked for again."""
    idle_seconds: float = 120.0
    """A direction of a joined stream in which nothing moves for so long ends both; the two ends ping each
    other far more often."""


@dataclass
class _Place:
    ip: str
    scope: trio.CancelScope


class Relay:
    """Serves `/qubix/relay/1` on a wire from its making on. `rented` says whether a peer's traffic is paid
    for now; it and `price_qu_per_hour` may be set at any time. The price of 0: it cannot be rented."""

    def __init__(
        self,
        wire: Wire,
        now_ms: Callable[[], UnixMs],
        allowance: Allowance | None = None,
        limits: RelayLimits | None = None,
    ) -> None:
        self._wire, self._limits = wire, limits or RelayLimits()
        self.rented: Callable[[PeerKey], bool] = lambda peer: False
        self.price_qu_per_hour = Qu(0)
        self._accounts = Accounts(allowance or Allowance(), now_ms)
        self._places: dict[PeerKey, _Place] = {}
        self._joined: Counter[PeerKey | str | tuple[PeerKey, PeerKey]] = Counter()
        self._joins = 0
        self._questions = Buckets(*_QUESTIONS)
        wire.serve(RELAY_PROTOCOL, self._answer)

    def carried(self, peer: PeerKey) -> tuple[int, int]:
        """Bytes received from and sent to a peer through joined streams since the relay began."""
        return self._accounts.carried(peer)

    @property
    def places(self) -> tuple[PeerKey, ...]:
        """Who can be reached through this node now."""
        return tuple(self._places)

    @property
    def joins(self) -> int:
        """How many streams are joined now."""
        return self._joins

    async def _answer(self, stream: Stream, peer: PeerKey) -> None:
        question = await receive_bare(stream, object, seconds=ASK_SECONDS)
        try:
            ip = self._admit(peer)
            if isinstance(question, Reserve):
                await self._reserve(stream, peer, ip, question)
            elif isinstance(question, Connect):
                await self._connect(stream, peer, ip, question.target)
            else:
                raise MessageInvalid("a relay is asked for a place or to be joined with somebody")
        except _Over:
            raise
        except QubixError as error:
            log.debug("refused %s of %s: %s", type(question).__name__, peer.hex()[:16], error)
            await send_bare(stream, refusal_of(error))

    def _admit(self, peer: PeerKey) -> str:
        """Where an asker that may ask comes from."""
        ip = self._wire.remote_ip(peer)
        if ip is None or self._wire.path_of(peer) is not PathKind.WIRE:
            raise RelayRefused("a relay serves only those that are connected to it directly")
        if not self._questions.take(peer):
            raise AskedTooOften("you have asked this relay too often; wait a minute")
        return one_line(ip)

    # Places

    async def _reserve(self, stream: Stream, peer: PeerKey, ip: str, question: Reserve) -> None:
        if question.ask_only:
            await send_bare(stream, self._granted(peer))
            return
        self._check_room(peer, ip)
        if (old := self._places.pop(peer, None)) is not None:
            old.scope.cancel()
        with trio.CancelScope() as scope:
            place = self._places[peer] = _Place(ip, scope)
            try:
                await self._keep(stream, peer)
            finally:
                if self._places.get(peer) is place:
                    del self._places[peer]

    async def _keep(self, stream: Stream, peer: PeerKey) -> None:
        """Until the stream ends, or nobody asks for a further life. Whatever it is, it is no answer."""
        try:
            while True:
                await send_bare(stream, self._granted(peer))
                await receive_bare(stream, Reserve, seconds=self._limits.life_seconds)
                if not self._questions.take(peer):
                    raise AskedTooOften("a place was asked for again and again")
        except QubixError as error:
            raise _Over(str(error)) from error

    def _check_room(self, peer: PeerKey, ip: str) -> None:
        others = [place for key, place in self._places.items() if key != peer]
        near = sum(place.ip == ip for place in others)
        if len(others) >= self._limits.places or near >= self._limits.places_per_ip:
            raise RelayFull("all places of this relay, or those for your address, are taken")

    def _granted(self, peer: PeerKey) -> Reserved:
        allowance = self._accounts.allowance
        granted = Reserved(
            observed=self._wire.remote_address(peer) or "",
            free_bytes=allowance.free_bytes,
            bytes_per_second=allowance.bytes_per_second,
            price_qu_per_hour=self.price_qu_per_hour,
            life_seconds=Seconds(self._limits.life_seconds),
            used_bytes=self._accounts.used(peer),
            addresses=tuple(text for text in self._wire.addresses if "/p2p-circuit" not in text),
        )
        return replace(granted, bytes_per_second=0) if self.rented(peer) else granted

    # Joined streams

    async def _connect(self, stream: Stream, peer: PeerKey, ip: str, target: PeerKey) -> None:
        place = self._check_target(peer, target)
        if not (self.rented(peer) or self.rented(target)):
            self._accounts.check(peer, ip)
            self._accounts.check(target, place.ip)
        with self._one_more(peer, ip, target):
            async with await self._wire.open(target, RELAYED_PROTOCOL) as other:
                await send_bare(other, Incoming(peer))
                await receive_bare(other, Ack, seconds=ASK_SECONDS)
                await send_bare(stream, Ack())
                await self._join((peer, ip, stream), (target, place.ip, other))

    def _check_target(self, peer: PeerKey, target: PeerKey) -> _Place:
        """Only who keeps a place, and is connected: `open` must not dial."""
        place = self._places.get(target)
        if place is None or self._wire.path_of(target) is not PathKind.WIRE:
            raise RelayTargetAway(f"{target.hex()[:16]} has no place at this relay now")
        if peer == target:
            raise RelayRefused("a node needs no relay to itself")
        return place

    @contextmanager
    def _one_more(self, peer: PeerKey, ip: str, target: PeerKey) -> Iterator[None]:
        limits = self._limits
        if (
            self._joins >= limits.joined
            or max(self._joined[peer], self._joined[target]) >= limits.joined_per_peer
            or self._joined[ip] >= limits.joined_per_ip
            or self._joined[peer, target] >= limits.joined_per_pair
        ):
            raise RelayFull("this relay has as many connections as it carries at a time, or as you may have")
        counted = (peer, target, ip, (peer, target))
        self._joins += 1
        self._joined.update(counted)
        try:
            yield
        finally:
            self._joins -= 1
            self._joined.subtract(counted)
            self._joined = +self._joined

    async def _join(self, a: tuple[PeerKey, str, Stream], b: tuple[PeerKey, str, Stream]) -> None:
        """Pass bytes both ways until both have ended, or one has broken: then both are reset. Errors leave in
        a group, so that nobody takes them for something to answer."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, a, b)
            nursery.start_soon(self._pump, b, a)

    async def _pump(self, a: tuple[PeerKey, str, Stream], b: tuple[PeerKey, str, Stream]) -> None:
        idle = self._limits.idle_seconds
        while True:
            with patience(idle):
                chunk = await a[2].receive_some(_CHUNK)
            if not chunk:
                break
            self._accounts.note(a[0], b[0], len(chunk))
            if not (self.rented(a[0]) or self.rented(b[0])):
                await self._accounts.allow(a[:2], b[:2], len(chunk))
            with patience(idle):
                await b[2].send_all(chunk)
        await b[2].send_eof()


class _Over(StreamBroken):
    """The end of a place, on a stream where a refusal would come unasked."""
