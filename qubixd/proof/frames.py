"""Bytes between the verifier and the program it sends: fixed layouts, checked by size at the door.

A frame is the length of its body and its kind, 4 bytes each, then the body. Numbers outside digests are
little-endian. docs/proof.md has the table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

VERSION: Final = 1
PLAN, PING, BEGIN, PASSES, OPEN = 1, 2, 3, 4, 5
READY, PONG, ROOTS, SUMS, INNER, LIST, ROW, FAULT = 129, 130, 131, 132, 133, 134, 135, 255

DIGEST: Final = 32
CHUNK: Final = 16
"""Numbers of y under one leaf."""
SEGMENT: Final = 256
"""Numbers of a row of C under one digest."""
MAX_FAULT: Final = 256
_HEADER: Final = struct.Struct("<II")
_IDENTITY: Final = struct.Struct("<16sQ64s")
IDENTITY_BYTES: Final = _IDENTITY.size


class Malformed(Exception):
    """Bytes that no honest program sends."""


@dataclass(frozen=True)
class Identity:
    """What a device calls itself. `uuid` is 16 bytes, `memory` in bytes."""

    uuid: bytes
    memory: int
    name: str


@dataclass(frozen=True)
class Shape:
    """Sizes of the computation: C has stripes * stripe_rows rows of n numbers."""

    n: int
    stripe_rows: int
    stripes: int
    passes: int
    threads: int

    @property
    def rows(self) -> int:
        return self.stripes * self.stripe_rows

    @property
    def depth(self) -> int:
        """Digests from a row to the root of its stripe."""
        return self.stripe_rows.bit_length() - 1

    @property
    def chunk_depth(self) -> int:
        """Digests from a chunk of y to the root of its stripe."""
        return (self.stripe_rows // CHUNK).bit_length() - 1

    @property
    def opening_bytes(self) -> int:
        return 4 * self.n + DIGEST * self.depth + 4 * CHUNK + DIGEST * self.chunk_depth


def frame(kind: int, body: bytes) -> bytes:
    return _HEADER.pack(len(body), kind) + body


def plan(shape: Shape, cuda: bool, devices: int) -> bytes:
    sizes = (shape.n, shape.stripe_rows, shape.stripes, shape.passes, shape.threads)
    return frame(PLAN, struct.pack("<8I", VERSION, int(cuda), devices, *sizes))


def begin(seed: bytes, stripes: int, threads: int) -> bytes:
    return frame(BEGIN, seed + struct.pack("<II", stripes, threads))


def openings(samples: Iterable[tuple[int, int]]) -> bytes:
    """(row, pass) of every device in turn, as many of each."""
    return frame(OPEN, b"".join(struct.pack("<II", row, number) for row, number in samples))


def identities(body: bytes) -> tuple[Identity, ...]:
    if len(body) % _IDENTITY.size:
        raise Malformed("it describes its devices in no known way")
    return tuple(
        Identity(uuid, memory, name.rstrip(b"\0").decode("ascii", "replace"))
        for uuid, memory, name in _IDENTITY.iter_unpack(body)
    )


def digests(body: bytes) -> tuple[bytes, ...]:
    return tuple(body[at : at + DIGEST] for at in range(0, len(body), DIGEST))


class Reader:
    """Collects frames from pieces of a stream; holds one frame at most, and none above its limit."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def next(self, kind: int, size: int) -> bytes | None:
        """The body of the next frame, None if more bytes are needed.

        `size` is what a body of `kind` has to have. Malformed for any other size or kind, except a FAULT,
        which is raised as `Fault`.
        """
        if len(self._bytes) < _HEADER.size:
            return None
        length, found = _HEADER.unpack_from(self._bytes)
        if found == FAULT and length <= MAX_FAULT:
            kind, size = FAULT, length
        if found != kind:
            raise Malformed(f"it sent a frame of kind {found} where one of kind {kind} was due")
        if length != size:
            raise Malformed(f"a frame of kind {found} has {length} bytes instead of {size}")
        if len(self._bytes) < _HEADER.size + length:
            return None
        body = bytes(self._bytes[_HEADER.size : _HEADER.size + length])
        del self._bytes[: _HEADER.size + length]
        if kind == FAULT:
            raise Fault(body.decode("ascii", "replace"))
        return body

    def peek_length(self) -> int | None:
        """Length of the next frame's body, if its header is here."""
        return _HEADER.unpack_from(self._bytes)[0] if len(self._bytes) >= _HEADER.size else None

    @property
    def waiting(self) -> int:
        """Bytes not yet taken."""
        return len(self._bytes)


class Fault(Exception):
    """The program says why it cannot go on."""
