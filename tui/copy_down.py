"""Files of a job on their way to this machine. Nothing that the provider says of them is believed.

A file is written beside its place, under a name that stands for its size and time. So a copy that was cut off
goes on where it was, if the file is still the same. Only when its SHA-256 is right does it get its name.
Nothing here follows a link that lies in the tree.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import stat
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.errors import (
    DiskFull,
    FileChanged,
    FileDenied,
    FilesInvalid,
    MessageInvalid,
    NotAFile,
    QubixError,
)
from protocol.file_frames import Data, End, Entry, Read, shown
from tui.copy_plan import Item, Tree, join
from tui.copy_report import Report
from tui.copy_talk import NotDone, Talk
from tui.copy_up import hashed
from tui.show import bytes_words

READ_AHEAD: Final = 8
"""Questions for files under way, so that many small ones do not wait for each other."""
PART: Final = ".qubix-part"
_NAME_BYTES: Final = 180
OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
"""Not taken over from afar: who else may write here is said here."""


@dataclass
class _Part:
    """A file that is being written. `file` is open and locked; the first `offset` bytes are there."""

    item: Item
    target: bytes
    path: bytes
    file: int
    offset: int


class Download:
    """One tree. `source` is its beginning there, `target` here."""

    def __init__(self, talk: Talk, report: Report, tree: Tree, source: bytes, target: bytes) -> None:
        self._talk, self._report = talk, report
        self._tree, self._source, self._target = tree, source, target
        self._bad: set[bytes] = set()
        """Directories that could not be made."""

    async def run(self) -> None:
        for item in self._tree.items:
            if not item.is_file:
                self._make(item)
        waiting, asked = deque(item for item in self._tree.items if item.is_file), deque[_Part]()
        try:
            while waiting or asked:
                while waiting and len(asked) < READ_AHEAD:
                    if part := self._begun(waiting.popleft()):
                        asked.append(part)
                        await self._talk.send(Read(join(self._source, part.item.name), part.offset))
                if asked:
                    await self._take(asked[0])
                    _put_away(asked.popleft())
        finally:
            for part in asked:
                _put_away(part)
        for item in reversed(self._tree.items):
            if not item.is_file:
                self._settle(item)

    # --- directories --------------------------------------------------------------------------

    def _make(self, item: Item) -> None:
        path = join(self._target, item.name)
        try:
            if item.name and item.name.rpartition(b"/")[0] in self._bad:
                raise NotAFile("what it lies in is no directory here")
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not _is_directory(path, follow=not item.name):
                self._bad.add(item.name)
                self._report.fails(path, NotAFile("there is something else of this name here"))
        except (OSError, QubixError) as error:
            self._bad.add(item.name)
            self._report.fails(path, error if isinstance(error, QubixError) else local_error(error))

    def _settle(self, item: Item) -> None:
        if item.name not in self._bad:
            with suppress(OSError, OverflowError):
                path = join(self._target, item.name)
                os.chmod(path, item.mode & ~OTHERS_WRITE)
                os.utime(path, ns=(item.mtime_ns, item.mtime_ns))

    # --- one file -----------------------------------------------------------------------------

    def _begun(self, item: Item) -> _Part | None:
        """Ready to be written; None if that cannot be or need not."""
        target = join(self._target, item.name)
        try:
            if item.name and item.name.rpartition(b"/")[0] in self._bad:
                raise NotAFile("what it lies in is no directory here")
            if _same(target, item):
                self._report.same(target, item.size)
                return None
            part = _open(item, target)
        except OSError as error:
            self._report.fails(target, local_error(error))
        except DiskFull:
            raise
        except QubixError as error:
            self._report.fails(target, error)
        else:
            return part
        return None

    async def _take(self, part: _Part) -> None:
        """The answer about one file, and what follows from it."""
        self._report.begins(part.item.name or os.path.basename(part.target))
        try:
            entry: Entry = await self._talk.answer(Entry)
            await self._receive(part, entry)
        except OSError as error:
            _drop(part)
            raise local_error(error) from error  # the stream is in the middle of a file: no way on
        except FileChanged as error:
            _drop(part)
            self._report.fails(part.target, error)
        except NotDone as no:
            if isinstance(no.error, FileChanged):
                _drop(part)
            self._report.fails(part.target, no.error)
        else:
            self._report.done(part.target, part.item.size)

    async def _receive(self, part: _Part, entry: Entry) -> None:
        item = part.item
        size, changed = entry.size, (entry.size, entry.mtime_ns) != (item.size, item.mtime_ns)
        sha256 = await asyncio.to_thread(hashed, part.file, part.offset)
        self._report.moved(part.offset, here_already=True)
        at = part.offset
        while isinstance(frame := await self._talk.answer(Data, End), Data):
            if at + len(frame.data) > size:
                raise MessageInvalid("the provider sends more of a file than it said there is")
            if not changed:
                _write(part.file, frame.data, at)
                sha256.update(frame.data)
            at += len(frame.data)
            self._report.moved(len(frame.data))
        if changed or at != size or frame.sha256 != sha256.digest():
            raise FileChanged(
                f"{shown(item.name or self._source)} changed while it was copied; copy it again"
            )
        _finish(part)


def _open(item: Item, target: bytes) -> _Part:
    """DiskFull, FilesInvalid, NotAFile; OSError."""
    if _is_directory(target, follow=True):
        raise NotAFile("there is a directory of this name here")
    path = part_path(item, target)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        offset = min(os.fstat(file).st_size, item.size)
        _check_room(file, item.size - offset, path)
    except BlockingIOError as error:
        os.close(file)
        raise FilesInvalid("another copy of this file is under way") from error
    except BaseException:
        os.close(file)
        raise
    return _Part(item, target, path, file, offset)


def part_path(item: Item, target: bytes) -> bytes:
    """Where a file lies until it is whole; another one for another size or time."""
    folder, name = os.path.split(target)
    tag = hashlib.sha256(b"%d %d " % (item.size, item.mtime_ns) + name).hexdigest()[:12]
    return os.path.join(folder, b"." + name[:_NAME_BYTES] + f".{tag}{PART}".encode())


def _check_room(file: int, wanted: int, path: bytes) -> None:
    disk = os.fstatvfs(file)
    free = disk.f_bavail * disk.f_frsize
    if wanted > free:
        if os.fstat(file).st_size == 0:
            os.unlink(path)
        raise DiskFull(
            f"{bytes_words(wanted)} are still to come and this machine's disk has {bytes_words(free)} free; "
            "make room and copy again"
        )


def _write(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _put_away(part: _Part) -> None:
    """Keep it for another try, if there is something in it."""
    if os.fstat(part.file).st_nlink and not os.fstat(part.file).st_size and part.item.size:
        _drop(part)
    os.close(part.file)


def _drop(part: _Part) -> None:
    with suppress(OSError):
        os.unlink(part.path)


def _finish(part: _Part) -> None:
    os.ftruncate(part.file, part.item.size)
    os.fchmod(part.file, part.item.mode & ~OTHERS_WRITE)
    with suppress(OverflowError, OSError):
        os.utime(part.file, ns=(part.item.mtime_ns, part.item.mtime_ns))
    os.replace(part.path, part.target)
    _forget_older(part)


def _forget_older(part: _Part) -> None:
    """Parts of what this file was before."""
    folder, name = os.path.split(os.fsdecode(part.target))
    start = f".{os.fsdecode(os.fsencode(name)[:_NAME_BYTES])}."
    for one in Path(folder or ".").iterdir():
        if (
            one.name.startswith(start)
            and one.name.endswith(PART)
            and len(one.name) == len(start) + 12 + len(PART)
        ):
            with suppress(OSError):
                one.unlink()


def _same(target: bytes, item: Item) -> bool:
    try:
        info = os.lstat(target)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(info.st_mode) and (info.st_size, info.st_mtime_ns) == (item.size, item.mtime_ns)


def _is_directory(path: bytes, *, follow: bool) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path, follow_symlinks=follow).st_mode)
    except OSError:
        return False


def local_error(error: OSError) -> QubixError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("this machine's disk is full; make room and copy again")
    return FileDenied(f"it cannot be written here: {error.strerror}")
