"""What `qubix cp` has to do: places as a person writes them, and the files and directories in a tree."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from protocol.errors import FileMissing, MessageInvalid, NotAFile, UsageError
from protocol.file_frames import Entry, checked_name, shown

WORKSPACE: Final = "/workspace"
MAX_ENTRIES: Final = 1_000_000
"""Of one directory in a job, before it counts as nonsense."""
MAX_NAMES_BYTES: Final = 256 << 20
"""Of all names in it, which are in memory at once."""
_LEASE: Final = re.compile(r"([0-9a-fA-F]{4,64}):(.*)", re.DOTALL)
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Place:
    """`lease` is empty for this machine."""

    lease: str
    path: str

    @property
    def name(self) -> bytes:
        """In a job: relative to its workspace. UsageError for what is outside of it."""
        path = self.path
        if path == WORKSPACE or path.startswith(f"{WORKSPACE}/"):
            path = path.removeprefix(WORKSPACE).lstrip("/")
        elif path.startswith("/"):
            raise UsageError(
                f"{path!r} is not in the job's workspace, {WORKSPACE}; `qubix exec` reads others"
            )
        parts = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")]
        name = b"/".join(parts)
        try:
            checked_name(name)
        except MessageInvalid as error:
            raise UsageError(str(error)) from error
        return name


def read_place(text: str) -> Place:
    """`3fa9c1:results` or a path here; `./3fa9c1:results` is one, too."""
    match = _LEASE.fullmatch(text)
    return Place(match[1].lower(), match[2]) if match else Place("", text)


@dataclass(frozen=True)
class Item:
    """One file or directory. `name` is relative to where the tree begins, empty for the beginning."""

    name: bytes
    is_file: bool
    size: int
    mode: int
    mtime_ns: int


@dataclass
class Tree:
    """A directory comes before what is in it."""

    items: list[Item] = field(default_factory=list)
    left_out: list[tuple[bytes, str]] = field(default_factory=list)
    """(name, why) of what is neither."""

    @property
    def bytes(self) -> int:
        return sum(item.size for item in self.items)


def tree_here(source: str, *, recursive: bool) -> Tree:
    """FileMissing, NotAFile. A link is followed if a person names it, not within a tree."""
    path = os.fsencode(source)
    try:
        info = os.stat(path)
    except OSError as error:
        raise FileMissing(f"{source!r} cannot be read here: {error.strerror}") from error
    tree = Tree()
    if stat.S_ISDIR(info.st_mode):
        if not recursive:
            raise NotAFile(f"{source!r} is a directory; `qubix cp -r` copies it with all that is in it")
        tree.items.append(_item(b"", info))
        for entry, name in _below(path, b"", tree):
            _add(tree, name, entry.stat(follow_symlinks=False))
    elif stat.S_ISREG(info.st_mode):
        tree.items.append(_item(b"", info))
    else:
        raise NotAFile(f"{source!r} is neither a file nor a directory")
    return tree


def _below(folder: bytes, name: bytes, tree: Tree) -> Iterator[tuple[os.DirEntry[bytes], bytes]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        tree.left_out.append((name, error.strerror or "it cannot be read"))
        return
    for entry in entries:
        inner = join(name, entry.name)
        yield entry, inner
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path, inner, tree)


def _add(tree: Tree, name: bytes, info: os.stat_result) -> None:
    if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
        tree.items.append(_item(name, info))
    else:
        kind = "a link" if stat.S_ISLNK(info.st_mode) else "neither a file nor a directory"
        tree.left_out.append((name, kind))


def _item(name: bytes, info: os.stat_result) -> Item:
    is_file = stat.S_ISREG(info.st_mode)
    return Item(name, is_file, info.st_size if is_file else 0, info.st_mode & 0o777, info.st_mtime_ns)


def tree_there(root: Entry, entries: Iterable[Entry]) -> Tree:
    """What a provider says of a tree, none of it believed: names that lead elsewhere or would play tricks on
    a terminal are left out, and so is what lies below anything that is not a directory of the same tree."""
    tree = Tree([_item_of(b"", root)])
    directories, seen = {b""}, {b""}
    for entry in entries:
        name = _relative(root.name, entry.name)
        if name in seen:
            raise MessageInvalid(f"the provider names {shown(entry.name)} twice")
        seen.add(name)
        why = _why_not(entry, name, directories)
        if why:
            tree.left_out.append((name, why))
            continue
        if entry.kind == "directory":
            directories.add(name)
        tree.items.append(_item_of(name, entry))
    return tree


def _relative(root: bytes, name: bytes) -> bytes:
    checked_name(name)
    start = root + b"/" if root else b""
    if not name.startswith(start) or name == start:
        raise MessageInvalid(f"the provider names {shown(name)}, which is not below {shown(root)}")
    return name.removeprefix(start)


def _why_not(entry: Entry, name: bytes, directories: set[bytes]) -> str:
    if name.rpartition(b"/")[0] not in directories:
        return "what it lies in is left out"
    if _CONTROL.search(name):
        return "its name has control characters"
    return {"link": "a link", "other": "neither a file nor a directory"}.get(entry.kind, "")


def _item_of(name: bytes, entry: Entry) -> Item:
    is_file = entry.kind == "file"
    return Item(name, is_file, entry.size if is_file else 0, entry.mode, entry.mtime_ns)


def join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder and name else folder or name
