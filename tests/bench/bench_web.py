"""How long the web takes to answer from a mirror of 100,000 offers that changes all the while.

Whole HTTP requests to one process over loopback, held against the same SQL in a bare connection.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

from protocol.query import parse_filter, parse_sort
from tests.support.web_mirror import written_to
from tests.support.web_process import web_process
from web.database import MAPPED_BYTES, Cell, Row
from web.store import Store

OFFERS: Final = 100_000
ROUNDS: Final = 10
PAGES: Final = 3
"""Of each search, one after the other."""
CHANGES: Final = 20
"""Offers written again before each search."""
SEARCHES: Final[tuple[tuple[str, str], ...]] = (
    ("", "price"),
    ("", "-score"),
    ("", "-disk"),
    ("", "age"),
    ("vram>=24", "price"),
    ("vram>=80", "price"),
    ("gpu=RTX_4090", "price"),
    ("gpu=RTX_4090 vram>=24 reliability>0.98", "-score,price"),
    ("gpu in (RTX_4090, A100) price<=5000", "-vram,price"),
    ("gpu=A100 gpus>=8 region=eu-west", "price"),
    ("gpus>=8 vram>=80 ram>=384GB disk>=2TB", "price"),
    ("gpu=CPU cpus>=32 ram>=120", "price"),
    ("region=eu-west", "price"),
    ("region!=us-east price<=10k", "-reliability,price"),
    ("score>=0.5 vram>=12", "-score"),
    ("price>=2000 price<=4000 vram>=16 ram>=30 disk>=100 cpus>=8", "price"),
    ("disk>=100TB", "price"),  # none
    ("name=rig-4711", "price"),
    ("age<60s", "-vram"),
    ("runner=docker", "-gpus,-vram,price"),
    ("internet=yes arch=arm64", "-cpus"),
)


@dataclass
class _Bare:
    """A mirror as a bare connection, and how long its answers took."""

    db: sqlite3.Connection
    took_s: float = 0.0

    async def fetch(self, sql: str, params: Sequence[Cell] = ()) -> list[Row]:
        begun = time.perf_counter()
        rows = self.db.execute(sql, params).fetchall()
        self.took_s += time.perf_counter() - begun
        return rows


class _Writer:
    """Goes on writing as a node does."""

    def __init__(self, path: Path, lots: random.Random) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._lots = lots
        self._change = OFFERS

    def write(self) -> None:
        self._db.execute("BEGIN")
        for change in self._lots.sample(range(1, OFFERS), CHANGES):
            self._change += 1
            price = self._lots.randrange(1_000, 20_000)
            self._db.execute(
                "UPDATE offers SET price = ?, change = ? WHERE change = ?", (price, self._change, change)
            )
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'change'", (str(self._change),))
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


def offers_p95_ms_100k() -> dict[str, object]:
    """Filter, sort and page with the number of matches, from /v1/offers."""
    lots = random.Random(8)
    with written_to(OFFERS) as path, closing(_Writer(path, lots)) as writer:
        bare = [sample for _ in range(3) for sample in _bare_ms(path)]
        with (
            web_process(str(path), "--requests-per-minute", "1000000") as web,
            closing(HTTPConnection(urlsplit(web.url).netloc)) as client,
        ):
            _ask(client, web.process.pid, *SEARCHES[0])  # whatever is loaded at the first request
            times: dict[tuple[str, str], list[float]] = {search: [] for search in SEARCHES}
            cpu: list[float] = []
            for _ in range(ROUNDS):
                for search in lots.sample(SEARCHES, len(SEARCHES)):
                    writer.write()
                    for took, worked in _ask(client, web.process.pid, *search):
                        times[search].append(took)
                        cpu.append(worked)
    every = sorted(sample for samples in times.values() for sample in samples)
    slowest = max(times, key=lambda search: statistics.median(times[search]))
    detail: dict[str, object] = {
        "offers": OFFERS,
        "requests": len(every),
        "p50_ms": round(statistics.median(every), 1),
        "slowest": " / ".join(slowest),
        "slowest_p50_ms": round(statistics.median(times[slowest]), 1),
        "bare_sql_p50_ms": round(statistics.median(bare), 1),
        "bare_sql_p95_ms": round(_p95(bare), 1),
        "mean_vs_bare_sql": round(statistics.mean(every) / statistics.mean(bare), 2),
        "server_cpu_p50_ms": round(statistics.median(cpu), 1),
        "server_cpu_p95_ms": round(_p95(cpu), 1),
        "server_cpu_share": round(sum(cpu) / sum(every), 2),
    }
    return {"value": round(_p95(every), 1), "unit": "ms", "reference": "bare SQL", "detail": detail}


def _p95(samples: Sequence[float]) -> float:
    return sorted(samples)[-(-95 * len(samples) // 100) - 1]


def _ask(client: HTTPConnection, server: int, filter: str, sort: str) -> list[tuple[float, float]]:
    """Milliseconds of each page: by the clock, and of processors' time in the server, which others at work on
    this machine prolong less."""
    times, after = [], ""
    for _ in range(PAGES):
        asked = urlencode({"filter": filter, "sort": sort, "after": after})
        cpu, begun = _cpu_ms(server), time.perf_counter()
        client.request("GET", f"/v1/offers?{asked}")
        body = client.getresponse().read()
        times.append(((time.perf_counter() - begun) * 1_000, _cpu_ms(server) - cpu))
        after = json.loads(body)["next"]
        if not after:
            break
    return times


def _cpu_ms(pid: int) -> float:
    """All threads of a process have worked so long; NaN where the system does not count as finely."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e6 or float("nan")


def _bare_ms(path: Path) -> list[float]:
    """The same pages of the same searches, only the SQL."""

    async def play(bare: _Bare) -> list[float]:
        store, times = Store(bare), []
        for filter, sort in SEARCHES:
            after = ""
            for _ in range(PAGES):
                bare.took_s = 0.0
                page = await store.offers(parse_filter(filter), parse_sort(sort), after, count=True)
                times.append(bare.took_s * 1_000)
                after = page.next
                if not after:
                    break
        return times

    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        db.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
        return asyncio.run(play(_Bare(db)))


BENCHES: Final = {"web.offers_p95_ms_100k": offers_p95_ms_100k}
