"""The control socket as a door: hello, requests that are left, and a group that may come in."""

from __future__ import annotations

import grp
import os
import stat
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

import qubix
from protocol import control
from protocol.errors import ConfigInvalid
from qubixd.control import open_control
from qubixd.control_socket import MAX_REQUESTS_AT_ONCE
from tests.integration.test_control_socket import doors
from tests.support.front_end import front_end
from tests.support.rental import due, rental
from tests.support.world_jobs import job

Clock = trio.testing.MockClock


async def test_hello_tells_version_and_verbs(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        hello = await at.bob.ask("hello", api_version=control.API_VERSION)
        assert hello.api_version == control.API_VERSION and hello.version
        assert set(hello.verbs) == set(control.VERBS)


async def test_a_request_that_is_left_ends_and_the_connection_goes_on(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with doors(tmp_path) as at:
        callbacks = at.one.bob.up.leases.on_change
        before = len(callbacks)
        watching = await at.bob.send("watch")
        while (await at.bob.receive())["event"]["kind"] != "present":
            pass
        assert len(callbacks) == before + 1
        await at.bob.ask("leave", request=watching)
        await trio.testing.wait_all_tasks_blocked()
        assert len(callbacks) == before, "nobody listens for it any more"
        assert (await at.bob.ask("leave", request=12345)) == control.Done(), "it may have ended meanwhile"


async def test_leaving_makes_room_where_all_is_taken(tmp_path: Path, autojump_clock: Clock) -> None:
    quiet = {"leases": False, "wallet": False, "notices": False}
    async with doors(tmp_path) as at:
        asked = [await at.bob.send("watch", **quiet) for _ in range(MAX_REQUESTS_AT_ONCE)]
        for _ in asked:
            assert (await at.bob.receive())["event"]["kind"] == "present"
        await at.bob.ask("leave", request=asked[0])
        assert (await at.bob.ask("status")).peers == 1


async def test_requests_that_never_end_leave_an_ear_for_others(tmp_path: Path, autojump_clock: Clock) -> None:
    """What has waited long for its turn is told so; `leave` is heard meanwhile, also for what waits."""
    quiet = {"leases": False, "wallet": False, "notices": False}
    async with doors(tmp_path) as at:
        asked = [await at.bob.send("watch", **quiet) for _ in range(MAX_REQUESTS_AT_ONCE)]
        for _ in asked:
            assert (await at.bob.receive())["event"]["kind"] == "present"
        waits, goes = await at.bob.send("status"), await at.bob.send("shutdown")
        await at.bob.ask("leave", request=goes)
        told = await at.bob.receive()
        assert told["id"] == waits and "64 requests of this connection go on" in told["error"]["message"]
        waits = await at.bob.send("status")
        await at.bob.ask("leave", request=asked[0])
        assert (await at.bob.receive())["id"] == waits, "its turn has come"


async def test_frames_stay_whole_when_a_request_is_left_while_it_speaks(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """The socket is full, and the daemon in the middle of a frame."""
    async with doors(tmp_path) as at:
        await at.one.rent(job(seconds=1_000))
        await at.one.until_paid(due(3))
        async with front_end(at.socket) as deaf:
            while True:
                with trio.move_on_after(1) as waited:
                    last = await deaf.send("ps", all=True)
                if waited.cancelled_caught or last > 3_000:
                    break
            watching = last - 1
            with trio.move_on_after(1):
                await deaf.send("leave", request=watching)
            heard = 0
            with trio.move_on_after(5):
                while True:
                    frame = await deaf.receive()
                    heard += 1
                    assert frame.keys() & {"ok", "error"}
            assert heard > 100


async def test_a_socket_shared_with_a_group(tmp_path: Path, autojump_clock: Clock) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    async with rental(tmp_path) as one:
        node = replace(one.bob.up, config=replace(one.bob.up.config, control_group=group))
        async with open_control(node) as path, front_end(path) as other:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660 and path.stat().st_gid == os.getgid()
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o710
            assert (await other.ask("status")).peers == 1


async def test_a_group_that_does_not_exist(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        node = replace(one.bob.up, config=replace(one.bob.up.config, control_group="no such group"))
        with pytest.raises(ConfigInvalid, match="this machine has no group 'no such group'"):
            async with open_control(node):
                pass


async def test_the_python_package_against_a_real_node(tmp_path: Path, autojump_clock: Clock) -> None:
    """From the job file to the end of the lease, watched beside; on trio, as the node is."""
    told: list[str] = []

    async def watch(node: qubix.Node) -> None:
        async for event in node.watch():
            told.append(event.notice.code if event.notice else event.kind)

    async with doors(tmp_path) as at, qubix.connect(at.socket.parent) as node, trio.open_nursery() as nursery:
        nursery.start_soon(watch, node)
        (tmp_path / "job.yaml").write_text(job(seconds=4))
        events = [one async for one in node.run(tmp_path / "job.yaml", output_dir=tmp_path / "out")]
        assert (events[0].phase, events[-1].phase) == ("packing", "done")
        (lease,) = await node.leases(ended=True)
        assert lease == events[-1].lease and await node.leases() == []
        assert b"".join([piece async for piece in node.logs(lease.lease_id)]) == b"hello from the job\n"
        assert (await node.wallet()).spent == due(4)
        with pytest.raises(qubix.QubixError, match="no lease here begins"):
            await node.stop("ffff")
        while "lease.ended" not in told:
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert told.index("present") < told.index("lease.ready") < told.index("lease.ended")


async def test_a_follower_that_is_cancelled_leaves_the_job_running(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with doors(tmp_path) as at, qubix.connect(at.socket.parent) as node:
        (tmp_path / "job.yaml").write_text(job(seconds=1_000))
        async with aclosing(node.run(tmp_path / "job.yaml", output_dir=tmp_path / "out")) as events:
            async for event in events:
                if event.phase == "running":
                    break
        (lease,) = await node.leases()
        await trio.sleep(30)
        assert (await node.leases())[0].seconds > lease.seconds
        await node.stop(lease.lease_id)
        assert [event.phase async for event in node.wait(lease.lease_id)][-1] == "cancelled"
