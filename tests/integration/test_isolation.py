"""A hostile job in a real container against each promise of docs/isolation.md, network apart."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import docker
import psutil
import pytest
import trio

from protocol.errors import FilesInvalid
from qubixd.runner import ExitReason
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_config import container_name
from qubixd.runner.workspace import pack_to_file, unpack_file, usage_bytes
from tests.support import engine as support
from tests.support.c_programs import static_program
from tests.support.runners import LIMIT_SECONDS, MIB, Bench

pytestmark = pytest.mark.docker

ESCAPE = Path(support.__file__).parent / "escape.c"
LOG_BYTES = 64 * MIB
"""What the engine keeps of a job's output."""
HOST_SECRET = b"the host's own file, 4801"
LONG_SLEEP = str(10**6 + os.getpid())
"""Seconds, by which a process is known."""


@pytest.fixture
async def bench(tmp_path: Path, busybox_image: str) -> AsyncIterator[Bench]:
    made = Bench.make(
        lambda: DockerRunner(tmp_path / "state", disk_check_seconds=0.2),
        busybox_image,
        tmp_path / "workspace",
    )
    yield made
    await made.remove_all()


async def test_the_kernel_refuses_what_is_the_host_s(bench: Bench) -> None:
    """Namespaces, mounts, devices, keys, modules, bpf, io_uring, perf, clocks, raw and host sockets."""
    static_program(ESCAPE, bench.workspace / "escape")
    ended, said = await bench.run("./escape")
    assert (ended.code, said) == (0, "tried\n")


async def test_a_job_sees_nothing_of_the_host(bench: Bench) -> None:
    """Processes, names, sockets, devices, kernel secrets, mounts: each by its usual way in."""
    script = """
    echo "processes $(ls /proc | grep -c '^[0-9]')"
    echo "name $(hostname)"
    cat /etc/resolv.conf | grep -v '^#'
    for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /sys/firmware/dmi/tables/DMI; do
      if [ -s $f ] && head -c 1 $f 2>/dev/null | grep -q .; then echo "reads $f"; fi
    done
    for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/irq \\
      /proc/sys/net/ipv4/ip_forward /sys/kernel/uevent_helper /sys/fs/cgroup /proc/1/oom_score_adj; do
      if [ -d $f ]; then f=$f/probe; fi
      if (echo -1000 >$f) 2>/dev/null; then echo "writes $f"; fi
    done
    find / -xdev -type s 2>/dev/null | sed 's/^/socket /'
    find /dev -type b 2>/dev/null | sed 's/^/disk /'
    echo "mounts $(awk '{print $2}' /proc/mounts | grep -v -E '^/(proc|sys|dev)(/|$)' | sort | xargs)"
    """
    _, said = await bench.run(script)
    lines = said.splitlines()
    assert int(lines[0].split()[1]) < 10 and lines[1] == "name qubix" and socket.gethostname() not in said
    assert lines[2:] == [
        "nameserver 127.0.0.1",
        "mounts / /etc/hostname /etc/hosts /etc/resolv.conf /run /sbin/docker-init /tmp /workspace",
    ]


async def test_disk_filled_with_files_that_are_deleted(bench: Bench) -> None:
    """Each stays open, so it takes room, and no name leads to it."""
    script = """
    for i in 1 2 3 4 5 6; do
      exec 9>x; rm x; head -c 4000000 /dev/zero >&9; sleep 86399 9>&9 & exec 9>&-
    done; wait"""
    ended, _ = await bench.run(script)
    assert ended.reason is ExitReason.DISK_LIMIT
    assert usage_bytes(bench.workspace) < MIB  # as far as names lead


async def test_disk_filled_in_odd_ways(bench: Bench) -> None:
    """A sparse file, a reserved one, the small disks in memory, one huge file."""
    script = """
    truncate -s 1T sparse 2>/dev/null && echo sparse
    fallocate -l 1G reserved 2>/dev/null && echo reserved
    for d in /tmp /run /dev/shm; do
      i=0; while head -c 8M /dev/zero >$d/$i 2>/dev/null && [ $i -lt 100 ]; do i=$((i+1)); done
      [ $i -lt 100 ] || echo "all of $d"; rm -f $d/*
    done; echo "then a huge one"
    dd if=/dev/zero of=huge bs=1M count=64 2>/dev/null && echo huge"""
    ended, said = await bench.run(script, memory_bytes=512 * MIB)
    assert ended.code and said.startswith("then a huge one\n") and "\nhuge\n" not in said
    assert usage_bytes(bench.workspace) < 18 * MIB


async def test_disk_filled_with_names(bench: Bench) -> None:
    """A million empty files."""
    ended, said = await bench.run("i=0; while [ $i -lt 1000000 ]; do : >$i; i=$((i+1)); done; echo unseen")
    assert ended.reason is ExitReason.DISK_LIMIT and "unseen" not in said
    assert len(os.listdir(bench.workspace)) < 1_000_000


async def test_memory_bombs_end_the_job_alone(bench: Bench) -> None:
    """By a program, and by files in memory: both count against the job."""
    program = "dd if=/dev/zero of=/dev/null bs=200M count=1; echo survived"
    ended, said = await bench.run(program, memory_bytes=48 * MIB)
    assert ended.reason is ExitReason.OUT_OF_MEMORY and ended.code and "survived" not in said
    files = "for i in 1 2 3; do head -c 60M /dev/zero >/tmp/$i; done; echo survived"
    ended, said = await bench.run(files, memory_bytes=48 * MIB)
    assert ended.code and "survived" not in said


async def test_fork_bomb(bench: Bench) -> None:
    """One that goes on for ever is held at its number, and ends with the job."""
    spec = bench.spec("echo off; bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 86399", pids_max=24)
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "off")
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.stop(spec.lease_id, grace_seconds=0)
        assert (await bench.runner.wait(spec.lease_id)).reason is ExitReason.STOPPED


async def test_log_flood_keeps_its_bounds(bench: Bench, docker_engine: docker.DockerClient) -> None:
    spec = bench.spec("head -c 100M /dev/zero | tr '\\0' x; echo; echo last", cpu_millis=2000)
    await bench.begin(spec)
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.wait(spec.lease_id)
    said = await bench.said(spec.lease_id)
    assert said.endswith("\nlast\n") and len(said) < LOG_BYTES
    path = Path(docker_engine.api.inspect_container(container_name(spec.lease_id))["LogPath"])
    if os.access(path.parent, os.R_OK) and path.exists():
        files = [each for each in path.parent.iterdir() if each.name.startswith(path.name)]
        assert sum(each.stat().st_size for each in files) < LOG_BYTES + 2 * MIB


async def test_nothing_lives_on_after_a_job(bench: Bench) -> None:
    """A process that left its session, its parent and its signals behind."""
    leave = f"(trap '' TERM HUP; setsid sleep {LONG_SLEEP} </dev/null >/dev/null 2>&1 &)"
    ended, _ = await bench.run(f"{leave}; {leave}; exit 3")
    assert ended.code == 3
    assert not [
        each for each in psutil.process_iter(["cmdline"]) if LONG_SLEEP in (each.info["cmdline"] or ())
    ]


def in_loop(work: Callable[[], object], until: threading.Event) -> int:
    """How often it was done before `until`."""
    times = 0
    while not until.is_set():
        work()
        times += 1
    return times


async def test_paths_that_lead_out_of_the_workspace(bench: Bench, tmp_path: Path) -> None:
    """Links to the host's own paths, in all their kinds, and directories that turn into such links while the
    daemon looks: what it measures and packs is the workspace's alone."""
    host = tmp_path / "host"
    (host / "deep").mkdir(parents=True)
    (host / "secret").write_bytes(HOST_SECRET)
    (host / "deep" / "secret").write_bytes(HOST_SECRET)
    (host / "bulk").write_bytes(bytes(8 * MIB))
    script = f"""
    mkdir -p d/deep own; echo mine >own/file; echo mine >d/file; cp d/file d/deep/file
    ln -s {host} link; ln -s {host}/secret file; ln -s /proc/self/root root; ln -s ../host up
    ln -s {host}/secret own/secret; mkfifo pipe; ln own/file own/hard
    ln {host}/secret hard 2>/dev/null || ln /etc/passwd hard 2>/dev/null || echo no hard link
    nc -l local:sock 2>/dev/null & echo ready
    while :; do
      mv d e; ln -s {host} d; rm d; mv e d
      mv own/file own/f; ln -s {host}/secret own/file; rm own/file; mv own/f own/file
    done"""
    spec = bench.spec(script)
    await bench.begin(spec)
    await bench.until_said(spec.lease_id, "ready")
    archive, seen, done = tmp_path / "archive", set[int](), threading.Event()

    def pack() -> None:
        try:
            pack_to_file(bench.workspace, None, archive, 64 * MIB)
        except FilesInvalid:
            return  # a file that went away under the packing
        assert HOST_SECRET not in archive.read_bytes() and archive.stat().st_size < MIB

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, in_loop, pack, done)
        nursery.start_soon(
            trio.to_thread.run_sync, in_loop, lambda: seen.add(usage_bytes(bench.workspace)), done
        )
        await trio.sleep(2)
        done.set()
    assert max(seen) < MIB
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.stop(spec.lease_id, grace_seconds=0)
        await bench.runner.wait(spec.lease_id)
    assert (await bench.said(spec.lease_id)).startswith("no hard link\nready\n")
    packed = pack_to_file(bench.workspace, None, archive, 64 * MIB)
    names = unpack_file(archive, tmp_path / "out", 64 * MIB, 100, packed.sha256)
    assert {"own/hard"} <= set(names) and not set(names) & {"link", "file", "root", "up", "pipe", "hard"}
    assert not any(
        HOST_SECRET in each.read_bytes() for each in (tmp_path / "out").rglob("*") if each.is_file()
    )
