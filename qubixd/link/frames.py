"""What travels on a carrier: frames, written and taken apart. Pure.

A frame is a header of 16 bytes, big-endian, and a payload: kind (1), length of the payload (3), number of
the stream (4), value (8). docs/paths.md says what each kind means. Data is handed on in the pieces it comes
in; every other payload is small and handed on whole.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from protocol.errors import MessageInvalid, MessageTooLarge, PeerRefused

VERSION: Final = 1
HEADER: Final = struct.Struct(">IIQ")
_TWO: Final = struct.Struct(">II")
MAX_DATA_BYTES: Final = 1 << 20
MAX_OPENING_BYTES: Final = 64 * 1024
MAX_WORD_BYTES: Final = 64
MAX_SENTENCE_BYTES: Final = 1_000
_STREAM_MAX: Final = 2**32 - 1


class Kind(enum.IntEnum):
    HELLO = 1
    """First on every carrier, from both. Stream: VERSION. Value: the run of the daemon, random."""
    OPEN = 2
    """Value: turn << 32 | window. Payload: one of the openings, as protocol.messages encodes it."""
    ACCEPT = 3
    """Value: window."""
    DATA = 4
    """Value: how many bytes of the stream lie before these."""
    END = 5
    """No more data in this direction. Value: how many bytes lie before; the end counts as one more."""
    ACK = 6
    """Value: how many bytes are consumed (the end included). Payload: window (4)."""
    ABORT = 7
    """The stream is over. Payload: length of the code (1), code, sentence."""
    RESUME = 8
    """The stream goes on here. Value: how much has been received. Payload: room for more (4), turn (4)."""
    PING = 9
    PONG = 10
    """Value: that of the ping."""


_SIZES: Final[dict[int, tuple[int, int]]] = {
    Kind.HELLO: (0, 0),
    Kind.OPEN: (1, MAX_OPENING_BYTES),
    Kind.ACCEPT: (0, 0),
    Kind.DATA: (1, MAX_DATA_BYTES),
    Kind.END: (0, 0),
    Kind.ACK: (4, 4),
    Kind.ABORT: (1, 1 + MAX_WORD_BYTES + MAX_SENTENCE_BYTES),
    Kind.RESUME: (8, 8),
    Kind.PING: (0, 0),
    Kind.PONG: (0, 0),
}
"""Least and most bytes of each kind's payload."""


class Frame(NamedTuple):
    kind: int
    stream: int
    value: int
    payload: bytes | memoryview
    """Of data: good until the next frame is asked for."""


def header(kind: Kind, stream: int, value: int, length: int = 0) -> bytes:
    return HEADER.pack(kind << 24 | length, stream, value)


def hello(run: int) -> bytes:
    return header(Kind.HELLO, VERSION, run)


def open_frame(stream: int, turn: int, window: int, opening: bytes) -> bytes:
    """MessageTooLarge for an opening above MAX_OPENING_BYTES."""
    if len(opening) > MAX_OPENING_BYTES:
        raise MessageTooLarge(f"a request of {len(opening)} bytes; at most {MAX_OPENING_BYTES} can be sent")
    return header(Kind.OPEN, stream, turn << 32 | window, len(opening)) + opening


def ack(stream: int, consumed: int, window: int) -> bytes:
    return header(Kind.ACK, stream, consumed, 4) + window.to_bytes(4, "big")


def resume(stream: int, received: int, room: int, turn: int) -> bytes:
    return header(Kind.RESUME, stream, received, 8) + _TWO.pack(room, turn)


def abort(stream: int, code: str, sentence: str) -> bytes:
    """What is too long is cut."""
    word = _cut(code, MAX_WORD_BYTES)
    payload = bytes((len(word),)) + word + _cut(sentence, MAX_SENTENCE_BYTES)
    return header(Kind.ABORT, stream, 0, len(payload)) + payload


def _cut(text: str, most: int) -> bytes:
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore").encode()


def window_of(payload: bytes | memoryview) -> int:
    return int.from_bytes(payload, "big")


def room_and_turn(payload: bytes | memoryview) -> tuple[int, int]:
    room, turn = _TWO.unpack(payload)
    return room, turn


def reason_of(payload: bytes | memoryview) -> PeerRefused:
    """Of an ABORT; printable, for a person may see it. MessageInvalid."""
    raw = bytes(payload)
    size = raw[0]
    if not 0 < size <= min(MAX_WORD_BYTES, len(raw) - 1):
        raise MessageInvalid("a peer ended a stream without a sensible reason")
    return PeerRefused(_printable(raw[1 : 1 + size]), _printable(raw[1 + size :]))


def _printable(raw: bytes) -> str:
    return "".join(char if char.isprintable() else " " for char in raw.decode("utf-8", "replace"))


class Splitter:
    """Bytes of a carrier -> frames. MessageInvalid or MessageTooLarge at the first byte that is wrong."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._need = HEADER.size
        self._stream = self._offset = self._left = 0
        """Of the data whose pieces are coming."""

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        view, at = memoryview(data), 0
        while at < len(view):
            if self._left:
                piece = view[at : at + self._left]
                offset, at = self._offset, at + len(piece)
                self._offset += len(piece)
                self._left -= len(piece)
                yield Frame(Kind.DATA, self._stream, offset, piece)
                continue
            more = view[at : at + self._need - len(self._held)]
            self._held += more
            at += len(more)
            if len(self._held) == self._need and (frame := self._whole()) is not None:
                yield frame

    def _whole(self) -> Frame | None:
        """The frame that is held, unless its payload is still to come."""
        first, stream, value = HEADER.unpack_from(self._held)
        kind, length = first >> 24, first & 0xFFFFFF
        if len(self._held) == HEADER.size:
            self._check(kind, length)
            if kind == Kind.DATA:
                self._stream, self._offset, self._left = stream, value, length
                self._held.clear()
                return None
            if length:
                self._need = HEADER.size + length
                return None
        payload = bytes(self._held[HEADER.size :])
        self._held.clear()
        self._need = HEADER.size
        return Frame(kind, stream, value, payload)

    def _check(self, kind: int, length: int) -> None:
        sizes = _SIZES.get(kind)
        if sizes is None:
            raise MessageInvalid(f"a peer sent a frame of the unknown kind {kind} over a link")
        if not sizes[0] <= length <= sizes[1]:
            raise MessageInvalid(f"a peer sent a frame of kind {kind} with {length} bytes over a link")
