"""The lab itself: its routers and firewalls do what their names say, and nothing of it stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.netlab import Host, Lab, netlab
from tests.support.netlab_space import PREFIX, tool

pytestmark = [pytest.mark.usefixtures("netns"), pytest.mark.timeout(120)]

ECHO = """
import selectors, socket, sys
doors = selectors.DefaultSelector()
for port in sys.argv[1:]:
    doors.register(socket.create_server(("", int(port))), selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in doors.select():
        sock, address = key.fileobj.accept()
        with sock:
            sock.sendall(f"{address[0]} {address[1]}".encode())
"""
ASK = """
import socket, sys
source = int(sys.argv[1])
for target in sys.argv[2:]:
    host, port = target.split(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.settimeout(0.5)
        sock.bind(("", source))
        try:
            sock.connect((host, int(port)))
            print(sock.recv(64).decode())
        except OSError as error:
            print(type(error).__name__)
"""


@asynccontextmanager
async def echoes(host: Host, *ports: int) -> AsyncIterator[None]:
    """Tells whoever connects the address that it comes from."""
    command = [*host.space.enter, sys.executable, "-c", ECHO, *map(str, ports)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with trio.fail_after(20):
            await process.stdout.receive_some()
        yield
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def seen(host: Host, source: int, *targets: str) -> list[str]:
    """What each target says of a connection from port `source`: "IP PORT", or the error's name."""
    run = partial(host.run, sys.executable, "-c", ASK, str(source), *targets)
    return (await trio.to_thread.run_sync(run)).split("\n")[:-1]


async def test_each_place_is_what_it_says(tmp_path: Path) -> None:
    async with netlab(tmp_path, people=1) as lab, trio.open_nursery() as nursery:
        first, second = lab.public("first"), lab.public("second")
        async with echoes(first, 443, 5000), echoes(second, 443, 5000):
            targets = (f"{first.ip}:5000", f"{second.ip}:5000", f"{first.ip}:443")
            for check in (_cone, _symmetric, _campus, _moved):
                nursery.start_soon(check, lab, targets)
            with trio.fail_after(60):
                while len(nursery.child_tasks):
                    await trio.sleep(0.05)


async def _cone(lab: Lab, targets: tuple[str, ...]) -> None:
    """One outer port for everybody; and only a forwarded port lets somebody in."""
    host, guest = lab.home("cone", nat="cone"), lab.public("guest")
    assert host.router is not None
    answers = await seen(host, 4_001, *targets)
    assert answers == [f"{host.public_ip} 4001"] * 3
    async with echoes(host, 4_002):
        outside = f"{host.public_ip}:4002"
        assert await seen(guest, 4_003, outside) == ["TimeoutError"]
        host.router.forward(4_002, host)
        assert await seen(guest, 4_003, outside) == [f"{guest.ip} 4003"]
        async with await guest.connect(4_002, host.public_ip) as stream:
            assert (await stream.receive_some()).startswith(guest.ip.encode())


async def _symmetric(lab: Lab, targets: tuple[str, ...]) -> None:
    host = lab.home("symmetric", nat="symmetric")
    answers = await seen(host, 4_001, *targets)
    assert {answer.split()[0] for answer in answers} == {host.public_ip}
    assert len({answer.split()[1] for answer in answers}) > 1


async def _campus(lab: Lab, targets: tuple[str, ...]) -> None:
    host = lab.campus("campus")
    chain = lab.chain.removeprefix("node://")
    answers = await seen(host, 4_001, *targets, f"{targets[0].split(':')[0]}:80")
    assert answers == ["TimeoutError", "TimeoutError", f"{host.public_ip} 4001", "TimeoutError"]
    host.run(sys.executable, "-c", f"import socket; socket.create_connection({tuple(chain.split(':'))!r}, 5)")


async def _moved(lab: Lab, targets: tuple[str, ...]) -> None:
    host = lab.home("sleeper", nat="cone")
    before, inside = host.public_ip, host.ip
    assert await seen(host, 4_001, targets[0]) == [f"{before} 4001"]
    host.sleep()
    host.wake(lab.home_router("elsewhere", nat="symmetric"))
    assert inside != host.ip
    answer = (await seen(host, 4_001, targets[0]))[0]
    assert answer.startswith(f"{host.public_ip} ") and host.public_ip != before


async def test_nothing_of_it_stays(tmp_path: Path) -> None:
    """Also after a failure, with a program that nobody ended."""
    with pytest.raises(RuntimeError, match="on purpose"):
        async with netlab(tmp_path, people=1) as lab:
            left = await trio.lowlevel.open_process([*lab.public("one").space.enter, "sleep", "100"])
            raise RuntimeError("on purpose")
    with trio.fail_after(10):
        assert await left.wait() == -9
    assert f"{PREFIX}-{os.getpid()}-" not in tool("ip", "netns", "list")
