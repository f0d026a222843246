"""`qubix cp` and a provider that means no good: nothing it says leads anywhere else than where one asked."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from protocol import file_frames as f
from protocol.control_tunnels import TunnelEnd
from protocol.errors import (
    DaemonUnreachable,
    DiskFull,
    FileChanged,
    FileDenied,
    MessageInvalid,
    MessageTooLarge,
    NotAFile,
    QubixError,
    StreamBroken,
    UsageError,
)
from tests.support.file_provider import CUT, Answers, file_provider
from tui import copy as copy_module
from tui import copy_down
from tui.copy import copy
from tui.copy_plan import Item, Place, read_place, tree_there

LEASE = "abcdef01"
DATA = b"numbers"
FILE = f.Entry(b"x", "file", len(DATA), 0o762, 1_000_000_000)
WELL = TunnelEnd()
SHA = hashlib.sha256(DATA).digest()


def run(tmp_path: Path, answers: Answers, *words: str, end: TunnelEnd | None = WELL) -> int:
    """`qubix cp WORDS` with a provider that answers so."""
    options = Namespace(
        data_dir=str(tmp_path / "n"), json=True, recursive=True, sources=words[:-1], target=words[-1]
    )
    (tmp_path / "n").mkdir(exist_ok=True)

    async def both() -> int:
        async with file_provider(tmp_path / "n" / "control.sock", answers, end):
            return await asyncio.wait_for(copy(options), 30)

    return asyncio.run(both())


def one_file(*after: Any, entry: f.Entry = FILE) -> Answers:
    def answers(question: Any) -> Iterable[Any]:
        return [entry] if isinstance(question, f.Look) else list(after)

    return answers


def a_tree(*entries: f.Entry) -> Answers:
    """A directory; each of its files holds DATA."""

    def answers(question: Any) -> Iterable[Any]:
        match question:
            case f.Look(name=name):
                return [f.Entry(name, "directory", mode=0o755)]
            case f.List():
                return [f.Entries(entries), f.Done()]
        return [FILE, f.Data(DATA), f.End(SHA)]

    return answers


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [b"d/../../evil", b"/etc/passwd", b"elsewhere/x", b"d/a//b", b"d", b"d/", b"d/\0", b"d2/x"]
)
def test_names_that_lead_elsewhere_end_it_all(tmp_path: Path, name: bytes) -> None:
    here = tmp_path / "here"
    with pytest.raises(MessageInvalid):
        run(tmp_path, a_tree(f.Entry(name, "file", 7)), f"{LEASE}:d", str(here))
    assert not here.exists()


def test_names_that_would_play_tricks_on_a_terminal_are_left_out(tmp_path: Path) -> None:
    here = tmp_path / "here"
    answers = a_tree(
        f.Entry(b"d/\x1b[2Jx", "file", 7),
        f.Entry(b"d/new\nline", "directory"),
        f.Entry(b"d/new\nline/x", "file", 7),
        f.Entry(b"d/to", "link"),
        f.Entry(b"d/fine", "file", len(DATA), 0o600, FILE.mtime_ns),
    )
    assert run(tmp_path, answers, f"{LEASE}:d", str(here)) == 0
    assert os.listdir(here) == ["fine"]


def test_nothing_goes_through_a_link_that_lies_here(tmp_path: Path) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    for folder in (here / "d", outside):
        folder.mkdir(parents=True)
    (here / "d" / "sub").symlink_to(outside)
    (here / "d" / "x").symlink_to(outside / "y")
    entries = (
        f.Entry(b"d/sub", "directory", mode=0o755),
        f.Entry(b"d/sub/evil", "file", len(DATA), 0o600, FILE.mtime_ns),
        f.Entry(b"d/x", "file", len(DATA), 0o600, FILE.mtime_ns),
    )
    assert run(tmp_path, a_tree(*entries), f"{LEASE}:d", str(here)) == NotAFile.exit_code
    assert os.listdir(outside) == []
    assert (here / "d" / "x").read_bytes() == DATA and not (here / "d" / "x").is_symlink()


def test_more_names_than_memory_should_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_module, "MAX_NAMES_BYTES", 1_000)
    long = a_tree(*[f.Entry(b"there/%d" % number + b"x" * 200, "file", 0) for number in range(5)])
    with pytest.raises(MessageInvalid, match="endless names"):
        run(tmp_path, long, f"{LEASE}:there", str(tmp_path / "here"))


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    def said(question: Any) -> Iterable[Any]:
        return [f.Failed("job.invalid", "gone\n$ sudo true\nPassword:")]

    with pytest.raises(QubixError, match=r"^gone \$ sudo true Password:$"):
        run(tmp_path, said, f"{LEASE}:x", str(tmp_path / "here"))


def test_a_name_that_is_said_twice_or_has_no_directory() -> None:
    root = f.Entry(b"", "directory")
    with pytest.raises(MessageInvalid):
        tree_there(root, [f.Entry(b"x", "file"), f.Entry(b"x", "file")])
    assert tree_there(root, [f.Entry(b"no/x", "file")]).left_out[0][0] == b"no/x"


# --- what is in files -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ((FILE, f.Data(DATA + b"!"), f.End(SHA)), MessageInvalid),
        ((f.Done(),), MessageInvalid),
        ((FILE, f.Ready(0)), MessageInvalid),
        ((b"\xff\xff\xff\xff",), MessageTooLarge),
        ((b"\0\0\0\x02\xc1\xc1",), MessageInvalid),
    ],
)
def test_what_no_provider_says_ends_it_all(
    tmp_path: Path, said: tuple[Any, ...], error: type[QubixError]
) -> None:
    with pytest.raises(error):
        run(tmp_path, one_file(*said), f"{LEASE}:x", str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "said",
    [
        (FILE, f.Data(b"NUMBERS"), f.End(SHA)),
        (FILE, f.Data(DATA), f.End(b"")),
        (FILE, f.Data(DATA[:3]), f.End(hashlib.sha256(DATA[:3]).digest())),
        (f.Entry(b"x", "file", 3, 0o644, 5), f.Data(b"new"), f.End(hashlib.sha256(b"new").digest())),
        (f.Failed("files.changed", "it is another one"),),
    ],
)
def test_a_file_that_is_not_what_was_said_gets_no_name(tmp_path: Path, said: tuple[Any, ...]) -> None:
    (tmp_path / "x").write_text("old")
    assert run(tmp_path, one_file(*said), f"{LEASE}:x", str(tmp_path / "x")) == FileChanged.exit_code
    assert (tmp_path / "x").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n", "x"]


def test_mode_and_time_come_along(tmp_path: Path) -> None:
    assert run(tmp_path, one_file(FILE, f.Data(DATA), f.End(SHA)), f"{LEASE}:x", str(tmp_path / "x")) == 0
    info = (tmp_path / "x").stat()
    # But nobody else may write here because somebody there said so.
    assert (info.st_mode & 0o7777, info.st_mtime_ns) == (0o740, FILE.mtime_ns)


def test_a_time_that_no_file_can_have_does_no_harm(tmp_path: Path) -> None:
    entry = f.Entry(b"x", "file", len(DATA), 0o644, 1 << 62)
    said = one_file(entry, f.Data(DATA), f.End(SHA), entry=entry)
    assert run(tmp_path, said, f"{LEASE}:x", str(tmp_path / "x")) == 0


# --- ends -------------------------------------------------------------------------------------


def test_what_came_before_a_cut_is_kept_and_used(tmp_path: Path) -> None:
    here, offsets = tmp_path / "x", []

    def whole(question: Any) -> Iterable[Any]:
        if isinstance(question, f.Look):
            return [FILE]
        offsets.append(question.offset)
        return [FILE, f.Data(DATA[question.offset :]), f.End(SHA)]

    cut, why = one_file(FILE, f.Data(DATA[:3]), CUT), TunnelEnd("net.stream_broken", "the way was lost")
    with pytest.raises(StreamBroken, match="the way was lost; the same command again goes on from there"):
        run(tmp_path, cut, f"{LEASE}:x", str(here), end=why)
    assert [path.suffix for path in tmp_path.iterdir() if path.name != "n"] == [copy_down.PART]
    assert run(tmp_path, whole, f"{LEASE}:x", str(here)) == 0
    assert offsets == [3]
    assert here.read_bytes() == DATA
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n", "x"]


def test_a_daemon_that_is_killed_is_named(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match="daemon of this machine has ended"):
        run(tmp_path, one_file(FILE, CUT), f"{LEASE}:x", str(tmp_path / "x"), end=None)
    assert [path.name for path in tmp_path.iterdir()] == ["n"], "nothing had come, so nothing is kept"


def test_a_disk_that_is_full_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull, match="this machine's disk is full"):
        run(tmp_path, one_file(FILE, f.Data(DATA), f.End(SHA)), f"{LEASE}:x", str(tmp_path / "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


def test_a_file_larger_than_the_disk_is_not_begun(tmp_path: Path) -> None:
    entry = f.Entry(b"x", "file", 1 << 52, 0o644, 5)
    with pytest.raises(DiskFull, match=r"^4,503\.6 TB are still to come .* make room"):
        run(tmp_path, one_file(entry=entry), f"{LEASE}:x", str(tmp_path / "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


# --- the other way ----------------------------------------------------------------------------


class Taker:
    """Takes one file, which it has the beginning of, and says no to it at some point."""

    def __init__(self, *, ready: int = 0, early: f.Failed | None = None, last: Any = None) -> None:
        self.ready, self.early, self.last = ready, early, last or f.Done()
        self.writes: list[f.Write] = []
        self.data = b""

    def __call__(self, said: Any) -> Iterable[Any]:
        match said:
            case f.Look():
                return [f.Failed("files.missing", "there is none")]
            case f.Write():
                self.writes.append(said)
                self.data = b""
                return [f.Ready(0 if said.anew else self.ready), *([self.early] if self.early else ())]
            case f.Data(data=data):
                self.data += data
                return []
            case f.End():
                return [] if self.early else [f.Done() if self.writes[-1].anew else self.last]
        return [f.Done()]


def test_only_what_is_missing_there_travels(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    taker = Taker(ready=3)
    assert run(tmp_path, taker, str(tmp_path / "x"), f"{LEASE}:x") == 0
    assert taker.data == DATA[3:]


def test_a_beginning_that_does_not_fit_is_sent_anew(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    taker = Taker(ready=3, last=f.Failed("files.changed", "this is not its beginning"))
    assert run(tmp_path, taker, str(tmp_path / "x"), f"{LEASE}:x") == 0
    assert [write.anew for write in taker.writes] == [False, True]
    assert taker.data == DATA


def test_a_disk_that_is_full_there_ends_it_all(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    with pytest.raises(DiskFull, match="no room"):
        run(tmp_path, Taker(early=f.Failed("disk.full", "no room")), str(tmp_path / "x"), f"{LEASE}:x")


def test_one_that_has_more_than_there_is_lies(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    with pytest.raises(MessageInvalid):
        run(tmp_path, Taker(ready=8), str(tmp_path / "x"), f"{LEASE}:x")


def test_one_bad_file_does_not_keep_the_others(tmp_path: Path) -> None:
    taker = Taker(last=f.Failed("files.denied", "no"))
    for name in ("x", "y"):
        (tmp_path / name).write_bytes(DATA)
    code = run(tmp_path, taker, str(tmp_path / "x"), str(tmp_path / "y"), f"{LEASE}:to/")
    assert code == FileDenied.exit_code
    assert [write.name for write in taker.writes] == [b"to/x", b"to/y"]


# --- places -----------------------------------------------------------------------------------


def test_places() -> None:
    assert read_place("ABCD:x/y") == Place("abcd", "x/y")
    assert read_place("./abcd:x") == Place("", "./abcd:x")
    assert read_place("readme:x") == Place("", "readme:x")
    assert Place("abcd", "/workspace/./a//b/").name == b"a/b"
    assert Place("abcd", "").name == Place("abcd", "/workspace").name == b""
    for path in ("/etc/passwd", "a/../../b", ".."):
        with pytest.raises(UsageError):
            _ = Place("abcd", path).name


def test_a_part_belongs_to_one_size_and_time() -> None:
    items = [Item(b"x", True, size, 0o644, time) for size, time in ((1, 1), (2, 1), (1, 2))]
    assert len({copy_down.part_path(item, b"/d/x") for item in items}) == 3
    assert len(os.path.basename(copy_down.part_path(items[0], b"/d/" + b"n" * 255))) <= 255
