"""A job's workspace as the daemon reads and writes it while the job runs and may change it at any moment.

Every name is walked from the workspace down by directory descriptors that follow no link, so that nothing
outside is touched whatever the job turns into a link meanwhile. Only regular files are opened for good.
Everything here blocks: for worker threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from protocol.errors import DiskFull, FileChanged, FileDenied, FileMissing, MessageInvalid, NotAFile
from protocol.file_frames import MAX_DEPTH, MAX_NAME_BYTES, Entry, Kind, checked_name, shown

CHUNK_BYTES: Final = 524_288
BLOCK_BYTES: Final = 512
"""In which the system counts what a file takes."""
MAX_LISTED: Final = 1_000_000
MAX_IN_DIRECTORY: Final = 100_000
"""All of them are in memory at once, a few hundred bytes each."""
NAME_COST: Final = 64
"""Of a name in memory, beside its bytes."""
MAX_PENDING_BYTES: Final = 64 << 20
"""Of the names of directories that a listing has not come to yet."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_SENTENCES: Final = {
    errno.ENOENT: (FileMissing, "there is no {} in the job's workspace"),
    errno.ELOOP: (NotAFile, "{} is a link, and links are not followed"),
    errno.ENOTDIR: (NotAFile, "{} is not a directory, or leads through something that is none"),
    errno.EISDIR: (NotAFile, "{} is a directory"),
    errno.ENOTEMPTY: (NotAFile, "{} is a directory"),
    errno.EEXIST: (NotAFile, "{} is there already and is no directory"),
    errno.ENXIO: (NotAFile, "{} is neither a file nor a directory"),
    errno.EACCES: (FileDenied, "the permissions of {} keep the provider's machine away"),
    errno.EPERM: (FileDenied, "the permissions of {} keep the provider's machine away"),
    errno.ENOSPC: (DiskFull, "the provider's disk is full, {} cannot be written"),
    errno.EDQUOT: (DiskFull, "the provider's disk is full, {} cannot be written"),
    errno.EFBIG: (DiskFull, "{} is larger than a file may be there"),
}


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


def parts_of(name: bytes) -> tuple[bytes, ...]:
    """NotAFile for a name that leads elsewhere."""
    try:
        return checked_name(name)
    except MessageInvalid as error:
        raise NotAFile(str(error)) from error


@contextmanager
def errors_of(name: bytes) -> Iterator[None]:
    """What the system says of a name, in our words."""
    try:
        yield
    except OSError as error:
        kind, sentence = _SENTENCES.get(
            error.errno or 0, (FileDenied, "{} cannot be had: " + str(error.strerror))
        )
        raise kind(sentence.format(shown(name) if name else "the workspace")) from error


@contextmanager
def directory(root: Path, parts: tuple[bytes, ...]) -> Iterator[int]:
    """The descriptor of a directory below the workspace. OSError."""
    here = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            below = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def open_file(root: Path, name: bytes) -> int:
    """The descriptor of a regular file, for reading."""
    parts = parts_of(name)
    if not parts:
        raise NotAFile("the workspace is a directory")
    with errors_of(name), directory(root, parts[:-1]) as parent:
        descriptor = os.open(parts[-1], _FILE, dir_fd=parent)
    try:
        if stat.S_ISDIR(mode := os.fstat(descriptor).st_mode):
            raise NotAFile(f"{shown(name)} is a directory")
        if not stat.S_ISREG(mode):
            raise NotAFile(f"{shown(name)} is neither a file nor a directory")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def entry_of(name: bytes, info: os.stat_result, sha256: bytes = b"") -> Entry:
    kind = _kind(info.st_mode)
    size = info.st_size if kind == "file" else 0
    return Entry(name, kind, size, stat.S_IMODE(info.st_mode) & 0o777, info.st_mtime_ns, sha256)


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


def look(root: Path, name: bytes) -> Entry:
    parts = parts_of(name)
    with errors_of(name), directory(root, parts[:-1]) as parent:
        if not parts:
            return entry_of(name, os.fstat(parent))
        return entry_of(name, os.stat(parts[-1], dir_fd=parent, follow_symlinks=False))


def entries(root: Path, name: bytes, *, deep: bool) -> Iterator[list[Entry]]:
    """What is in a directory, a directory at a time; no descriptor stays open in between. What vanishes or
    turns into something else meanwhile is left out."""
    listed, pending, pending_bytes = 0, [name], len(name) + NAME_COST
    while pending:
        at = pending.pop()
        pending_bytes -= len(at) + NAME_COST
        if (found := _inside(root, at, must=at == name)) is None:
            continue
        listed += len(found)
        if deep:
            below = [one.name for one in found if one.kind == "directory"]
            pending += reversed(below)
            pending_bytes += sum(len(one) + NAME_COST for one in below)
        if listed > MAX_LISTED or pending_bytes > MAX_PENDING_BYTES:
            raise _too_many(name)
        yield found


def _too_many(name: bytes) -> FileDenied:
    return FileDenied(f"there are too many files in {shown(name)}; pack them inside the job, and copy that")


def _inside(root: Path, name: bytes, *, must: bool) -> list[Entry] | None:
    """None if it is gone, unless it must be there."""
    parts = parts_of(name)
    try:
        with directory(root, parts) as here:
            found = []
            for one in sorted(_names(here, name)):
                with suppress(FileNotFoundError):
                    info = os.stat(one, dir_fd=here, follow_symlinks=False)
                    found.append(entry_of(one if not name else name + b"/" + one, info))
    except OSError as error:
        if not must and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        with errors_of(name):
            raise
    if any(len(one.name) > MAX_NAME_BYTES for one in found) or (found and len(parts) >= MAX_DEPTH):
        raise FileDenied(f"names in {shown(name)} are too long, or directories too deep, to be copied")
    return found


def _names(directory: int, shown_as: bytes) -> list[bytes]:
    """FileDenied before they are more than memory should hold."""
    with os.scandir(directory) as found:
        names = [os.fsencode(one.name) for one in islice(found, MAX_IN_DIRECTORY + 1)]
    if len(names) > MAX_IN_DIRECTORY:
        raise _too_many(shown_as)
    return names


def make_directory(root: Path, name: bytes, mode: int) -> None:
    """With those above it; nothing if it is there."""
    parts = parts_of(name)
    for depth in range(len(parts)):
        with errors_of(name), directory(root, parts[:depth]) as parent, suppress(FileExistsError):
            os.mkdir(parts[depth], 0o700, dir_fd=parent)
            made = os.open(parts[depth], _DIRECTORY, dir_fd=parent)
            try:
                give(made, root)
                os.fchmod(made, mode if depth == len(parts) - 1 else 0o755)
            finally:
                os.close(made)
    with errors_of(name), directory(root, parts):
        pass


def settle(root: Path, name: bytes, mode: int, mtime_ns: int) -> None:
    """Set mode and time of a file or a directory."""
    parts = parts_of(name)
    if not parts:
        return  # the workspace itself is the daemon's
    with errors_of(name), directory(root, parts[:-1]) as parent:
        one = os.open(parts[-1], _FILE, dir_fd=parent)
        try:
            if _kind(os.fstat(one).st_mode) not in ("file", "directory"):
                raise NotAFile(f"{shown(name)} is neither a file nor a directory")
            os.fchmod(one, mode)
            os.utime(one, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(one)


def check_target(root: Path, name: bytes) -> int:
    """That a file could be put there. How many bytes it would replace."""
    parts = parts_of(name)
    if not parts:
        raise NotAFile("the workspace is a directory")
    with errors_of(name), directory(root, parts[:-1]) as parent, suppress(FileNotFoundError):
        info = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            raise NotAFile(f"{shown(name)} is a directory")
        # What it really takes: a file with holes may say any size.
        taken = min(info.st_size, info.st_blocks * BLOCK_BYTES)
        return taken if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 else 0
    return 0


def put(part: Path, root: Path, name: bytes) -> None:
    """Move a finished file from beside the workspace to its name, over what is there."""
    parts = parts_of(name)
    with errors_of(name), directory(root, parts[:-1]) as parent:
        os.rename(part, parts[-1], dst_dir_fd=parent)


def give(descriptor: int, root: Path) -> None:
    """To the job's user, who has the workspace."""
    if os.geteuid() == 0:
        owner = os.stat(root, follow_symlinks=False)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def read_at(descriptor: int, offset: int, most: int, digest: Digest) -> bytes:
    """Some of a file, counted in the digest. FileChanged at its end."""
    data = os.pread(descriptor, min(most, CHUNK_BYTES), offset)
    if not data:
        raise FileChanged("the file became shorter while it was being read")
    digest.update(data)
    return data


def new_digest() -> Digest:
    return hashlib.sha256()
