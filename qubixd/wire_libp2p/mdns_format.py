"""The packets by which nodes of one network link find each other: as much of multicast DNS as that takes.

Layout: RFC 1035 section 4 and RFC 6762 (multicast DNS); names and records: libp2p's mDNS discovery
specification. A node asks for `_p2p._udp.local` PTR; others answer with a name of theirs, and with that
name's TXT record, whose strings are "dnsaddr=" and an address. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from protocol.errors import MessageInvalid

Name = tuple[bytes, ...]

SERVICE: Final[Name] = (b"_p2p", b"_udp", b"local")
TTL_SECONDS: Final = 120
MAX_PACKET_BYTES: Final = 1_472
"""What a link carries in one piece; nobody needs more for this."""
MAX_ADDRESSES: Final = 8
PREFIX: Final = b"dnsaddr="
_MAX_STRING: Final = 255
_MAX_LABEL: Final = 63
_MAX_LABELS: Final = 32
_MAX_JUMPS: Final = 16
_MAX_RECORDS: Final = 64
_HEADER: Final = struct.Struct(">6H")
_QUESTION: Final = struct.Struct(">2H")
_RECORD: Final = struct.Struct(">2HIH")
_RESPONSE: Final = 0x8400
_IS_RESPONSE: Final = 0x8000
_PTR, _TXT, _ANY, _IN = 12, 16, 255, 1
_FLAGGED: Final = 0x8000
"""Of a class: "answer me alone" in questions, "forget what you had" in answers."""
_POINTER: Final = 0xC0


@dataclass(frozen=True)
class Heard:
    """What matters of a packet."""

    asks: bool
    """Whether it asks who is there."""
    addresses: tuple[str, ...]
    """That it tells of, at most MAX_ADDRESSES, unchecked."""


def question() -> bytes:
    """Who is there?"""
    return _HEADER.pack(0, 0, 1, 0, 0, 0) + _name(SERVICE) + _QUESTION.pack(_PTR, _IN)


def answer(name: str, addresses: tuple[str, ...]) -> bytes:
    """A node's own record under a name of its own, at most 63 letters and digits."""
    own: Name = (name.encode(), *SERVICE)
    strings = [PREFIX + address.encode() for address in addresses[:MAX_ADDRESSES]]
    texts = b"".join(bytes([len(one)]) + one for one in strings if len(one) <= _MAX_STRING)
    pointer = _record(SERVICE, _PTR, _IN, _name(own))
    return _HEADER.pack(0, _RESPONSE, 0, 1, 0, 1) + pointer + _record(own, _TXT, _IN | _FLAGGED, texts)


def read(packet: bytes) -> Heard:
    """MessageInvalid unless the packet is well-formed as far as it is read."""
    try:
        return _read(packet)
    except (struct.error, IndexError) as error:
        raise MessageInvalid("a multicast DNS packet ends too soon") from error


def _read(packet: bytes) -> Heard:
    _, flags, questions, *records = _HEADER.unpack_from(packet)
    if questions + sum(records) > _MAX_RECORDS:
        raise MessageInvalid("a multicast DNS packet has too many records")
    at, asks, found = _HEADER.size, False, []
    for _ in range(questions):
        name, at = _read_name(packet, at)
        kind, _ = _QUESTION.unpack_from(packet, at)
        at += _QUESTION.size
        asks |= name == SERVICE and kind in (_PTR, _ANY)
    for _ in range(sum(records)):
        name, at = _read_name(packet, at)
        kind, _, ttl, size = _RECORD.unpack_from(packet, at)
        at += _RECORD.size
        body, at = packet[at : at + size], at + size
        if len(body) != size:
            raise MessageInvalid("a multicast DNS packet ends too soon")
        if kind == _TXT and ttl and len(name) == len(SERVICE) + 1 and name[1:] == SERVICE:
            found += _addresses(body)
    is_response = bool(flags & _IS_RESPONSE)
    return Heard(asks and not is_response, tuple(found[:MAX_ADDRESSES]) if is_response else ())


def _addresses(body: bytes) -> list[str]:
    found, at = [], 0
    while at < len(body):
        text = body[at + 1 : at + 1 + body[at]]
        at += 1 + body[at]
        if text.startswith(PREFIX) and text.isascii():
            found.append(text.removeprefix(PREFIX).decode("ascii"))
    return found


def _record(name: Name, kind: int, class_: int, body: bytes) -> bytes:
    return _name(name) + _RECORD.pack(kind, class_, TTL_SECONDS, len(body)) + body


def _name(labels: Name) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _read_name(packet: bytes, at: int) -> tuple[Name, int]:
    """A name in lower case, and where it ends. It may go on elsewhere, but only further to the front."""
    labels: list[bytes] = []
    end, jumps = 0, 0
    while (size := packet[at]) != 0:
        if size & _POINTER == _POINTER:
            target = (size & ~_POINTER) << 8 | packet[at + 1]
            end, jumps = end or at + 2, jumps + 1
            if target >= at or jumps > _MAX_JUMPS:
                raise MessageInvalid("a name in a multicast DNS packet runs in circles")
            at = target
        elif size > _MAX_LABEL or len(labels) == _MAX_LABELS:
            raise MessageInvalid("a name in a multicast DNS packet is too long")
        else:
            labels.append(packet[at + 1 : at + 1 + size].lower())
            at += 1 + size
    return tuple(labels), end or at + 1
