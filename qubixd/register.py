"""The directories a node knows of, and which of them to use. Pure: time and chance come in from outside.

Directory records cost nothing to make, so the register is small and hard to fill: a configured directory
and one that has proved useful are never pushed out, and when there is no room the network (/16) with the
most records loses one. Whom to use is decided in the same spirit: configured ones first, then some of as
many different networks as possible.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from protocol import messages, signing
from protocol.errors import WireError
from protocol.messages import Directory
from protocol.units import PeerKey, UnixMs
from qubixd.places import network_of
from qubixd.wire import Verdict

MAX_KNOWN: Final = 2_048
"""100,000 providers need about 600 directories."""
MAX_REMEMBERED: Final = 4 * MAX_KNOWN
MAX_LIFE_MS: Final = 3_600_000
MAX_SKEW_MS: Final = 60_000
FIRST_REST_MS: Final = 15_000
LONGEST_REST_MS: Final = 1_800_000
"""A directory that failed is left alone, twice as long each time."""
FORGET_AFTER: Final = 4
"""Failures without a success, of one that nobody configured; three times as many of a proven one."""
PROVEN_FIRST: Final = 0.5
FULL_MS: Final = 5_000
"""A full register takes one newcomer in so many."""
_IP: Final = re.compile(r"/ip[46]/([^/]+)/")


@dataclass
class Known:
    """One directory and what became of it."""

    peer: PeerKey
    addresses: tuple[str, ...]
    configured: bool = False
    record: Directory | None = None
    raw: bytes = b""
    proven_ms: int = 0
    """How long it has served us in all; what counts is that it did."""
    failures: int = 0
    rests_until: UnixMs = field(default=UnixMs(0))
    network: str = field(init=False)
    met: bool = False
    """`network` is where it was seen, whatever its record says."""

    def __post_init__(self) -> None:
        self.move(self.addresses)

    def move(self, addresses: tuple[str, ...]) -> None:
        """Where it says that it is to be found from now on."""
        self.addresses = addresses
        if not self.met:
            self.network = _network_at(addresses[0]) if addresses else ""

    def meet(self, ip: str | None) -> None:
        """It was reached at that address. A record may name any network, and whoever has a connection to us
        need not be found there."""
        if ip is not None and _is_public(ip):
            self.network, self.met = network_of(ip), True

    @property
    def safe(self) -> bool:
        """Never pushed out by a newcomer."""
        return self.configured or self.proven_ms > 0


class Register:
    def __init__(
        self,
        network: str,
        contract_index: int,
        me: PeerKey,
        configured: Mapping[PeerKey, Sequence[str]] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.on_news: list[Callable[[], None]] = []
        """Called when somebody new is known."""
        self._network, self._contract_index, self._me = network, contract_index, me
        self._chance = chance or random.Random()
        self._known: dict[PeerKey, Known] = {
            peer: Known(peer, tuple(addresses), configured=True)
            for peer, addresses in (configured or {}).items()
            if peer != me
        }
        self._sequences: OrderedDict[PeerKey, tuple[int, UnixMs]] = OrderedDict()
        self._last_newcomer = UnixMs(0)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, peer: PeerKey) -> Known | None:
        return self._known.get(peer)

    def consider(self, raw: bytes, now: UnixMs) -> Verdict:
        """Take a record in, or drop it and count why. What is accepted is new and worth passing on."""
        reason, verdict = self._judge(raw, now)
        if reason:
            self.counters[reason] += 1
        return verdict

    def _judge(self, raw: bytes, now: UnixMs) -> tuple[str, Verdict]:
        try:
            signed = signing.verify(raw, messages.MAX_OFFER_BYTES)
        except WireError:
            return "directory.malformed", Verdict.REJECT
        record, peer = signed.message, signed.signer
        if not isinstance(record, Directory):
            return "directory.malformed", Verdict.REJECT
        if (record.network, record.contract_index) != (self._network, self._contract_index):
            return "directory.other_network", Verdict.REJECT
        if record.issued_at > now + MAX_SKEW_MS or record.expires_at > record.issued_at + MAX_LIFE_MS:
            return "directory.from_the_future", Verdict.REJECT
        newest, _ = self._sequences.get(peer, (-1, 0))
        if peer == self._me or record.expires_at <= now or record.sequence <= newest:
            return "directory.stale", Verdict.IGNORE
        return self._take(peer, record, raw, now)

    def _take(self, peer: PeerKey, record: Directory, raw: bytes, now: UnixMs) -> tuple[str, Verdict]:
        known, is_new = self._known.get(peer), False
        if known is None and not record.withdrawn:
            known, is_new = Known(peer, record.addresses), True
            if not self._make_room(known, now):
                return "directory.no_room", Verdict.IGNORE
            self._known[peer] = known
        if known is None:  # it ended before it was known
            return "directory.stale", Verdict.IGNORE
        self._remember(peer, record)
        known.record, known.raw = record, raw
        if record.addresses and record.addresses != known.addresses:
            known.move(record.addresses)
        if record.withdrawn:
            self._drop(known)
        if is_new:
            for tell in self.on_news:
                tell()
        return "", Verdict.ACCEPT

    def _remember(self, peer: PeerKey, record: Directory) -> None:
        """Of those who come and go as well, so that no older record is believed; not of any number."""
        self._sequences[peer] = (record.sequence, record.expires_at)
        self._sequences.move_to_end(peer)
        if len(self._sequences) > MAX_REMEMBERED:
            self._sequences.popitem(last=False)

    def _make_room(self, newcomer: Known, now: UnixMs) -> bool:
        """Whether a newcomer may come in, for which another may have to go."""
        if len(self._known) < MAX_KNOWN:
            return True
        if now - self._last_newcomer < FULL_MS:
            return False
        unsafe = [known for known in self._known.values() if not known.safe]
        counts = Counter(known.network for known in [*unsafe, newcomer])
        crowded = [known for known in unsafe if counts[known.network] == max(counts.values())]
        if not crowded:
            return False
        self._last_newcomer = now
        self._drop(self._chance.choice(crowded))
        return True

    def _drop(self, known: Known) -> None:
        if known.configured:
            known.record, known.raw = None, b""
        else:
            self._known.pop(known.peer, None)

    def choose(self, count: int, taken: Collection[PeerKey], now: UnixMs) -> list[Known]:
        """Up to `count` directories to turn to beside the ones `taken`."""
        able = [k for k in self._known.values() if k.peer not in taken and k.rests_until <= now]
        used = Counter(k.network for peer in taken if (k := self._known.get(peer)))
        chosen: list[Known] = []
        while able and len(chosen) < count:
            best = self._best([k for k in able if k.configured] or _least_used(able, used))
            chosen.append(best)
            able.remove(best)
            used[best.network] += 1
        return chosen

    def has_another_network(self, taken: Collection[PeerKey], now: UnixMs) -> bool:
        """Whether there is somebody to turn to in a network of which none is taken."""
        used = {k.network for peer in taken if (k := self._known.get(peer))}
        return any(k.network not in used and k.rests_until <= now for k in self._known.values())

    def _best(self, able: list[Known]) -> Known:
        """First a network, then one of its directories: many records in one network win nothing. Proven
        ones are preferred half of the time, so that they are found again and yet do not keep all others
        out."""
        proven = [known for known in able if known.proven_ms]
        groups = _by_network(proven if proven and self._chance.random() < PROVEN_FIRST else able)
        group = groups[self._chance.choice(list(groups))]
        return self._chance.choice([known for known in group if known.proven_ms] or group)

    def failed(self, peer: PeerKey, now: UnixMs, times: int = 1) -> None:
        """It could not be had, or did not do what a directory should."""
        known = self._known.get(peer)
        if known is None:
            return
        known.failures += times
        known.proven_ms = 0 if times > 1 else known.proven_ms
        if known.failures >= FORGET_AFTER * (3 if known.safe else 1):
            self._drop(known)
        rest = min(FIRST_REST_MS << min(known.failures - 1, 10), LONGEST_REST_MS)
        known.rests_until = UnixMs(now + round(rest * self._chance.uniform(0.75, 1.25)))

    def served(self, peer: PeerKey, milliseconds: int) -> None:
        """It has done its work for so much longer."""
        if (known := self._known.get(peer)) is not None:
            known.proven_ms += milliseconds
            known.failures, known.rests_until = 0, UnixMs(0)

    def records(self, count: int) -> list[bytes]:
        """Records to tell others of: of as many networks as possible, of each the useful ones first."""
        groups = list(_by_network(known for known in self._known.values() if known.raw).values())
        self._chance.shuffle(groups)
        for group in groups:
            self._chance.shuffle(group)
            group.sort(key=lambda known: not known.proven_ms)
        turns = (group[turn] for turn in range(count) for group in groups if turn < len(group))
        return [known.raw for known in islice(turns, count)]

    def proven(self, count: int) -> list[tuple[PeerKey, tuple[str, ...]]]:
        """Those that served longest, and where they are: to be remembered over a restart."""
        able = sorted(self._known.values(), key=lambda known: -known.proven_ms)
        return [(known.peer, known.addresses) for known in able[:count] if known.proven_ms]

    def recall(self, proven: Iterable[tuple[PeerKey, tuple[str, ...]]]) -> None:
        """What `proven` gave before a restart."""
        for peer, addresses in proven:
            if peer != self._me and peer not in self._known and len(self._known) < MAX_KNOWN:
                self._known[peer] = Known(peer, addresses, proven_ms=1)
        for tell in self.on_news:
            tell()

    def known(self) -> Iterator[Known]:
        return iter(tuple(self._known.values()))

    def sweep(self, now: UnixMs) -> None:
        """Forget what has expired."""
        for known in self.known():
            if known.record is not None and known.record.expires_at <= now:
                known.record, known.raw = None, b""
                if not known.safe:
                    self._drop(known)
        for peer in [peer for peer, (_, until) in self._sequences.items() if until <= now]:
            del self._sequences[peer]


def _least_used(able: list[Known], used: Counter[str]) -> list[Known]:
    fewest = min(used[known.network] for known in able)
    return [known for known in able if used[known.network] == fewest]


def _by_network(these: Iterable[Known]) -> dict[str, list[Known]]:
    groups: dict[str, list[Known]] = {}
    for known in these:
        groups.setdefault(known.network, []).append(known)
    return groups


def _network_at(address: str) -> str:
    """What an address has in common with others of the same owner. In a private network, and on one
    machine, owners cannot be told apart by it: there each address counts."""
    found = _IP.match(address)
    public = found is not None and _is_public(found[1])
    return network_of(found[1]) if found and public else address.partition("/p2p/")[0]


def _is_public(ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip).is_global
    except ValueError:
        return False
