"""A caller, with a job of its own, that wants more of a provider by copying files than it has rented."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol import file_frames as f
from protocol.messages import OpenFiles
from qubixd.runner.process import ProcessRunner
from qubixd.tunnels import tree
from tests.support.doors import DISK_MIB, LEASE, Doors, doors

MIB = 1 << 20
NEARLY_ALL = (DISK_MIB - 1) * MIB


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Doors]:
    async with doors(tmp_path / "lease", ProcessRunner(tmp_path / "state")) as made:
        yield made


async def write(there: Doors, name: bytes, size: int) -> object:
    """The answer to one who wants to write so much, on a stream of its own."""
    return await (await there.files()).ask(f.Write(name, size, 0))


def is_full(answer: object) -> bool:
    return isinstance(answer, f.Failed) and answer.code == "disk.full"


async def test_a_file_with_holes_makes_no_room(there: Doors) -> None:
    (there.workspace / "a").touch()
    os.truncate(there.workspace / "a", 1 << 40)
    assert is_full(await write(there, b"a", 1 << 30))


async def test_one_file_makes_room_for_one_copy(there: Doors) -> None:
    (there.workspace / "a").write_bytes(os.urandom(NEARLY_ALL))
    assert await write(there, b"a", NEARLY_ALL) == f.Ready(0)
    assert is_full(await write(there, b"a", NEARLY_ALL - 1))


async def test_a_smaller_file_makes_no_room_before_it_is_there(there: Doors) -> None:
    (there.workspace / "a").write_bytes(os.urandom(NEARLY_ALL))
    assert await write(there, b"a", 1) == f.Ready(0)
    assert is_full(await write(there, b"b", NEARLY_ALL))


async def test_who_hangs_up_is_worked_for_no_more(there: Doors) -> None:
    (there.workspace / "endless").touch()
    os.truncate(there.workspace / "endless", 1 << 43)
    stream = await there.open(OpenFiles(LEASE))
    await stream.send_all(f.pack(f.Look(b"endless", digest=True)))
    await trio.testing.wait_all_tasks_blocked()
    assert there.door.streams(LEASE) == 1
    stream.abort("a.code", "gone")
    with trio.fail_after(10):
        while there.door.streams(LEASE):
            await trio.sleep(0.01)


async def test_a_directory_larger_than_memory_should_hold_is_not_listed(
    there: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_IN_DIRECTORY", 5)
    for number in range(6):
        (there.workspace / str(number)).touch()
    copier = await there.files()
    answer = await copier.ask(f.List(b""))
    assert isinstance(answer, f.Failed) and "pack them inside the job" in answer.sentence
    (there.workspace / "0").unlink()
    assert len(await copier.listed()) == 5
