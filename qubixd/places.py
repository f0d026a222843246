"""What a stranger gets of a service: how often it may ask, and how many places it and its like may hold."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import trio

from protocol.units import PeerKey

Key = TypeVar("Key")
MAX_REMEMBERED: Final = 4_096
CROWDED: Final = 0.5
"""While less of the places is taken, nobody is asked where he comes from."""
SHARE: Final = 0.25
"""Of all places, for one network once it is crowded."""


def network_of(ip: str | None) -> str:
    """The /16 (IPv6: /32) an address lies in: what one attacker can get hold of as a whole."""
    try:
        address = ipaddress.ip_address(ip or "")
    except ValueError:
        return ""
    prefix = 16 if isinstance(address, ipaddress.IPv4Address) else 32
    return str(ipaddress.ip_network((address, prefix), strict=False))


def one_line(ip: str) -> str:
    """What one customer has: an IPv4 address, or the /64 an IPv6 address lies in."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return ip
    return str(ipaddress.ip_network((address, 64), strict=False))


class Bucket:
    """`burst` at once, `rate` a second in the long run. Time is trio's."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._at = burst, trio.current_time()

    def take(self, amount: float = 1.0) -> bool:
        """Whether there was so much; nothing is taken otherwise."""
        now = trio.current_time()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < amount:
            return False
        self._level -= amount
        return True


class Buckets:
    """A bucket for each peer; of the peers heard from longest ago nothing is remembered."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._of: OrderedDict[PeerKey, Bucket] = OrderedDict()

    def take(self, peer: PeerKey, amount: float = 1.0) -> bool:
        bucket = self._of.get(peer)
        if bucket is None:
            bucket = self._of[peer] = Bucket(self._rate, self._burst)
            if len(self._of) > MAX_REMEMBERED:
                self._of.popitem(last=False)
        self._of.move_to_end(peer)
        return bucket.take(amount)


class Places:
    """A number of places; `each` for one peer, and no more than a share of them for one network."""

    def __init__(self, total: int, each: int) -> None:
        self.total = total
        self._each = each
        self._peers: Counter[PeerKey] = Counter()
        self._networks: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return self._peers.total()

    @property
    def free(self) -> int:
        return max(0, self.total - self.taken)

    @contextmanager
    def hold(self, peer: PeerKey, ip: str | None) -> Iterator[bool]:
        """Holds a place for the block if it yields True."""
        network = network_of(ip)
        given = self._peers.get(peer, 0) < self._each and self._room(network)
        if not given:
            yield False
            return
        self._peers[peer] += 1
        self._networks[network] += 1
        try:
            yield True
        finally:
            _give_back(self._peers, peer)
            _give_back(self._networks, network)

    def _room(self, network: str) -> bool:
        if self.taken >= self.total:
            return False
        return self.taken < self.total * CROWDED or self._networks.get(network, 0) < self.total * SHARE


def _give_back(counter: Counter[Key], key: Key) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
