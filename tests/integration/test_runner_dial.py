"""Connections into a job's network, through the real porter and on plain processes alike."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
import trio

from protocol.errors import JobMissing, PortClosed
from protocol.units import LeaseId
from qubixd.runner import Inside, RunSpec
from qubixd.runner import docker_config as config
from tests.support.runners import LIMIT_SECONDS, MIB, Bench, both_runners

PORT = 4_711
ECHO = f"nc -ll -p {PORT} -e cat"
"""busybox: each connection its own `cat`."""


@pytest.fixture
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with both_runners(request, tmp_path) as made:
        yield made


on_docker = pytest.mark.parametrize(
    "bench", [pytest.param("docker", marks=pytest.mark.docker)], indirect=True
)


async def dial(bench: Bench, spec: RunSpec, port: int = PORT) -> trio.SocketStream:
    """A TCP connection, as soon as somebody listens."""
    with trio.fail_after(LIMIT_SECONDS):
        while True:
            with suppress(PortClosed):
                stream = await bench.runner.dial(spec.lease_id, port)
                assert isinstance(stream, trio.SocketStream)
                return stream
            await trio.sleep(0.02)


async def echoed(stream: trio.SocketStream, data: bytes) -> bytes:
    """What comes back of `data` until the other side ends."""
    got = bytearray()

    async def send() -> None:
        await stream.send_all(data)
        await stream.send_eof()

    with trio.fail_after(LIMIT_SECONDS):
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for part in stream:
                got += part
    return bytes(got)


# One job for many checks: what listens in it, and what it finds of the porter.
MANY = """
import os, socket, struct, threading, time
def tcp(port, family=socket.AF_INET, backlog=9):
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port)); s.listen(backlog); return s
def each(listening, talk):
    def run():
        while True:
            threading.Thread(target=talk, args=listening.accept()[:1], daemon=True).start()
    threading.Thread(target=run, daemon=True).start()
def reset(c):
    c.recv(1); c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); c.close()
def six(c):
    c.sendall(b"six"); c.close()
def echo(c):
    while data := c.recv(65536):
        c.sendall(data)
    c.close()
each(tcp(1001), reset)
each(tcp(1007), echo)
full = tcp(1002, backlog=0)
fill = [socket.socket() for _ in range(3)]
for f in fill: f.setblocking(False); f.connect_ex(("127.0.0.1", 1002))
try: each(tcp(1003, socket.AF_INET6), six)
except OSError: open("no-six", "w")
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 1004))
open("up", "w")
while True:
    data, who = u.recvfrom(70000); u.sendto(b"<" + data + b">", who)
"""


@on_docker
async def test_what_may_listen_inside(bench: Bench, python_image: str) -> None:
    (bench.workspace / "many.py").write_text(MANY)
    spec = bench.spec("exec python3 many.py", image=python_image)
    await bench.begin(spec)
    with trio.fail_after(LIMIT_SECONDS):
        while not (bench.workspace / "up").exists():
            await trio.sleep(0.02)
        rude = await bench.runner.dial(spec.lease_id, 1001)
        assert isinstance(rude, trio.SocketStream)
        async with rude:
            await rude.send_all(b"x")
            with pytest.raises(trio.BrokenResourceError):
                await rude.receive_some(1)
        if not (bench.workspace / "no-six").exists():
            assert await echoed(await dial(bench, spec, 1003), b"") == b"six"
        udp = await bench.runner.dial(spec.lease_id, 1004, udp=True)
        assert isinstance(udp, trio.socket.SocketType)
        with udp:
            for data in (b"one", b"", bytes(60_000)):
                await udp.send(data)
                assert await udp.recv(70_000) == b"<" + data + b">"
        nobody = await bench.runner.dial(spec.lease_id, 1005, udp=True)
        assert isinstance(nobody, trio.socket.SocketType)
        with nobody:
            await nobody.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                await nobody.recv(10)
        with pytest.raises(PortClosed, match="nothing listens at TCP port 1006 inside"):
            await bench.runner.dial(spec.lease_id, 1006)
    with trio.move_on_after(0.5) as waiting:  # a backlog that is full holds up nobody else
        await bench.runner.dial(spec.lease_id, 1002)
    assert waiting.cancelled_caught
    assert isinstance(await bench.runner.dial(spec.lease_id, 1001), trio.SocketStream)


def porter(client: docker.APIClient, spec: RunSpec) -> dict[str, Any]:
    found: dict[str, Any] = client.inspect_container(config.porter_name(spec.lease_id))
    return found


@on_docker
async def test_the_porter_through_what_may_happen_to_it(
    bench: Bench, docker_engine: docker.DockerClient, tmp_path: Path
) -> None:
    """It has no rights, is found again, made anew, follows its job into a new network and goes with it."""
    client, spec = docker_engine.api, bench.spec(ECHO)
    data = os.urandom(3 * MIB)
    await bench.begin(spec)
    assert await echoed(await dial(bench, spec), data) == data
    host = porter(client, spec)["HostConfig"]
    assert (host["CapDrop"], host["CapAdd"], host["ReadonlyRootfs"]) == (["ALL"], None, True)
    assert host["PidMode"] == "" and host["IpcMode"] == "private" and len(host["Mounts"]) == 1
    first = porter(client, spec)["State"]["Pid"]
    open_one = await dial(bench, spec)
    # Another daemon finds it.
    bench.reopen()
    assert await echoed(await dial(bench, spec), b"again") == b"again"
    assert porter(client, spec)["State"]["Pid"] == first
    # Somebody ends it: what is open stays open.
    await trio.to_thread.run_sync(client.kill, config.porter_name(spec.lease_id))
    assert await echoed(await dial(bench, spec), b"anew") == b"anew"
    assert await echoed(open_one, b"still") == b"still"
    client.remove_container(config.porter_name(spec.lease_id), force=True)
    assert await echoed(await dial(bench, spec), b"made") == b"made"
    # The job begins anew, in another network.
    before = await dial(bench, spec)
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.restart(spec.lease_id, {}, 0, b"12345678")
        with suppress(trio.BrokenResourceError):
            assert await before.receive_some(1) == b""
    assert await echoed(await dial(bench, spec), b"new") == b"new"
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.pause(spec.lease_id)
        with pytest.raises(JobMissing):
            await bench.runner.dial(spec.lease_id, PORT)
        await bench.runner.resume(spec.lease_id)
        await bench.runner.stop(spec.lease_id, 0)
        with pytest.raises(JobMissing):
            await bench.runner.dial(spec.lease_id, PORT)
        # Where all else is gone already, as after a crash, it is still found.
        client.remove_container(config.container_name(spec.lease_id), force=True)
        assert await bench.runner.leases() == {spec.lease_id}
        await bench.runner.remove(spec.lease_id)
        assert await bench.runner.leases() == frozenset()
    mine = {"label": f"{config.LABEL_HOME}={host_label(bench)}"}
    assert client.containers(all=True, filters=mine) == []
    assert list((tmp_path / "state" / "porters").iterdir()) == []


def host_label(bench: Bench) -> str:
    return str(bench.runner._porters._home)  # type: ignore[attr-defined]  # of the Docker runner


@on_docker
async def test_behind_a_fence_the_way_in_is_the_same(bench: Bench) -> None:
    spec = bench.spec(ECHO, internet=True)
    await bench.begin(spec)
    assert await echoed(await dial(bench, spec), b"hello") == b"hello"
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.restart(spec.lease_id, {}, 0, b"12345678")
    assert await echoed(await dial(bench, spec), b"again") == b"again"


@on_docker
async def test_a_job_does_not_see_its_porter(bench: Bench) -> None:
    """Neither its process nor its door, though both share a network; the door's name is all it learns."""
    processes = "cat /proc/[0-9]*/comm 2>/dev/null | grep -cx porter"
    look = f"{processes} || true; find / -name 'porter*' 2>/dev/null || true; ls /door 2>&1 || true"
    spec = bench.spec(f"{ECHO} & {look}; until [ -e go ]; do sleep 0.02; done; {look}; kill %1")
    await bench.begin(spec)
    (await dial(bench, spec)).socket.close()
    (bench.workspace / "go").touch()
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.wait(spec.lease_id)
    said = (await bench.said(spec.lease_id)).splitlines()
    assert said == 2 * ["0", "ls: /door: No such file or directory"]


@on_docker
async def test_where_no_descriptor_can_be_handed_over_a_program_passes_bytes(
    bench: Bench, python_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qubixd.runner.porter.DOOR_SECONDS", 0.0)
    (bench.workspace / "many.py").write_text(MANY)
    spec = bench.spec("exec python3 many.py", image=python_image)
    await bench.begin(spec)
    with trio.fail_after(LIMIT_SECONDS):
        while not (bench.workspace / "up").exists():
            await trio.sleep(0.02)
        with pytest.raises(PortClosed):
            await bench.runner.dial(spec.lease_id, 1)
        await passes(await bench.runner.dial(spec.lease_id, 1007), os.urandom(2 * MIB))
        datagrams = b"\0\x03one\0\x00\xea\x60" + bytes(60_000)
        answers = b"\0\x05<one>\0\x02<>\xea\x62<" + bytes(60_000) + b">"
        await passes(await bench.runner.dial(spec.lease_id, 1004, udp=True), datagrams, answers)


async def passes(inside: object, data: bytes, back: bytes | None = None) -> None:
    """That what is sent, or the answer to it, comes back through a program."""
    assert not isinstance(inside, trio.SocketStream | trio.socket.SocketType)
    program: Inside = inside  # type: ignore[assignment]  # it is no socket
    got, expected = b"", data if back is None else back

    async def send() -> None:
        await program.send_all(data)
        if back is None:
            await program.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while (back is None or len(got) < len(back)) and (part := await program.receive_some()):
            got += part
    await program.aclose()
    assert got == expected


@pytest.mark.parametrize("bench", ["process"], indirect=True)
async def test_a_plain_process_listens_on_this_machine(bench: Bench) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        f"import socket; s = socket.create_server(('127.0.0.1', {port})); c = s.accept()[0]; c.send(b'hi')"
    )
    spec = bench.spec(f'exec {sys.executable} -c "{script}; c.close(); s.accept()"')
    await bench.begin(spec)
    assert await echoed(await dial(bench, spec, port), b"") == b"hi"
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.stop(spec.lease_id, 0)
        with pytest.raises(JobMissing):
            await bench.runner.dial(spec.lease_id, port)
    with pytest.raises(JobMissing):
        await bench.runner.dial(LeaseId(bytes(32)), port)
