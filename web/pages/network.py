"""/network: who is there, how it grew, what was settled, and how fresh this mirror is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from protocol.query import gpu_key
from web import draw
from web.asked import Asked
from web.identity import peer_id_of, transaction_hash
from web.pages.providers import EXPLORER
from web.pages.render import page, words_for
from web.store import now_ms
from web.suit import CARD_MODELS
from web.views import HOUR_MS, StatView
from web.words import Words

router = APIRouter()

SETTLED: Final = 25
SPANS: Final = {"day": (24, 1), "week": (168, 2), "month": (720, 6), "year": (8_760, 72)}
"""Name -> (hours back, hours in a point)."""


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    plot: draw.Plot
    change: float
    """From its first point to its last, as a part of the first."""
    points: tuple[tuple[int, int], ...]


@router.get("/network")
async def network(request: Request, store: Asked, span: str = "week", after: str = "") -> Response:
    span = span if span in SPANS else "week"
    hours, together = SPANS[span]
    words, now = words_for(request), now_ms()
    status = await store.status()
    stats = await store.stats(now // HOUR_MS - hours + 1, hours)
    return page(
        request,
        "network.html",
        status=status,
        live=await store.live(),
        charts=_charts(stats, together, words),
        latest=stats[-1] if stats else None,
        settled_qu=sum(one.settled_qu for one in stats),
        leases=sum(one.leases for one in stats),
        span=span,
        spans=list(SPANS),
        settled=await store.settlements(after, SETTLED),
        after=after,
        peer_id_of=peer_id_of,
        title_of=_title,
        transaction_hash=transaction_hash,
        explorer=EXPLORER if status.network == "mainnet" else "",
    )


def _title(gpu: str) -> str:
    """Of a model as a lease names it: the catalogue's, where it has one."""
    try:
        model = CARD_MODELS.get(gpu_key(gpu))
    except ValueError:
        model = None
    return model.title if model else gpu.replace("_", " ")


def _charts(stats: Sequence[StatView], together: int, words: Words) -> list[Chart]:
    """Of each point the mean of its hours; of money the sum."""
    groups = [stats[place : place + together] for place in range(0, len(stats), together)]
    if len(groups) < 2:
        return []

    def chart(title: str, value: Callable[[StatView], int], unit: str = "") -> Chart:
        points = tuple(
            (
                group[-1].hour * HOUR_MS,
                sum(map(value, group)) if unit else round(sum(map(value, group)) / len(group)),
            )
            for group in groups
        )
        return _chart(title, unit, points, words)

    return [
        chart(words.say("Offers"), lambda one: one.offers),
        chart(words.say("GPUs on offer"), lambda one: one.gpus),
        chart(words.say("Peers of this node"), lambda one: one.peers),
        chart(words.say("Settled"), lambda one: one.settled_qu, "QU"),
    ]


def _chart(title: str, unit: str, points: tuple[tuple[int, int], ...], words: Words) -> Chart:
    values = [value for _, value in points]
    hints = [f"{words.moment(at)}: {words.number(value)} {unit}".rstrip() for at, value in points]
    told = words.say(
        "From %(low)s to %(high)s, at last %(last)s.",
        low=words.number(min(values)),
        high=words.number(max(values)),
        last=words.number(values[-1]),
    )
    change = (values[-1] - values[0]) / values[0] if values[0] else 0.0
    return Chart(title, unit, draw.area(points, hints, title, told, zero=True), change, points)
