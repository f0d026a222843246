"""What a relay counts: bytes of each peer, what they have used today for nothing, and how fast they may go.

A day is one of UTC. Free bytes are counted for the peer and for the address it comes from, so that many keys
are not many allowances; in all the relay gives away so much a day and no more. Nothing of it is written down:
a relay that starts anew begins anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from protocol.errors import RelayAllowanceUsed
from protocol.units import PeerKey, UnixMs

MIB: Final = 1 << 20
_DAY_MS: Final = 86_400_000
_KNOWN: Final = 10_000
"""Peers and addresses remembered; those heard of longest ago are forgotten."""


@dataclass(frozen=True)
class Allowance:
    """What a relay does for nothing."""

    free_bytes: int = 512 * MIB
    """For each peer and day, both ways together."""
    free_bytes_per_ip: int = 2_048 * MIB
    free_bytes_in_all: int = 64 * 1_024 * MIB
    bytes_per_second: int = 2 * MIB
    """For each peer, both ways together; 0 for as much as there is."""


class Pace:
    """Lets `rate` bytes a second through, and a second's worth at once."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._left, self._at = float(rate), trio.current_time()

    async def take(self, count: int) -> None:
        """Returns when so many bytes may go."""
        now = trio.current_time()
        self._left = min(self._rate, self._left + (now - self._at) * self._rate) - count
        self._at = now
        if self._left < 0:
            await trio.sleep(-self._left / self._rate)


@dataclass
class _Use:
    """Of one peer or address."""

    day: int = 0
    free: int = 0
    received: int = 0
    sent: int = 0
    pace: Pace | None = None


class Accounts:
    """The books of one relay."""

    def __init__(self, allowance: Allowance, now_ms: Callable[[], UnixMs]) -> None:
        self.allowance, self._now_ms = allowance, now_ms
        self._uses: OrderedDict[PeerKey | str, _Use] = OrderedDict()
        self._in_all = _Use()

    def used(self, peer: PeerKey) -> int:
        """Free bytes that are gone today."""
        use = self._uses.get(peer)
        return use.free if use is not None and use.day == self._today() else 0

    def carried(self, peer: PeerKey) -> tuple[int, int]:
        """Bytes received from and sent to a peer since the relay began, paid or not."""
        use = self._uses.get(peer)
        return (use.received, use.sent) if use else (0, 0)

    def check(self, peer: PeerKey, ip: str) -> None:
        """RelayAllowanceUsed if nothing is left for that peer, its address or anybody today."""
        for use, limit in self._limits(peer, ip):
            if use.free >= limit:
                raise RelayAllowanceUsed(
                    "what this relay carries a day for nothing "
                    f"({self.allowance.free_bytes // MIB} MiB a node) is used up "
                    f"for {peer.hex()[:16]}, for its address, or for all"
                )

    def note(self, source: PeerKey, target: PeerKey, count: int) -> None:
        """Bytes are on their way from one to the other."""
        self._of(source).received += count
        self._of(target).sent += count

    async def allow(self, source: tuple[PeerKey, str], target: tuple[PeerKey, str], count: int) -> None:
        """Take them from what is free, for both ends, each a peer and its IP; returns when they may go.
        RelayAllowanceUsed."""
        for peer, ip in (source, target):
            self.check(peer, ip)
            for use, _ in self._limits(peer, ip):
                use.free += count
        for peer, _ in (source, target):
            await self._pace(peer, count)

    async def _pace(self, peer: PeerKey, count: int) -> None:
        use, rate = self._of(peer), self.allowance.bytes_per_second
        if rate:
            use.pace = use.pace or Pace(rate)
            await use.pace.take(count)

    def _limits(self, peer: PeerKey, ip: str) -> list[tuple[_Use, int]]:
        allowed = self.allowance
        self._in_all = self._begun(self._in_all)
        return [
            (self._of(peer), allowed.free_bytes),
            (self._of(ip), allowed.free_bytes_per_ip),
            (self._in_all, 2 * allowed.free_bytes_in_all),  # it is counted for both ends
        ]

    def _of(self, who: PeerKey | str) -> _Use:
        use = self._uses.setdefault(who, _Use())
        self._uses.move_to_end(who)
        if len(self._uses) > _KNOWN:
            self._uses.popitem(last=False)
        return self._begun(use)

    def _begun(self, use: _Use) -> _Use:
        if use.day != self._today():
            use.day, use.free = self._today(), 0
        return use

    def _today(self) -> int:
        return self._now_ms() // _DAY_MS
