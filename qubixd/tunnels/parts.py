"""Files on their way into a workspace: kept beside it, where no job sees them, until they are whole.

What a broken stream left stays there and is gone on with, if the same file (name, size, time) comes again. It
all counts against the lease's disk. Everything here blocks: for worker threads.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Final

from protocol.errors import DiskFull, FileChanged, FileDenied, MessageInvalid
from protocol.file_frames import Write, shown
from qubixd.runner.disk import space_of
from qubixd.runner.workspace import usage_bytes
from qubixd.tunnels import tree

MAX_PARTS: Final = 64
"""Unfinished files of a lease; the oldest make room."""
CHECK_BYTES: Final = 8 << 20
"""Between two looks at what room there is."""
MEASURE_REST: Final = 20
"""After a measure of the workspace that took long, so many times as long without one."""
MEASURE_SECONDS: Final = 1.0
HASH_BYTES: Final = 4 << 20
MIB: Final = 1 << 20


class Room:
    """What may still be written for one lease. Any thread may ask."""

    def __init__(self, folder: Path, limit: int) -> None:
        """`limit`: of the workspace, in bytes."""
        self.workspace = folder / "workspace"
        self.parts = folder / "parts"
        self._limit = limit
        self._reserved: dict[Path, int] = {}
        """Of each file that is being written, what it will take."""
        self._replaced: dict[bytes, Path] = {}
        """Names whose old file goes when a part is finished, and which part counts that."""
        self._used = 0
        self._next_measure = 0.0
        self._lock = threading.Lock()

    def reserve(self, part: Path, name: bytes, size: int, replaced: int) -> None:
        """Room for a file of this size in all, which takes the place of so many bytes. DiskFull says what
        there is, FileDenied that another copy writes it."""
        with self._lock:
            if part in self._reserved:
                raise FileDenied(f"{shown(name)} is being written by another copy at the moment")
            if self._replaced.setdefault(name, part) != part:
                replaced = 0  # of several copies to one name only the first frees what is there
            self._reserved[part] = max(0, size - replaced)
            try:
                self._check(part, name, size - _size(part))
                self._forget_oldest()
            except BaseException:
                self._forget(part)
                raise

    def check(self, part: Path, name: bytes, missing: int) -> None:
        """That there is still room for what is to come of a file."""
        with self._lock:
            self._check(part, name, missing)

    def release(self, part: Path, kept: int) -> None:
        """`kept`: bytes that stay, in the workspace or as an unfinished file."""
        with self._lock:
            self._forget(part)
            self._used += kept

    def _forget(self, part: Path) -> None:
        del self._reserved[part]
        self._replaced = {name: other for name, other in self._replaced.items() if other != part}

    def _check(self, part: Path, name: bytes, missing: int) -> None:
        left = self._limit - self._measured() - sum(self._reserved.values())
        if left < 0:
            raise _full("the job's disk", left + self._reserved[part], name, self._reserved[part])
        if (space := space_of(self.workspace)) is None:
            raise FileDenied("the job's workspace is gone")
        if space.free - missing < space.floor:
            raise _full("the provider's disk", space.free - space.floor, name, missing)

    def _forget_oldest(self) -> None:
        """Make room for one more unfinished file."""
        idle = sorted(self._idle(), key=_time)
        for one in idle[: max(0, len(idle) - MAX_PARTS + 1)]:
            one.unlink(missing_ok=True)

    def _idle(self) -> list[Path]:
        """Unfinished files that nobody writes."""
        names = os.listdir(self.parts) if self.parts.is_dir() else ()
        return [one for name in names if (one := self.parts / name) not in self._reserved]

    def _measured(self) -> int:
        """What is used beside the files that are being written."""
        began = time.monotonic()
        if began >= self._next_measure:
            self._used = usage_bytes(self.workspace) + sum(map(_size, self._idle()))
            took = time.monotonic() - began
            self._next_measure = began + max(MEASURE_SECONDS, MEASURE_REST * took)
        return self._used


class Part:
    """One file being written. `offset`: how much of it is there."""

    def __init__(self, room: Room, wish: Write) -> None:
        """Take up what an earlier try left. DiskFull, NotAFile, FileMissing, FileDenied."""
        self._room, self._wish = room, wish
        replaced = tree.check_target(room.workspace, wish.name)
        self.path = room.parts / _name_of(wish)
        with tree.errors_of(wish.name):
            room.parts.mkdir(mode=0o700, exist_ok=True)
        room.reserve(self.path, wish.name, wish.size, replaced)
        try:
            if wish.anew:
                self.path.unlink(missing_ok=True)
            with tree.errors_of(wish.name):
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._file = os.open(self.path, flags, 0o600)
        except BaseException:
            room.release(self.path, 0)
            raise
        if os.fstat(self._file).st_size > wish.size:
            os.ftruncate(self._file, 0)
        self.offset = os.fstat(self._file).st_size
        self._digest, self._digested = hashlib.sha256(), 0
        self._checked = self.offset

    @property
    def is_behind(self) -> bool:
        """Not all that an earlier try left counts in the digest yet."""
        return self._digested < self.offset

    def digest_some(self) -> None:
        data = os.pread(self._file, min(HASH_BYTES, self.offset - self._digested), self._digested)
        if not data:
            raise FileChanged("what was kept of the file has become shorter")
        self._digest.update(data)
        self._digested += len(data)

    def write(self, data: bytes) -> None:
        """DiskFull; MessageInvalid for more than was announced."""
        if self.offset + len(data) > self._wish.size:
            raise MessageInvalid(f"more came of {shown(self._wish.name)} than its {self._wish.size} bytes")
        if self.offset - self._checked >= CHECK_BYTES:
            self._room.check(self.path, self._wish.name, self._wish.size - self.offset)
            self._checked = self.offset
        left = memoryview(data)
        with tree.errors_of(self._wish.name):
            while left:
                done = os.pwrite(self._file, left, self.offset)
                self._digest.update(left[:done])
                self.offset += done
                self._digested += done
                left = left[done:]

    def finish(self, sha256: bytes) -> None:
        """Put the file at its name. FileChanged if it is not what was announced."""
        name = self._wish.name
        if self.offset != self._wish.size:
            raise FileChanged(f"only {self.offset} bytes of {shown(name)} came; copy it again")
        if sha256 != self._digest.digest():
            self.path.unlink(missing_ok=True)
            raise FileChanged(f"{shown(name)} arrived as something else than was sent; copy it again")
        with tree.errors_of(name):
            tree.give(self._file, self._room.workspace)
            os.fchmod(self._file, self._wish.mode)
            os.utime(self._file, ns=(self._wish.mtime_ns, self._wish.mtime_ns))
        tree.put(self.path, self._room.workspace, name)

    def close(self) -> None:
        """What is unfinished is kept, if there is any."""
        os.close(self._file)
        if self.path.exists() and not self.offset:
            self.path.unlink(missing_ok=True)
        self._room.release(self.path, self.offset)


def _name_of(wish: Write) -> str:
    told = wish.name + b"\0" + f"{wish.size} {wish.mtime_ns}".encode()
    return hashlib.sha256(told).hexdigest()[:32]


def _size(part: Path) -> int:
    """0 if it is not there."""
    try:
        return part.stat().st_size
    except OSError:
        return 0


def _time(part: Path) -> int:
    try:
        return part.stat().st_mtime_ns
    except OSError:
        return 0


def _full(disk: str, left: int, name: bytes, wanted: int) -> DiskFull:
    return DiskFull(f"{disk} has {_mib(max(0, left))} left, and {shown(name)} needs {_mib(wanted)}")


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB" if size >= 10 * MIB else f"{size / MIB:,.1f} MiB"
