"""The book with 100,000 signed offers: how long searches take and how many offers it takes in.

Searches are held against a plain scan of the same facts in Python, taking in against the signature checks
that precede it, both in the same run.
"""

from __future__ import annotations

import gc
import hashlib
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

from protocol import signing
from protocol.catalogue import GPUS
from protocol.messages import Capacity, Gpu, Offer
from protocol.query import Filter, SortKey, matches, order, parse_filter, parse_sort
from protocol.signing import NodeKey, Signed
from protocol.units import PeerKey, Qu, QubicId, UnixMs
from qubixd.book import ALIVE_MS, OfferBook
from qubixd.book_record import number_of

OFFERS: Final = 100_000
PAGE: Final = 50
GRAPHICS: Final = [name for name, model in GPUS.items() if model.vram_gib]
ROUNDS: Final = 20
NOW: Final = UnixMs(1_800_000_000_000)
SEARCHES: Final[tuple[tuple[str, str], ...]] = (
    ("", "price"),
    ("", "-score"),
    ("", "rtt"),
    ("vram>=24", "price"),
    ("vram>=80", "price"),  # the dear ones, the cheapest first
    ("gpu=RTX_4090", "price"),
    ("gpu=RTX_4090 vram>=24 reliability>0.98", "-score,price"),
    ("gpu in (RTX_4090, A100_80GB) price<=50", "-vram,price"),
    ("gpu=A100 gpus>=8 region=eu", "price"),
    ("gpus>=8 vram>=80 ram>=512GB disk>=2TB", "price"),  # rare
    ("gpu=CPU cpus>=32 ram>=128", "price"),
    ("region=eu", "price"),
    ("region!=us price<=100", "rtt,price"),
    ("rtt<50ms", "price"),
    ("score>=0.5 rtt<100ms vram>=12", "-score"),
    ("price>=20 price<=40 vram>=16 ram>=32 disk>=100 cpus>=8", "price"),
    ("disk>=100TB", "price"),  # none
    ("name=rig-4711", "price"),
    ("age<60s", "-vram"),
    ("runner=docker", "-gpus,-vram,price"),
)


def _offer(number: int, lots: random.Random) -> Offer:
    model = GPUS[lots.choice(GRAPHICS)] if lots.random() < 0.95 else None
    cards = lots.choice((1, 1, 1, 1, 2, 2, 4, 8)) if model else 0
    digests = (hashlib.sha256(b"card %d %d" % (number, card)).digest() for card in range(cards))
    vram_mib = round(model.vram_gib * 1_024) - 12 if model else 0
    title = model.title if model else ""
    low, high = model.credits_per_hour if model else (1, 4)
    return Offer(
        sequence=1,
        issued_at=UnixMs(NOW - lots.randrange(ALIVE_MS)),
        expires_at=UnixMs(NOW + 3_000_000),
        withdrawn=False,
        network="mainnet",
        contract_index=28,
        qubic_id=QubicId(hashlib.sha256(b"account %d" % number).digest()),
        name=f"rig-{number}",
        region=lots.choice(("eu", "eu", "us", "us", "asia", "sa", "")),
        gpu_class=model.name if model else "CPU",
        runner="docker",
        price_qu_per_hour=Qu(max(1, cards) * lots.randint(low, 2 * high)),
        storage_qu_per_tib_hour=Qu(lots.randrange(10)),
        capacity=Capacity(
            gpus=tuple(Gpu(title, vram_mib, digest) for digest in digests),
            cpu_millis=lots.choice((4, 8, 16, 32, 64, 128)) * 1_000,
            memory_mib=lots.choice((16, 32, 64, 128, 256, 512)) * 1_024 - lots.randrange(2_048),
            disk_mib=lots.randint(50_000, 4_000_000),
        ),
        addresses=(f"/ip4/{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}.7/tcp/4001",),
        layers=tuple(lots.randbytes(8) for _ in range(lots.choice((0, 8, 16)))),
        pull_mib_per_s=lots.randrange(200),
    )


@cache
def _signed() -> tuple[bytes, ...]:
    """Envelopes, each by a key of its own. 100,000 take a quarter of a minute."""
    lots = random.Random(4)
    return tuple(NodeKey(lots.randbytes(32)).sign(_offer(number, lots)) for number in range(OFFERS))


def _provider(raw: bytes) -> PeerKey:
    return PeerKey(signing.signer_of(raw))


def _fill(book: OfferBook, offers: Iterator[Signed]) -> None:
    for signed in offers:
        book.take(signed, NOW)


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """(of this process's own time, by the clock)."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def _measured(book: OfferBook) -> None:
    """A tenth has been dealt with or pinged."""
    lots = random.Random(5)
    for raw in _signed()[::10]:
        rtt_ms, score, reliability = lots.uniform(1, 300), lots.random(), 1 - lots.random() ** 4
        book.measure(_provider(raw), rtt_ms=rtt_ms, score=score, reliability=reliability)


def _full() -> OfferBook:
    book = OfferBook("mainnet", 28)
    _fill(book, map(signing.opened, _signed()))
    _measured(book)
    return book


def _p99(samples: list[float]) -> float:
    return sorted(samples)[-(-99 * len(samples) // 100) - 1]


def query_p99_ms_100k() -> dict[str, object]:
    """Filter, sort, first page, with the number of matches, in a book that changes between searches."""
    book = _full()
    asked = [(parse_filter(text), parse_sort(sort)) for text, sort in SEARCHES]
    lots, cpu = random.Random(6), time.process_time()
    times: list[list[float]] = [[] for _ in SEARCHES]
    wall = time.perf_counter()
    for _ in range(ROUNDS):
        for place, (conditions, sort) in enumerate(asked):
            for raw in lots.sample(_signed(), 20):
                book.measure(_provider(raw), rtt_ms=lots.uniform(1, 300), score=lots.random())
            begun = time.perf_counter()
            book.query(conditions, sort, PAGE, NOW)
            times[place].append((time.perf_counter() - begun) * 1_000)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    scan_ms, totals = _scan(book, asked)
    every = [sample for samples in times for sample in samples]
    medians = [statistics.median(samples) for samples in times]
    slowest = max(range(len(medians)), key=medians.__getitem__)
    detail: dict[str, object] = {
        "offers": OFFERS,
        "searches": len(every),
        "p50_ms": round(statistics.median(every), 2),
        "slowest": " / ".join(SEARCHES[slowest]),
        "slowest_p50_ms": round(medians[slowest], 2),
        "matches": totals,
        "plain_scan_p50_ms": round(scan_ms, 1),
        "cpu_share": round(share, 2),
    }
    return {"value": round(_p99(every), 2), "unit": "ms", "reference": "plain Python scan", "detail": detail}


def _scan(book: OfferBook, asked: list[tuple[Filter, tuple[SortKey, ...]]]) -> tuple[float, list[int]]:
    """Every search once, by going through everybody's facts, which are at hand; and how many match."""
    entries = list(book.entries(NOW))
    facts = [(book.values(entry, NOW), number_of(entry.provider)) for entry in entries]
    times, totals = [], []
    for conditions, sort in asked:
        begun = time.perf_counter()
        found = [(order(sort, values), number) for values, number in facts if matches(conditions, values)]
        found.sort()
        times.append((time.perf_counter() - begun) * 1_000)
        page = book.query(conditions, sort, PAGE, NOW)
        if [number_of(entry.provider) for entry in page.entries] != [number for _, number in found[:PAGE]]:
            raise AssertionError(f"the index and the scan differ about {conditions}")
        totals.append(len(found))
    return statistics.median(times), totals


def insert_per_s() -> dict[str, object]:
    """Offers taken in, decoded and with all that the book keeps of them, in a second of this process's own
    time; the second half of 100,000. The check of signatures is counted beside it."""
    offers, half = _signed(), OFFERS // 2
    book = OfferBook("mainnet", 28)
    first, _ = _seconds(lambda: _fill(book, map(signing.opened, offers[:half])))
    second, wall = _seconds(lambda: _fill(book, map(signing.opened, offers[half:])))
    tenth = offers[: OFFERS // 10]
    checks, _ = _seconds(lambda: [signing.verify(raw) for raw in tenth])
    opening, _ = _seconds(lambda: [signing.opened(raw) for raw in tenth])
    check = (checks - opening) / len(tenth)
    again, _ = _seconds(lambda: [book.consider(raw, NOW) for raw in offers])
    heard, _ = _seconds(lambda: book.heard(book.sightings(NOW), NOW))
    detail: dict[str, object] = {
        "first_half_per_s": round(half / first),
        "by_the_clock_per_s": round(half / wall),
        "signature_checks_per_s": round(1 / check),
        "with_signature_checks_per_s": round(1 / (second / half + check)),
        "known_again_per_s": round(OFFERS / again),
        "sightings_per_s": round(OFFERS / heard),
        "cpu_share": round(second / wall, 2),
        **_memory(),
    }
    return {"value": round(half / second), "unit": "1/s", "reference": "signature checks", "detail": detail}


def _memory() -> dict[str, object]:
    """Bytes an offer costs, envelope included, by tracing a tenth of them."""
    offers = [bytes(bytearray(raw)) for raw in _signed()[: OFFERS // 10]]
    size = sum(map(len, offers)) / len(offers)
    gc.collect()
    tracemalloc.start()
    book = OfferBook("mainnet", 28)
    for raw in offers:
        book.take(signing.opened(raw), NOW)
    book.take_fresh()
    book.query(parse_filter("price>0 vram>0 gpus>0 ram>0 disk>0 cpus>0"), parse_sort("price"), 1, NOW)
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0] / len(offers)
    tracemalloc.stop()
    return {"bytes_per_offer": round(traced + size), "of_which_envelope": round(size)}


BENCHES: Final = {"book.insert_per_s": insert_per_s, "book.query_p99_ms_100k": query_p99_ms_100k}
