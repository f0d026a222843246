"""/gpus: all models that people rent. /gpus/{model}: one of them: its figures, its price, where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from protocol.catalogue import CPU_CLASS, USE_CASES, GpuModel
from protocol.errors import NotFound
from protocol.query import Condition, Filter, SortKey, gpu_key
from web.asked import Asked
from web.pages.history import SPANS, history_of, span_of, when
from web.pages.render import page, words_for
from web.store import now_ms
from web.suit import CARD_MODELS, suited
from web.views import ModelView

router = APIRouter()

MAX_UNLISTED: Final = 20
CHEAPEST: Final = 6
MAX_REGIONS: Final = 12
MAX_NAME: Final = 100
CPU_KEY: Final = gpu_key(CPU_CLASS)
"""Machines without a card; the market lists them."""


@dataclass(frozen=True)
class Entry:
    """A model of the list: of the catalogue, on offer, or both."""

    key: str
    model: GpuModel | None
    now: ModelView | None

    @property
    def label(self) -> str:
        return self.model.name if self.model else self.now.label if self.now else self.key

    @property
    def address(self) -> str:
        return address_of(self.key)


ORDERS: Final[dict[str, Callable[[Entry], float]]] = {
    "offers": lambda one: -one.now.offers if one.now else 0,
    "price": lambda one: one.now.cheapest if one.now else 10**15,
    "memory": lambda one: -(one.model.vram_gib if one.model else one.now.vram if one.now else 0),
    "bandwidth": lambda one: -one.model.bandwidth_gb_s if one.model else 0,
    "speed": lambda one: -one.model.tflops["fp16"] if one.model else 0,
}
"""By which the list may be ordered."""


def address_of(key: str) -> str:
    """Of a model's page: by the catalogue's name where it has one."""
    model = CARD_MODELS.get(key)
    return f"/gpus/{quote(model.name if model else key, safe='')}"


@router.get("/gpus")
async def gpus(request: Request, store: Asked, sort: str = "offers") -> Response:
    now = {view.gpu: view for view in await store.models()}
    entries = [Entry(key, model, now.get(key)) for key, model in CARD_MODELS.items()]
    unlisted = [view for key, view in now.items() if key and key != CPU_KEY and key not in CARD_MODELS]
    entries += [Entry(view.gpu, None, view) for view in unlisted[:MAX_UNLISTED]]
    by = sort if sort in ORDERS else "offers"
    return page(request, "gpus.html", entries=sorted(entries, key=ORDERS[by]), by=by)


@router.get("/gpus/{name:path}")
async def gpu(request: Request, name: str, store: Asked, span: str = "days") -> Response:
    key = _key(name)
    if key == CPU_KEY:
        return RedirectResponse(f"/market?filter=gpu%3D{key}", HTTPStatus.SEE_OTHER)
    if request.url.path != address_of(key) and quote(request.url.path) != address_of(key):
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(address_of(key) + query, HTTPStatus.PERMANENT_REDIRECT)
    where = Filter((Condition("gpu", "=", (key,)),))
    views = await store.models(where)
    now = next((view for view in views if view.gpu == key), None)
    words = words_for(request)
    history = await history_of(store, "gpu", key.encode(), span_of(span), now_ms(), words)
    model = CARD_MODELS.get(key)
    if not (model or now) and views:  # a family: of its models the one that most offer
        return RedirectResponse(address_of(views[0].gpu), HTTPStatus.SEE_OTHER)
    if not (model or now or history):
        raise NotFound(f"no provider offers a GPU called {name[:MAX_NAME]!r}, and the catalogue has none")
    regions = (await store.regions(where))[:MAX_REGIONS]
    cheapest = await store.offers(where, (SortKey("price"),), limit=CHEAPEST)
    return page(
        request,
        "gpu.html",
        entry=Entry(key, model, now),
        offers=cheapest.offers,
        regions=regions,
        places=await store.places([one.region for one in regions]),
        history=history,
        span=span_of(span),
        spans=list(SPANS),
        say_when=lambda one: when(one, words),
        fits=[(use, suited(model, use)) for use in USE_CASES.values() if use.min_vram_gib] if model else [],
    )


def _key(name: str) -> str:
    """As filters compare it. NotFound for what cannot be a name."""
    try:
        return gpu_key(name[:MAX_NAME])
    except ValueError as error:
        raise NotFound("a GPU's name has at least one letter or digit") from error
