"""/: the market at a glance, and how to begin."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from protocol.catalogue import CPU_CLASS
from protocol.query import gpu_key
from web.asked import Asked
from web.pages.prices import SPANS, WEEK, Prices, Span, drawn, thinned
from web.pages.render import page, spaced, words_for
from web.safe import shown
from web.store import Store, now_ms
from web.views import HOUR_MS, ModelView, StatView

router = APIRouter()

MODELS: Final = 6
NEWEST: Final = 6
ROWS: Final = 28
"""Of the table beside the chart."""
DAY_HOURS: Final = 24


@dataclass(frozen=True)
class Watched:
    """One of the most offered GPUs."""

    model: ModelView
    prices: Prices


@dataclass(frozen=True)
class Day:
    """What was settled in the last 24 hours, and how offers came and went in them."""

    settled_qu: int
    leases: int
    offers: list[float]
    peers: int


@router.get("/")
async def home(request: Request, store: Asked, gpu: str = "", span: str = WEEK.name) -> Response:
    """`gpu`: whose prices are drawn, by default the most offered one's."""
    words, looked = words_for(request), SPANS.get(span, WEEK)
    live, models, newest, stats = await asyncio.gather(
        store.live(), store.models(), store.newest(NEWEST), store.stats(now_ms() // HOUR_MS - DAY_HOURS)
    )
    cards = [model for model in models if model.gpu not in ("", gpu_key(CPU_CLASS))]
    watched = await _watched(store, cards)
    chosen = next((one for one in watched if one.model.gpu == gpu), watched[0] if watched else None)
    plot, prices = None, None
    if chosen is not None:
        prices = chosen.prices if looked == WEEK else await _prices(store, chosen.model.gpu, looked)
        title = words.say("Price of %(gpu)s", gpu=shown(spaced(chosen.model.label)))
        plot = drawn(prices, title, words)
    return page(
        request, "home.html", live=live, day=_day(stats), watched=watched, chosen=chosen, plot=plot,
        cheapest=min((model.cheapest for model in cards), default=0), prices=prices,
        rows=thinned(prices.candles, ROWS)[::-1] if prices else [], span=looked, newest=newest,
    )  # fmt: skip


async def _watched(store: Store, models: Sequence[ModelView]) -> list[Watched]:
    first = models[:MODELS]
    found = await asyncio.gather(*(_prices(store, model.gpu, WEEK) for model in first))
    return [Watched(model, prices) for model, prices in zip(first, found, strict=True)]


async def _prices(store: Store, gpu: str, span: Span) -> Prices:
    return Prices(await store.candles("gpu", gpu.encode(), span.candle_ms, now_ms() - span.ms))


def _day(stats: Sequence[StatView]) -> Day:
    return Day(
        sum(one.settled_qu for one in stats),
        sum(one.leases for one in stats),
        [one.offers for one in stats],
        stats[-1].peers if stats else 0,
    )
