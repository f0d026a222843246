"""Files of a job over a stream: what is asked is answered, and nothing outside the workspace is touched."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from protocol import file_frames as f
from protocol.errors import PeerRefused
from protocol.messages import OpenFiles
from qubixd.runner import disk
from qubixd.runner.process import ProcessRunner
from tests.support.doors import DISK_MIB, LEASE, Copier, Doors, doors

MIB = 1 << 20
LEADING_OUT = [b"../x", b"/etc/passwd", b"a/../../x", b".", b"a//b", b"a\0b", b"x" * 256, b"a/" * 101 + b"a"]


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Doors]:
    async with doors(tmp_path / "lease", ProcessRunner(tmp_path / "state")) as made:
        yield made


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


async def written(
    copier: Copier, name: bytes, data: bytes, *, mtime_ns: int = 7_000, anew: bool = False
) -> f.Frame:
    """The answer to a whole file, sent from where the provider wants it."""
    ready = await copier.ask(f.Write(name, len(data), mtime_ns, 0o640, anew))
    if not isinstance(ready, f.Ready):
        assert isinstance(ready, f.Failed)
        return ready
    cuts = range(ready.offset, len(data), f.MAX_DATA_BYTES)
    pieces = [f.Data(data[at : at + f.MAX_DATA_BYTES]) for at in cuts]
    answer: f.Frame = await copier.ask(*pieces, f.End(sha(data)))
    return answer


def failed(answer: object) -> str:
    assert isinstance(answer, f.Failed), answer
    return answer.code


async def test_a_tree_goes_in_and_out(there: Doors) -> None:
    copier, data = await there.files(), os.urandom(3 * MIB + 17)
    assert await copier.ask(f.MakeDirectory(b"a/b", 0o750)) == f.Done()
    assert await written(copier, b"a/b/\xff name", data) == f.Done()
    assert await written(copier, b"a/empty", b"") == f.Done()
    assert await copier.ask(f.Settle(b"a", 0o711, 5_000)) == f.Done()
    path = there.workspace / "a/b" / os.fsdecode(b"\xff name")
    assert path.read_bytes() == data
    assert (path.stat().st_mtime_ns, stat.S_IMODE(path.stat().st_mode)) == (7_000, 0o640)
    assert stat.S_IMODE((there.workspace / "a").stat().st_mode) == 0o711
    assert await copier.listed() == {
        b"a": "directory",
        b"a/b": "directory",
        b"a/empty": "file",
        b"a/b/\xff name": "file",
    }
    assert await copier.listed(b"a", deep=False) == {b"a/b": "directory", b"a/empty": "file"}
    assert await copier.read(b"a/b/\xff name") == (data, sha(data))
    assert await copier.read(b"a/b/\xff name", 3 * MIB) == (data[3 * MIB :], sha(data))
    seen = await copier.ask(f.Look(b"a/b/\xff name", digest=True))
    assert (seen.kind, seen.size, seen.mtime_ns, seen.sha256) == ("file", len(data), 7_000, sha(data))
    await copier.stream.send_eof()
    assert await copier.next() is None
    assert list((there.folder / "parts").iterdir()) == []
    await copier.stream.aclose()


async def test_many_entries_come_in_many_frames(there: Doors) -> None:
    for number in range(150):
        (there.workspace / f"f{number}").touch()
    assert len(await (await there.files()).listed()) == 150


async def test_a_copy_that_broke_off_goes_on_where_it_was(there: Doors) -> None:
    data = random.Random(1).randbytes(MIB)
    first = await there.files()
    await first.ask(f.Write(b"big", MIB, 9))
    await first.stream.send_all(b"".join(f.pack(f.Data(data[at : at + 100_000])) for at in (0, 100_000)))
    while not (there.folder / "parts").exists() or _kept(there) < 200_000:
        await trio.sleep(0.005)
    first.stream.abort("test.cut", "somebody pulled the plug")
    second = await there.files()
    with trio.fail_after(10):
        while not isinstance(ready := await second.ask(f.Write(b"big", MIB, 9)), f.Ready):
            await trio.sleep(0.005)  # the first is still on its way out
    assert ready.offset == 200_000
    assert await second.ask(f.Data(data[200_000:300_000]), f.End()) == f.Failed(
        "files.changed", "only 300000 bytes of 'big' came; copy it again"
    )
    assert await written(second, b"big", data, mtime_ns=9) == f.Done()
    assert (there.workspace / "big").read_bytes() == data


def _kept(there: Doors) -> int:
    return sum(one.stat().st_size for one in (there.folder / "parts").iterdir())


async def test_what_was_kept_of_another_file_is_not_taken_for_it(there: Doors) -> None:
    copier = await there.files()
    await copier.ask(f.Write(b"x", 10, 1))
    await copier.ask(f.Data(b"wrong"), f.End())
    assert failed(await written(copier, b"x", b"right12345", mtime_ns=1)) == "files.changed"
    assert await written(copier, b"x", b"right12345", mtime_ns=1) == f.Done()
    await copier.ask(f.Write(b"x", 10, 2))
    await copier.ask(f.Data(b"wrong"), f.End())
    assert await written(copier, b"x", b"other67890", mtime_ns=2, anew=True) == f.Done()
    assert (there.workspace / "x").read_bytes() == b"other67890"


async def test_two_copies_to_one_name_do_not_mix(there: Doors) -> None:
    one, other = await there.files(), await there.files()
    assert await one.ask(f.Write(b"x", 4, 1)) == f.Ready(0)
    assert failed(await other.ask(f.Write(b"x", 4, 1))) == "files.denied"
    assert await one.ask(f.Data(b"1234"), f.End(sha(b"1234"))) == f.Done()


async def test_names_that_lead_out_are_refused(there: Doors) -> None:
    copier = await there.files()
    for name in LEADING_OUT:
        for question in (
            f.Look(name),
            f.Read(name),
            f.Write(name, 1, 0),
            f.MakeDirectory(name),
            f.List(name),
        ):
            assert failed(await copier.ask(question)) == "files.not_a_file", (name, question)
    assert sorted(there.folder.iterdir()) == [there.workspace]


async def test_links_and_special_files_are_not_followed(there: Doors, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    inside = there.workspace
    (inside / "out").symlink_to(outside)
    (inside / "file").symlink_to(outside / "secret")
    os.mkfifo(inside / "pipe")
    copier = await there.files()
    for name in (b"out/secret", b"file", b"pipe", b"out", b""):
        assert failed(await copier.ask(f.Read(name))) == "files.not_a_file", name
    for question in (f.Write(b"out/new", 1, 0), f.MakeDirectory(b"out/new"), f.Settle(b"file", 0o777, 0)):
        assert failed(await copier.ask(question)) == "files.not_a_file", question
    assert failed(await copier.ask(f.Settle(b"pipe", 0o777, 0))) == "files.not_a_file"
    assert failed(await copier.ask(f.List(b"out", deep=True))) == "files.not_a_file"
    assert await copier.listed() == {b"out": "link", b"file": "link", b"pipe": "other"}
    assert failed(await copier.ask(f.Read(b"nothing"))) == "files.missing"
    # A file takes the place of a link, and not of what the link leads to.
    assert await written(copier, b"file", b"mine") == f.Done()
    assert (outside / "secret").read_text() == "s" and (inside / "file").read_text() == "mine"
    (inside / "full").mkdir()
    assert failed(await copier.ask(f.Write(b"full", 1, 0))) == "files.not_a_file"


async def test_a_job_that_changes_everything_meanwhile_gets_nothing_written_outside(
    there: Doors, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("s")
    inside, over = there.workspace, trio.Event()

    def change(turn: int) -> None:
        spot = inside / "spot"
        if turn % 2:
            spot.rename(inside / f"old{turn}")
            spot.symlink_to(outside)
        else:
            spot.unlink()
            spot.mkdir()
            (spot / "x").write_text("j")

    (inside / "spot").mkdir()

    async def hostile() -> None:
        turn = 1
        while not over.is_set():
            await trio.to_thread.run_sync(change, turn)
            turn += 1

    copier = await there.files()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hostile)
        outcomes = set()
        for _ in range(150):
            answer = await written(copier, b"spot/x", b"mine")
            outcomes.add(answer.code if isinstance(answer, f.Failed) else "done")
            answer = await copier.ask(f.Read(b"spot/x"))
            while isinstance(answer, f.Entry | f.Data):
                assert not isinstance(answer, f.Data) or answer.data != b"s"
                answer = await copier.next()
        over.set()
    assert outcomes <= {"done", "files.not_a_file", "files.missing"}
    assert [one.name for one in outside.iterdir()] == ["x"] and (outside / "x").read_text() == "s"


async def test_a_file_that_gets_shorter_while_it_is_read_is_said_so(there: Doors) -> None:
    path, size = there.workspace / "x", 64 * MIB
    path.touch()
    os.truncate(path, size)
    copier = await there.files()
    answer = await copier.ask(f.Read(b"x"))
    os.truncate(path, 10)
    while isinstance(answer, f.Entry | f.Data):
        answer = await copier.next()
    assert failed(answer) == "files.changed"
    assert failed(await copier.ask(f.Read(b"x", 11))) == "files.changed"


async def test_more_than_the_rented_disk_is_refused_beforehand(there: Doors) -> None:
    copier = await there.files()
    (there.workspace / "own").write_bytes(bytes(2 * MIB))
    answer = await copier.ask(f.Write(b"x", 10 << 30, 0))
    assert failed(answer) == "disk.full"
    left = f"the job's disk has {DISK_MIB - 2}.0 MiB left"
    assert answer.sentence == f"{left}, and 'x' needs 10,240 MiB"
    # What is being written elsewhere counts, too; a file that is replaced does not.
    other = await there.files()
    assert isinstance(await other.ask(f.Write(b"y", 4 * MIB, 0)), f.Ready)
    assert failed(await copier.ask(f.Write(b"x", 3 * MIB, 0))) == "disk.full"
    assert isinstance(await copier.ask(f.Write(b"own", 3 * MIB, 0)), f.Ready)


async def test_a_disk_that_gets_full_meanwhile_ends_the_file_and_not_the_stream(
    there: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qubixd.tunnels.parts.CHECK_BYTES", 1)
    copier = await there.files()
    assert await copier.ask(f.Write(b"x", MIB, 0)) == f.Ready(0)
    space = disk.space_of(there.workspace)
    assert space is not None
    full = disk.Space(space.device, space.floor + 1_000, space.total)
    monkeypatch.setattr("qubixd.tunnels.parts.space_of", lambda _: full)
    pieces = [f.Data(bytes(100_000))] * 4
    answer = await copier.ask(*pieces)
    assert failed(answer) == "disk.full" and answer.sentence.startswith(
        "the provider's disk has 0.0 MiB left"
    )
    await copier.stream.send_all(f.pack(f.Data(b"more")) + f.pack(f.End()))
    monkeypatch.undo()
    assert await written(copier, b"z", b"fits") == f.Done()


@pytest.mark.parametrize(
    "said",
    [
        f.pack(f.Write(b"x", 3, 0)) + f.pack(f.Data(b"four")),
        f.pack(f.Write(b"x", 3, 0)) + f.pack(f.Look(b"x")),
        f.pack(f.Data(b"nobody asked")),
        f.pack(f.Done()),
        b"\xff\xff\xff\xff",
        b"\0\0\0\x01\x00",
    ],
)
async def test_nonsense_ends_the_stream_with_a_reason(there: Doors, said: bytes) -> None:
    copier = await there.files()
    await copier.stream.send_all(said)
    with pytest.raises(PeerRefused) as refused:
        while await copier.next() is not None:
            pass
    assert refused.value.refusal_code.startswith("wire.message_")
    assert there.door.streams(LEASE) == 0


async def test_a_stream_that_ends_in_the_middle_of_a_frame(there: Doors) -> None:
    stream = await there.open(OpenFiles(LEASE))
    await stream.send_all(f.pack(f.Look(b""))[:-1])
    await stream.send_eof()
    with pytest.raises(PeerRefused, match="in the middle"):
        while await stream.receive_some():
            pass
