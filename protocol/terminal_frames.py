"""What travels on the stream of an OpenProgram: frames of one byte kind, u32 big-endian length, and a body.

To the program go its input and what a terminal tells it, from it come its output and, last of all, how it
ended. Each side takes only the frames that are due from the other, by kind and size. docs/connect.md has the
table. A program that could not be begun, or is cut off, ends the stream with an abort and its reason.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from protocol.errors import MessageInvalid, MessageTooLarge

MAX_DATA_BYTES: Final = 65_536
"""Of one frame; whoever has more sends several."""
MAX_CELLS: Final = 10_000
SIGNALS: Final = ("HUP", "INT", "QUIT", "TERM", "KILL", "USR1", "USR2", "CONT", "TSTP")
"""By name: their numbers differ between systems. They go to the program and to what it has begun."""
_HEADER: Final = struct.Struct(">BI")
_SIZE: Final = struct.Struct(">HH")
_CODE: Final = struct.Struct(">i")


@dataclass(frozen=True)
class Input:
    """Bytes for the program's standard input or terminal."""

    data: bytes


@dataclass(frozen=True)
class InputEnd:
    """No more input comes. A program without a terminal finds the end of its standard input."""


@dataclass(frozen=True)
class Resize:
    """The caller's terminal has this size now, in characters."""

    columns: int
    rows: int


@dataclass(frozen=True)
class Signal:
    """One of SIGNALS for the program. With a terminal, ctrl-C and its like travel as input instead."""

    name: str


@dataclass(frozen=True)
class Output:
    """Bytes of the terminal, or of standard output."""

    data: bytes


@dataclass(frozen=True)
class Errors:
    """Bytes of standard error, if there is no terminal."""

    data: bytes


@dataclass(frozen=True)
class Exit:
    """The program has ended, and all it said was sent before. `code` is as a shell has it: 128 + the number
    of a signal that ended it."""

    code: int


ToProgram = Input | InputEnd | Resize | Signal
FromProgram = Output | Errors | Exit
Frame = ToProgram | FromProgram


def pack(frame: Frame) -> bytes:
    """The bytes of one frame. AssertionError for one that may not be sent: a bug of ours."""
    kind, body = _KINDS[type(frame)], _body(frame)
    assert len(body) <= MAX_DATA_BYTES, "the data of one frame are too long"
    return _HEADER.pack(kind, len(body)) + body


def pack_data(kind: type[Input] | type[Output] | type[Errors], data: bytes) -> bytes:
    """Any amount of data as the bytes of as many frames as it takes."""
    cuts = range(0, len(data), MAX_DATA_BYTES)
    return b"".join(pack(kind(data[at : at + MAX_DATA_BYTES])) for at in cuts)


class Reader:
    """Collects frames from pieces of a stream. It keeps no more than one unfinished frame."""

    def __init__(self, reads: Mapping[int, Callable[[bytes], Frame]]) -> None:
        self._reads = reads
        self._kept = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """The frames that are complete now, to be taken before more is fed. MessageInvalid,
        MessageTooLarge."""
        self._kept += data
        while len(self._kept) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._kept)
            read = self._reads.get(kind)
            if read is None:
                raise MessageInvalid(f"a frame of kind {kind} has no place on a program's stream")
            if size > MAX_DATA_BYTES:
                raise MessageTooLarge(f"a frame of {size} bytes; at most {MAX_DATA_BYTES} are taken")
            if len(self._kept) < _HEADER.size + size:
                return
            body = bytes(self._kept[_HEADER.size : _HEADER.size + size])
            del self._kept[: _HEADER.size + size]
            yield read(body)

    @property
    def unfinished(self) -> bool:
        """The stream may not end here: a frame has begun."""
        return bool(self._kept)


def reader_to_program() -> Reader:
    """For the provider's side; its frames are ToProgram."""
    return Reader(_TO_PROGRAM)


def reader_from_program() -> Reader:
    """For the caller's side; its frames are FromProgram."""
    return Reader(_FROM_PROGRAM)


def _body(frame: Frame) -> bytes:
    match frame:
        case Input(data) | Output(data) | Errors(data):
            return data
        case Resize(columns, rows):
            return _SIZE.pack(columns, rows)
        case Signal(name):
            return name.encode()
        case Exit(code):
            return _CODE.pack(code)
        case InputEnd():
            return b""


def _input_end(body: bytes) -> InputEnd:
    if body:
        raise MessageInvalid("the end of the input carries nothing")
    return InputEnd()


def _resize(body: bytes) -> Resize:
    if len(body) != _SIZE.size:
        raise MessageInvalid(f"the size of a terminal is {_SIZE.size} bytes, not {len(body)}")
    columns, rows = _SIZE.unpack(body)
    if not (1 <= columns <= MAX_CELLS and 1 <= rows <= MAX_CELLS):
        raise MessageInvalid(f"a terminal of {columns} x {rows} characters is none")
    return Resize(columns, rows)


def _signal(body: bytes) -> Signal:
    name = body.decode("ascii", "replace")
    if name not in SIGNALS:
        raise MessageInvalid(f"a program is sent one of {', '.join(SIGNALS)}, nothing else")
    return Signal(name)


def _exit(body: bytes) -> Exit:
    if len(body) != _CODE.size:
        raise MessageInvalid(f"an exit code is {_CODE.size} bytes, not {len(body)}")
    return Exit(_CODE.unpack(body)[0])


_KINDS: Final[dict[type, int]] = {
    Input: 1,
    InputEnd: 2,
    Resize: 3,
    Signal: 4,
    Output: 129,
    Errors: 130,
    Exit: 131,
}
_TO_PROGRAM: Final[dict[int, Callable[[bytes], Frame]]] = {1: Input, 2: _input_end, 3: _resize, 4: _signal}
_FROM_PROGRAM: Final[dict[int, Callable[[bytes], Frame]]] = {129: Output, 130: Errors, 131: _exit}
