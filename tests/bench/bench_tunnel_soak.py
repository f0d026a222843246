"""An hour of a busy browser in a minute: connections through a tunnel open, say something and close."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from qubixd.link.mux import PING_SECONDS, UNUSED_SECONDS
from tests.bench.tunnel_server import connect, fetch, put
from tests.bench.tunnel_world import Tunnel, ask, job, tunnel

_CONNECTIONS: Final = 5_000
"""About 80 a minute."""
_WARM: Final = 4_500
"""So that what is remembered of streams that are over is full."""
_AT_ONCE: Final = 12


def _one(port: int, lots: random.Random) -> None:
    """A request and its answer; some upload, some stay for more, some are given up in the middle."""
    kind = lots.random()
    if kind < 0.7:
        fetch(port, lots.choice((300, 20_000, 150_000)))
    elif kind < 0.8:
        put(port, 50_000)
    elif kind < 0.9:
        with connect(port, b"E") as sock:
            for _ in range(5):
                sock.sendall(b"x" * 100)
                sock.recv(100, socket.MSG_WAITALL)
    else:
        with connect(port, b"G", 2_000_000) as sock:
            sock.recv(1_000)


def _many(port: int, count: int, seed: int) -> None:
    def worker(number: int) -> None:
        lots = random.Random(seed + number)
        for _ in range(count // _AT_ONCE):
            try:
                _one(port, lots)
            except OSError as error:
                failed.append(error)

    failed: list[OSError] = []
    threads = [threading.Thread(target=worker, args=(number,)) for number in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _usage(ours: Tunnel) -> dict[str, dict[str, Any]]:
    """After carriers that are not used any more have closed."""
    time.sleep(UNUSED_SECONDS + PING_SECONDS + 5)
    return {"near": ask(ours.near, collect=True), "far": ask(ours.far, collect=True)}


def soak_growth() -> dict[str, object]:
    """Megabytes that the larger of the two ends has grown by, over 5,000 connections after 4,500."""
    with job() as to_job, tunnel(to_job) as ours:
        _many(ours.port, _WARM, 1)
        before, begun = _usage(ours), time.monotonic()
        _many(ours.port, _CONNECTIONS, 2)
        took = time.monotonic() - begun
        after = _usage(ours)
    grown = {
        what: {end: round(after[end][what] - before[end][what], 1) for end in before}
        for what in ("rss_mb", "descriptors", "tasks")
    }
    detail = grown | {
        "connections": _CONNECTIONS,
        "seconds": round(took),
        "rss_mb_before": before["near"]["rss_mb"],
    }
    value = max(grown["rss_mb"].values())
    return {"value": value, "unit": "MB", "reference": "after 4,500 connections", "detail": detail}


BENCHES: Final[dict[str, Callable[[], dict[str, object]]]] = {"tunnel.soak_growth": soak_growth}
