"""Cutting a byte stream into messages, however the network splits it."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MemoryReceiveStream, memory_stream_one_way_pair

from escrow_bridge.wire_format import Kind, Message, MessageReader, encode, parse_tick_data, parse_tick_info
from protocol.errors import MessageInvalid, MessageTooLarge, StreamBroken
from protocol.units import Tick

MESSAGES = st.builds(
    Message,
    st.sampled_from(list(Kind)).map(int),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=300),
)


class Chopped(trio.abc.ReceiveStream):
    """Hands bytes out in pieces of a fixed size."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.data, self.piece = data, piece

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        chunk, self.data = self.data[: self.piece], self.data[self.piece :]
        return chunk

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@settings(max_examples=50)
@given(st.lists(MESSAGES, max_size=5), st.integers(1, 700))
async def test_messages_come_out_as_they_went_in(messages: list[Message], piece: int) -> None:
    data = b"".join(encode(Kind(m.kind), m.dejavu, m.payload) for m in messages)
    reader = MessageReader(Chopped(data, piece))
    assert [await reader.receive() for _ in messages] == messages
    assert await reader.receive() is None


async def fed(data: bytes) -> MemoryReceiveStream:
    sender, receiver = memory_stream_one_way_pair()
    await sender.send_all(data)
    await sender.aclose()
    return receiver


async def test_a_cut_inside_a_message_is_no_clean_end() -> None:
    whole = encode(Kind.ENTITY, 1, bytes(20))
    for cut in (1, 7, 8, 27):
        with pytest.raises(StreamBroken):
            await MessageReader(await fed(whole[:cut])).receive()


async def test_impossible_sizes_are_refused_before_reading_on() -> None:
    with pytest.raises(MessageTooLarge):
        await MessageReader(await fed((101).to_bytes(3, "little") + bytes(5)), 100).receive()
    with pytest.raises(MessageInvalid):
        await MessageReader(await fed((7).to_bytes(3, "little") + bytes(5))).receive()


@pytest.mark.parametrize("slots", [1_024, 4_096])
def test_tick_data_of_every_version_is_understood(slots: int) -> None:
    head = bytes(4) + (7).to_bytes(4, "little") + bytes(8 + 32)
    digests = [bytes([n]) * 32 for n in (1, 2)]
    body = digests[0] + bytes(32) + digests[1] + bytes(32 * (slots - 3))
    data = parse_tick_data(head + body + bytes(8_192 + 64), Tick(7))
    assert (data.slots, list(data.digests)) == (slots, digests)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_wrong_sizes_are_refused(size: int) -> None:
    with pytest.raises(MessageInvalid):
        parse_tick_info(bytes(size))
    with pytest.raises(MessageInvalid):
        parse_tick_data(bytes(16 + 32 + 32 * 1_024 + 8_192 + 64 + size - 16), Tick(1))
