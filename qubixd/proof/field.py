"""The verifier's arithmetic: streams drawn from a key, sums modulo 2^31 - 1, trees of digests. Pure.

Only single rows are ever made here, so that no library for matrices is needed.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Sequence
from operator import mul
from typing import Final

from qubixd.proof.frames import CHUNK, DIGEST, SEGMENT

PRIME: Final = (1 << 31) - 1
TAG_A, TAG_B, TAG_R = 1, 2, 3


def key_of(secret: bytes, device: int) -> bytes:
    """The key of one device's matrices, or of its first r."""
    return hashlib.sha256(secret + struct.pack(">I", device)).digest()


def next_key(key: bytes, digest: bytes) -> bytes:
    """Of the next pass's r, which only who has finished this pass can know."""
    return hashlib.sha256(key + digest).digest()


def stream(key: bytes, tag: int, row: int, size: int) -> bytes:
    """`size` bytes, a multiple of 32: SHA-256 of key, tag, row, block, each number as 4 bytes."""
    begun = hashlib.sha256(key + struct.pack(">II", tag, row))
    parts = []
    for block in range(size // DIGEST):
        one = begun.copy()
        one.update(struct.pack(">I", block))
        parts.append(one.digest())
    return b"".join(parts)


def small_row(key: bytes, tag: int, row: int, n: int) -> Sequence[int]:
    """A row of A or B: n numbers from -128 to 127."""
    return memoryview(stream(key, tag, row, n)).cast("b")


def draw(key: bytes, n: int) -> Sequence[int]:
    """A pass's r: n numbers below 2^31."""
    words = array("I", stream(key, TAG_R, 0, 4 * n))
    if sys.byteorder == "little":
        words.byteswap()
    return [word & PRIME for word in words]


def numbers(data: bytes, signed: bool) -> Sequence[int]:
    """The 4-byte little-endian numbers in `data`."""
    words = array("i" if signed else "I", data)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def dot(one: Sequence[int], other: Sequence[int]) -> int:
    total: int = sum(map(mul, one, other))
    return total % PRIME


def kept(c: Sequence[int]) -> Sequence[int]:
    """What is kept of a row of C: bits 8 to 15, as numbers from -128 to 127."""
    return memoryview(bytes(value >> 8 & 255 for value in c)).cast("b")


def row_digest(row: bytes) -> bytes:
    """Of a row of C as it was sent: that of its segments' digests."""
    size = 4 * SEGMENT
    parts = (hashlib.sha256(row[at : at + size]).digest() for at in range(0, len(row), size))
    return hashlib.sha256(b"".join(parts)).digest()


def root_of(leaf: bytes, index: int, path: Sequence[bytes]) -> bytes:
    """The root above a leaf; `path` has the digests beside the way, the leaf's neighbour first."""
    for beside in path:
        pair = beside + leaf if index & 1 else leaf + beside
        leaf = hashlib.sha256(pair).digest()
        index >>= 1
    return leaf


def chunk_digest(chunk: bytes) -> bytes:
    assert len(chunk) == 4 * CHUNK
    return hashlib.sha256(chunk).digest()
