"""The verb `compare`: a job that goes on beside a job file, field by field, through two real nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio.testing

from protocol import lease_model as m
from protocol.control_compare import CompareArgs, CompareView
from protocol.errors import JobFileInvalid, MessageInvalid
from protocol.lease_state import Phase
from qubixd import compare_desk
from tests.support.world import Person, World
from tests.support.world_jobs import job, now_ms

FILES = "file_mounts: {data.txt: data.txt}\nports: [8888]\n"
LONG = job(seconds=500, extra=FILES)
CHANGED = {
    "resources.image": LONG.replace("test:1", "test:2"),
    "run": LONG.replace("run: 500 0", "run: 400 0"),
    "resources.cpus": LONG.replace("cpus: 1", "cpus: 2"),
    "resources.memory": LONG.replace("64MB", "65MB"),
    "resources.disk": LONG.replace("10MB", "11MB"),
    "resources.gpu": LONG.replace("cpus: 1", "cpus: 1, gpu: A100"),
    "resources.internet": LONG.replace("cpus: 1", "cpus: 1, internet: true"),
    "max_hours": LONG.replace("max_hours: 1", "max_hours: 2"),
    "ports": LONG.replace("8888", "8889"),
    "envs": LONG + "envs: {A: b}\n",
    "outputs": LONG + "outputs: [x]\n",
    "budget": LONG + "budget: 5\n",
    "idle_stop": LONG + "idle_stop: 30m\n",
    "ready": LONG + "ready: '1'\n",
    "ready_within": LONG + "ready_within: 9m\n",
    "restart": LONG + "restart: always\n",
}


async def nobody(event: object) -> None: ...


@asynccontextmanager
async def running(root: Path, text: str = LONG) -> AsyncIterator[tuple[World, Person]]:
    """A world where bob's job of that file runs at alice's."""
    (root / "data.txt").write_text("one")
    async with World(root) as world:
        await world.start("alice", provider=True)
        bob = await world.start("bob")
        await world.until_offered(bob)
        lease = await world.rent(bob, text)
        await world.until(lease.lease_id, bob, lambda one: one.phase is Phase.RUNNING)
        yield world, bob


async def compared(world: World, person: Person, text: str) -> CompareView:
    return await compare_desk.compare(person.up, CompareArgs(text, str(world.root)), nobody)


async def test_a_job_is_what_its_file_says_until_the_file_changes(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(tmp_path) as (world, bob):
        view = await compared(world, bob, LONG)
        assert ([one.phase for one in view.leases], view.changes) == (["running"], [])
        for field, text in CHANGED.items():
            assert [one.field for one in (await compared(world, bob, text)).changes] == [field]
        hired_otherwise = LONG + "region: mars\nmax_price: 1\nproof: never\n"
        assert (await compared(world, bob, hired_otherwise)).changes == []
        assert not list((bob.root / "waiting").glob("*")), "what was packed to be compared is gone"


async def test_files_count_by_what_is_in_them(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with running(tmp_path) as (world, bob):
        (tmp_path / "data.txt").touch()
        assert (await compared(world, bob, LONG)).changes == []
        (tmp_path / "data.txt").write_text("two")
        assert [one.field for one in (await compared(world, bob, LONG)).changes] == ["file_mounts"]


async def test_a_job_of_another_name_or_that_ends_is_not_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(tmp_path) as (world, bob):
        assert await compared(world, bob, LONG.replace("name: test", "name: other")) == CompareView([], [])
        assert await compared(world, world.people["alice"], LONG) == CompareView([], []), "hers is a guest's"
        (lease,) = await bob.up.all_leases()
        await bob.up.leases.feed(lease.lease_id, m.ActionStop(now_ms()))
        assert (await compared(world, bob, LONG)).leases == []


async def test_bad_questions(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with running(tmp_path) as (world, bob):
        with pytest.raises(JobFileInvalid):
            await compare_desk.compare(bob.up, CompareArgs("run: [", str(tmp_path)), nobody)
        with pytest.raises(MessageInvalid):
            await compare_desk.compare(bob.up, CompareArgs(LONG, "here"), nobody)
        (tmp_path / "data.txt").unlink()
        with pytest.raises(JobFileInvalid, match=r"data\.txt does not exist"):
            await compared(world, bob, LONG)
