"""The places this node keeps at relays, so that it can be reached although nobody can dial it.

Two at most: those a person has named, those that are rented, and else any connected peer that relays, once
others have found that they cannot reach this node. Each is a stream that stays open and is asked for anew at
half its life; a lost one is looked for elsewhere, or there again after a while.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from protocol.errors import QubixError, StreamBroken
from protocol.paths import PathKind
from protocol.relay_messages import Reserve, Reserved
from protocol.units import PeerKey, Qu
from qubixd.observing import is_public
from qubixd.paths.endpoints import from_multiaddress
from qubixd.relay import ASK_SECONDS, RELAY_PROTOCOL
from qubixd.talk import receive_bare, send_bare
from qubixd.wire import Stream, Wire, address_text
from qubixd.wire_libp2p import is_circuit, peer_id_of, tcp_address

log = logging.getLogger("qubix.reservations")

MOST: Final = 2
_ADDRESSES: Final = 2
"""Of one relay, told to others."""
_LOOK_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 3.0
_PAUSE_SECONDS: Final = 30.0
"""Before another is; then twice as long each time."""
_LONG_PAUSE_SECONDS: Final = 1_800.0
_LEAST_LIFE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class UsedRelay:
    """A relay at which this node has a place, and what it grants."""

    peer: PeerKey
    addresses: tuple[str, ...]
    observed: str
    """IP:PORT from which this node's connection with it comes."""
    free_bytes: int
    used_bytes: int
    """When the place was last asked for."""
    bytes_per_second: int
    price_qu_per_hour: Qu


async def ask(wire: Wire, peer: PeerKey, addresses: Sequence[str] = ()) -> Reserved:
    """What a relay would grant this node. PeerUnreachable where there is none, PeerRefused."""
    async with await wire.open(peer, RELAY_PROTOCOL, addresses) as stream:
        await send_bare(stream, Reserve(ask_only=True))
        granted = await receive_bare(stream, Reserved, seconds=ASK_SECONDS)
        await stream.send_eof()
    return granted


class Reservations:
    """`chosen` are relays by name, with their addresses; `automatic` allows others where they are needed.
    `rented` may be set at any time: relays that are paid for, as `chosen`."""

    def __init__(
        self, wire: Wire, chosen: Mapping[PeerKey, Sequence[str]] | None = None, *, automatic: bool = True
    ) -> None:
        self._wire, self._chosen, self._automatic = wire, dict(chosen or {}), automatic
        self.rented: Callable[[], Mapping[PeerKey, Sequence[str]]] = dict
        self.on_change: list[Callable[[], None]] = []
        self._used: dict[PeerKey, UsedRelay] = {}
        self._held: dict[PeerKey, trio.CancelScope] = {}
        self._good: set[PeerKey] = set()
        self._fails: dict[PeerKey, int] = {}
        self._not_before: dict[PeerKey, float] = {}
        self._told: dict[PeerKey, tuple[str, ...]] = {}
        self._wake = trio.Event()
        wire.on_peer(self._met)

    def relays(self) -> tuple[UsedRelay, ...]:
        """Where this node can be reached now."""
        return tuple(self._used.values())

    def _met(self, peer: PeerKey) -> None:
        """Somebody new, or a relay that is back."""
        self._not_before.pop(peer, None)
        self._wake.set()

    def recheck(self) -> None:
        """Look at once: the network has changed, or a relay was rented."""
        self._fails.clear()
        self._not_before.clear()
        self._wake.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep places until cancelled."""
        task_status.started()
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                named = {**self._chosen, **self.rented()}
                searching = self._automatic and self._out_of_reach()
                self._let_go(named, searching)
                for peer, addresses in self._wanted(named, searching):
                    self._held[peer] = trio.CancelScope()
                    nursery.start_soon(self._hold, peer, addresses)
                with trio.move_on_after(_LOOK_SECONDS):
                    await self._wake.wait()

    def _out_of_reach(self) -> bool:
        """As others found; until they have tried, as it looks: whoever has another address outside is behind
        a router."""
        outside = self._wire.observed()
        if outside.reachable is not None or not outside.ips:
            return outside.reachable is False
        own = {address.split("/")[2] for address in self._wire.addresses if not is_circuit(address)}
        return not own & set(outside.ips)

    def _let_go(self, named: Mapping[PeerKey, Sequence[str]], searching: bool) -> None:
        for peer, scope in self._held.items():
            if peer not in named and (not searching or len(named) >= MOST):
                scope.cancel()

    def _wanted(
        self, named: Mapping[PeerKey, Sequence[str]], searching: bool
    ) -> Iterable[tuple[PeerKey, Sequence[str]]]:
        """Relays to try now."""
        now, room = trio.current_time(), MOST - len(self._held)
        found = {peer: () for peer in self._connected()} if searching else {}
        ready = [
            (peer, addresses)
            for peer, addresses in {**found, **named}.items()
            if peer not in self._held and self._not_before.get(peer, 0) <= now
        ]
        return sorted(ready, key=lambda one: one[0] not in named)[: max(room, 0)]

    def _connected(self) -> list[PeerKey]:
        """Peers that others can reach as we did, those at public addresses first."""
        peers = [peer for peer in self._wire.peers() if self._where(peer)]
        random.shuffle(peers)
        return sorted(peers, key=lambda peer: not is_public(self._wire.remote_ip(peer) or ""))

    def _where(self, peer: PeerKey) -> str | None:
        """The address at which this node has dialled a peer."""
        text = self._wire.remote_address(peer) if self._wire.path_of(peer) is PathKind.WIRE else None
        dialled = next((end for end in self._wire.dialled() if address_text(*end) == text), None)
        return None if dialled is None else f"{tcp_address(*dialled)}/p2p/{peer_id_of(peer)}"

    async def _hold(self, peer: PeerKey, addresses: Sequence[str]) -> None:
        with self._held[peer]:
            try:
                await self._keep(peer, addresses)
            except QubixError as error:
                log.debug("no place at %s: %s", peer.hex()[:16], error)
            finally:
                del self._held[peer]
                self._used.pop(peer, None)
                self._pause(peer)
                self._tell()
                self._wake.set()

    def _pause(self, peer: PeerKey) -> None:
        """It is tried again more and more seldom, one that was good or is named sooner than any other."""
        fails = self._fails[peer] = self._fails.get(peer, 0) + 1
        near = peer in self._good or peer in self._chosen or peer in self.rented()
        least, most = (_AGAIN_SECONDS, _PAUSE_SECONDS) if near else (_PAUSE_SECONDS, _LONG_PAUSE_SECONDS)
        pause = min(least * 2 ** min(fails - 1, 10), most)
        self._not_before[peer] = trio.current_time() + pause * random.uniform(0.8, 1.2)
        if len(self._not_before) > 1_000:
            gone = next(iter(self._not_before))
            del self._not_before[gone]
            self._fails.pop(gone, None)
            self._good.discard(gone)

    async def _keep(self, peer: PeerKey, addresses: Sequence[str]) -> None:
        async with await self._wire.open(peer, RELAY_PROTOCOL, addresses) as stream:
            while True:
                await send_bare(stream, Reserve())
                granted = await receive_bare(stream, Reserved, seconds=ASK_SECONDS)
                self._take(peer, addresses, granted)
                await _watch(stream, max(granted.life_seconds / 2, _LEAST_LIFE_SECONDS))

    def _take(self, peer: PeerKey, given: Sequence[str], granted: Reserved) -> None:
        end = f"/p2p/{peer_id_of(peer)}"
        said = _written_anew(granted.addresses, end)
        given = given if peer in self._chosen else _written_anew(given, end)
        where = self._where(peer)
        known = list(dict.fromkeys([*([where] if where else []), *given, *_others(said, where)]))
        self._good.add(peer)
        self._fails.pop(peer, None)
        self._used[peer] = UsedRelay(
            peer,
            tuple(known[:_ADDRESSES]),
            granted.observed,
            granted.free_bytes,
            granted.used_bytes,
            granted.bytes_per_second,
            granted.price_qu_per_hour,
        )
        self._tell()

    def _tell(self) -> None:
        told = {peer: used.addresses for peer, used in self._used.items()}
        if told != self._told:
            self._told = told
            self._wire.be_reached_through(told)
            for changed in self.on_change:
                changed()


async def _watch(stream: Stream, seconds: float) -> None:
    """Nothing is said on a place's stream in the meantime, so whatever comes is its end."""
    with trio.move_on_after(seconds):
        try:
            await stream.receive_some(1)
        except trio.BrokenResourceError as error:
            raise StreamBroken("the connection with the relay broke") from error
        raise StreamBroken("the relay has ended our place")


def _written_anew(said: Sequence[str], end: str) -> list[str]:
    """Those that name this relay. We announce them as ours, and nobody takes an announcement in which one is
    none, or too long."""
    places = [from_multiaddress(text) for text in said if text.endswith(end)]
    return [f"{place.multiaddress}{end}" for place in places if place is not None]


def _others(said: Sequence[str], where: str | None) -> list[str]:
    """Of what a relay says of itself what others can use: another port of where we have reached it (443
    before all), then other public addresses."""
    ip = where.split("/")[2] if where else ""
    here = [text for text in said if text.split("/")[2] == ip]
    public = [text for text in said if is_public(text.split("/")[2])]
    return sorted(dict.fromkeys([*here, *public]), key=lambda text: "/tcp/443/" not in text)
