"""Packing, unpacking and measuring job files, honest and hostile."""

from __future__ import annotations

import hashlib
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.errors import DiskFull, FilesInvalid
from qubixd.runner.workspace import (
    ENTRY_BYTES,
    MAX_DEPTH,
    UNMEASURABLE,
    PackResult,
    give_to,
    pack_to_file,
    unpack_file,
    usage_bytes,
)

MAX = 1 << 22
Tree = dict[str, bytes]


def write_tree(root: Path, tree: Tree) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_tree(root: Path) -> Tree:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pack(
    root: Path, out: Path, *, members: list[str] | None = None, exclude: tuple[str, ...] = ()
) -> PackResult:
    return pack_to_file(root, members, out, MAX, exclude)


def unpack(archive: Path, target: Path, *, max_bytes: int = MAX, max_files: int = 100) -> tuple[str, ...]:
    digest = hashlib.sha256(archive.read_bytes()).digest()
    return unpack_file(archive, target, max_bytes, max_files, digest)


names = st.lists(
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
    ).filter(lambda part: part not in (".", "..") and len(part.encode()) <= 255),
    min_size=1,
    max_size=4,
).map("/".join)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.dictionaries(names, st.binary(max_size=2000), max_size=6))
def test_whatever_is_packed_unpacks_the_same(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("trees")
    tree = {n: c for n, c in tree.items() if not any(other.startswith(f"{n}/") for other in tree)}
    write_tree(tmp_path / "a", tree)
    packed = pack(tmp_path / "a", tmp_path / "a.tar")
    assert packed.files == len(tree)
    assert packed.size == (tmp_path / "a.tar").stat().st_size
    assert packed.sha256 == hashlib.sha256((tmp_path / "a.tar").read_bytes()).digest()
    assert set(unpack(tmp_path / "a.tar", tmp_path / "b")) == set(tree)
    assert read_tree(tmp_path / "b") == tree
    assert pack(tmp_path / "b", tmp_path / "b.tar") == packed


def test_archive_is_an_ordinary_tar_in_fixed_order(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"b/c": b"3", "a": b"1", "é" * 60 + "/" + "n" * 200: b"4"})
    (tmp_path / "in/b/run.sh").write_text("#!/bin/sh")
    (tmp_path / "in/b/run.sh").chmod(0o4777)
    (tmp_path / "in/empty").mkdir(mode=0o700)
    pack(tmp_path / "in", tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as archive:
        members = archive.getmembers()
    assert [m.name for m in members] == ["a", "b/c", "b/run.sh", "empty", "é" * 60 + "/" + "n" * 200]
    assert [m.mode for m in members] == [0o644, 0o644, 0o755, 0o755, 0o644]
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}


def test_digest_depends_on_content_not_on_times_owners_or_order(tmp_path: Path) -> None:
    write_tree(tmp_path / "a", {"x": b"1", "y": b"2"})
    write_tree(tmp_path / "b", {"y": b"2", "x": b"1"})
    os.utime(tmp_path / "b/x", (5, 5))
    first = pack(tmp_path / "a", tmp_path / "1")
    assert first == pack(tmp_path / "b", tmp_path / "2")
    (tmp_path / "b/x").write_bytes(b"0")
    assert first.sha256 != pack(tmp_path / "b", tmp_path / "3").sha256


def test_members_and_excluded_names(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a": b"", "ab": b"", "d/x": b"", "d/y": b"", "e/z": b""})
    pack(tmp_path / "in", tmp_path / "t", members=["a", "d/"], exclude=("d/y",))
    assert unpack(tmp_path / "t", tmp_path / "out") == ("a", "d/x")
    with pytest.raises(FilesInvalid, match="'gone'"):
        pack(tmp_path / "in", tmp_path / "t", members=["a", "gone"])
    for outside in ("../in", "/etc", "d/../a", ""):
        with pytest.raises(FilesInvalid):
            pack(tmp_path / "in", tmp_path / "t", members=[outside])


def test_packing_follows_no_link_and_opens_nothing_special(tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_tree(root, {"real": b"1"})
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (root / "file-link").symlink_to(tmp_path / "outside/secret")
    (root / "dir-link").symlink_to(tmp_path / "outside")
    os.mkfifo(root / "pipe")  # opening it would block for ever
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "sock"))
    pack(root, tmp_path / "t")
    assert unpack(tmp_path / "t", tmp_path / "out") == ("real",)
    assert usage_bytes(root) < 6 * ENTRY_BYTES
    with pytest.raises(FilesInvalid):
        pack(root / "dir-link", tmp_path / "t")


def test_too_much_to_pack_leaves_no_archive(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a": bytes(10_000)})
    with pytest.raises(FilesInvalid, match="more than the 5000 bytes"):
        pack_to_file(tmp_path / "in", None, tmp_path / "t", 5_000)
    assert not (tmp_path / "t").exists()


def member(
    name: str, *, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "", size: int | None = None
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


END = bytes(1024)
GOOD = member("good", data=b"1")
HOSTILE: dict[str, bytes] = {
    "absolute": member("/etc/cron.d/x"),
    "dot-dot": member("a/../../x"),
    "only dot-dot": member(".."),
    "dot": member("./x"),
    "double slash": member("a//x"),
    "empty name": member(""),
    "symbolic link": member("l", kind=tarfile.SYMTYPE, link="/etc"),
    "hard link": member("l", kind=tarfile.LNKTYPE, link="good"),
    "fifo": member("f", kind=tarfile.FIFOTYPE),
    "device": member("d", kind=tarfile.CHRTYPE),
    "sparse": member("s", kind=tarfile.GNUTYPE_SPARSE),
    "pax header": member("p", kind=tarfile.XHDTYPE, data=b"30 path=../../evil\n"),
    "long link": member("././@LongLink", kind=tarfile.GNUTYPE_LONGLINK, data=b"x\0"),
    "long name of dots": member("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, data=b"a/../../x\0")
    + member("x"),
    "long name too long": member("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, size=1 << 33),
    "long name twice": member("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, data=b"x\0") * 2,
    "long name, then link": member("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, data=b"x\0")
    + member("l", kind=tarfile.SYMTYPE, link="/etc"),
    "negative size": member("n", size=-1),
    "claims more than it has": member("big", size=100_000),
    "claims more than allowed": member("big", size=1 << 40),
    "twice": GOOD,
    "file as directory": member("good/x", data=b"1"),
    "directory with a size": member("dir", kind=tarfile.DIRTYPE, data=b"x" * 512),
    "too deep": member("d/" * (MAX_DEPTH + 1) + "x"),
    "component too long": member("n" * 300),
    "damaged": b"\1" * 512,
    "goes on after its end": END + member("x"),
    "no end": b"",
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_hostile_archive_is_refused_whole(hostile: bytes, tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.mkdir()
    archive = tmp_path / "hostile.tar"
    archive.write_bytes(GOOD + hostile + (b"" if hostile == b"" else END))
    with pytest.raises(FilesInvalid):
        unpack(archive, box / "target")
    assert list(box.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"box", "hostile.tar"}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_archive_never_escapes_nor_crashes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("damaged")
    good = bytearray(member("dir/" + "n" * 120, data=b"x" * 700) + member("a", data=b"y") + END)
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "t").write_bytes(good)
    try:
        unpack(tmp_path / "t", tmp_path / "box/target")
    except FilesInvalid:
        assert not list((tmp_path / "box").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"t", "box"}


def test_limits_and_digest_of_unpacking(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a": bytes(3000), "b": b""})
    packed = pack(tmp_path / "in", tmp_path / "t")
    refused: list[Callable[[], object]] = [
        lambda: unpack(tmp_path / "t", tmp_path / "out", max_bytes=packed.size - 1),
        lambda: unpack(tmp_path / "t", tmp_path / "out", max_files=1),
        lambda: unpack_file(tmp_path / "t", tmp_path / "out", MAX, 10, bytes(32)),
    ]
    for call in refused:
        with pytest.raises(FilesInvalid):
            call()
        assert not (tmp_path / "out").exists()
    unpack(tmp_path / "t", tmp_path / "out", max_bytes=packed.size, max_files=2)
    with pytest.raises(FilesInvalid):
        unpack(tmp_path / "t", tmp_path / "out")  # the target is taken
    assert read_tree(tmp_path / "out") == {"a": bytes(3000), "b": b""}


def test_leftover_of_a_crash_is_replaced(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a": b"1"})
    pack(tmp_path / "in", tmp_path / "t")
    write_tree(tmp_path / ".out.unpacking", {"half": b""})
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "t", tmp_path / "out")
    assert read_tree(tmp_path / "out") == {"a": b"1"}


def test_measuring(tmp_path: Path) -> None:
    assert usage_bytes(tmp_path / "absent") == 0
    root = tmp_path / "ws"
    write_tree(root, {"d/big": os.urandom(1 << 20)})
    used = usage_bytes(root)
    assert 1 << 20 <= used <= (1 << 20) + 4 * ENTRY_BYTES
    os.link(root / "d/big", root / "again")
    assert usage_bytes(root) == used
    for number in range(100):
        (root / f"empty{number}").touch()
    assert usage_bytes(root) == used + 100 * ENTRY_BYTES
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert usage_bytes(root) < used + 110 * ENTRY_BYTES


def test_tree_too_deep_to_walk_counts_as_too_large(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3_000):  # far past what a path name can say
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    assert usage_bytes(tmp_path) == UNMEASURABLE
    with pytest.raises(FilesInvalid, match="deeper"):
        pack_to_file(tmp_path, None, tmp_path.parent / "deep.tar", MAX)
    _remove_deep(tmp_path)


def _remove_deep(root: Path) -> None:
    """Fold the chain up from its top, since no path reaches its bottom."""
    while (root / "d").exists():
        (root / "d").rename(root / "top")
        if (root / "top/d").exists():
            (root / "top/d").rename(root / "d")
        (root / "top").rmdir()


def test_directory_nobody_may_read_counts_as_too_large(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:  # as a user whom permissions bind; the path above tmp_path may be closed to it
        os.chdir(tmp_path)
        if os.geteuid() == 0:
            os.setuid(65_432)
        os._exit(0 if usage_bytes(Path()) == UNMEASURABLE else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_giving_away_stops_at_links(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    write_tree(tmp_path / "ws", {"d/x": b""})
    (tmp_path / "ws/d/link").symlink_to(tmp_path / "mine")
    give_to(tmp_path / "ws", 65_432, 65_432)
    owned = [tmp_path / "ws", *(tmp_path / "ws").rglob("*")]
    assert len(owned) == 4 and {path.lstat().st_uid for path in owned} == {65_432}
    assert (tmp_path / "mine").stat().st_uid == 0


def test_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a": bytes(100_000)})
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    out = tmp_path / "full"
    out.symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="full"):
        pack(tmp_path / "in", out)
