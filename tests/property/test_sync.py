"""Batches of offers: what is packed comes out again, within the limits; nothing else does any harm."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MessageInvalid
from protocol.messages import MAX_OFFER_BYTES, MAX_SIGHTINGS, SIGHTING_BYTES
from protocol.units import PeerKey, UnixMs
from qubixd.sync import MAX_PACKED, MAX_RECORDS, MAX_UNPACKED, pack, pack_all, pack_sightings, unpack

records = st.lists(st.binary(min_size=1, max_size=MAX_OFFER_BYTES), max_size=40)
signs = st.lists(
    st.tuples(st.binary(min_size=32, max_size=32).map(PeerKey), st.integers(0, 10**6).map(UnixMs)),
    max_size=1_000,
)


@given(records)
def test_what_is_packed_comes_out(these: list[bytes]) -> None:
    packs = pack_all(these)
    assert [record for packed in packs for record in unpack(packed)] == these
    assert all(len(packed) <= MAX_PACKED for packed in packs)


@pytest.mark.parametrize("count,size", [(5_000, 1), (1_500, 3_000), (MAX_RECORDS, 700)])
def test_much_is_packed_in_parts(count: int, size: int) -> None:
    these = [bytes([number % 251 + 1]) * size for number in range(count)]
    packs = pack_all(these)
    assert [record for packed in packs for record in unpack(packed)] == these
    assert all(sum(len(record) + 2 for record in unpack(packed)) <= MAX_UNPACKED for packed in packs)


@given(st.binary(max_size=2_000))
def test_junk_is_refused(junk: bytes) -> None:
    for packed in (junk, zlib.compress(junk), pack([b"good"]) + junk):
        try:
            found = unpack(packed)
        except MessageInvalid:
            continue
        assert all(0 < len(record) <= 0xFFFF for record in found)


@given(records.filter(bool), st.integers(0, 10_000))
def test_a_pack_cut_short_is_refused(these: list[bytes], at: int) -> None:
    packed = pack(these)
    cut = packed[: at % len(packed)]
    if cut:
        with pytest.raises(MessageInvalid):
            unpack(cut)


@pytest.mark.parametrize("size", [MAX_UNPACKED + 1, 100 << 20])
def test_a_bomb_is_refused(size: int) -> None:
    with pytest.raises(MessageInvalid):
        unpack(zlib.compress(b"\0\1x" * (size // 3 + 1), 9))


def test_too_many_records_are_refused() -> None:
    with pytest.raises(MessageInvalid):
        unpack(pack([b"x"] * (MAX_RECORDS + 1)))


@given(signs, st.integers(0, 2 * 10**6), st.integers(0, 1))
def test_a_sighting_never_makes_anybody_younger(
    these: list[tuple[PeerKey, UnixMs]], now: int, more: int
) -> None:
    packs = pack_sightings(these, UnixMs(now), more)
    assert all(0 < len(body) <= MAX_SIGHTINGS * SIGHTING_BYTES for body in packs)
    body = b"".join(packs)
    assert len(body) == len(these) * SIGHTING_BYTES
    for number, (peer, at) in enumerate(these):
        sighting = body[number * SIGHTING_BYTES : (number + 1) * SIGHTING_BYTES]
        assert sighting[:8] == peer[:8]
        believed = now - sighting[8] * 1_000
        assert believed <= max(at, now - 255_000) or at > now
