"""The native library and the Python implementation against each other, where honest use never goes too."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escrow_bridge import fourq, qubic, schnorrq
from escrow_bridge.fourq import COFACTOR, IDENTITY, Affine, N, P
from protocol.units import QubicId
from tests.support.signatures import signing_with

pytestmark = pytest.mark.timeout(300)  # sums on the curve, by the thousand, in Python

bytes_32 = st.binary(min_size=32, max_size=32)
seeds = st.text("abcdefghijklmnopqrstuvwxyz", min_size=55, max_size=55)


@pytest.fixture(scope="module")
def native() -> Iterator[Any]:
    """QubiPy's module, without the checks that qubic.py puts before it."""
    with signing_with("native"):
        yield qubic.native()


@given(seeds, bytes_32)
def test_keys_and_signatures_are_the_same_bytes_and_hold_in_both(
    native: Any, seed: str, digest: bytes
) -> None:
    subseed = schnorrq.subseed(seed)
    private = schnorrq.private_key(subseed)
    letters = seed.encode()
    assert native.get_subseed_from_seed(letters) == subseed
    assert native.get_private_key_from_subseed(subseed) == private
    key = schnorrq.public_key(private)
    assert native.get_public_key_from_private_key(private) == key
    signature = schnorrq.sign(subseed, key, digest)
    assert native.sign(subseed, key, digest) == signature
    assert native.verify(key, digest, signature)
    assert schnorrq.verify(key, digest, signature)


@given(st.one_of(bytes_32, st.integers(0, 3).map(lambda n: (n * N).to_bytes(32, "little"))))
def test_any_32_bytes_make_the_same_key(native: Any, private: bytes) -> None:
    assert native.get_public_key_from_private_key(private) == schnorrq.public_key(private)


@settings(max_examples=200)
@given(seeds, bytes_32, st.integers(0, 127), st.integers(1, 255))
def test_one_changed_byte_is_refused_by_both(
    native: Any, seed: str, digest: bytes, position: int, flip: int
) -> None:
    subseed = schnorrq.subseed(seed)
    key = schnorrq.public_key(schnorrq.private_key(subseed))
    changed = bytearray(key + digest + schnorrq.sign(subseed, key, digest))
    changed[position] ^= flip
    parts = bytes(changed[:32]), bytes(changed[32:64]), bytes(changed[64:])
    assert not native.verify(*parts)
    assert not schnorrq.verify(*parts)


@settings(max_examples=200)
@given(bytes_32, bytes_32, st.binary(min_size=64, max_size=64))
@pytest.mark.usefixtures("native")
def test_noise_is_refused_by_both(key: bytes, digest: bytes, signature: bytes) -> None:
    # Not the bare library: for 32 zero bytes as a key it takes 64 zero bytes for every fourth digest.
    assert not qubic.verify(QubicId(key), digest, signature)
    assert not schnorrq.verify(key, digest, signature)


def plain_multiples(point: Affine, count: int) -> list[Affine]:
    found = [IDENTITY]
    while len(found) < count:
        found.append(fourq.add(found[-1], point))
    return found


def small_order_points() -> list[Affine]:
    """All 392 points whose order divides the cofactor."""
    chance, found = random.Random(392), {IDENTITY}
    while len(found) < COFACTOR:
        any_point = fourq.decode((chance.getrandbits(256) & ~(1 << 127)).to_bytes(32, "little"))
        if any_point is not None:
            multiples = plain_multiples(fourq.multiply(N, any_point), 56)
            found |= {fourq.add(a, b) for a in found for b in multiples}
    return sorted(found)


def other_encodings(point: Affine) -> set[bytes]:
    """Those where p stands for 0, x = 0 has a sign or bit 127 is set: what the proper encoding is not."""
    proper = int.from_bytes(fourq.encode(point), "little")
    (x, (y0, y1)), sign = point, proper >> 255
    values = {
        first | second << 128 | either << 255 | spare << 127
        for first in (y0, y0 or P)
        for second in (y1, y1 or P)
        for either in ((0, 1) if x == (0, 0) else (sign,))
        for spare in (0, 1)
    }
    return {value.to_bytes(32, "little") for value in values - {proper}}


def test_the_equation_is_the_same_for_every_key_of_small_order(native: Any) -> None:
    """Where the endomorphisms' formulas break down, both must come to the same nonsense. The answers are
    guesses that hold for some of the challenges, so both verdicts occur; the checks before refuse all."""
    chance, verdicts = random.Random(1), {True: 0, False: 0}
    for point in small_order_points():
        key = fourq.encode(point)
        for _ in range(4):
            nonce, digest = chance.randrange(N), chance.randbytes(32)
            base = fourq.multiply_generator(nonce)
            guesses = (base, fourq.add(base, point), fourq.add(base, fourq.multiply(2, point)))
            commitment = chance.choice([*map(fourq.encode, guesses), bytes(32)])
            signature = commitment + nonce.to_bytes(32, "little")
            verdict = native.verify(key, digest, signature)
            assert schnorrq.fits(key, digest, signature) == verdict, (key.hex(), signature.hex())
            assert not schnorrq.verify(key, digest, signature)
            assert not qubic.verify(QubicId(key), digest, signature)
            verdicts[verdict] += 1
    assert min(verdicts.values()) > 10


def test_no_key_is_taken_in_another_than_its_proper_encoding() -> None:
    unsigned = [fourq.decode(number.to_bytes(32, "little")) for number in range(2, 40)]
    imaginary = [fourq.decode((number << 128).to_bytes(32, "little")) for number in range(2, 40)]
    points = [point for point in (*small_order_points(), *unsigned, *imaginary) if point is not None]
    others = set().union(*map(other_encodings, points))
    assert len(others) > 450
    assert not [key.hex() for key in others if schnorrq.may_sign(key)]


@pytest.mark.parametrize("order", [2, 4, 7, 8, 14])
def test_keys_of_mixed_order_get_the_same_verdict(native: Any, order: int) -> None:
    """A signer who adds a point of small order to its key has signatures that hold for some digests."""
    chance, verdicts = random.Random(order), {True: 0, False: 0}
    points = [
        point
        for point in small_order_points()
        if fourq.multiply(order, point) == IDENTITY
        and all(fourq.multiply(less, point) != IDENTITY for less in range(1, order))
    ]
    for _ in range(60):
        extra, secret, nonce = chance.choice(points), chance.randrange(N), chance.randrange(N)
        key = fourq.encode(fourq.add(fourq.multiply_generator(secret), extra))
        shift = fourq.multiply(chance.choice([0, 1]), extra)
        commitment = fourq.encode(fourq.add(fourq.multiply_generator(nonce), shift))
        digest = chance.randbytes(32)
        challenge = int.from_bytes(qubic.k12(commitment + key + digest), "little")
        signature = commitment + ((nonce - secret * challenge) % N).to_bytes(32, "little")
        verdict = native.verify(key, digest, signature)
        assert schnorrq.verify(key, digest, signature) == verdict
        verdicts[verdict] += 1
    assert min(verdicts.values()) > 0
