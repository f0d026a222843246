"""One wire stream against raw TCP: bytes from one process to another, over loopback, in the same run.

Each end is a process of its own. The receiver counts, answers one byte at the end and reports its CPU
time; the rounds alternate, and the medians are compared, so that a busy machine hits both alike.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from protocol.units import PeerKey
from qubixd.wire import Stream
from qubixd.wire_libp2p import WireConfig, open_wire, peer_key_of

_PROTOCOL: Final = "/bench/sink/1"
_WRITE: Final = bytes(1024 * 1024)
_MEGABYTES: Final = {"wire": 192, "tcp": 768}
_ROUNDS: Final = 3


async def _sink(stream: trio.abc.HalfCloseableStream) -> int:
    total = 0
    async for chunk in stream:
        total += len(chunk)
    await stream.send_all(b"!")
    return total


async def _serve_wire(report: Callable[[int], None]) -> None:
    async def handler(stream: Stream, peer: PeerKey) -> None:
        report(await _sink(stream))

    async with open_wire(WireConfig("127.0.0.1", 0, ()), bytes([1]) * 32) as wire:
        wire.serve(_PROTOCOL, handler)
        print(wire.addresses[0], flush=True)
        await trio.sleep_forever()


async def _serve_tcp(report: Callable[[int], None]) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        report(await _sink(stream))

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    await trio.serve_listeners(handler, [listener])


def _child(kind: str) -> None:
    started = time.process_time()

    def report(count: int) -> None:
        nonlocal started
        now = time.process_time()
        print(json.dumps({"bytes": count, "cpu_s": now - started}), flush=True)
        started = now

    trio.run({"wire": _serve_wire, "tcp": _serve_tcp}[kind], report)


@asynccontextmanager
async def _stream_to_child(
    kind: str,
) -> AsyncIterator[tuple[Callable[[], Awaitable[Stream]], subprocess.Popen[str]]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bench_wire", kind],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        address = child.stdout.readline().strip()
        if kind == "tcp":
            yield lambda: trio.open_tcp_stream("127.0.0.1", int(address)), child
        else:
            async with open_wire(WireConfig("127.0.0.1", 0, ()), bytes([2]) * 32) as wire:
                key = peer_key_of(address.rsplit("/", 1)[1])
                yield lambda: wire.open(key, _PROTOCOL, [address]), child
    finally:
        child.kill()
        child.wait()


async def _round(kind: str, open_stream: Callable[[], Awaitable[Stream]]) -> tuple[float, float]:
    """Wall and CPU seconds of the sender for one transfer."""
    stream = await open_stream()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(_MEGABYTES[kind]):
        await stream.send_all(_WRITE)
    await stream.send_eof()
    assert await stream.receive_some() == b"!"
    result = time.perf_counter() - wall, time.process_time() - cpu
    await stream.aclose()
    return result


async def _measure() -> dict[str, dict[str, float]]:
    speeds: dict[str, list[float]] = {"wire": [], "tcp": []}
    cpu: dict[str, list[float]] = {"wire": [], "tcp": []}
    async with _stream_to_child("wire") as wire, _stream_to_child("tcp") as tcp:
        for number in range(_ROUNDS + 1):
            for kind, (open_stream, child) in (("wire", wire), ("tcp", tcp)):
                wall_s, cpu_s = await _round(kind, open_stream)
                assert child.stdout is not None
                there = json.loads(child.stdout.readline())
                size = _MEGABYTES[kind] * len(_WRITE)
                assert there["bytes"] == size
                if number:  # the first round warms up
                    speeds[kind].append(size / wall_s / 1e6)
                    cpu[kind].append((cpu_s + there["cpu_s"]) / size * 1e9)
    return {
        kind: {
            "mb_per_s": round(statistics.median(speeds[kind]), 1),
            "cpu_s_per_gb": round(statistics.median(cpu[kind]), 2),
        }
        for kind in speeds
    }


def stream_vs_tcp() -> dict[str, object]:
    """Speed of one wire stream as a share of raw TCP's."""
    detail = trio.run(_measure)
    value = detail["wire"]["mb_per_s"] / detail["tcp"]["mb_per_s"]
    return {"value": round(value, 4), "unit": "ratio", "reference": "raw TCP", "detail": detail}


BENCHES: Final[dict[str, Callable[[], dict[str, object]]]] = {"wire.stream_vs_tcp": stream_vs_tcp}

if __name__ == "__main__":
    _child(sys.argv[1])
