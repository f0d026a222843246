"""The curve FourQ: the group's laws, the encoding, and the split of a scalar over the endomorphisms."""

from __future__ import annotations

import random

import pytest

from escrow_bridge import fourq
from escrow_bridge.fourq import COFACTOR, IDENTITY, Affine, Fe, G, N, P

CHANCE = random.Random(4)


def any_point() -> Affine:
    """A random point of the whole curve, mostly not a multiple of G."""
    while True:
        point = fourq.decode((CHANCE.getrandbits(256) & ~(1 << 127)).to_bytes(32, "little"))
        if point is not None:
            return point


def times(a: Fe, b: Fe) -> Fe:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def on_curve(point: Affine) -> bool:
    """-x^2 + y^2 = 1 + d x^2 y^2, over whole numbers until the end."""
    xx, yy = times(point[0], point[0]), times(point[1], point[1])
    right = times(fourq.D, times(xx, yy))
    return (yy[0] - xx[0] - 1 - right[0]) % P == 0 == (yy[1] - xx[1] - right[1]) % P


def negative(point: Affine) -> Affine:
    (x0, x1), y = point
    return (-x0 % P, -x1 % P), y


def test_the_generator_has_order_n_and_the_curve_392_n() -> None:
    assert on_curve(G) and not fourq.is_weak(G)
    assert fourq.multiply(N, G) == IDENTITY
    assert all(fourq.multiply(N * COFACTOR, any_point()) == IDENTITY for _ in range(5))


def test_addition_is_a_group() -> None:
    for _ in range(10):
        a, b, c = any_point(), any_point(), any_point()
        assert on_curve(fourq.add(a, b))
        assert fourq.add(a, b) == fourq.add(b, a)
        assert fourq.add(fourq.add(a, b), c) == fourq.add(a, fourq.add(b, c))
        assert fourq.add(a, IDENTITY) == a
        assert fourq.add(a, negative(a)) == IDENTITY
        assert fourq.add(a, a) == fourq.multiply(2, a)


@pytest.mark.parametrize("scalar", [0, 1, 2, 31, 32, 33, N - 1, N, N + 1, 2 * N, (1 << 256) - 1])
def test_multiples_of_the_generator_at_the_edges(scalar: int) -> None:
    assert fourq.multiply_generator(scalar) == fourq.multiply(scalar, G)


def test_every_table_entry_is_the_multiple_it_stands_for() -> None:
    for window in range(50):
        digit = CHANCE.randrange(1, 32)
        scalar = digit << 5 * window
        assert fourq.multiply_generator(scalar) == fourq.multiply(scalar % N, G)


def test_the_double_product_agrees_with_plain_multiplication() -> None:
    factors = [0, 1, N - 1, N, (1 << 256) - 1, *(CHANCE.getrandbits(256) for _ in range(20))]
    for factor in factors:
        scalar = CHANCE.randrange(N)
        point = fourq.multiply(COFACTOR, any_point())
        expected = fourq.add(fourq.multiply(scalar, G), fourq.multiply(factor, point))
        assert fourq.multiply_double(scalar, factor, point) == expected


def test_encoding_is_undone_by_decoding() -> None:
    for _ in range(50):
        point = any_point()
        for either in (point, negative(point)):
            assert on_curve(either)
            assert fourq.decode(fourq.encode(either)) == either


def test_about_half_of_all_heights_are_points() -> None:
    heights = [CHANCE.getrandbits(255) & ~(1 << 127) for _ in range(200)]
    points = [fourq.decode(height.to_bytes(32, "little")) for height in heights]
    assert 60 < sum(point is not None for point in points) < 140
    assert all(on_curve(point) for point in points if point is not None)


def test_real_and_imaginary_roots_are_found() -> None:
    """x with a real or an imaginary part of 0 takes its own way through the square root."""
    order_four = fourq.decode(bytes(32))
    assert order_four is not None and order_four[1] == (0, 0)
    assert fourq.multiply(2, order_four) == ((0, 0), (P - 1, 0))
    assert fourq.multiply(4, order_four) == IDENTITY
    opposite = fourq.decode(bytes(31) + b"\x80")
    assert opposite == negative(order_four)


def test_a_point_has_one_encoding() -> None:
    minus_one = (P - 1).to_bytes(32, "little")
    assert fourq.decode(b"\x01" + bytes(31)) == IDENTITY
    assert fourq.decode(minus_one) == ((0, 0), (P - 1, 0))
    others = {
        "bit 127": fourq.encode(G)[:15] + bytes([fourq.encode(G)[15] | 0x80]) + fourq.encode(G)[16:],
        "p for 0, real": P.to_bytes(32, "little"),
        "p for 0, imaginary": (1 | P << 128).to_bytes(32, "little"),
        "a sign of zero": b"\x01" + bytes(30) + b"\x80",
        "another": minus_one[:31] + b"\x80",
    }
    assert {name: fourq.decode(data) for name, data in others.items()} == dict.fromkeys(others)
