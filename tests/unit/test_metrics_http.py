"""The door to the metrics: what it answers, to whom, and what it does not put up with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry, Gauge

from protocol.errors import ConfigInvalid, PortBusy
from qubixd.config import load
from qubixd.metrics_http import (
    MAX_CONNECTIONS,
    MAX_HEAD_BYTES,
    REQUEST_SECONDS,
    SEND_SECONDS,
    MetricsDoor,
    serve_metrics,
)

Clock = trio.testing.MockClock
GET = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9464\r\n\r\n"


@asynccontextmanager
async def serving(address: str = "127.0.0.1:0") -> AsyncIterator[int]:
    registry = CollectorRegistry()
    Gauge("qubix_truth", "What is so.", registry=registry).set(1)
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve_metrics, address, registry)
        nursery.cancel_scope.cancel()


async def said(door: MetricsDoor, *parts: bytes, end: bool = True) -> bytes:
    """All that is answered to these bytes."""
    ours, theirs = trio.testing.memory_stream_pair()
    answer = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.handle, theirs)
        for part in parts:
            await ours.send_all(part)
        if end:
            await ours.send_eof()
        while chunk := bytes(await ours.receive_some(65_536)):
            answer += chunk
    return answer


def door(*, local: bool = True) -> MetricsDoor:
    return MetricsDoor(lambda: b"qubix_truth 1\n", local=local)


async def test_prometheus_is_answered() -> None:
    async with serving() as port, httpx.AsyncClient() as client:
        for _ in range(3):
            answer = await client.get(f"http://127.0.0.1:{port}/metrics")
            assert answer.status_code == 200 and "qubix_truth 1.0" in answer.text
            assert answer.headers["content-type"].startswith("text/plain; version=")
        head = await client.head(f"http://localhost:{port}/metrics?x=1")
        assert (head.status_code, head.text) == (200, "")
        assert int(head.headers["content-length"]) == len(answer.content)
        assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 404
        assert (await client.post(f"http://127.0.0.1:{port}/metrics", content=b"x")).status_code == 405


async def test_a_port_that_is_taken_or_cannot_be() -> None:
    async with serving() as port:
        with pytest.raises(PortBusy, match=f"listens on 127.0.0.1:{port}"):
            await serve_metrics(f"127.0.0.1:{port}", CollectorRegistry())
    with pytest.raises(ConfigInvalid, match="metrics cannot be served on 192"):
        await serve_metrics("192.0.2.1:0", CollectorRegistry())


@pytest.mark.parametrize(
    "host, status",
    [
        (b"127.0.0.1:9464", b"200"),
        (b"127.0.0.1", b"200"),
        (b"[::1]:9464", b"200"),
        (b"localhost:9464", b"200"),
        (b"evil.example:9464", b"403"),
        (b"localhost.evil.example", b"403"),
        (b"", b"403"),
    ],
)
async def test_on_loopback_no_web_page_can_read_under_its_own_name(host: bytes, status: bytes) -> None:
    request = GET.replace(b"127.0.0.1:9464", host)
    assert (await said(door(), request)).startswith(b"HTTP/1.1 " + status)
    assert (await said(door(local=False), request)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "parts, status",
    [
        ([b"nonsense\r\n\r\n"], b"400"),
        ([b"GET /metrics HTTP/1.1\r\n\r\n"], b"400"),
        ([GET[:-2], b"X: " + b"y" * 2 * MAX_HEAD_BYTES + b"\r\n\r\n"], b"431"),
        ([bytes([byte]) for byte in GET], b"200"),
        ([GET, GET], b"200"),
        ([GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 999999\r\n\r\n"), b"z" * 100], b"200"),
    ],
)
async def test_odd_requests(parts: list[bytes], status: bytes) -> None:
    answer = await said(door(), *parts)
    assert answer.startswith(b"HTTP/1.1 " + status) and answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer.lower()


async def test_one_that_says_nothing_or_half_is_let_go(autojump_clock: Clock) -> None:
    for parts in ([], [GET[:20]]):
        began = trio.current_time()
        assert await said(door(), *parts, end=False) == b""
        assert trio.current_time() - began == REQUEST_SECONDS
    assert await said(door()) == b""  # gone without a word


async def test_one_that_takes_nothing_is_let_go(autojump_clock: Clock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    one = door()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.handle, theirs)
        await ours.send_all(GET)
        await trio.sleep(SEND_SECONDS + 1)
        assert one.connections == 0


async def test_only_so_many_at_once(autojump_clock: Clock) -> None:
    one = door()
    pairs = [trio.testing.memory_stream_pair() for _ in range(MAX_CONNECTIONS)]
    async with trio.open_nursery() as nursery:
        for _, theirs in pairs:
            nursery.start_soon(one.handle, theirs)
        await trio.sleep(1)
        assert await said(one) == b""
        assert one.connections == MAX_CONNECTIONS
        await trio.sleep(REQUEST_SECONDS)
        assert (await said(one, GET)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "[::]:9464", "192.168.1.5:9464", ":9464"])
def test_others_read_only_if_a_person_says_so(address: str, tmp_path: Path) -> None:
    words = ["--chain", "node://127.0.0.1:1", "--contract-index", "28", "--data-dir", str(tmp_path)]
    with pytest.raises(ConfigInvalid):
        load([*words, "--metrics", address], {})
    if not address.startswith(":"):
        assert load([*words, "--metrics", address, "--metrics-open"], {}).metrics == address
    assert load([*words, "--metrics", "127.0.0.1:9464"], {}).metrics == "127.0.0.1:9464"
