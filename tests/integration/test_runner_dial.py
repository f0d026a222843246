"""Connections into a job's network, through the real porter and on plain processes alike."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from protocol.errors import PortClosed
from qubixd.runner import RunSpec
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


@on_docker
async def test_bytes_go_in_and_out_of_a_job_without_network(bench: Bench) -> None:
    spec = bench.spec(ECHO)
    await bench.begin(spec)
    data = os.urandom(3 * MIB)
    assert await echoed(await dial(bench, spec), data) == data
    assert await echoed(await dial(bench, spec), b"again") == b"again"
    with pytest.raises(PortClosed, match="nothing listens at TCP port 1 "):
        await bench.runner.dial(spec.lease_id, 1)
