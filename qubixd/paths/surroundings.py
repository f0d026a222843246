"""How this node stands in the world: what its router makes of its addresses, and which ports get out."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import trio

from protocol.errors import PeerUnreachable
from qubixd.paths.changes import own_ips
from qubixd.paths.endpoints import Endpoint
from qubixd.paths.plan import CONE, OPEN, SYMMETRIC
from qubixd.paths.punch import connect, drilled
from qubixd.wire import Wire

log = logging.getLogger("qubix.paths")

FRESH_SECONDS: Final = 600.0
AGAIN_SECONDS: Final = 2.0
AGAIN_AT_LAST_SECONDS: Final = 64.0
"""How soon after a look that told nothing, when others can be asked: at first, and after many."""
PROBE_SECONDS: Final = 2.0
PROBED_PORTS: Final = (20_000, 60_000)


@dataclass(frozen=True)
class Seen:
    """What a look around told."""

    nat: str = ""
    """As in PathOffer."""
    outside: tuple[Endpoint, ...] = ()
    """One fresh port of this machine, as each node that was asked saw it."""
    ports: tuple[int, ...] = ()
    """The only ones that get out, if not all do."""

    @property
    def ip(self) -> str:
        """The address that the world sees."""
        return self.outside[0].ip if self.outside and self.outside[0].is_public else ""


def nat_of(outside: Sequence[Endpoint], own: frozenset[str]) -> str:
    """What two nodes' answers about one port say of the router between; "" if one is too few to tell."""
    if outside and all(end.ip in own for end in outside):
        return OPEN
    if len(set(outside)) > 1:
        return SYMMETRIC
    return CONE if len(outside) > 1 else ""


class Surroundings:
    """Looks when asked, and remembers; `forget` when the network is another."""

    def __init__(self, wire: Wire, ips: Callable[[], frozenset[str]] = own_ips) -> None:
        self._wire, self._ips = wire, ips
        self._seen = Seen()
        self._at = -math.inf
        self._busy = trio.Lock()
        self._moves = self._vain = 0
        self._asked: frozenset[Endpoint] = frozenset()
        self._news = trio.Event()
        wire.on_peer(lambda _: self._news.set())

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look as soon as somebody can be asked, and again after `forget`; until cancelled."""
        task_status.started()
        while True:
            self._news = trio.Event()
            others = frozenset(self.echoes())
            if others and (self._is_old() or (not self._seen.nat and self._asked != others)):
                await self.look()
            await self._news.wait()
            await trio.sleep(min(AGAIN_SECONDS * 2**self._vain, AGAIN_AT_LAST_SECONDS))

    @property
    def seen(self) -> Seen:
        """What is known now."""
        return self._seen

    def forget(self) -> None:
        self._seen, self._at, self._asked = Seen(), -math.inf, frozenset()
        self._moves, self._vain = self._moves + 1, 0
        self._news.set()

    def got_out(self, end: Endpoint) -> None:
        """A connection was made: a firewall that lets nothing out to that port is none."""
        if end.is_public and self._seen.ports and end.port not in self._seen.ports:
            self._seen = replace(self._seen, ports=())

    def echoes(self) -> tuple[Endpoint, ...]:
        """Nodes that tell addresses, those on different machines first. Neighbours see this node in another
        way than the world does, and so do the two families of addresses: they are not mixed."""
        ends = [Endpoint(*end) for end in self._wire.dialled()]
        public = [end for end in ends if end.is_public] or ends
        ends = [end for end in public if ":" not in end.ip] or public
        firsts = {end.ip: end for end in reversed(ends)}
        return (*firsts.values(), *(end for end in ends if end not in firsts.values()))

    def _is_old(self) -> bool:
        return trio.current_time() - self._at > FRESH_SECONDS

    async def look(self, *, anew: bool = True) -> Seen:
        """What is known after a look, of which there is one at a time; without one if there was one already
        and `anew` is false."""
        async with self._busy:
            while anew or not self._seen.nat:
                moves, seen = self._moves, await self._looked()
                if moves == self._moves:
                    self._seen, self._at = seen, trio.current_time()
                    self._vain = 0 if seen.nat else self._vain + 1
                    break
        return self._seen

    async def _looked(self) -> Seen:
        echoes = self.echoes()
        self._asked = frozenset(echoes)
        try:
            async with drilled(echoes) as hole:
                nat = nat_of(hole.seen, self._ips())
                seen = Seen(nat, hole.seen, await self._only_ports(echoes))
        except PeerUnreachable:
            seen = Seen()
        log.debug("looked around: %s", seen)
        return seen

    async def _only_ports(self, echoes: Sequence[Endpoint]) -> tuple[int, ...]:
        """Ports known to get out, if a firewall seems to swallow what goes to another: a node answers for a
        closed port, too, unless it has such a firewall itself. So this is a guess, which decides only what
        is tried first."""
        public = [end for end in echoes if end.is_public]
        known = tuple(dict.fromkeys(end.port for end in public))
        targets = list({end.ip: end for end in public}.values())[:2]
        if not known or any(port > 1_023 for port in known):
            return ()
        silent: list[bool] = []
        async with trio.open_nursery() as nursery:
            for end in targets:
                nursery.start_soon(self._probe, Endpoint(end.ip, random.randint(*PROBED_PORTS)), silent)
        return known[:8] if all(silent) else ()

    async def _probe(self, end: Endpoint, silent: list[bool]) -> None:
        with trio.move_on_after(PROBE_SECONDS) as scope, suppress(OSError):
            (await connect(end)).close()
        silent.append(scope.cancelled_caught)
