"""Job files: from a person's folder into an order, across, out again; every mistake is one sentence."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from ledger.store import inline
from protocol import messages
from protocol.errors import DiskFull, FilesInvalid, JobFileInvalid, MessageInvalid, StreamBroken
from protocol.jobspec import Job, parse
from protocol.signing import NodeKey
from protocol.units import LeaseId
from qubixd.jobfiles import JobFiles, Submission, decode_secrets, disk_errors
from qubixd.talk import IDLE_TIMEOUT_S
from qubixd.wire import Stream
from tests.support.world_jobs import job

T = TypeVar("T")
Clock = trio.testing.MockClock
LEASE = LeaseId(bytes(range(32)))
KEY = NodeKey(bytes(range(32)))


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    return JobFiles(tmp_path / "node", inline)


def mounting(**mounts: str) -> Job:
    return replace(parse(job()), file_mounts={name.replace("__", "/"): path for name, path in mounts.items()})


async def delivered(files: JobFiles, wanted: Job, base: Path) -> Submission:
    submission = await files.submit(wanted, base, {})
    await files.keep(LEASE, submission, KEY.public, KEY.public)
    return submission


async def test_files_travel_into_the_workspace(files: JobFiles, tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    submission = await delivered(files, mounting(inside__data="data", b="b.txt"), tmp_path)
    order = await files.prepare_workspace(LEASE, 10)
    assert messages.encode(order) == submission.order
    assert submission.order_sha256 == hashlib.sha256(submission.order).digest()
    workspace = files.path(LEASE, "workspace")
    assert (workspace / "inside" / "data" / "deep" / "a.txt").read_text() == "a"
    assert (workspace / "b").read_text() == "b"
    assert not list((files.root / "waiting").iterdir())


async def test_a_workspace_is_laid_out_afresh(files: JobFiles, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("true")
    await delivered(files, mounting(a="a"), tmp_path)
    await files.prepare_workspace(LEASE, 10)
    (files.path(LEASE, "workspace") / "a").write_text("changed")
    await files.prepare_workspace(LEASE, 10)
    assert (files.path(LEASE, "workspace") / "a").read_text() == "true"


async def test_what_a_person_can_get_wrong(files: JobFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "closed").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for source, sentence in {
        "missing": "file_mounts.there: .*/missing does not exist",
        "file/below": "file_mounts.there: .*/file/below ",
        "pipe": "file_mounts.there: .*/pipe cannot be read",
        "n" * 300: "file_mounts.there: .* cannot be read",
    }.items():
        with pytest.raises(JobFileInvalid, match=sentence):
            await files.submit(mounting(there=source), tmp_path, {})
    assert not list((files.root / "waiting").iterdir()), "nothing is left of what failed"


async def test_a_full_disk_is_not_an_unreadable_file(
    files: JobFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("qubixd.jobfiles.shutil.copyfile", full)
    with pytest.raises(DiskFull):
        await files.submit(mounting(there="file"), tmp_path, {})


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_one_sentence(code: int) -> None:
    with pytest.raises(DiskFull, match="the disk is full"), disk_errors():
        raise OSError(code, "full")
    with pytest.raises(PermissionError), disk_errors():
        raise PermissionError(errno.EACCES, "no")


async def test_too_large_an_order_is_refused_before_anybody_is_asked(files: JobFiles, tmp_path: Path) -> None:
    large = replace(parse(job()), envs={f"E{n}": "x" * 32_000 for n in range(9)})
    with pytest.raises(JobFileInvalid, match="too large"):
        await files.submit(large, tmp_path, {})
    with pytest.raises(JobFileInvalid, match="too large"):
        await files.submit(parse(job()), tmp_path, {"TOKEN": "x" * 40_000})
    assert not list((files.root / "waiting").iterdir())


async def test_a_private_file_stays_private_while_it_waits(files: JobFiles, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("mine")
    (tmp_path / "private").chmod(0o600)
    submission = await files.submit(mounting(there="private"), tmp_path, {})
    assert submission.archive.parent.stat().st_mode & 0o077 == 0


async def test_secrets_are_kept_apart_and_private(files: JobFiles, tmp_path: Path) -> None:
    submission = await files.submit(parse(job()), tmp_path, {"TOKEN": "sesame"})
    await files.keep(LEASE, submission, KEY.public, KEY.public)
    assert b"sesame" not in submission.order + files.path(LEASE, "secrets").read_bytes()
    assert stat.S_IMODE(files.path(LEASE, "secrets").stat().st_mode) == 0o600
    assert stat.S_IMODE(files.folder(LEASE).stat().st_mode) == 0o700
    assert files.secrets(LEASE, KEY) == {"TOKEN": "sesame"}
    with pytest.raises(MessageInvalid, match="not sealed for this node"):
        files.secrets(LEASE, NodeKey(bytes(32)))


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x92\xc4\x00", b"\x92\xc4\x00\x81\x01\xa1a", b"\x90", b"\x80"]
)
def test_strange_secrets_are_refused(data: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_secrets(data)


async def test_an_order_that_has_not_come_is_said(files: JobFiles) -> None:
    with pytest.raises(MessageInvalid, match="has not arrived"):
        files.order(LEASE)


async def test_inputs_that_changed_on_the_disk_are_not_run(files: JobFiles, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("true")
    await delivered(files, mounting(a="a"), tmp_path)
    archive = bytearray(files.path(LEASE, "inputs.tar").read_bytes())
    archive[512] ^= 1
    files.path(LEASE, "inputs.tar").write_bytes(archive)
    with pytest.raises(FilesInvalid, match="digest"):
        await files.prepare_workspace(LEASE, 10)


# --- outputs --------------------------------------------------------------------------------------


async def finished(files: JobFiles, tmp_path: Path, outputs: tuple[str, ...] = ()) -> Path:
    """A job that had one input and left three files."""
    (tmp_path / "in.txt").write_text("in")
    await delivered(files, replace(mounting(**{"in.txt": "in.txt"}), outputs=outputs), tmp_path)
    await files.prepare_workspace(LEASE, 10)
    workspace = files.path(LEASE, "workspace")
    (workspace / "sub").mkdir()
    (workspace / "sub" / "deep.txt").write_text("deep")
    (workspace / "result.json").write_text("{}")
    (workspace / "other.log").write_text("log")
    return workspace


@pytest.mark.parametrize(
    "outputs,expected",
    [
        ((), {"sub/deep.txt", "result.json", "other.log"}),
        (("result.json",), {"result.json"}),
        (("*.json", "*.log"), {"result.json", "other.log"}),
        (("sub",), {"sub/deep.txt"}),
        (("in.txt",), {"in.txt"}),
    ],
)
async def test_outputs_are_what_was_asked_for(
    files: JobFiles, tmp_path: Path, outputs: tuple[str, ...], expected: set[str]
) -> None:
    await finished(files, tmp_path, outputs)
    packed = await files.collect_outputs(LEASE, 10)
    assert packed is not None and packed.files == len(expected)
    target = tmp_path / "target"
    await files.deliver_outputs(LEASE, packed.sha256, target)
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert found == expected


async def test_nothing_left_is_no_output(files: JobFiles, tmp_path: Path) -> None:
    await delivered(files, parse(job()), tmp_path)
    assert await files.collect_outputs(LEASE, 10) is None, "it never ran"
    await files.prepare_workspace(LEASE, 10)
    assert await files.collect_outputs(LEASE, 10) is None
    await finished(files, tmp_path, ("nothing-like-it*",))
    assert await files.collect_outputs(LEASE, 10) is None


async def test_outputs_join_what_is_in_the_folder_already(files: JobFiles, tmp_path: Path) -> None:
    await finished(files, tmp_path)
    packed = await files.collect_outputs(LEASE, 10)
    assert packed is not None
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    (target / "result.json").write_text("old")
    for _ in range(2):
        await files.deliver_outputs(LEASE, packed.sha256, target)
    assert (target / "mine.txt").read_text() == "mine"
    assert (target / "result.json").read_text() == "{}"


async def test_outputs_that_are_not_the_announced_are_not_delivered(files: JobFiles, tmp_path: Path) -> None:
    await finished(files, tmp_path)
    assert await files.collect_outputs(LEASE, 10) is not None
    with pytest.raises(FilesInvalid):
        await files.deliver_outputs(LEASE, bytes(32), tmp_path / "target")
    assert not (tmp_path / "target").exists()


async def test_outputs_above_the_rented_disk_are_refused(files: JobFiles, tmp_path: Path) -> None:
    workspace = await finished(files, tmp_path)
    (workspace / "large").write_bytes(bytes(3 << 20))
    with pytest.raises(FilesInvalid):
        await files.collect_outputs(LEASE, 1)
    assert not list(files.folder(LEASE).glob("outputs*"))


async def test_forgetting_takes_files_folders_and_what_is_not_there(files: JobFiles, tmp_path: Path) -> None:
    await finished(files, tmp_path)
    await files.forget(LEASE, ("workspace", "inputs.tar", "never-was"))
    assert {path.name for path in files.folder(LEASE).iterdir()} == {"order", "secrets", "access"}
    await files.forget(LEASE, (".",))
    assert not files.folder(LEASE).exists()
    await files.forget(LEASE, (".",))


# --- over streams ---------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 1_000


@pytest.fixture
async def deep(files: JobFiles, tmp_path: Path) -> AsyncIterator[Path]:
    """A workspace with directories nested deeper than Python calls functions, and one nobody may read."""
    workspace = await finished(files, tmp_path, ("*.txt",))
    (workspace / "closed" / "inner").mkdir(parents=True)
    (workspace / "closed").chmod(0)
    (workspace / "link").symlink_to("/etc")
    below = os.open(workspace, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 200):
        os.mkdir("d", dir_fd=below)
        above, below = below, os.open("d", os.O_RDONLY, dir_fd=below)
        os.close(above)
    os.close(below)
    yield workspace
    subprocess.run(["rm", "-rf", workspace], check=True)


async def test_a_job_cannot_keep_its_workspace_from_being_deleted(files: JobFiles, deep: Path) -> None:
    await files.forget(LEASE, ("workspace",))
    assert not deep.exists() and Path("/etc/passwd").exists()


async def test_too_deep_a_workspace_has_no_outputs(files: JobFiles, deep: Path) -> None:
    (deep / "closed").chmod(0o700)
    with pytest.raises(FilesInvalid, match="nested deeper"):
        await files.collect_outputs(LEASE, 10)


async def received(
    files: JobFiles, send: Callable[[Stream], Awaitable[None]], size: int = len(CONTENT)
) -> Path:
    ours, theirs = trio.testing.memory_stream_pair()
    files.folder(LEASE).mkdir(parents=True, exist_ok=True)
    path = files.path(LEASE, "inputs.tar")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, theirs)
        try:
            await files.receive_file(ours, path, size, hashlib.sha256(CONTENT).digest())
        finally:
            nursery.cancel_scope.cancel()
    return path


async def in_pieces(stream: Stream) -> None:
    for start in range(0, len(CONTENT), 999):
        await stream.send_all(CONTENT[start : start + 999])


async def cut_short(stream: Stream) -> None:
    await stream.send_all(CONTENT[:-1])
    await stream.send_eof()


async def stalling(stream: Stream) -> None:
    await stream.send_all(CONTENT[:-1])
    await trio.sleep_forever()


async def changed(stream: Stream) -> None:
    await stream.send_all(b"x" + CONTENT[1:])


async def test_a_file_arrives_whole(files: JobFiles, autojump_clock: Clock) -> None:
    assert (await received(files, in_pieces)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "send,error", [(cut_short, StreamBroken), (stalling, StreamBroken), (changed, MessageInvalid)]
)
async def test_or_not_at_all(
    files: JobFiles,
    autojump_clock: Clock,
    send: Callable[[Stream], Awaitable[None]],
    error: type[Exception],
) -> None:
    expected = pytest.RaisesGroup(error, allow_unwrapped=True, flatten_subgroups=True)
    with trio.fail_after(IDLE_TIMEOUT_S + 1), expected:
        await received(files, send)
    assert list(files.folder(LEASE).iterdir()) == []


async def test_a_file_is_sent_from_an_offset(files: JobFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    ours, theirs = trio.testing.memory_stream_pair()
    await files.send_file(ours, tmp_path / "file", offset=len(CONTENT) - 10)
    await files.send_file(ours, tmp_path / "file", offset=len(CONTENT) + 10)
    await ours.send_eof()
    assert bytes(await theirs.receive_some()) == CONTENT[-10:]
    assert bytes(await theirs.receive_some()) == b""


async def test_a_new_start_forgets_what_was_only_packed(files: JobFiles, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("b")
    kept = await delivered(files, mounting(b="b.txt"), tmp_path)
    lost = await files.submit(mounting(b="b.txt"), tmp_path, {})
    assert lost.archive.exists()
    await files.forget_unfinished()
    assert not (files.root / "waiting").exists()
    assert (await files.prepare_workspace(LEASE, 10)).inputs_bytes > 0, kept
