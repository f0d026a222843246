"""What travels on the stream of an OpenFiles: a u32 big-endian length, then one message of the table below.

The caller asks, the provider answers in the order of the questions; each answer ends with one of the frames
that say so. A question that fails is answered by Failed and leaves the stream as it was, so that the next
can be asked. Names are bytes relative to the job's workspace, parts divided by "/"; b"" is the workspace.
Nothing follows a link. docs/connect.md has the whole conversation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from protocol.codec import Table
from protocol.errors import MessageInvalid, MessageTooLarge
from protocol.message_fields import Sentence, Size, Word

MAX_DATA_BYTES: Final = 131_072
"""Of one Data; whoever has more sends several."""
MAX_ENTRIES: Final = 64
"""Of one Entries."""
MAX_NAME_BYTES: Final = 4_095
MAX_DEPTH: Final = 100
MAX_FRAME_BYTES: Final = 320 << 10
_LENGTH: Final = struct.Struct(">I")

Name = Annotated[bytes, Meta(max_length=MAX_NAME_BYTES)]
Mode = Annotated[int, Meta(ge=0, le=0o777)]
Nanoseconds = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]
Digest = Annotated[bytes, Meta(max_length=32)]
"""SHA-256, or nothing where it is not known."""
Kind = Literal["file", "directory", "link", "other"]


# What the caller asks -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What is there under a name? Answer: Entry, whose `sha256` is filled for a file if `digest`."""

    name: Name
    digest: bool = False


@dataclass(frozen=True)
class List:
    """What is in a directory, with all below it if `deep`? Answer: any number of Entries, then Done."""

    name: Name
    deep: bool = False


@dataclass(frozen=True)
class Read:
    """A file from byte `offset` on. Answer: its Entry, any number of Data, then End with the SHA-256 of the
    whole file from its first byte. Where the file is smaller than `offset` Failed with files.changed."""

    name: Name
    offset: Size = 0


@dataclass(frozen=True)
class Write:
    """A whole file of `size` bytes is to be written. Answer: Ready, or Failed.

    After Ready the caller sends Data from byte `Ready.offset` of its file on, then End with the SHA-256 of
    the whole file; answer: Done, and the file is there under its name, or Failed, and what was there before
    stays. After a Failed in between the caller sends End at once. What a broken stream left is kept for a
    Write of the same name, size and mtime.
    """

    name: Name
    size: Size
    mtime_ns: Nanoseconds
    mode: Mode = 0o644
    anew: bool = False
    """Without what an earlier try has left."""


@dataclass(frozen=True)
class MakeDirectory:
    """A directory, and those above it. Answer: Done, also where there is one."""

    name: Name
    mode: Mode = 0o755


@dataclass(frozen=True)
class Settle:
    """Give a file or directory its mode and time. Answer: Done. For directories, after their files."""

    name: Name
    mode: Mode
    mtime_ns: Nanoseconds


# Both ways ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    data: Annotated[bytes, Meta(max_length=MAX_DATA_BYTES)]


@dataclass(frozen=True)
class End:
    """No more Data. From the provider the answer to Read is complete."""

    sha256: Digest = b""


# What the provider answers ------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One name. `mode` has the nine permission bits; `size` is 0 for all but files."""

    name: Name
    kind: Kind
    size: Size = 0
    mode: Mode = 0
    mtime_ns: Nanoseconds = 0
    sha256: Digest = b""


@dataclass(frozen=True)
class Entries:
    """Some of a directory. Names are relative to the workspace, too; a directory comes before what is in
    it."""

    entries: Annotated[tuple[Entry, ...], Meta(max_length=MAX_ENTRIES)]


@dataclass(frozen=True)
class Ready:
    """The first `offset` bytes are here from an earlier try; they count in the SHA-256 of End."""

    offset: Size


@dataclass(frozen=True)
class Done:
    """The question is answered."""


@dataclass(frozen=True)
class Failed:
    """The question cannot be answered, and why: a code of docs/errors.md and one sentence."""

    code: Word
    sentence: Sentence


Question = Look | List | Read | Write | MakeDirectory | Settle
FromCaller = Question | Data | End
FromProvider = Entry | Entries | Data | End | Ready | Done | Failed
Frame = FromCaller | FromProvider

FRAMES: Final = Table(
    "file frame",
    {
        1: Look,
        2: List,
        3: Read,
        4: Write,
        5: MakeDirectory,
        6: Settle,
        7: Data,
        8: End,
        9: Entry,
        10: Entries,
        11: Ready,
        12: Done,
        13: Failed,
    },
)
_FROM_CALLER: Final = (Look, List, Read, Write, MakeDirectory, Settle, Data, End)
_FROM_PROVIDER: Final = (Entry, Entries, Data, End, Ready, Done, Failed)


def pack(frame: Frame) -> bytes:
    """The bytes of one frame."""
    body = FRAMES.encode(frame)
    return _LENGTH.pack(len(body)) + body


class Reader:
    """Collects frames from pieces of a stream. It keeps no more than one unfinished frame."""

    def __init__(self, kinds: tuple[type, ...]) -> None:
        self._kinds = kinds
        self._kept = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Any]:
        """The frames that are complete now, to be taken before more is fed. MessageInvalid,
        MessageTooLarge."""
        self._kept += data
        while len(self._kept) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._kept)
            if size > MAX_FRAME_BYTES:
                raise MessageTooLarge(f"a file frame of {size} bytes; at most {MAX_FRAME_BYTES} are taken")
            if len(self._kept) < _LENGTH.size + size:
                return
            body = bytes(self._kept[_LENGTH.size : _LENGTH.size + size])
            del self._kept[: _LENGTH.size + size]
            yield self._checked(FRAMES.decode(body, MAX_FRAME_BYTES))

    def _checked(self, frame: Any) -> Any:
        if not isinstance(frame, self._kinds):
            raise MessageInvalid(f"a {type(frame).__name__} is not what this side of a file stream says")
        return frame

    @property
    def unfinished(self) -> bool:
        """The stream may not end here: a frame has begun."""
        return bool(self._kept)


def reader_from_caller() -> Reader:
    """For the provider's side; its frames are FromCaller."""
    return Reader(_FROM_CALLER)


def reader_from_provider() -> Reader:
    """For the caller's side; its frames are FromProvider."""
    return Reader(_FROM_PROVIDER)


def checked_name(name: bytes) -> tuple[bytes, ...]:
    """The parts of a name, none for the workspace itself. MessageInvalid for one that leads elsewhere."""
    parts = tuple(name.split(b"/")) if name else ()
    if len(name) > MAX_NAME_BYTES or len(parts) > MAX_DEPTH:
        raise MessageInvalid(f"the name {shown(name)} is too long")
    if any(part in (b"", b".", b"..") or b"\0" in part or len(part) > 255 for part in parts):
        raise MessageInvalid(f"{shown(name)} is not a name a job's file may have")
    return parts


def shown(name: bytes) -> str:
    """A name in a sentence: quoted, without what a terminal would take for an order."""
    text = name.decode("utf-8", "replace")
    return repr(text if len(text) <= 200 else f"{text[:100]}...{text[-90:]}")
