"""What the public API carries: requests a second against a bare endpoint, subscribers of one process, and how
soon a change that a node wrote is seen by those who ask and those who listen."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import resource
import socket
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import psutil
import uvicorn
from fastapi import FastAPI, Response

from tests.support.web_mirror import written_to
from tests.support.web_process import web_process

OFFERS: Final = 10_000
CONNECTIONS: Final = 8
ROUND_S: Final = 1.5
ROUNDS: Final = 4
PATHS: Final = ("/v1/offers?limit=20", "/v1/offers?limit=20&sort=-score,price&filter=gpu%3DRTX_4090")
DIFFERENT: Final = "/v1/offers?limit=20&filter=price%3C%3D#"
SUBSCRIBERS: Final = 1_200
CHANGES: Final = 8
PROBES: Final = 12
UNLIMITED: Final = ("--requests-per-minute", "1000000")


class _Node:
    """Writes the mirror as a node does."""

    def __init__(self, path: Path, offers: int) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._change = offers

    def change(self, price: int) -> tuple[str, int]:
        """(peer id, change) of an offer that has a new price; committed when this returns."""
        self._change += 1
        self._db.execute("BEGIN IMMEDIATE")
        (peer_id,) = self._db.execute(
            "UPDATE offers SET price = ?, change = ? WHERE peer ="
            " (SELECT peer FROM offers WHERE live = 1 ORDER BY change LIMIT 1) RETURNING peer_id",
            (price, self._change),
        ).fetchone()
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'change'", (str(self._change),))
        self._db.execute("COMMIT")
        return peer_id, self._change

    def close(self) -> None:
        self._db.close()


# --- requests a second ------------------------------------------------------------------------------


def _bare(listening: socket.socket, body: bytes) -> None:
    """One endpoint and nothing else, that answers as many bytes."""
    app = FastAPI()

    @app.get("/bare")
    async def bare() -> Response:
        return Response(body, media_type="application/json")

    config = uvicorn.Config(app, access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _bare_server(body: bytes) -> Iterator[tuple[str, int]]:
    """(address, process id)"""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        process = multiprocessing.get_context("fork").Process(target=_bare, args=(listening, body))
        process.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        try:
            httpx.get(f"{address}bare", timeout=60).raise_for_status()
            yield address, process.pid or 0
        finally:
            process.terminate()
            process.join()


async def _asked(url: str, seconds: float) -> int:
    """Answers in so many seconds over a few connections that are kept. Each "#" is always another number."""
    port, target = urlsplit(url).port, url.partition("/")[2].partition("/")[2].partition("/")[2]
    until, numbers = time.perf_counter() + seconds, itertools.count(10**6)

    async def ask() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answers = 0
        while time.perf_counter() < until:
            asked = target.replace("#", str(next(numbers)))
            writer.write(f"GET /{asked} HTTP/1.1\r\nHost: market.test\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
            answers += 1
        writer.close()
        return answers

    return sum(await asyncio.gather(*(ask() for _ in range(CONNECTIONS))))


def _rate(url: str, pid: int) -> tuple[float, float]:
    """Answers by the clock's second and by the server's own second of work."""
    process = psutil.Process(pid)
    cpu, begun = sum(process.cpu_times()[:2]), time.perf_counter()
    answers = asyncio.run(_asked(url, ROUND_S))
    worked = sum(process.cpu_times()[:2]) - cpu
    return answers / (time.perf_counter() - begun), answers / worked


def rps_vs_bare() -> dict[str, object]:
    """/v1/offers while the mirror changes, against a bare endpoint that answers as many bytes, both by the
    second of work. `rps_per_core_all_different`: no two questions are alike, so no answer is known."""
    with (
        written_to(OFFERS) as path,
        web_process(str(path), *UNLIMITED) as web,
        closing(_Node(path, OFFERS)) as node,
    ):
        body = httpx.get(web.url + PATHS[0][1:], timeout=60).content
        ours, bare, by_clock, bare_clock = list[float](), list[float](), list[float](), list[float]()
        different = list[float]()
        with _bare_server(body) as (address, pid):
            for _ in range(ROUNDS):
                for one in PATHS:
                    node.change(1_000)
                    clock, work = _rate(web.url + one[1:], web.process.pid)
                    ours.append(work)
                    by_clock.append(clock)
                different.append(_rate(web.url + DIFFERENT[1:], web.process.pid)[1])
                clock, work = _rate(f"{address}bare", pid)
                bare.append(work)
                bare_clock.append(clock)
    detail = {
        "rps_per_core": round(statistics.median(ours)),
        "bare_rps_per_core": round(statistics.median(bare)),
        "rps_per_core_all_different": round(statistics.median(different)),
        "rps": round(statistics.median(by_clock)),
        "bare_rps": round(statistics.median(bare_clock)),
        "bytes": len(body),
        "offers": OFFERS,
        "connections": CONNECTIONS,
    }
    share = statistics.median(ours) / statistics.median(bare)
    return {"value": round(share, 2), "unit": "x", "reference": "bare FastAPI", "detail": detail}


# --- subscribers ------------------------------------------------------------------------------------


@dataclass
class _Ear:
    """Many subscribers in one process, which hears when each event came to each."""

    port: int
    heard: dict[int, list[float]] = field(default_factory=dict)
    """change -> when, of each subscriber that heard it"""
    ready: int = 0

    async def listen(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"GET /v1/events HTTP/1.1\r\nHost: market.test\r\n\r\n")
            name = b""
            while line := await reader.readline():
                if line.startswith(b"event: "):
                    name = line[7:-1]
                    self.ready += name == b"ready"
                elif line.startswith(b"id: ") and name == b"offer":
                    change = int(line.rpartition(b"-")[2])
                    self.heard.setdefault(change, []).append(time.perf_counter())
        finally:
            writer.close()

    async def until(self, number: int, change: int = 0) -> None:
        while (self.ready if not change else len(self.heard.get(change, ()))) < number:
            await asyncio.sleep(0.005)


async def _subscribed(port: int, pid: int, node: _Node) -> tuple[list[float], float, float]:
    """(seconds from commit to each subscriber, MiB of the server with them all, CPU seconds a change)"""
    ear = _Ear(port)
    async with asyncio.TaskGroup() as group:
        tasks = []
        for start in range(0, SUBSCRIBERS, 100):
            tasks += [group.create_task(ear.listen()) for _ in range(start, min(SUBSCRIBERS, start + 100))]
            await asyncio.wait_for(ear.until(len(tasks)), 120)
        server, waits = psutil.Process(pid), list[float]()
        cpu = sum(server.cpu_times()[:2])
        for price in range(CHANGES):
            begun = time.perf_counter()
            _, change = node.change(1_000 + price)
            await asyncio.wait_for(ear.until(SUBSCRIBERS, change), 60)
            waits += [at - begun for at in ear.heard[change]]
        worked = (sum(server.cpu_times()[:2]) - cpu) / CHANGES
        held = server.memory_info().rss / 2**20
        for task in tasks:
            task.cancel()
    return waits, held, worked


def sse_subscribers() -> dict[str, object]:
    """Of one process, each of which has heard of every change."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * SUBSCRIBERS)), hard))
    flags = (*UNLIMITED, "--streams", str(SUBSCRIBERS), "--streams-each", str(SUBSCRIBERS))
    with (
        written_to(OFFERS) as path,
        web_process(str(path), *flags) as web,
        closing(_Node(path, OFFERS)) as node,
    ):
        httpx.get(f"{web.url}v1/offers", timeout=60)
        before = psutil.Process(web.process.pid).memory_info().rss / 2**20
        port = urlsplit(web.url).port or 0
        waits, held, worked = asyncio.run(_subscribed(port, web.process.pid, node))
    every = sorted(waits)
    assert len(every) == SUBSCRIBERS * CHANGES
    detail = {
        "changes": CHANGES,
        "p50_s": round(statistics.median(every), 2),
        "p95_s": round(every[len(every) * 95 // 100], 2),
        "longest_s": round(every[-1], 2),
        "rss_mib": round(held),
        "kib_each": round((held - before) * 1_024 / SUBSCRIBERS, 1),
        "server_cpu_s_a_change": round(worked, 3),
    }
    return {"value": SUBSCRIBERS, "unit": "subscribers", "reference": ">= 1000", "detail": detail}


# --- how soon ---------------------------------------------------------------------------------------


async def _seen(url: str, node: _Node) -> tuple[list[float], list[float]]:
    """Seconds from commit to (an event, an answer of /v1/offers)."""
    ear, by_event, by_answer = _Ear(urlsplit(url).port or 0), list[float](), list[float]()
    async with httpx.AsyncClient(base_url=url, timeout=60) as client, asyncio.TaskGroup() as group:
        listening = group.create_task(ear.listen())
        await ear.until(1)
        for probe in range(PROBES):
            await asyncio.sleep(probe * 0.37 % 1)  # at any moment between two looks
            begun = time.perf_counter()
            peer_id, change = node.change(probe + 1)
            asked = {"filter": f"provider={peer_id} price={probe + 1}"}
            while not (await client.get("v1/offers", params=asked)).json()["offers"]:
                await asyncio.sleep(0.02)
            by_answer.append(time.perf_counter() - begun)
            await ear.until(1, change)
            by_event.append(ear.heard[change][0] - begun)
        listening.cancel()
    return by_event, by_answer


def change_visible_s() -> dict[str, object]:
    """From the commit of a row in mirror.db to the subscriber and to who asks, the longest; the mirror itself
    is as far behind the book as mirror.write_lag_s says."""
    with (
        written_to(OFFERS) as path,
        web_process(str(path), *UNLIMITED) as web,
        closing(_Node(path, OFFERS)) as node,
    ):
        httpx.get(f"{web.url}v1/offers", timeout=60)
        by_event, by_answer = asyncio.run(_seen(web.url, node))
    detail = {
        "probes": PROBES,
        "event_p50_s": round(statistics.median(by_event), 2),
        "event_longest_s": round(max(by_event), 2),
        "answer_p50_s": round(statistics.median(by_answer), 2),
        "answer_longest_s": round(max(by_answer), 2),
    }
    longest = max(*by_event, *by_answer)
    return {"value": round(longest, 2), "unit": "s", "reference": "<= 5", "detail": detail}


BENCHES: Final = {
    "web.change_visible_s": change_visible_s,
    "web.rps_vs_bare": rps_vs_bare,
    "web.sse_subscribers": sse_subscribers,
}
