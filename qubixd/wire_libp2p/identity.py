"""Peer keys <-> libp2p peer ids.

An Ed25519 peer id is the identity multihash (code 0x00, length 36) of the key's protobuf
(08 01 12 20 and the 32 key bytes): github.com/libp2p/specs, peer-ids.
"""

from __future__ import annotations

from typing import Final

from libp2p.peer.id import ID

from protocol.errors import UsageError
from protocol.units import PeerKey

_PREFIX: Final = bytes.fromhex("002408011220")
_KEY_BYTES: Final = 32


def libp2p_id(key: PeerKey) -> ID:
    """The libp2p id object of a 32-byte Ed25519 public key."""
    if len(key) != _KEY_BYTES:
        raise UsageError(f"a peer key has {_KEY_BYTES} bytes, this one has {len(key)}")
    return ID(_PREFIX + key)


def key_of(peer: ID) -> PeerKey | None:
    """The key inside an id; None for ids of other key types, which this network does not use."""
    raw = peer.to_bytes()
    if len(raw) == len(_PREFIX) + _KEY_BYTES and raw.startswith(_PREFIX):
        return PeerKey(raw[len(_PREFIX) :])
    return None


def peer_id_of(key: PeerKey) -> str:
    """The base58 peer id people see ("12D3Koo...")."""
    return libp2p_id(key).to_base58()


def peer_key_of(peer_id: str) -> PeerKey:
    """The Ed25519 key inside a base58 peer id; UsageError if it is none."""
    try:
        key = key_of(ID.from_base58(peer_id))
    except ValueError:
        key = None
    if key is None:
        raise UsageError(f"{peer_id!r} is not a peer id; one starts with 12D3Koo and has 52 characters")
    return key
