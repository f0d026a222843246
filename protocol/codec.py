"""Numbered dataclasses <-> msgpack bytes.

A value travels as `[kind number, {field: value}]`. Decoding is typed (msgspec.convert): wrong types,
sizes and ranges, unknown kinds and oversized input raise MessageInvalid or MessageTooLarge; unknown
fields are ignored, so that a minor version may add fields with defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import msgspec

from protocol.errors import MessageInvalid, MessageTooLarge


class Table:
    """A closed set of dataclasses, each under its own number. Numbers are consecutive from 1."""

    def __init__(self, name: str, kinds: Mapping[int, type]) -> None:
        if list(kinds) != list(range(1, len(kinds) + 1)) or len(set(kinds.values())) != len(kinds):
            raise AssertionError(f"the {name} table must number distinct kinds 1, 2, 3, ... in order")
        self.name = name
        self.kinds = dict(kinds)
        self._numbers = {kind: number for number, kind in kinds.items()}

    def encode(self, value: object) -> bytes:
        """Bytes of a value whose class is in the table; the same value gives the same bytes."""
        number = self._numbers[type(value)]
        packed: bytes = msgpack.packb([number, msgspec.to_builtins(value, builtin_types=(bytes,))])
        return packed

    def decode(self, data: bytes, max_bytes: int) -> Any:
        """The value in `data`, checked; at most `max_bytes` are looked at."""
        if len(data) > max_bytes:
            raise MessageTooLarge(f"a {self.name} of {len(data)} bytes; at most {max_bytes} are taken")
        number, body = _unpack_pair(data, self.name)
        kind = self.kinds.get(number)
        if kind is None:
            raise MessageInvalid(f"unknown {self.name} kind {number}")
        return convert(body, kind, f"{self.name} {kind.__name__}")


def convert(body: object, kind: type, what: str) -> Any:
    """Builtin containers -> `kind`, checked by type, size and range."""
    try:
        # Bytes are bytes: without builtin_types a text would be taken for base64, a second spelling.
        return msgspec.convert(body, kind, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
        raise MessageInvalid(f"{what}: {error}") from error


def unpack(data: bytes, what: str) -> object:
    """One msgpack value that fills `data` exactly."""
    try:
        return msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MessageInvalid(f"{what} is not well-formed msgpack") from error


def _unpack_pair(data: bytes, what: str) -> tuple[int, object]:
    pair = unpack(data, what)
    if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int):
        raise MessageInvalid(f"{what} is not a pair of kind and body")
    return pair[0], pair[1]
