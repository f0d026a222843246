"""Writes a mirror of a market that nobody runs: `filled(path, offers, seed)`; 100,000 offers in seconds.

The first SIGNED offers are real ones with their own keys and envelopes. The others look like these, with
figures and keys of their own, and lend their envelopes.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ledger.mirror_schema import (
    CANDLE_COLUMNS,
    DAY_COLUMNS,
    MIGRATIONS,
    NUMBERS,
    OFFER_COLUMNS,
    SCORE_COLUMNS,
    SETTLEMENT_COLUMNS,
    STAT_COLUMNS,
    VERSION,
)
from protocol.catalogue import GPUS
from protocol.messages import Capacity, Gpu, Offer
from protocol.query import gpu_names
from protocol.signing import NodeKey
from protocol.units import Qu, QubicId, UnixMs
from qubixd import book_facts

SIGNED: Final = 300
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
REGIONS: Final = ("eu-west", "eu-north", "us-east", "us-west", "asia-1", "sa-1", "")
COMMON: Final = ("RTX_4090", "RTX_3090", "RTX_5090", "A100_80GB", "H100_80GB", "L40S")
GRAPHICS: Final = [name for name, model in GPUS.items() if model.vram_gib and not model.listed_only]
STRIPS: Final = 2_000
"""Providers with a history of days."""
BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
PEER_ID_HEAD: Final = bytes.fromhex("002408011220")

Row = tuple[Any, ...]


def filled(path: Path, offers: int = 200, seed: int = 1, now_ms: int | None = None) -> Path:
    """A mirror at `path` as of `now_ms` (by default this moment), alike for the same seed."""
    lots = random.Random(seed)
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")  # a file that is half written is thrown away
        db.execute("PRAGMA synchronous = OFF")
        statements = [statement for migration in MIGRATIONS for statement in migration]
        for statement in (one for one in statements if not one.startswith("CREATE INDEX")):
            db.execute(statement)
        db.execute("BEGIN")
        _fill(db, offers, lots, now)
        db.execute("COMMIT")
        for statement in (one for one in statements if one.startswith("CREATE INDEX")):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("PRAGMA journal_mode = DELETE")
    return path


@contextmanager
def written_to(offers: int) -> Iterator[Path]:
    """A mirror of its own for as long as the block lasts, which can be written while it is read, as a
    daemon's can."""
    with tempfile.TemporaryDirectory() as folder:
        path = filled(Path(folder) / "mirror.db", offers)
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            yield path


def row_of(
    offer: Offer,
    key: NodeKey,
    change: int,
    measured: tuple[int | None, int | None] = (None, None),
    now_ms: int = 0,
    live: int = 1,
) -> Row:
    """A row of `offers` as a node writes it. `measured`: score and reliability in steps."""
    numbers = book_facts.steps_of(offer, (*measured, None))
    kept = tuple(number for name, number in zip(book_facts.NUMBERS, numbers, strict=True) if name in NUMBERS)
    labels = (offer.name, offer.region, offer.gpu_class)
    seen = max(offer.issued_at, now_ms - 20_000)
    fixed = (change, live, offer.issued_at, seen, offer.expires_at, offer.closes_at, offer.sequence)
    cards = len(offer.capacity.gpus)
    record = key.sign(offer) if live else b""
    names = book_facts.names_of(offer)
    return (
        *(key.public, peer_id(key.public), *fixed, *labels, offer.qubic_id, cards),
        *(*kept, *names, record),
    )


def insert(db: sqlite3.Connection, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Rows of `columns`, in place of those with the same keys."""
    marks = ", ".join("?" * len(columns))
    db.executemany(f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


def peer_id(key: bytes) -> str:
    """As libp2p writes an Ed25519 key."""
    number, text = int.from_bytes(PEER_ID_HEAD + key, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    return "1" + text


def offer_of(number: int, lots: random.Random, now_ms: int) -> Offer:
    """The offer of provider `number`; GPUs, sizes and prices as in the catalogue."""
    model = GPUS[lots.choice(COMMON if lots.random() < 0.6 else GRAPHICS)] if lots.random() < 0.95 else None
    cards = lots.choice((1, 1, 1, 1, 2, 2, 4, 8)) if model else 0
    digests = (hashlib.sha256(b"card %d %d" % (number, card)).digest() for card in range(cards))
    low, high = model.credits_per_hour if model else (1, 4)
    vram_mib = round(model.vram_gib * 1_024) - 12 if model else 0
    issued = now_ms - lots.randrange(600_000)
    return Offer(
        sequence=1 + number % 7,
        issued_at=UnixMs(issued),
        expires_at=UnixMs(issued + HOUR_MS),
        withdrawn=False,
        network="mainnet",
        contract_index=28,
        qubic_id=QubicId(hashlib.sha256(b"account %d" % number).digest()),
        name=f"rig-{number}",
        region=lots.choice(REGIONS),
        gpu_class=model.name if model else "CPU",
        runner=lots.choice(("docker", "docker", "docker+runsc", "docker+kata")),
        price_qu_per_hour=Qu(lots.randint(low * 1_000, 2_000 * high)),
        storage_qu_per_tib_hour=Qu(lots.randrange(10) * 100),
        capacity=Capacity(
            gpus=tuple(Gpu(model.title if model else "", vram_mib, digest) for digest in digests),
            cpu_millis=lots.choice((4, 8, 16, 32, 64, 128)) * 1_000,
            memory_mib=lots.choice((16, 32, 64, 128, 256, 512)) * 1_024 - lots.randrange(2_048),
            disk_mib=lots.randint(50_000, 4_000_000),
        ),
        addresses=(f"/ip4/{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}.7/tcp/4001",),
        layers=tuple(lots.randbytes(8) for _ in range(lots.choice((0, 8, 16)))),
        pull_mib_per_s=lots.randrange(200),
        arch=lots.choice(("amd64", "amd64", "amd64", "arm64")),
        cuda=lots.choice((12_020, 12_040, 12_080)) if model else 0,
        internet=lots.random() < 0.7,
    )


# --- tables -----------------------------------------------------------------------------------------


def _fill(db: sqlite3.Connection, offers: int, lots: random.Random, now: int) -> None:
    signed = list(_signed(min(offers, SIGNED), lots, now))
    insert(db, "offers", OFFER_COLUMNS, signed)
    insert(db, "offers", OFFER_COLUMNS, _likenesses(signed, offers, lots))
    peers = [
        bytes(row[0]) for row in db.execute("SELECT peer FROM offers ORDER BY change LIMIT ?", (STRIPS,))
    ]
    insert(db, "candles", CANDLE_COLUMNS, _candles(peers[:20], lots, now))
    insert(db, "days", DAY_COLUMNS, _days(peers, lots, now))
    insert(db, "scores", SCORE_COLUMNS, _scores(peers[: offers // 10], lots, now))
    insert(db, "settlements", SETTLEMENT_COLUMNS, _settlements(peers, lots, now))
    insert(db, "stats", STAT_COLUMNS, _stats(offers, lots, now))
    insert(db, "meta", ("key", "value"), _meta(offers, lots, now))


def _meta(offers: int, lots: random.Random, now: int) -> Iterator[Row]:
    node, book = peer_id(hashlib.sha256(b"the node").digest()), lots.randbytes(8).hex()
    known = {"schema": VERSION, "network": "mainnet", "contract_index": 28, "node": node, "book": book}
    counted = {"change": offers, "forgotten": 0, "updated_ms": now, "peers": 34, "directories": 2}
    return ((key, str(value)) for key, value in (known | counted | {"tick": 23_456_789}).items())


def _measured(lots: random.Random) -> tuple[int | None, int | None]:
    if lots.random() < 0.7:
        return None, None
    return lots.randrange(1_000_000), 1_000_000 - lots.randrange(1_000) ** 2


def _signed(number: int, lots: random.Random, now: int) -> Iterator[Row]:
    for change in range(1, number + 1):
        offer, key = offer_of(change, lots, now), NodeKey(lots.randbytes(32))
        live = int(change % 50 != 49)
        ended = offer if live else replace(offer, expires_at=UnixMs(now - lots.randrange(HOUR_MS)))
        yield row_of(ended, key, change, _measured(lots), now, live)


def _likenesses(signed: Sequence[Row], offers: int, lots: random.Random) -> Iterator[Row]:
    place = {name: number for number, name in enumerate(OFFER_COLUMNS)}
    for change in range(len(signed) + 1, offers + 1):
        row = list(lots.choice(signed))
        peer = lots.randbytes(32)
        row[:3] = peer, peer_id(peer), change
        row[place["label"]], row[place["name"]] = f"rig-{change}", f"rig{change}"
        row[place["price"]] = max(1, round(row[place["price"]] * lots.uniform(0.7, 1.3)))
        row[place["disk"]] = lots.randint(50_000, 4_000_000)
        row[place["region_label"]] = region = lots.choice(REGIONS)
        row[place["region"]] = region.replace("-", "")
        row[place["score"]], row[place["reliability"]] = _measured(lots)
        row[place["issued"]] -= lots.randrange(600)
        yield tuple(row)


def _candles(peers: Sequence[bytes], lots: random.Random, now: int) -> Iterator[Row]:
    subjects = [
        ("gpu", gpu_names(name)[0].encode(), GPUS[name].credits_per_hour[1] * 1_000) for name in COMMON
    ]
    subjects += [("provider", peer, 5_000) for peer in peers]
    for kind, subject, price in subjects:
        for span, spans in ((HOUR_MS, 24 * 14), (DAY_MS, 90)):
            close = price
            for start in range((now // span - spans + 1) * span, now + 1, span):
                opened, close = close, max(1, round(close * lots.uniform(0.97, 1.03)))
                high, low = round(max(opened, close) * 1.01), round(min(opened, close) * 0.99)
                of_all = (round(low * 0.8), lots.randrange(10, 200), lots.randrange(10, 400))
                yield kind, subject, span, start, opened, high, low, close, *of_all, 1


def _days(peers: Sequence[bytes], lots: random.Random, now: int) -> Iterator[Row]:
    today = now // DAY_MS
    for peer in peers:
        for day in range(today - lots.randrange(1, 60), today + 1):
            yield peer, day, 2**24 - 1 if lots.random() < 0.9 else lots.randrange(2**24), 1


def _scores(peers: Sequence[bytes], lots: random.Random, now: int) -> Iterator[Row]:
    for peer in peers:
        parts = [lots.random() for _ in range(4)]
        reasons = ["5 callers have paid it", "its jobs are slow to become ready"]
        told = (json.dumps(reasons), json.dumps(_evidence(lots, now)))
        yield peer, parts[0] * parts[1] * parts[2], *parts, int(lots.random() < 0.2), *told, now, 1


def _evidence(lots: random.Random, now: int) -> dict[str, object]:
    """As qubixd/mirror_rows.py writes it."""
    counters = {"volume": lots.randrange(10**6), "completed": 5, "disputes_lost": 0}
    lease = {"lease_id": lots.randbytes(32).hex(), "outcome": "completed", "seconds": 3_600, "paid_qu": 7_200,
             "proof": "ticket", "settled": True, "ended_ms": now - HOUR_MS}  # fmt: skip
    return {"leases": [lease], "counters": counters}


def _settlements(peers: Sequence[bytes], lots: random.Random, now: int) -> Iterator[Row]:
    for number in range(500 if peers else 0):
        seconds, tick = lots.randrange(60, 80_000), 23_000_000 + 1_000 * number
        how = lots.choice(("completed", "completed", "stopped", "failed"))
        proof = lots.choice(("ticket", "ticket", "seen", "claimed"))
        when = now - (500 - number) * HOUR_MS
        told = (tick + seconds, lots.randbytes(32)) if proof != "claimed" else (0, b"")
        lease, provider, gpu = lots.randbytes(32), lots.choice(peers), gpu_names(lots.choice(COMMON))[0]
        yield lease, provider, gpu, seconds * 2, seconds, how, proof, tick, *told, when, 1


def _stats(offers: int, lots: random.Random, now: int) -> Iterator[Row]:
    hour = now // HOUR_MS
    for back in range(24 * 30):
        online = max(1, round(offers * (1 - back / 2_000) * lots.uniform(0.97, 1)))
        gpus = online * 2
        yield hour - back, online, online, gpus, gpus // 3, 34, lots.randrange(10**6), lots.randrange(40), 1
