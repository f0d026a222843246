"""Where a list goes on: an opaque text that a client sends back. Pure.

Unpadded URL-safe base64 of a JSON list: what it is a place in, the place, and the key of the last one seen.
Whoever changes one only moves its own place.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, TypeGuard

from protocol.errors import QueryInvalid

MAX_CHARACTERS: Final = 400
MOST: Final = 2**62
"""What a number in it may be."""


def encode(order: str, place: Sequence[int | None], key: bytes) -> str:
    """`order` says what list it is, and how it is sorted."""
    packed = json.dumps([order, [*place], key.hex()], separators=(",", ":"))
    return base64.urlsafe_b64encode(packed.encode()).rstrip(b"=").decode()


def decode(text: str, order: str, places: int, key_bytes: int) -> tuple[tuple[int | None, ...], bytes]:
    """(place, key) of a cursor of the list `order`. QueryInvalid for everything else."""
    match _parts(text):
        case [str(of), [*place], str(key)] if (
            of == order and len(place) == places and len(key) == 2 * key_bytes and _are_numbers(place)
        ):
            with suppress(ValueError):  # not hexadecimal
                return tuple(place), bytes.fromhex(key)
    raise QueryInvalid("this cursor is of another list or order; begin again without one")


def _parts(text: str) -> object:
    if len(text) > MAX_CHARACTERS or not text.isascii():
        return None
    try:
        return json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None


def _are_numbers(values: Sequence[object]) -> TypeGuard[Sequence[int | None]]:
    return all(map(_is_number, values))


def _is_number(value: object) -> bool:
    return value is None or (type(value) is int and abs(value) < MOST)
