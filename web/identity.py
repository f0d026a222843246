"""How 32 bytes are written: a wallet, a transaction, a peer. Pure.

Qubic: 60 letters of which the last four are a checksum, wallets in upper case, transactions in lower case.
"""

from __future__ import annotations

import functools
import itertools
import string
import struct
from typing import Final

from Crypto.Hash import KangarooTwelve

from protocol.query import BASE58, PEER_ID_HEAD

BYTES: Final = 32
_CHECKSUM_BITS: Final = 18
_PAIRS: Final = [low + high for high, low in itertools.product(string.ascii_uppercase, repeat=2)]
REMEMBERED: Final = 10_000
"""Wallets: a page of offers has fifty, and the next page of somebody else mostly the same ones."""


@functools.lru_cache(REMEMBERED)
def identity_of(key: bytes) -> str:
    """Of a wallet's 32 bytes: each u64 as 14 letters, its lowest first, then the checksum."""
    checksum = int.from_bytes(KangarooTwelve.new(data=key).read(3), "little") & ((1 << _CHECKSUM_BITS) - 1)
    return "".join(_letters(word, 14) for word in struct.unpack("<4Q", key)) + _letters(checksum, 4)


def transaction_hash(digest: bytes) -> str:
    """As explorers show it; "" for none."""
    return identity_of(digest).lower() if len(digest) == BYTES else ""


def _letters(value: int, count: int) -> str:
    pairs = []
    for _ in range(count // 2):
        value, digits = divmod(value, 26 * 26)
        pairs.append(_PAIRS[digits])
    return "".join(pairs)


def peer_id_of(key: bytes) -> str:
    """As libp2p writes an Ed25519 key: "12D3KooW..."."""
    number, text = int.from_bytes(PEER_ID_HEAD + key, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    return "1" + text  # for the zero byte in front
