"""Addresses of peers: "/ip4/.../tcp/.../p2p/<id>"; "/ip4/.../tcp/.../p2p/<relay>/p2p-circuit/p2p/<id>"
through a relay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from libp2p.peer.id import ID
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from protocol.errors import ConfigInvalid
from protocol.units import PeerKey
from qubixd.wire_libp2p.identity import key_of

_CIRCUIT: Final = "/p2p-circuit"
_NAME: Final = "/p2p/"


def split_address(text: str) -> tuple[ID, Multiaddr]:
    """The peer id and the way to it, a plain TCP address or ".../p2p/<relay>/p2p-circuit"; ConfigInvalid if
    it is none."""
    try:
        way, _, name = str(Multiaddr(text)).rpartition(_NAME)
        peer, plain = ID.from_base58(name), Multiaddr(way)
        if way.endswith(_CIRCUIT):
            _, outer = split_address(way.removesuffix(_CIRCUIT))
            way = str(outer)
        if _NAME in way or _CIRCUIT in way:
            raise ValueError("one relay is all there can be")
        plain.value_for_protocol("tcp")
    except (MultiaddrError, ValueError, LookupError) as error:
        raise ConfigInvalid(
            f"{text!r} is not a peer address; one looks like /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo..."
        ) from error
    if key_of(peer) is None:
        raise ConfigInvalid(f"{text!r} names a peer whose key is not Ed25519")
    return peer, plain


def peers_of(addresses: Sequence[str]) -> dict[PeerKey, tuple[str, ...]]:
    """Addresses by the peer they name; ConfigInvalid if one names none."""
    found: dict[PeerKey, tuple[str, ...]] = {}
    for text in addresses:
        key = key_of(split_address(text)[0])
        assert key is not None, "split_address lets Ed25519 peers pass only"
        found[key] = (*found.get(key, ()), text)
    return found


def tcp_address(ip: str, port: int) -> str:
    """A plain one, without a peer."""
    return f"/{'ip6' if ':' in ip else 'ip4'}/{ip}/tcp/{port}"


def is_circuit(address: Multiaddr | str) -> bool:
    """Whether it leads through a relay."""
    return _CIRCUIT in str(address)


def circuit_parts(way: Multiaddr) -> tuple[ID, Multiaddr]:
    """The relay and its plain address, of a way through it."""
    return split_address(str(way).removesuffix(_CIRCUIT))
