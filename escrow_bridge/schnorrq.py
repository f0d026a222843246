"""SchnorrQ, Qubic's signatures, in plain Python: keys, signing, verifying, and what is never valid.

As in "SchnorrQ: Schnorr signatures on FourQ" (Costello and Longa, 2016) and Qubic core, with
KangarooTwelve for the hash; all integers little-endian. Used where QubiPy has no native library; its
signatures are the same, byte for byte.

Side channels: the time that `public_key` and `sign` take depends on the secret (see fourq.py), and
Python leaves copies of it in memory. Anyone who can time single signatures on this machine closely, say
another process beside it, may learn the key. `verify` handles no secret.
"""

from __future__ import annotations

import functools
from typing import Final

from Crypto.Hash import KangarooTwelve

from escrow_bridge import fourq

_HASH_BYTES: Final = 64
_SCALAR_BYTES: Final = 32


def k12(data: bytes, size: int = 32) -> bytes:
    """KangarooTwelve (RFC 9861) of `data`, without customization, `size` bytes."""
    return KangarooTwelve.new(data=data).read(size)


def _scalar(data: bytes) -> int:
    return int.from_bytes(data[:_SCALAR_BYTES], "little")


def subseed(seed: str) -> bytes:
    """32 bytes from 55 letters a-z, which the caller has checked."""
    return k12(bytes(ord(letter) - ord("a") for letter in seed))


def private_key(subseed: bytes) -> bytes:
    return k12(subseed)


def public_key(private_key: bytes) -> bytes:
    """32 bytes: the encoded product of the private key (32 bytes, any) and the generator."""
    return fourq.encode(fourq.multiply_generator(_scalar(private_key)))


def sign(subseed: bytes, public_key: bytes, digest: bytes) -> bytes:
    """64 bytes: the encoded commitment, then the answer below N. Deterministic."""
    key = k12(subseed, _HASH_BYTES)
    nonce = _scalar(k12(key[_SCALAR_BYTES:] + digest, _HASH_BYTES))
    commitment = fourq.encode(fourq.multiply_generator(nonce))
    challenge = _scalar(k12(commitment + public_key + digest, _HASH_BYTES))
    answer = (nonce - _scalar(key) * challenge) % fourq.N
    return commitment + answer.to_bytes(_SCALAR_BYTES, "little")


_point = functools.lru_cache(maxsize=1_024)(fourq.decode)


@functools.lru_cache(maxsize=1_024)
def may_sign(public_key: bytes) -> bool:
    """Whether a key (32 bytes) is a point, and none for which anyone could sign.

    Current nodes refuse points of small order and, without a further look, every key whose last 24 bytes
    are zero but for the sign bit: the null id and the ids of contracts.
    """
    if not _scalar(public_key[8:]) & ~(1 << 191):
        return False
    point = _point(public_key)
    return point is not None and not fourq.is_weak(point)


def well_formed(public_key: bytes, signature: bytes) -> bool:
    """Whether a signature can be valid at all: its key may sign and its answer is below N.

    Older nodes, and QubiPy 0.4.1, also take answers from N to 2**246 and points of small order: a second
    valid signature of the same message, and forgeries. Current nodes do not, so nobody may here.
    """
    return _scalar(signature[_SCALAR_BYTES:]) < fourq.N and may_sign(public_key)


def verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether 64 bytes are a signature of a digest, 32 bytes, by a key, 32 bytes."""
    return well_formed(public_key, signature) and fits(public_key, digest, signature)


def fits(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    """The equation alone: commitment = answer * G + challenge * key, compared by encoding."""
    point = _point(public_key)
    if point is None:
        return False
    commitment, answer = signature[:_SCALAR_BYTES], _scalar(signature[_SCALAR_BYTES:])
    challenge = _scalar(k12(commitment + public_key + digest, _HASH_BYTES))
    return fourq.encode(fourq.multiply_double(answer, challenge, point)) == commitment
