"""Which offers suit a use best, in the order and with the reasons of `qubix market --for`.

Offers whose cards, cores and memory count the same for a use are as fast as each other, so of each kind only
the cheapest few can be among the best: the database picks those, and protocol.fitness ranks them. The index
knows the largest card of a machine, which is the best that it may be; machines with several cards are looked
at themselves where it matters, until nothing that was not looked at can be better.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import Final

from protocol import fitness, signing
from protocol.all_in import MIB_PER_TIB, sold_mib, storage_of
from protocol.catalogue import GPUS, UseCase
from protocol.fitness import MIB_PER_GIB, Candidate, Ranked
from protocol.messages import Offer, Wish
from protocol.query import Filter
from protocol.units import Qu
from web.database import Cell, Mirror
from web.filters import where_of
from web.search import OFFER_SQL
from web.views import OfferView

MAX_KINDS: Final = 4_000
"""Rows ranked. In a crowd of machines that are all different the order is that of the cheapest of them."""
AT_ONCE: Final = 100
"""Machines looked at together."""
CHEAPEST: Final = 4
"""Looked at in any case: the others are held against the cheapest."""
LISTED: Final = ", ".join(f"'{name}'" for name in GPUS)


@dataclass(frozen=True)
class Recommended:
    offer: OfferView
    ranked: Ranked
    gpus: int
    """Cards that one would rent there."""


@dataclass(frozen=True)
class Recommendation:
    found: tuple[Recommended, ...]
    """The best first."""
    total: int
    """How many have room for it."""


async def recommend(
    mirror: Mirror, use: UseCase, where: Filter, limit: int, disk_mib: int, now_ms: int
) -> Recommendation:
    """As Store.recommend."""
    condition, params = where_of(where, now_ms)
    matching = f"live = 1 AND {condition} AND {_room(use)}"
    total = (await mirror.fetch(f"SELECT count(*) FROM offers WHERE {matching}", params))[0][0]
    bounds = await _kinds(mirror, use, matching, params, limit + 1, disk_mib)
    looked = await _looked(mirror, use, bounds, limit + 1)
    ranked = fitness.rank(looked, use, limit)
    views = await _views(mirror, [one.candidate.key for one in ranked])
    found = [
        Recommended(views[one.candidate.key], one, _cards(use, one.candidate.gpus))
        for one in ranked
        if one.candidate.key in views  # it may have ended just now
    ]
    return Recommendation(tuple(found), int(total))


def _room(use: UseCase) -> str:
    """What the largest cards could hold."""
    if use.min_vram_gib == 0:
        return "1 = 1"
    return f"{'gpus * vram' if use.splits else 'vram'} >= {math.ceil(use.min_vram_gib)} AND gpus > 0"


def _cards(use: UseCase, gpus: int) -> int:
    return gpus if use.splits else min(gpus, 1)


async def _kinds(
    mirror: Mirror, use: UseCase, matching: str, params: tuple[Cell, ...], each: int, disk_mib: int
) -> list[Candidate]:
    """The cheapest `each` of every kind, as good as they may be."""
    bands = (("cpus", "cpu", 1_000), ("ram", "memory", MIB_PER_GIB))
    enough = {column: math.ceil(use.enough.get(figure, 0) * step) for column, figure, step in bands}
    capped = [
        f"CASE WHEN {column} < {most} THEN {column} ELSE {most} END"
        for column, most in enough.items()
        if most
    ]
    listed = f"CASE WHEN gpu_label IN ({LISTED}) THEN gpu_label ELSE '' END"
    kind = ", ".join([listed, "gpus", "vram", *capped])
    cards = "CASE WHEN gpus > 1 THEN gpus ELSE 1 END" if use.splits else "1"
    cost = f"price * {cards} + storage * CAST({disk_mib / MIB_PER_TIB!r} AS DOUBLE PRECISION)"
    rows = await mirror.fetch(
        "SELECT peer, gpu_label, gpus, vram, cpus, ram, price, storage FROM ("
        "SELECT peer, gpu_label, gpus, vram, cpus, ram, price, storage,"
        f" {cost} AS cost, row_number() OVER (PARTITION BY {kind} ORDER BY {cost}, peer) AS place"
        f" FROM offers WHERE {matching}) AS kinds"
        " WHERE place <= ? ORDER BY place, cost, peer LIMIT ?",
        (*params, each, MAX_KINDS),
    )
    wish = Wish("", 0, 0, 0, 0, disk_mib)
    return [
        Candidate(
            bytes(peer), gpu, gpus, vram * MIB_PER_GIB, cpus, ram,
            Qu(price * max(1, _cards(use, gpus)) + storage_of(Qu(storage), wish)),
        )
        for peer, gpu, gpus, vram, cpus, ram, price, storage in rows
    ]  # fmt: skip


async def _looked(mirror: Mirror, use: UseCase, bounds: list[Candidate], wanted: int) -> list[Candidate]:
    """Those of `bounds` that may be among the best `wanted`, as they are."""
    cheapest = heapq.nsmallest(CHEAPEST, bounds, key=lambda one: (one.qu_per_hour, one.key))
    looked = {one.key: one for one in await _as_they_are(mirror, cheapest)}
    left = sorted(
        ((fitness.value(one, use), one) for one in bounds if one.key not in looked), key=lambda pair: -pair[0]
    )
    for start in range(0, len(left), AT_ONCE):
        values = (fitness.value(one, use) for one in looked.values())
        best = heapq.nlargest(wanted, values)
        if len(best) == wanted and best[-1] > left[start][0]:
            break
        page = [one for _, one in left[start : start + AT_ONCE]]
        looked |= {one.key: one for one in await _as_they_are(mirror, page)}
    return list(looked.values())


async def _as_they_are(mirror: Mirror, bounds: list[Candidate]) -> list[Candidate]:
    """With the smallest card of each instead of the largest."""
    several = [one.key for one in bounds if one.gpus > 1]
    if not several:
        return bounds
    rows = await mirror.fetch(
        f"SELECT peer, record FROM offers WHERE live = 1 AND peer IN ({', '.join('?' * len(several))})",
        several,
    )
    sizes = {bytes(peer): _smallest_mib(bytes(record)) for peer, record in rows}
    return [replace(one, vram_mib=sizes.get(one.key) or one.vram_mib) for one in bounds]


def _smallest_mib(record: bytes) -> int:
    """Of an envelope whose signature the node that mirrors has checked."""
    offer: Offer = signing.opened(record).message
    return sold_mib(min((gpu.vram_mib for gpu in offer.capacity.gpus), default=0))


async def _views(mirror: Mirror, peers: list[bytes]) -> dict[bytes, OfferView]:
    marks = ", ".join("?" * len(peers)) or "NULL"
    rows = await mirror.fetch(f"SELECT {OFFER_SQL} FROM offers WHERE live = 1 AND peer IN ({marks})", peers)
    return {bytes(row[0]): OfferView(*row) for row in rows}
