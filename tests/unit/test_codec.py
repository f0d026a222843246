"""What the codec refuses, in words: wrong types, sizes, ranges, kinds and shapes."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from protocol import messages
from protocol.codec import Table
from protocol.errors import MessageInvalid, MessageTooLarge
from protocol.messages import Ack, Exited, GetOffers, Meter, Stop, Voucher
from protocol.units import MAX_QU
from tests.support.values import sample

GOLDEN_VOUCHER: dict[str, Any] = {
    "lease_id": bytes(32),
    "escrow_id": bytes(32),
    "cumulative": 5,
    "signature": bytes(64),
}


def packed(kind: Any, body: Any) -> bytes:
    data: bytes = msgpack.packb([kind, body])
    return data


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("cumulative", -1, ">= 0"),
        ("cumulative", MAX_QU + 1, f"<= {MAX_QU}"),
        ("cumulative", 2**64 - 1, f"<= {MAX_QU}"),
        ("cumulative", 5.0, "got `float`"),
        ("cumulative", True, "got `bool`"),
        ("cumulative", "5", "got `str`"),
        ("cumulative", None, "got `null`"),
        ("lease_id", bytes(31), "length >= 32"),
        ("lease_id", bytes(33), "length <= 32"),
        ("lease_id", "A" * 43 + "=", "got `str`"),
        ("signature", [0] * 64, "got `array`"),
        ("signature", msgpack.ExtType(1, bytes(64)), "Expected `bytes`"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, words: str) -> None:
    with pytest.raises(MessageInvalid, match=rf"message Voucher: .*{words}.*\$\.{field}"):
        messages.decode(packed(10, {**GOLDEN_VOUCHER, field: value}))


def test_a_missing_field_is_named() -> None:
    with pytest.raises(MessageInvalid, match="missing required field `signature`"):
        messages.decode(packed(10, {k: v for k, v in GOLDEN_VOUCHER.items() if k != "signature"}))


def test_unknown_fields_are_ignored() -> None:
    value = messages.decode(packed(10, {**GOLDEN_VOUCHER, "new": [1, {"deep": 2}]}))
    assert value == Voucher(**GOLDEN_VOUCHER)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not well-formed"),
        (packed(6, {}) + b"\x00", "not well-formed"),
        (packed(6, {})[:-1], "not well-formed"),
        (b"\x91" * 5_000, "not well-formed"),
        (b"\xdd\xff\xff\xff\xff", "not well-formed"),
        (b"\x92\x0b\x81\xa6reason\xa1\xff", "not well-formed"),
        (b"\x92\x06\x81\x01\x02", "not well-formed"),
        (msgpack.packb([6]), "not a pair"),
        (msgpack.packb([6, {}, {}]), "not a pair"),
        (msgpack.packb({6: {}}, strict_types=True), "not well-formed"),
        (packed("6", {}), "not a pair"),
        (packed(True, {}), "not a pair"),
        (packed(6.0, {}), "not a pair"),
        (packed(0, {}), "unknown message kind 0"),
        (packed(-1, {}), "unknown message kind -1"),
        (packed(len(messages.MESSAGES.kinds) + 1, {}), "unknown message kind"),
        (packed(2**63, {}), "unknown message kind"),
        (packed(6, []), "Expected `object`"),
        (packed(6, None), "Expected `object`"),
        (packed(11, {b"lease_id": bytes(32), b"reason": ""}), "Expected `str`"),
    ],
)
def test_bad_shapes_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(MessageInvalid, match=words):
        messages.decode(data)


def test_size_is_looked_at_first() -> None:
    data = messages.encode(sample(Stop))
    assert messages.decode(data, len(data)) == sample(Stop)
    with pytest.raises(MessageTooLarge, match=f"a message of {len(data)} bytes; at most {len(data) - 1}"):
        messages.decode(data, len(data) - 1)


@pytest.mark.parametrize(
    ("number", "kind", "changes"),
    [
        (9, Meter, {"seconds": 366 * 86_400 + 1}),
        (12, Exited, {"exit_code": 2**31}),
        (12, Exited, {"reason": "r" * 65}),
        (12, Exited, {"sentence": "s" * 513}),
        (17, GetOffers, {"limit": 0, "markets": (), "book": b"", "cursor": 0, "follow": False}),
    ],
)
def test_ranges_hold(number: int, kind: type, changes: dict[str, Any]) -> None:
    body = vars(sample(kind))
    assert messages.decode(packed(number, body)) == sample(kind)
    with pytest.raises(MessageInvalid):
        messages.decode(packed(number, {**body, **changes}))


def test_a_table_numbers_distinct_kinds_in_order() -> None:
    for kinds in ({2: Ack}, {1: Ack, 3: Stop}, {1: Ack, 2: Ack}, {2: Stop, 1: Ack}):
        with pytest.raises(AssertionError, match="in order"):
            Table("bad", kinds)
