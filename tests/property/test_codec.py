"""The codec and the envelope against every value and every kind of rubbish."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import messages
from protocol.codec import Table
from protocol.errors import MessageInvalid, MessageTooLarge, SignatureInvalid
from protocol.lease_model import EFFECTS, EVENTS
from protocol.lease_state import STATES
from protocol.messages import MAX_ORDER_BYTES, MESSAGES
from protocol.signing import NodeKey, verify
from tests.support.values import any_value, sample

KEY = NodeKey(b"k" * 32)
JOURNAL_READERS = [partial(table.decode, max_bytes=1 << 20) for table in (EVENTS, EFFECTS, STATES)]
any_message = st.one_of(*(any_value(kind) for kind in MESSAGES.kinds.values()))
any_journal = st.one_of(
    *(
        st.tuples(st.just(table), any_value(kind))
        for table in (EVENTS, EFFECTS, STATES)
        for kind in table.kinds.values()
    )
)
any_tree = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(any_message)
def test_a_message_comes_back_as_it_went(message: Any) -> None:
    data = messages.encode(message)
    assert messages.decode(data, MAX_ORDER_BYTES) == message
    assert messages.encode(messages.decode(data, MAX_ORDER_BYTES)) == data


@given(any_message)
def test_a_signed_message_comes_back_as_it_went(message: Any) -> None:
    signed = verify(KEY.sign(message), MAX_ORDER_BYTES)
    assert (signed.message, signed.signer) == (message, KEY.public)


@given(any_journal)
def test_the_journal_comes_back_as_it_went(item: tuple[Table, Any]) -> None:
    table, value = item
    assert table.decode(table.encode(value), 1 << 20) == value


def check_refusals(data: bytes) -> None:
    readers: list[Callable[[bytes], Any]] = [messages.decode, verify, *JOURNAL_READERS]
    for read in readers:
        try:
            read(data)
        except (MessageInvalid, MessageTooLarge, SignatureInvalid) as error:
            assert str(error)


@given(st.binary(max_size=300))
def test_rubbish_is_refused_and_nothing_else_happens(data: bytes) -> None:
    check_refusals(data)


@given(st.integers(-1, 30), any_tree)
def test_wrong_bodies_are_refused_and_nothing_else_happens(number: int, body: Any) -> None:
    check_refusals(msgpack.packb([number, body]))


@given(any_tree)
def test_wrong_trees_are_refused_and_nothing_else_happens(tree: Any) -> None:
    check_refusals(msgpack.packb(tree))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good message or envelope with some bytes overwritten, cut out or put in."""
    value = sample(draw(st.sampled_from(list(MESSAGES.kinds.values()))))
    data = bytearray(draw(st.sampled_from([messages.encode, KEY.sign]))(value))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


@settings(max_examples=200)
@given(damaged())
def test_damage_is_refused_and_nothing_else_happens(data: bytes) -> None:
    check_refusals(data)


@given(
    any_message, st.dictionaries(st.text(min_size=1, max_size=8).map("new_".__add__), any_tree, max_size=3)
)
def test_fields_of_a_later_version_are_ignored(message: Any, more: dict[str, Any]) -> None:
    number, body = msgpack.unpackb(messages.encode(message))
    later: bytes = msgpack.packb([number, {**more, **body}])
    assert messages.decode(later, 1 << 20) == message
