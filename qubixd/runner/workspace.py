"""Job files: packing a directory, unpacking an archive from a stranger, measuring a hostile workspace.

The archive is a GNU tar of regular files and empty directories only, sorted, with times and owners set
to zero, so that equal files give an equal digest. Both directions go block by block through a reader of
our own over `tarfile`'s header functions: the library's reader would follow headers of any size and kind.
Nothing here follows a symbolic link. Posix only (directory descriptors).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from protocol.errors import DiskFull, FilesInvalid

BLOCK_BYTES: Final = 512
CHUNK_BYTES: Final = 1 << 20
MAX_NAME_BYTES: Final = 4_096
MAX_DEPTH: Final = 100
"""Directories inside directories; each level holds one descriptor while it is walked."""
ENTRY_BYTES: Final = 4_096
"""The least a file or directory counts in `usage_bytes`: empty ones take room too."""
UNMEASURABLE: Final = 1 << 62
"""What `usage_bytes` says of a tree that hides its size (unreadable or too deep)."""

_END: Final = bytes(2 * BLOCK_BYTES)
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class PackResult:
    """A finished archive: digest and size in bytes of the whole stream, number of files in it."""

    sha256: bytes
    size: int
    files: int


@dataclass(frozen=True)
class _Entry:
    """One file, or empty directory, found below a root; `parent` is open only while it is visited."""

    name: str
    parent: int
    info: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)


def pack_to_file(
    root: Path, members: Sequence[str] | None, out: Path, max_bytes: int, exclude: Collection[str] = ()
) -> PackResult:
    """Pack `members` of `root` (relative names of files or directories; None: everything) into `out`.

    `exclude` holds relative names of files to leave out. Links, sockets, pipes and devices are left
    out; a missing member, an unreadable file or an archive above `max_bytes` is FilesInvalid.
    """
    digest, size, files = hashlib.sha256(), 0, 0
    try:
        with _disk_errors(out), out.open("wb") as file:
            for chunk, begins_file in _pack(root, members, frozenset(exclude)):
                size, files = size + len(chunk), files + begins_file
                if size > max_bytes:
                    raise FilesInvalid(f"the files in {root} take more than the {max_bytes} bytes allowed")
                digest.update(chunk)
                file.write(chunk)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return PackResult(digest.digest(), size, files)


def unpack_file(
    archive: Path, target: Path, max_bytes: int, max_files: int, sha256: bytes
) -> tuple[str, ...]:
    """Unpack into the directory `target`, which must be absent or empty; the names of the files.

    All or nothing: files are written beside `target` and moved there once the digest of the whole
    archive has matched. FilesInvalid names what is wrong with the archive; DiskFull if it does not fit.
    """
    unfinished = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with _disk_errors(target):
            unfinished.mkdir(mode=0o700, parents=True)
            with archive.open("rb") as file:
                reader = _Reader(file, max_bytes)
                names = _unpack(reader, unfinished, max_files)
            if reader.digest.digest() != sha256:
                raise FilesInvalid("the files that arrived are not the ones announced (their digest differs)")
            unfinished.chmod(0o755)
            unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return names


def usage_bytes(root: Path) -> int:
    """Disk space taken below `root`, each entry counting at least ENTRY_BYTES; never follows links.

    UNMEASURABLE for a tree that hides part of itself; files that vanish meanwhile do not count.
    """
    total, linked = 0, set[tuple[int, int]]()
    if not root.exists():
        return 0
    try:
        for entry in _walk_root(root, every_directory=True):
            identity = (entry.info.st_dev, entry.info.st_ino)
            if entry.info.st_nlink > 1 and not entry.is_directory:
                if identity in linked:
                    continue
                linked.add(identity)
            total += max(entry.info.st_blocks * BLOCK_BYTES, ENTRY_BYTES)
    except FilesInvalid:
        return UNMEASURABLE
    return total


def names_below(root: Path) -> Iterator[str]:
    """Relative names of all below `root`. FilesInvalid if part of it is hidden or it is too deep."""
    return (entry.name for entry in _walk_root(root, every_directory=True))


def remove_tree(root: Path) -> None:
    """Delete a directory that a job may have left: however deep, and also where the job, which can have the
    daemon's own user, took the right to look away. What cannot be deleted stays, without an error."""
    with suppress(OSError):
        root.chmod(0o700)
        top = os.open(root, _DIRECTORY_FLAGS)
        try:
            while (names := os.listdir(top)) and any([_is_deleted(top, name) for name in names]):
                pass
        finally:
            os.close(top)
        root.rmdir()


def _is_deleted(top: int, name: str) -> bool:
    """Delete an entry of an open directory. What is deeper is moved up there, and has its turn later."""
    with suppress(OSError):
        if _is_unlinked(top, name):
            return True
        os.chmod(name, 0o700, dir_fd=top)
        directory = os.open(name, _DIRECTORY_FLAGS, dir_fd=top)
        try:
            for inner in os.listdir(directory):
                if not _is_unlinked(directory, inner):
                    os.chmod(inner, 0o700, dir_fd=directory)
                    os.rename(inner, os.urandom(16).hex(), src_dir_fd=directory, dst_dir_fd=top)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)
        return True
    return False


def _is_unlinked(directory: int, name: str) -> bool:
    """False: it is a directory."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        return False
    return True


def give_to(root: Path, uid: int, gid: int) -> None:
    """Make `uid` and `gid` the owners of `root` and all below it, links themselves included."""
    os.chown(root, uid, gid, follow_symlinks=False)
    for entry in _walk_root(root, every_directory=True):
        os.chown(Path(entry.name).name, uid, gid, dir_fd=entry.parent, follow_symlinks=False)


# Walking ---------------------------------------------------------------------------------------


def _walk_root(root: Path, *, every_directory: bool = False) -> Iterator[_Entry]:
    try:
        top = os.open(root, _DIRECTORY_FLAGS)
    except OSError as error:
        raise FilesInvalid(f"cannot read the directory {root}: {error.strerror}") from error
    try:
        yield from _walk(top, "", 1, every_directory)
    finally:
        os.close(top)


def _walk(directory: int, prefix: str, depth: int, every_directory: bool) -> Iterator[_Entry]:
    """Everything below an open directory in the order of the names' bytes, directories before what is
    in them; only empty ones unless `every_directory`."""
    if depth > MAX_DEPTH:
        raise FilesInvalid(f"directories are nested deeper than {MAX_DEPTH} levels in {prefix[:80]!r}")
    for short_name in sorted(os.listdir(directory), key=os.fsencode):
        name = prefix + short_name
        try:
            info = os.stat(short_name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(info.st_mode):
                yield _Entry(name, directory, info)
                continue
            child = os.open(short_name, _DIRECTORY_FLAGS, dir_fd=directory)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                continue  # vanished or swapped under us: as if it had never been there
            if isinstance(error, PermissionError):
                raise FilesInvalid(f"cannot read the directory {name!r}: {error.strerror}") from error
            raise
        try:
            if every_directory or not os.listdir(child):
                yield _Entry(name, directory, info)
            yield from _walk(child, f"{name}/", depth + 1, every_directory)
        finally:
            os.close(child)


def _with_parents(name: str) -> Iterator[str]:
    """The name and every directory it is in: "a/b/c", "a/b", "a"."""
    while name:
        yield name
        name = name.rpartition("/")[0]


# Packing ---------------------------------------------------------------------------------------


def _pack(root: Path, members: Sequence[str] | None, exclude: frozenset[str]) -> Iterator[tuple[bytes, bool]]:
    """The archive in pieces; True with the piece that begins a regular file."""
    wanted = None if members is None else {_checked_name(member.strip("/")) for member in members}
    missing = set(wanted or ())
    for entry in _walk_root(root):
        above = (wanted or set()).intersection(_with_parents(entry.name))
        missing -= above
        if (wanted is not None and not above) or entry.name in exclude:
            continue
        if entry.is_directory:
            yield _header(entry, 0), False
        elif stat.S_ISREG(entry.info.st_mode):
            yield from _pack_file(entry)
    if missing:
        raise FilesInvalid(f"there is no {min(missing)!r} in {root}")
    yield _END, False


def _pack_file(entry: _Entry) -> Iterator[tuple[bytes, bool]]:
    short_name = entry.name.rpartition("/")[2]
    try:
        descriptor = os.open(short_name, _FILE_FLAGS, dir_fd=entry.parent)
    except OSError as error:
        raise FilesInvalid(f"cannot read the file {entry.name!r}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise FilesInvalid(f"{entry.name!r} changed while it was being read")
        yield _header(entry, info.st_size), True
        left = info.st_size
        while left:
            chunk = file.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise FilesInvalid(f"{entry.name!r} changed while it was being read")
            left -= len(chunk)
            yield chunk, False
        yield bytes(-info.st_size % BLOCK_BYTES), False


def _header(entry: _Entry, size: int) -> bytes:
    """Header block of one entry, preceded by a long-name record where the name needs one."""
    header = tarfile.TarInfo(_checked_name(entry.name))
    if entry.is_directory:
        header.type, header.mode = tarfile.DIRTYPE, 0o755
    else:
        header.size, header.mode = size, 0o755 if entry.info.st_mode & stat.S_IXUSR else 0o644
    return header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


# Unpacking -------------------------------------------------------------------------------------


class _Reader:
    """Reads an archive in blocks, counting and hashing all that passes."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._left = max_bytes

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        self._left -= size
        if self._left < 0:
            raise FilesInvalid("the archive is larger than agreed")
        data = self._file.read(size)
        if len(data) != size:
            raise FilesInvalid("the archive ends in the middle of a file")
        self.digest.update(data)
        return data

    def copy(self, size: int, out: BinaryIO) -> None:
        """`size` bytes and the padding after them."""
        left = size
        while left:
            chunk = self.take(min(left, CHUNK_BYTES))
            left -= len(chunk)
            out.write(chunk)
        self.take(-size % BLOCK_BYTES)

    def at_end(self) -> bool:
        return not self._file.read(1)


def _unpack(reader: _Reader, target: Path, max_files: int) -> tuple[str, ...]:
    names: list[str] = []
    entries = 0
    while (header := _next_header(reader)) is not None:
        entries += 1
        if entries > max_files:
            raise FilesInvalid(f"the archive holds more than {max_files} files")
        name = _checked_name(header.name)
        try:
            _create(reader, header, target / name)
        except (FileExistsError, NotADirectoryError) as error:
            raise FilesInvalid(f"the archive holds {name!r} twice") from error
        if not header.isdir():
            names.append(name)
    return tuple(names)


def _next_header(reader: _Reader) -> tarfile.TarInfo | None:
    """The next file or directory; None at the end. FilesInvalid for every other kind of record."""
    block = reader.take(BLOCK_BYTES)
    if block == _END[:BLOCK_BYTES]:
        if reader.take(BLOCK_BYTES) != block or not reader.at_end():
            raise FilesInvalid("the archive goes on after its end")
        return None
    header = _parsed(block)
    if header.type != tarfile.GNUTYPE_LONGNAME:
        return _allowed(header)
    if not 0 < header.size <= MAX_NAME_BYTES:
        raise FilesInvalid(f"a file name in the archive is longer than {MAX_NAME_BYTES} bytes")
    padded = reader.take(header.size + -header.size % BLOCK_BYTES)
    header = _allowed(_parsed(reader.take(BLOCK_BYTES)))
    header.name = os.fsdecode(padded.split(b"\0", 1)[0]).removesuffix("/")
    return header


def _parsed(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise FilesInvalid("the archive is damaged: a file header in it makes no sense") from error


def _allowed(header: tarfile.TarInfo) -> tarfile.TarInfo:
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        raise FilesInvalid(f"{header.name[:80]!r} in the archive is neither a file nor a directory")
    if header.size < 0 or (header.isdir() and header.size):
        raise FilesInvalid(f"{header.name[:80]!r} in the archive has an impossible size")
    return header


def _create(reader: _Reader, header: tarfile.TarInfo, path: Path) -> None:
    """Write one entry. Safe by construction: everything on the way to `path` was made here, no links."""
    if header.isdir():
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        return
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    mode = 0o755 if header.mode & stat.S_IXUSR else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode), "wb") as out:
        reader.copy(header.size, out)


def _checked_name(name: str) -> str:
    """A relative name with nothing but plain components, else FilesInvalid."""
    parts = name.split("/")
    odd = not name or "\0" in name or any(part in ("", ".", "..") for part in parts)
    if odd or len(os.fsencode(name)) >= MAX_NAME_BYTES or len(parts) > MAX_DEPTH:
        raise FilesInvalid(f"{name[:80]!r} is not a name a job's file may have")
    return name


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the disk that holds {path} is full; free some space and try again") from error
        raise FilesInvalid(f"cannot write {path}: {error.strerror or error}") from error
