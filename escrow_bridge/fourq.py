"""The curve FourQ over GF((2^127 - 1)^2) in plain Python, for machines without a native library.

Curve, encoding, formulas and endomorphism constants are those of the FourQ paper (Costello and Longa,
"FourQ: four-dimensional decompositions on a Q-curve over the Mersenne prime", ASIACRYPT 2015) and of
draft-ladd-cfrg-4q, where the points' representations are called R1 and R2.

Python's integers take a time that depends on their values, and the tables are read at secret places:
whoever can measure precisely how long signing takes may learn about the key. The native library is
written in constant time where it matters; this is not and cannot be.
"""

from __future__ import annotations

import functools
from typing import Final, TypeAlias

Fe: TypeAlias = tuple[int, int]
"""a + b*i in GF(p^2) with i^2 = -1; below 2^127 each, where it comes out of a multiplication."""
Affine: TypeAlias = tuple[Fe, Fe]
"""(x, y) with -x^2 + y^2 = 1 + d x^2 y^2."""
Point: TypeAlias = tuple[Fe, Fe, Fe, Fe, Fe]
"""R1: (X, Y, Z, Ta, Tb) with x = X/Z, y = Y/Z, Ta Tb = X Y / Z."""
Addend: TypeAlias = tuple[Fe, Fe, Fe, Fe]
"""R2: (X + Y, Y - X, 2Z, 2d Ta Tb)."""

ENCODED_BYTES: Final = 32
P: Final = (1 << 127) - 1
N: Final = 0x29CBC14E5E0A72F05397829CBC14E5DFBD004DFE0F79992FB2540EC7768CE7
"""Order of the generator, a prime of 246 bits; the curve has 392 N points."""
COFACTOR: Final = 392
D: Final[Fe] = (0xE40000000000000142, 0x5E472F846657E0FCB3821488F1FC0C8D)
G: Final[Affine] = (
    (0x1A3472237C2FB305286592AD7B3833AA, 0x1E1F553F2878AA9C96869FB360AC77F6),
    (0x0E3FEE9BA120785AB924A2462BCBB287, 0x6E1C4AF8630E024249A7C344844C8B5C),
)
IDENTITY: Final[Affine] = ((0, 0), (1, 0))

_ROOT: Final = 1 << 125  # (p + 1) / 4: x**_ROOT is the root of x, if x is a square
_HALF: Final = (P + 1) // 2
_U64: Final = (1 << 64) - 1
_WINDOW_BITS: Final = 5
_WINDOWS: Final = -(-N.bit_length() // _WINDOW_BITS)


def _mul(a: Fe, b: Fe) -> Fe:
    return (a[0] * b[0] - a[1] * b[1]) % P, (a[0] * b[1] + a[1] * b[0]) % P


def _sqr(a: Fe) -> Fe:
    return (a[0] + a[1]) * (a[0] - a[1]) % P, 2 * a[0] * a[1] % P


def _add(a: Fe, b: Fe) -> Fe:
    return a[0] + b[0], a[1] + b[1]


def _sub(a: Fe, b: Fe) -> Fe:
    return a[0] - b[0], a[1] - b[1]


def _conjugate(a: Fe) -> Fe:
    return a[0], -a[1]


def _inverse(a: Fe) -> Fe:
    # 0 gives 0, as in the native library; no key that may sign leads there.
    over_norm = pow(a[0] * a[0] + a[1] * a[1], P - 2, P)
    return a[0] * over_norm % P, -a[1] * over_norm % P


def _root(a: Fe) -> Fe | None:
    """A square root in GF(p^2) by way of the norm, or None."""
    real, imaginary = a
    if imaginary == 0:
        root = pow(real, _ROOT, P)
        # -1 is no square in GF(p), so either `real` or `-real` is one.
        return (root, 0) if (root * root - real) % P == 0 else (0, root)
    square = (real * real + imaginary * imaginary) % P
    norm = pow(square, _ROOT, P)
    if norm * norm % P != square:
        return None
    for sign in (norm, -norm):
        half = (real + sign) * _HALF % P
        root = pow(half, _ROOT, P)
        if root * root % P == half:
            return root, imaginary * pow(2 * root, P - 2, P) % P
    raise AssertionError("one of the two products is a square")


def encode(point: Affine) -> bytes:
    """32 bytes: y, little-endian, a + b*i as 16 + 16 bytes; the top bit tells x from -x."""
    (x0, x1), (y0, y1) = point
    sign = (x0 or x1) >> 126
    return (y0 | y1 << 128 | sign << 255).to_bytes(ENCODED_BYTES, "little")


def decode(data: bytes) -> Affine | None:
    """The point of which these 32 bytes are the one encoding, or None.

    The native library reads p as 0 in some places and lets x = 0 carry either sign; nobody can sign for
    the points that have such second encodings, so both are refused here.
    """
    value = int.from_bytes(data, "little")
    y = (value & P) % P, (value >> 128 & P) % P
    y_squared = _sqr(y)
    above = _sub(y_squared, (1, 0))
    below = _add(_mul(D, y_squared), (1, 0))  # never 0: -1/d is no square
    x = _root(_mul(above, _inverse(below)))
    if x is None:
        return None
    if (x[0] or x[1]) >> 126 != value >> 255:
        x = -x[0] % P, -x[1] % P
    return (x, y) if encode((x, y)) == data else None


def _extended(point: Affine) -> Point:
    x, y = point
    return x, y, (1, 0), x, y


def _affine(point: Point) -> Affine:
    over_z = _inverse(point[2])
    return _mul(point[0], over_z), _mul(point[1], over_z)


def _addend(point: Point) -> Addend:
    x, y, z, ta, tb = point
    return _add(x, y), _sub(y, x), _add(z, z), _mul(_mul(_add(ta, ta), tb), D)


def _double(point: Point) -> Point:
    """DBL of the draft. Written out: most of the time goes here and into _plus."""
    (x0, x1), (y0, y1), (z0, z1) = point[:3]
    xx0, xx1 = (x0 + x1) * (x0 - x1), 2 * x0 * x1
    yy0, yy1 = (y0 + y1) * (y0 - y1), 2 * y0 * y1
    s0, s1 = x0 + y0, x1 + y1
    d0, d1 = (xx0 + yy0) % P, (xx1 + yy1) % P
    e0, e1 = ((s0 + s1) * (s0 - s1) - d0) % P, (2 * s0 * s1 - d1) % P
    f0, f1 = (yy0 - xx0) % P, (yy1 - xx1) % P
    g0, g1 = (2 * (z0 + z1) * (z0 - z1) - f0) % P, (4 * z0 * z1 - f1) % P
    return (
        ((e0 * g0 - e1 * g1) % P, (e0 * g1 + e1 * g0) % P),
        ((d0 * f0 - d1 * f1) % P, (d0 * f1 + d1 * f0) % P),
        ((f0 * g0 - f1 * g1) % P, (f0 * g1 + f1 * g0) % P),
        (e0, e1),
        (d0, d1),
    )


def _plus(point: Point, addend: Addend) -> Point:
    """ADD of the draft; complete, as d is no square: no pair of points is an exception."""
    (x0, x1), (y0, y1), (z0, z1), (ta0, ta1), (tb0, tb1) = point
    (n0, n1), (m0, m1), (w0, w1), (u0, u1) = addend
    t0, t1 = (ta0 * tb0 - ta1 * tb1) % P, (ta0 * tb1 + ta1 * tb0) % P
    p0, p1, q0, q1 = y0 - x0, y1 - x1, y0 + x0, y1 + x1
    a0, a1 = p0 * m0 - p1 * m1, p0 * m1 + p1 * m0
    b0, b1 = q0 * n0 - q1 * n1, q0 * n1 + q1 * n0
    c0, c1 = t0 * u0 - t1 * u1, t0 * u1 + t1 * u0
    d0, d1 = z0 * w0 - z1 * w1, z0 * w1 + z1 * w0
    e0, e1, h0, h1 = (b0 - a0) % P, (b1 - a1) % P, (b0 + a0) % P, (b1 + a1) % P
    f0, f1, g0, g1 = (d0 - c0) % P, (d1 - c1) % P, (d0 + c0) % P, (d1 + c1) % P
    return (
        ((e0 * f0 - e1 * f1) % P, (e0 * f1 + e1 * f0) % P),
        ((g0 * h0 - g1 * h1) % P, (g0 * h1 + g1 * h0) % P),
        ((f0 * g0 - f1 * g1) % P, (f0 * g1 + f1 * g0) % P),
        (e0, e1),
        (h0, h1),
    )


def add(first: Affine, second: Affine) -> Affine:
    return _affine(_plus(_extended(first), _addend(_extended(second))))


def multiply(scalar: int, point: Affine) -> Affine:
    """scalar * point for any point and any scalar from 0, bit by bit."""
    addend, total = _addend(_extended(point)), _extended(IDENTITY)
    for bit in f"{scalar:b}":
        total = _double(total)
        if bit == "1":
            total = _plus(total, addend)
    return _affine(total)


def is_weak(point: Affine) -> bool:
    """Whether the order of the point divides the cofactor: such a key can be signed for by anyone."""
    return multiply(COFACTOR, point) == IDENTITY


@functools.cache
def _windows() -> list[list[Addend]]:
    """[i][j]: (j + 1) * 2**(5 i) * G. Some 1,500 points, made at first use within hundredths of a second."""
    rows, base = [], _extended(G)
    for _ in range(_WINDOWS):
        step = _addend(base)
        row, total = [step], base
        for _ in range((1 << _WINDOW_BITS) - 2):
            total = _plus(total, step)
            row.append(_addend(total))
        rows.append(row)
        base = _plus(total, step)
    return rows


def _plus_generator(total: Point, scalar: int) -> Point:
    for row in _windows():
        digit = scalar & (1 << _WINDOW_BITS) - 1
        if digit:
            total = _plus(total, row[digit - 1])
        scalar >>= _WINDOW_BITS
    return total


def multiply_generator(scalar: int) -> Affine:
    """scalar * G for any scalar from 0."""
    return _affine(_plus_generator(_extended(IDENTITY), scalar % N))


# phi and psi, the two endomorphisms: a detour over an isogenous curve (tau there, tau_dual back), on
# which each is a short rational map. Constants: appendix A of the draft.
_TAU: Final[Fe] = (0x1964DE2C3AFAD20C74DCD57CEBCE74C3, 0xC0000000000000012)
_TAU_DUAL: Final[Fe] = (0x4AA740EB230586529ECAA6D9DECDF034, 0x7FFFFFFFFFFFFFF40000000000000011)
_PHI: Final[tuple[Fe, ...]] = (
    (0x0000000000000005FFFFFFFFFFFFFFF7, 0x2553A0759182C3294F65536CEF66F81A),
    (0x00000000000000050000000000000007, 0x62C8CAA0C50C62CF334D90E9E28296F9),
    (0x000000000000000F0000000000000015, 0x78DF262B6C9B5C982C2CB7154F1DF391),
    (0x00000000000000020000000000000003, 0x5084C6491D76342A92440457A7962EA4),
    (0x00000000000000030000000000000003, 0x12440457A7962EA4A1098C923AEC6855),
    (0x000000000000000A000000000000000F, 0x459195418A18C59E669B21D3C5052DF3),
    (0x00000000000000120000000000000018, 0x0B232A8314318B3CCD3643A78A0A5BE7),
    (0x00000000000000180000000000000023, 0x3963BC1C99E2EA1A66C183035F48781A),
    (0x00000000000000AA00000000000000F0, 0x1F529F860316CBE544E251582B5D0EF0),
    (0x00000000000008700000000000000BEF, 0x0FD52E9CFE00375B014D3E48976E2505),
)
_PSI: Final[tuple[Fe, ...]] = (
    (0x2AF99E9A83D54A02EDF07F4767E346EF, 0x00000000000000DE000000000000013A),
    (0x00000000000000E40000000000000143, 0x21B8D07B99A81F034C7DEB770E03F372),
    (0x00000000000000060000000000000009, 0x4CB26F161D7D69063A6E6ABE75E73A61),
    (0x7FFFFFFFFFFFFFF9FFFFFFFFFFFFFFF6, 0x334D90E9E28296F9C59195418A18C59E),
)
_Triple: TypeAlias = tuple[Fe, Fe, Fe]


def _tau(point: Point) -> _Triple:
    x, y, z = point[:3]
    xx, yy = _sqr(x), _sqr(y)
    total, difference, zz = _add(xx, yy), _sub(yy, xx), _sqr(z)
    return (
        _mul(_mul(_mul(_TAU, x), y), difference),
        _mul(_sub(_add(zz, zz), difference), total),
        _mul(total, difference),
    )


def _tau_dual(x: Fe, y: Fe, z: Fe) -> Point:
    xx, yy, zz = _sqr(x), _sqr(y), _sqr(z)
    total, ta = _add(xx, yy), _sub(yy, xx)
    rest, tb = _sub(_add(zz, zz), ta), _mul(_mul(_TAU_DUAL, x), y)
    return _mul(tb, total), _mul(rest, ta), _mul(rest, total), ta, tb


def _phi(point: Point) -> Point:
    x, y, z = _tau(point)
    c, yy, zz, yz = _PHI, _sqr(y), _sqr(z), _mul(y, z)
    yyyy, zzzz, yyzz = _sqr(yy), _sqr(zz), _sqr(yz)
    i, j = _mul(c[1], yz), _add(yy, _mul(c[2], zz))
    k = _add(_add(_mul(c[8], yyzz), yyyy), _mul(c[9], zzzz))
    m, n = _mul(c[3], yz), _add(yy, _mul(c[4], zz))
    o = _mul(_add(n, m), _sub(n, m))
    q = _add(_add(yyyy, _mul(c[6], yyzz)), _mul(c[7], zzzz))
    x_next = _mul(_mul(_mul(_mul(c[0], x), y), k), _mul(_add(i, j), _sub(i, j)))
    y_next = _mul(_mul(_mul(c[5], zz), o), q)
    z_next = _mul(_mul(yz, k), o)
    return _tau_dual(_conjugate(x_next), _conjugate(y_next), _conjugate(z_next))


def _psi(point: Point) -> Point:
    x, y, z = (_conjugate(part) for part in _tau(point))
    c, xx, zz = _PSI, _sqr(x), _sqr(z)
    lower = _mul(y, _add(xx, _mul(c[1], zz)))
    minus = _sub((0, 0), _add(xx, _mul(c[3], zz)))
    x_next = _mul(_mul(_mul(c[0], x), zz), minus)
    return _tau_dual(x_next, _mul(lower, _add(xx, _mul(c[2], zz))), _mul(lower, minus))


# Babai rounding in the lattice of zero decompositions: rounding factors and basis as in appendix A of the
# draft, the offset as in the paper (section 4.3; the draft prints another).
_ROUNDING: Final = (
    0x7FC5BB5C5EA2BE5DFF75682ACE6A6BD66259686E09D1A7D4F,
    0x38FD4B04CAA6C0F8A2BD235580F468D8DD1BA1D84DD627AFB,
    0x0D038BF8D0BFFBAF6C42BD6C965DCA9029B291A33678C203C,
    0x31B073877A22D841081CBDC3714983D8212E5666B77E7FDC0,
)
_BASIS: Final = (
    (650487742939046294, -1397215820276968864, 523086274270593807, -598824378691085905),
    (2110318963211420372, -1, 1, 2727991412926801872),
    (1705647224544756482, 199320682881407569, -3336360048424633503, 765171327772315031),
    (1400113754146392127, 3540637644719456050, -471270406870313397, -1789345740969872106),
)
_OFFSET: Final = tuple(5 * b2 - 3 * b3 + 2 * b4 for _, b2, b3, b4 in zip(*_BASIS, strict=True))


def _decompose(scalar: int) -> tuple[int, ...]:
    """Four numbers below 2**64, the first of them odd, that stand for a scalar of up to 256 bits.

    For points outside the prime-order group they stand for something else, which every node computes
    alike; so these very numbers are needed, not just any that fit.
    """
    times = [scalar * rounding >> 256 for rounding in _ROUNDING]
    parts = [
        offset - sum(time * row[column] for time, row in zip(times, _BASIS, strict=True))
        for column, offset in enumerate(_OFFSET)
    ]
    parts[0] += scalar
    if not parts[0] & 1:
        parts = [part + b4 for part, b4 in zip(parts, _BASIS[3], strict=True)]
    return tuple(part & _U64 for part in parts)


def _subset_sums(points: tuple[Point, ...]) -> list[Addend]:
    """[m]: the sum of the points whose bit is set in m."""
    sums = [_extended(IDENTITY)]
    for point in points:
        addend = _addend(point)
        sums += [_plus(total, addend) for total in sums]
    return [_addend(total) for total in sums]


def multiply_double(scalar: int, factor: int, point: Affine) -> Affine:
    """scalar * G + factor * point, both up to 256 bits, as Qubic's nodes compute it: the factor is split
    over the point, phi, psi and psi of phi of it, which is only for points of order N the product."""
    first = _extended(point)
    second = _phi(first)
    sums = _subset_sums((first, second, _psi(first), _psi(second)))
    a1, a2, a3, a4 = _decompose(factor)
    total = _extended(IDENTITY)
    for bit in range(63, -1, -1):
        total = _double(total)
        digit = a1 >> bit & 1 | (a2 >> bit & 1) << 1 | (a3 >> bit & 1) << 2 | (a4 >> bit & 1) << 3
        if digit:
            total = _plus(total, sums[digit])
    return _affine(_plus_generator(total, scalar % N))
