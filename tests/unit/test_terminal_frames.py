"""Frames of a program's stream: they arrive as they were sent, however cut, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import terminal_frames as frames
from protocol.errors import MessageInvalid, MessageTooLarge, QubixError

TO_PROGRAM = (
    frames.Input(b"ls\r"),
    frames.Resize(80, 24),
    frames.Signal("INT"),
    frames.Input(b""),
    frames.InputEnd(),
)
FROM_PROGRAM = (frames.Output(b"\x00\xff" * 9), frames.Errors(b"no"), frames.Exit(-1), frames.Exit(130))


@given(st.lists(st.integers(1, 40), min_size=1))
def test_frames_arrive_however_the_stream_is_cut(cuts: list[int]) -> None:
    for sent, reader in (
        (TO_PROGRAM, frames.reader_to_program()),
        (FROM_PROGRAM, frames.reader_from_program()),
    ):
        data = b"".join(frames.pack(frame) for frame in sent)
        came: list[frames.Frame] = []
        while data:
            for cut in cuts:
                came += reader.feed(data[:cut])
                data = data[cut:]
        assert tuple(came) == sent
        assert not reader.unfinished


def test_much_data_is_several_frames() -> None:
    data = bytes(range(256)) * 1_000
    came = list(frames.reader_from_program().feed(frames.pack_data(frames.Output, data)))
    assert len(came) == 4
    assert b"".join(frame.data for frame in came if isinstance(frame, frames.Output)) == data


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x00\0\0\0\0", MessageInvalid),
        (frames.pack(frames.Exit(0)), MessageInvalid),
        (b"\x01\0\x01\0\x01", MessageTooLarge),
        (b"\x01\xff\xff\xff\xff", MessageTooLarge),
        (b"\x02\0\0\0\x01x", MessageInvalid),
        (b"\x03\0\0\0\x04\0\0\0\x18", MessageInvalid),
        (b"\x03\0\0\0\x03\0\0\0", MessageInvalid),
        (b"\x04\0\0\0\x03WTF", MessageInvalid),
        (b"\x04\0\0\0\x03\xff\xff\xff", MessageInvalid),
    ],
)
def test_what_is_not_due_is_refused(data: bytes, error: type[QubixError]) -> None:
    with pytest.raises(error):
        list(frames.reader_to_program().feed(data))


def test_a_caller_takes_only_what_a_program_sends() -> None:
    for frame in TO_PROGRAM:
        with pytest.raises(MessageInvalid):
            list(frames.reader_from_program().feed(frames.pack(frame)))
    with pytest.raises(MessageInvalid):
        list(frames.reader_from_program().feed(b"\x83\0\0\0\x01x"))


def test_an_unfinished_frame_is_noticed() -> None:
    reader = frames.reader_to_program()
    assert list(reader.feed(frames.pack(frames.Input(b"abc"))[:-1])) == []
    assert reader.unfinished
