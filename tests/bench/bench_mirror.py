"""The public mirror of a book with 100,000 signed offers: how fast it fills, and how far it lags behind.

Both with the real writer's thread on a real file, beside bare inserts of the same rows in the same run. What
steady change costs is measured at ten times the rate of a directory with as many providers (an offer is
renewed after 0.6 to 0.8 of its hour: 100,000 of them change 40 times a second).
"""

from __future__ import annotations

import gc
import random
import resource
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from ledger import mirror, mirror_schema
from ledger.mirror import SCHEMA
from ledger.store import in_one_thread, inline, open_store
from protocol import messages, signing
from protocol.signing import Signed
from qubixd.book import OfferBook
from qubixd.mirror import Mirror
from tests.bench.bench_book import NOW, OFFERS, _full, _signed

RENEWED_PER_SECOND: Final = 40
TIMES: Final = 10
STEADY_SECONDS: Final = 15
IDLE_SECONDS: Final = 10
PROBES: Final = 40
WHOSE: Final = {"network": "mainnet", "contract_index": "28", "node": "bench"}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _settled() -> OfferBook:
    """A full book that the collector of garbage knows already, as of a daemon that has run for a while."""
    book = _full()
    gc.collect()
    gc.freeze()
    return book


async def _nothing(file: object) -> None:
    await trio.sleep_forever()


async def _mirrored(book: OfferBook, path: Path, then: Callable[[Mirror], Awaitable[None]]) -> None:
    async with open_store(":memory:", inline) as ledger, trio.open_nursery() as nursery:
        run = in_one_thread()
        made = Mirror(path, book, ledger, lambda: NOW, WHOSE, dict, lambda: None, _nothing, run, always=True)
        await nursery.start(made.run)
        while not made.complete:
            await trio.sleep(0.05)
        await then(made)
        nursery.cancel_scope.cancel()


def fill_per_s() -> dict[str, object]:
    """From an empty file to all of a book, and again after a restart, when nothing has to be written."""
    book = _settled()
    with TemporaryDirectory() as folder:
        path = Path(folder) / mirror_schema.FILE

        async def done(made: Mirror) -> None:
            view = await made.view()
            assert view.offers == OFFERS, view

        wall, cpu = time.perf_counter(), _cpu()
        waits = trio.run(_with_pulse, partial(_mirrored, book, path, done))
        wall, cpu = time.perf_counter() - wall, _cpu() - cpu
        again = time.perf_counter()
        trio.run(_mirrored, book, path, done)
        again = time.perf_counter() - again
        bare = _bare_inserts(path)
        size = path.stat().st_size
    detail: dict[str, object] = {
        "offers": OFFERS,
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "restart_seconds": round(again, 1),
        "bare_insert_seconds": round(bare, 1),
        "loop_waits_p99_and_longest_ms": waits,
        "and_without_a_mirror": trio.run(_with_pulse, partial(trio.sleep, IDLE_SECONDS)),
        "bytes_an_offer": size // OFFERS,
    }
    return {
        "value": round(OFFERS / wall),
        "unit": "offers/s",
        "reference": "the same rows by bare executemany in one transaction: bare_insert_seconds",
        "detail": detail,
    }


async def _with_pulse(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """For how long the loop did nothing else meanwhile, in milliseconds: the 99th of 100 waits, and the
    longest of all. What other programs take of this machine is contained."""
    waits: list[float] = []

    async def pulse() -> None:
        while True:
            begun = time.perf_counter()
            await trio.sleep(0.005)
            waits.append((time.perf_counter() - begun - 0.005) * 1_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pulse)
        await work()
        nursery.cancel_scope.cancel()
    waits.sort()
    return round(waits[-1 - len(waits) // 100], 1), round(waits[-1], 1)


def _bare_inserts(filled: Path) -> float:
    """Rows that are ready, into the same tables, in one transaction."""
    names = ", ".join(mirror_schema.OFFER_COLUMNS)
    places = mirror.placeholders(mirror_schema.OFFER_COLUMNS)
    rows = sqlite3.connect(filled).execute(f"SELECT {names} FROM offers").fetchall()
    with TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        for statement in (one for migration in SCHEMA.migrations for one in migration):
            db.execute(statement)
        begun = time.perf_counter()
        db.execute("BEGIN")
        db.executemany(f"INSERT INTO offers ({names}) VALUES ({places})", rows)
        db.execute("COMMIT")
        return time.perf_counter() - begun


def write_lag_s() -> dict[str, object]:
    """From an offer's being taken into the book to its standing in the file, with all others there, while
    offers change at the usual rate, and at ten times that."""
    book = _settled()
    lags: dict[int, list[float]] = {1: [], TIMES: []}
    shares: list[float] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / mirror_schema.FILE

        async def steady(made: Mirror) -> None:
            await _pause(shares)  # what following costs while nothing changes
            for times, found in lags.items():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_renew, book, times)
                    await _pause(shares)
                    await _probe(book, path, found)
                    nursery.cancel_scope.cancel()

        trio.run(_mirrored, book, path, steady)
    usual, fast = sorted(lags[1]), sorted(lags[TIMES])
    detail: dict[str, object] = {
        "offers": OFFERS,
        "probes": PROBES,
        "changes_per_s": RENEWED_PER_SECOND,
        "p50_s": round(statistics.median(usual), 2),
        "p50_and_longest_at_ten_times_the_rate_s": [round(statistics.median(fast), 2), round(fast[-1], 2)],
        "cpu_share_idle_usual_and_ten_times": [round(share, 4) for share in shares],
        "cpu_share_of_ten_times_without_a_mirror": round(_without(book), 4),
    }
    return {
        "value": round(usual[-1], 2),
        "unit": "s",
        "reference": "at most 2, of the 5 until a visitor sees it; the longest of all probes",
        "detail": detail,
    }


async def _pause(shares: list[float]) -> None:
    cpu, wall = _cpu(), time.perf_counter()
    await trio.sleep(STEADY_SECONDS)
    shares.append((_cpu() - cpu) / (time.perf_counter() - wall))


def _without(book: OfferBook) -> float:
    """The share that the same changes take by themselves."""
    shares: list[float] = []
    book.stir.leave()

    async def alone() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_renew, book, TIMES)
            await _pause(shares)
            nursery.cancel_scope.cancel()

    trio.run(alone)
    return shares[0]


_sequence = count(2)


def _again(book: OfferBook, raw: bytes) -> bytes:
    """The same provider's next offer, taken in as if its signature had been checked; its envelope."""
    signed = signing.opened(raw)
    newer = replace(signed.message, sequence=next(_sequence))
    envelope = signing._pack(signed.signer, messages.encode(newer), bytes(64))
    book.take(Signed(signed.signer, newer, envelope), NOW)
    return envelope


async def _renew(book: OfferBook, times: int) -> None:
    lots = random.Random(8)
    while True:
        for raw in lots.sample(_signed(), RENEWED_PER_SECOND * times // 20):
            _again(book, raw)
        await trio.sleep(0.05)


async def _probe(book: OfferBook, path: Path, lags: list[float]) -> None:
    lots = random.Random(9)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        for raw in lots.sample(_signed(), PROBES):
            await trio.sleep(lots.random())
            begun, newer = time.perf_counter(), _again(book, raw)
            while not _stands(db, newer):
                await trio.sleep(0.01)
            lags.append(time.perf_counter() - begun)


def _stands(db: sqlite3.Connection, raw: bytes) -> bool:
    sql = "SELECT record FROM offers WHERE peer = ?"
    return bool(db.execute(sql, (signing.signer_of(raw),)).fetchone() == (raw,))


BENCHES = {"mirror.fill_per_s": fill_per_s, "mirror.write_lag_s": write_lag_s}
