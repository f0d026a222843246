"""Cursors: what was written is read, everything else is refused in one sentence."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import QueryInvalid
from web import cursors

KEY = bytes(range(32))
numbers = st.none() | st.integers(-(2**61), 2**61)


def packed(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@given(
    st.sampled_from(["", "price,-score"]), st.lists(numbers, max_size=4), st.just(KEY) | st.just(bytes(32))
)
def test_a_place_comes_back(order: str, place: list[int | None], key: bytes) -> None:
    text = cursors.encode(order, place, key)
    assert cursors.decode(text, order, len(place), 32) == (tuple(place), key)
    assert len(text) < cursors.MAX_CHARACTERS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "é",
        "A" * 401,
        packed({}),
        packed(["price", [1], KEY.hex()]),
        packed(["-price", [1, 2], KEY.hex()]),
        packed(["-price", [True], KEY.hex()]),
        packed(["-price", [1.5], KEY.hex()]),
        packed(["-price", [2**63], KEY.hex()]),
        packed(["-price", ["1"], KEY.hex()]),
        packed(["-price", [1], KEY.hex()[:-1] + "g"]),
        packed(["-price", [1], KEY.hex()[:-2]]),
        packed(["-price", [1], 7]),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(QueryInvalid, match="begin again"):
        cursors.decode(text, "-price", 1, 32)


@settings(max_examples=50)
@given(st.text(max_size=20) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_no_text_breaks_it(text: str) -> None:
    with pytest.raises(QueryInvalid):
        cursors.decode(text, "price", 1, 32)
