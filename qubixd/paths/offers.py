"""What this node and a peer tell each other of themselves before they dial, and how long that is believed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import trio
from cryptography.x509 import load_der_x509_certificate
from cryptography.x509.oid import NameOID

from protocol.errors import MessageInvalid
from protocol.messages import PathOffer
from protocol.signing import NodeKey
from protocol.units import PeerKey
from qubixd.link.tls import Identity, TlsDoor
from qubixd.paths.changes import outward, own_ips, own_networks
from qubixd.paths.endpoints import Endpoint, dialable, from_multiaddress, is_loopback, is_public
from qubixd.paths.plan import Side
from qubixd.paths.surroundings import Surroundings
from qubixd.talk import ask
from qubixd.wire import Wire

log = logging.getLogger("qubix.paths")

PATHS_PROTOCOL: Final = "/qubix/paths/1"
LIFE_SECONDS: Final = 600.0
MAX_NAMED: Final = 8
MAX_KNOWN: Final = 256


@dataclass(frozen=True)
class Known:
    """A peer's offer, and where it may be dialled."""

    offer: PathOffer
    side: Side
    until: float

    @property
    def is_fresh(self) -> bool:
        """Neither side has been elsewhere since; else it is still worth a try to dial."""
        return trio.current_time() < self.until


class Offers:
    """Ours and theirs."""

    def __init__(
        self,
        wire: Wire,
        key: NodeKey,
        identity: Identity,
        door: TlsDoor,
        around: Surroundings,
        may: Callable[[PeerKey], bool],
    ) -> None:
        self._wire, self._key, self._identity, self._door = wire, key, identity, door
        self._around, self._may = around, may
        self._known: dict[PeerKey, Known] = {}
        self.on_move: list[Callable[[PeerKey], None]] = []
        """Called when a peer says that it is elsewhere than it said before."""

    def own(self) -> PathOffer:
        """What a peer is told of this node now."""
        seen = self._around.seen
        named = tuple(end.multiaddress for end in self._own_ends())
        return PathOffer(self._identity.certificate, named, seen.nat, seen.ports, seen.ip)

    def _own_ends(self) -> list[Endpoint]:
        """Outward ones first, those of bridges later, loopback last."""
        ends = [end for text in self._wire.addresses if (end := from_multiaddress(text)) is not None]
        out = outward()
        ends.sort(key=lambda end: (is_loopback(end.ip), not (end.is_public or end.ip in out)))
        return ends[:MAX_NAMED]

    def own_side(self, peer: Known) -> Side:
        """Where we may be dialled by that peer: in the open, or in the network that we share."""
        seen = self._around.seen
        shared = any(not end.is_public for end in peer.side.ends)
        ends = tuple(end for end in self._own_ends() if end.is_public or shared)
        return Side(ends, seen.nat, seen.ports)

    def of(self, peer: PeerKey) -> Known | None:
        """What is remembered of a peer."""
        return self._known.get(peer)

    async def exchange(self, peer: PeerKey, addresses: Sequence[str]) -> Known:
        """Ours for theirs. PeerUnreachable, PeerRefused, StreamBroken."""
        answer = await ask(self._wire, self._key, peer, self.own(), addresses, PATHS_PROTOCOL)
        if not isinstance(answer.message, PathOffer):
            raise MessageInvalid("a peer answers a PathOffer with its own")
        return self.heard(peer, answer.message)

    def heard(self, peer: PeerKey, offer: PathOffer) -> Known:
        """Believe what a peer says of itself, for a while."""
        self._make_room()
        _check_name(peer, offer.certificate)
        self._door.expect(peer, offer.certificate)
        ends = self._dialable(peer, offer.addresses, offer.outside)
        side = Side(ends, offer.nat, offer.ports)
        before = self._known.get(peer)
        known = self._known[peer] = Known(offer, side, trio.current_time() + LIFE_SECONDS)
        if before is not None and _place(before.offer) != _place(offer):
            for callback in self.on_move:
                callback(peer)
        return known

    def endpoint_of(self, peer: PeerKey, named: Endpoint) -> Endpoint | None:
        """The same, if it is a place that this peer may make us dial."""
        known = self._known.get(peer)
        ends = self._dialable(peer, (named.multiaddress,), known.offer.outside if known else "")
        return ends[0] if ends else None

    def _dialable(self, peer: PeerKey, named: Sequence[str], outside: str) -> tuple[Endpoint, ...]:
        """`outside`: from where it says that it comes, if nobody knows better."""
        remote, seen = self._wire.remote_ip(peer), self._around.seen.ip
        if remote and is_public(remote) and (":" in remote) == (":" in seen):
            outside = remote
        near = not (outside and seen) or outside == seen
        return dialable(named, remote, own_networks() if near else (), own_ips())

    def worked(self, peer: PeerKey, end: Endpoint) -> None:
        """This place of a peer is tried first from now on."""
        known = self._known.get(peer)
        if known is not None and end in known.side.ends:
            ends = (end, *(other for other in known.side.ends if other != end))
            self._known[peer] = replace(known, side=replace(known.side, ends=ends))

    def doubt(self, peer: PeerKey) -> None:
        """What was heard last did not help: ask again before the next try."""
        known = self._known.get(peer)
        if known is not None:
            self._known[peer] = replace(known, until=-math.inf)

    def doubt_all(self) -> None:
        """This node is elsewhere now."""
        for peer in self._known:
            self.doubt(peer)

    def _make_room(self) -> None:
        """Forget those with whom there is nothing any more, and above MAX_KNOWN the first heard."""
        gone = [peer for peer in self._known if not self._may(peer)]
        rest = [peer for peer in self._known if peer not in gone]
        for peer in (*gone, *rest[: max(0, len(rest) - MAX_KNOWN)]):
            del self._known[peer]
            self._door.forget(peer)


def _place(offer: PathOffer) -> tuple[object, ...]:
    return offer.addresses, offer.outside


def _check_name(peer: PeerKey, certificate: bytes) -> None:
    """A certificate names the key of its node, so that nobody tells another's as its own."""
    try:
        names = load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise MessageInvalid("a peer's certificate cannot be read") from error
    if [name.value for name in names] != [peer.hex()]:
        raise MessageInvalid("a peer told a certificate that is not made for its key")
