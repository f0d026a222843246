"""Frames of a job's files, and the streams of a program without a terminal, in whatever pieces they come."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import file_frames as f
from protocol.errors import MessageInvalid, MessageTooLarge
from qubixd.runner.docker_pipe import Demultiplexer
from tests.support.values import any_value, sample

FROM_CALLER = (f.Look, f.List, f.Read, f.Write, f.MakeDirectory, f.Settle, f.Data, f.End)
FROM_PROVIDER = (f.Entry, f.Entries, f.Data, f.End, f.Ready, f.Done, f.Failed)


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.one_of(*map(any_value, FROM_CALLER)), max_size=5), st.lists(st.integers(0, 10**6)))
def test_questions_come_as_they_were_said(frames: list[Any], cuts: list[int]) -> None:
    reader = f.reader_from_caller()
    pieces = in_pieces(b"".join(map(f.pack, frames)), cuts)
    assert [frame for piece in pieces for frame in reader.feed(piece)] == frames
    assert not reader.unfinished


@pytest.mark.parametrize("kind", FROM_PROVIDER)
def test_answers_come_as_they_were_said(kind: type) -> None:
    frame = sample(kind)
    reader = f.reader_from_provider()
    assert list(reader.feed(f.pack(frame))) == [frame]
    if kind not in FROM_CALLER:
        with pytest.raises(MessageInvalid, match="not what this side"):
            list(f.reader_from_caller().feed(f.pack(frame)))


def test_the_largest_frames_fit() -> None:
    entry = f.Entry(b"n" * f.MAX_NAME_BYTES, "directory", 2**53, 0o777, -(2**62), bytes(32))
    for frame in (f.Entries((entry,) * f.MAX_ENTRIES), f.Data(bytes(f.MAX_DATA_BYTES))):
        assert list(f.reader_from_provider().feed(f.pack(frame))) == [frame]


@pytest.mark.parametrize(
    "frame",
    [
        f.Look(b"n" * (f.MAX_NAME_BYTES + 1)),
        f.Read(b"x", -1),
        f.Write(b"x", 2**53 + 1, 0),
        f.Write(b"x", 1, 0, mode=0o1000),
        f.Data(bytes(f.MAX_DATA_BYTES + 1)),
        f.End(bytes(33)),
    ],
)
def test_what_does_not_fit_is_refused(frame: Any) -> None:
    with pytest.raises(MessageInvalid):
        list(f.reader_from_caller().feed(f.pack(frame)))


def test_a_frame_that_is_too_long_is_refused_before_it_has_come() -> None:
    reader = f.reader_from_caller()
    with pytest.raises(MessageTooLarge):
        list(reader.feed((f.MAX_FRAME_BYTES + 1).to_bytes(4, "big")))


@pytest.mark.parametrize("name", [b"a", b"a/b", b"\xff", b".x", b"a" * 255, b"..."])
def test_names_of_files(name: bytes) -> None:
    assert b"/".join(f.checked_name(name)) == name
    assert f.checked_name(b"") == ()


@pytest.mark.parametrize(
    "name", [b"/", b"a/", b"/a", b"..", b"a/../b", b"a//b", b"a\0", b"a" * 256, b"a/" * 101]
)
def test_names_that_lead_elsewhere(name: bytes) -> None:
    with pytest.raises(MessageInvalid):
        f.checked_name(name)


def test_names_in_sentences_are_harmless() -> None:
    assert f.shown(b"\x1b[2J") == r"'\x1b[2J'"
    assert len(f.shown(b"n" * 4_000)) < 220


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50))), st.lists(st.integers(0, 10**6)))
def test_output_and_errors_are_taken_apart(said: list[tuple[int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for kind, data in said)
    streams, apart = {1: b"", 2: b""}, Demultiplexer()
    for piece in in_pieces(wire, cuts):
        for kind, data in apart.feed(piece):
            streams[kind] += data
    assert streams == {kind: b"".join(data for one, data in said if one == kind) for kind in (1, 2)}
