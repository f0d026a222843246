"""How others see this node: from where its connections come, and whether they can open one to it.

Every node answers Observe on `/qubix/observe/1`. It tries to reach nobody but who asks, at the address its
connection comes from, and seldom. A node asks a few of those it is connected with, each at another address;
what most of them say counts, and no single liar does much: it can make a node look for a relay that it does
not need, or do without one for as long as nobody else tells it better.
"""

from __future__ import annotations

import ipaddress
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from protocol.errors import AskedTooOften, QubixError, RelayRefused
from protocol.messages import Refusal
from protocol.paths import PathKind
from protocol.relay_messages import Observe, Observed
from protocol.units import PeerKey, UnixMs
from qubixd.paths.endpoints import parse
from qubixd.places import Bucket, one_line
from qubixd.talk import patience, receive_bare, refusal_of, send_bare
from qubixd.wire import Outside, Stream, Wire, address_text

log = logging.getLogger("qubix.observing")

OBSERVE_PROTOCOL: Final = "/qubix/observe/1"
_ANSWER_SECONDS: Final = 10.0
_ASKED: Final = 5
"""Peers whose word is kept."""
_ASKING: Final = 3
"""Peers asked at a time: one may be slow."""
_PORTS: Final = 2
_AGAIN_SECONDS: Final = 600.0
_MAX_PORT: Final = 65_535
_TRIES_AT_ONCE: Final = 8
_TRIES_PER_IP: Final = (0.1, 4.0)
"""A second, and at once: how often an address is tried for who asks from there."""
_KNOWN_IPS: Final = 1_024
_HOME: Final = [
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
]
"""Addresses that mean something only behind some router."""


def is_public(ip: str) -> bool:
    """Whether an address means the same everywhere."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    return not any(address in network for network in _HOME)


async def observe(wire: Wire, peer: PeerKey, dial: int = 0) -> Observed:
    """Ask a connected peer how it sees us and, if `dial` is not 0, whether it reaches us at that TCP port.
    PeerUnreachable, PeerRefused, StreamBroken."""
    async with await wire.open(peer, OBSERVE_PROTOCOL) as stream:
        await send_bare(stream, Observe(dial))
        answer = await receive_bare(stream, Observed, seconds=_ANSWER_SECONDS)
        await stream.send_eof()
    return answer


@dataclass
class _Word:
    """What one peer said."""

    observer: str
    """Its IP."""
    seen: str = ""
    """Ours, as it sees it."""
    tried: bool = False
    reached: tuple[str, ...] = ()

    def take(self, said: Observed, port: int) -> None:
        """MessageInvalid for what is no address: it may become one of those that we announce."""
        self.seen = parse(said.address).ip
        self.tried = self.tried or port != 0
        if said.reached:
            self.reached = (*self.reached, address_text(self.seen, port))


def judge(words: Sequence[_Word]) -> Outside:
    """What most say. The word of who sees a public address outweighs what neighbours say; a tie is a no,
    because a relay too many costs less than being out of reach."""
    public = [word for word in words if is_public(word.seen)]
    heard = public or list(words)
    tried = [word for word in heard if word.tried]
    yes = sum(bool(word.reached) for word in tried)
    at = Counter(address for word in tried for address in word.reached)
    return Outside(
        ips=tuple(ip for ip, _ in Counter(word.seen for word in heard).most_common()),
        reachable=2 * yes > len(tried) if tried else None,
        reached_at=tuple(address for address, count in at.most_common() if 2 * count > len(tried)),
    )


class Observer:
    """Answers others, and asks some of them. `own_ports` tells where this node listens for who is at that
    IP."""

    def __init__(self, wire: Wire, own_ports: Callable[[str], Sequence[int]]) -> None:
        self._wire, self._own_ports = wire, own_ports
        self._words: dict[PeerKey, _Word] = {}
        self._tries: dict[str, Bucket] = {}
        self._trying = 0
        self._being_asked: set[str] = set()
        self._again = trio.Event()
        self.outside = Outside()
        self._new_send, self._new = trio.open_memory_channel[PeerKey](64)
        wire.serve(OBSERVE_PROTOCOL, self._answer)
        wire.on_peer(self._note)

    def forget(self) -> None:
        """What was said is about another network; others are asked at once."""
        self._words.clear()
        self.outside = Outside()
        self._again.set()

    # Asking

    async def run(self) -> None:
        """Ask new peers while few have said something, and some others from time to time."""
        async with trio.open_nursery() as nursery:
            for _ in range(_ASKING):
                nursery.start_soon(self._ask_new)
            while True:
                with trio.move_on_after(_AGAIN_SECONDS * random.uniform(0.8, 1.2)):
                    await self._again.wait()
                self._again = trio.Event()
                peers = list(self._wire.peers())
                for peer in random.sample(peers, min(len(peers), _ASKED)):
                    self._words.pop(peer, None)
                    self._note(peer)

    def _note(self, peer: PeerKey) -> None:
        try:
            self._new_send.send_nowait(peer)
        except trio.WouldBlock:
            log.debug("many new peers at once; one is not asked how it sees us")

    async def _ask_new(self) -> None:
        async for peer in self._new:
            ip = self._wire.remote_ip(peer)
            if ip is None or not self._wanted(peer, ip):
                continue
            self._being_asked.add(ip)
            try:
                await self._ask(peer, ip)
            finally:
                self._being_asked.discard(ip)

    def _wanted(self, peer: PeerKey, ip: str) -> bool:
        """One peer at each address: who has many keys has no more to say."""
        self._forget_gone()
        asked = ip in self._being_asked or any(word.observer == ip for word in self._words.values())
        return self._wire.path_of(peer) is PathKind.WIRE and not asked and len(self._words) < _ASKED

    def _forget_gone(self) -> None:
        """The word of who is gone stays until another's can take its place."""
        if len(self._words) >= _ASKED:
            here = set(self._wire.peers())
            self._words = {peer: word for peer, word in self._words.items() if peer in here}

    async def _ask(self, peer: PeerKey, ip: str) -> None:
        word = _Word(ip)
        try:
            with patience(2 * _ANSWER_SECONDS):
                for port in (0, *self._own_ports(ip)[:_PORTS]):
                    word.take(await observe(self._wire, peer, port), port)
                    self._words[peer] = word
                    self.outside = judge(list(self._words.values()))
        except QubixError as error:
            log.debug("%s does not say how it sees us: %s", peer.hex()[:16], error)

    # Answering

    async def _answer(self, stream: Stream, peer: PeerKey) -> None:
        question = await receive_bare(stream, Observe, seconds=_ANSWER_SECONDS)
        answer: Observed | Refusal
        try:
            answer = await self._look_at(peer, question)
        except QubixError as error:
            answer = refusal_of(error)
        await send_bare(stream, answer)

    async def _look_at(self, peer: PeerKey, question: Observe) -> Observed:
        address = self._wire.remote_address(peer)
        if address is None or self._wire.path_of(peer) is not PathKind.WIRE:
            raise RelayRefused("you come through a relay, so nobody here can see from where")
        reached = 0 < question.dial <= _MAX_PORT and await self._try(peer, question.dial)
        return Observed(address, reached, UnixMs(time.time_ns() // 1_000_000))

    async def _try(self, peer: PeerKey, port: int) -> bool:
        ip = one_line(self._wire.remote_ip(peer) or "")
        if len(self._tries) >= _KNOWN_IPS:
            self._tries.pop(next(iter(self._tries)))
        bucket = self._tries.setdefault(ip, Bucket(*_TRIES_PER_IP))
        if self._trying >= _TRIES_AT_ONCE or not bucket.take():
            raise AskedTooOften("that address was tried too often lately; ask again in a minute")
        self._trying += 1
        try:
            return await self._wire.reaches(peer, port)
        finally:
            self._trying -= 1
