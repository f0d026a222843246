"""/market: all live offers, filtered and sorted by what stands in the address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Request, Response

from protocol.errors import QueryInvalid
from protocol.query import MAX_CHARACTERS, Filter, SortKey, parse_filter, parse_sort
from web.api.answers import AskedHub
from web.asked import Asked
from web.pages.market_form import FORM, chips, form_of, text_of, without
from web.pages.render import page, redirected
from web.safe import shown
from web.store import Store
from web.views import ModelView, OfferPage, RegionView

router = APIRouter()

LIMIT: Final = 40
SORT: Final = "price"
FACETS: Final = 8
"""Of each kind, those with most offers."""
CHOICES: Final = 60
"""Models and regions in the form's lists."""
MAX_REST: Final = 24


@dataclass(frozen=True)
class Pointed:
    """A filter that cannot be read: the character where it goes wrong, and what is around it."""

    sentence: str
    before: str
    at: str
    after: str


@dataclass(frozen=True)
class Found:
    """What the market answers to a filter."""

    offers: OfferPage
    models: Sequence[ModelView]
    regions: Sequence[RegionView]
    places: Mapping[str, str]
    """Those of the regions with most offers, and of the offers found, as providers write them."""


@router.get("/market")
async def market(
    request: Request, store: Asked, hub: AskedHub, filter: str = "", sort: str = SORT, after: str = ""
) -> Response:
    """A form's answer (any field of FORM) is sent back as a filter, so that every view has one address."""
    params = request.query_params
    if any(name in params for name in (*FORM, "rest")):
        said = text_of(params, params.getlist("rest")[:MAX_REST])
        return redirected(request, {"filter": said, "sort": sort if sort != SORT else ""})
    at = await hub.at()  # from where live changes go on: before anything else is asked
    try:
        where, keys = parse_filter(filter), _sort(sort)
    except QueryInvalid as error:
        return _unreadable(request, filter, sort, error)
    try:
        found = await _find(store, where, keys, after)
    except QueryInvalid:  # a cursor of another list
        return redirected(request, {"filter": filter, "sort": sort})
    return page(
        request, "market.html", found=found, form=form_of(where), chips=chips(where), filter=filter,
        sort=sort, first_key=keys[0], after=after, error=None, at=at, choices=CHOICES, facets=FACETS,
    )  # fmt: skip


async def _find(store: Store, where: Filter, keys: tuple[SortKey, ...], after: str) -> Found:
    offers, models, regions = await asyncio.gather(
        store.offers(where, keys, after, LIMIT, count=True),
        store.models(without(where, "gpu")),
        store.regions(without(where, "region")),
    )
    told = [region for region in regions if region.region]
    places = await store.places([region.region for region in told[:FACETS]])
    written = {one.region: one.region_label for one in offers.offers if one.region}
    return Found(offers, models, told, written | places)


def _sort(text: str) -> tuple[SortKey, ...]:
    return tuple(parse_sort(text)) or (SortKey(SORT),)


def _unreadable(request: Request, filter: str, sort: str, error: QueryInvalid) -> Response:
    sentence = str(error).partition("\n")[0]
    text, position = error.text[:MAX_CHARACTERS], error.position
    pointed = Pointed(
        shown(sentence, 300),
        shown(text[:position], MAX_CHARACTERS),
        shown(text[position : position + 1]) or " ",
        shown(text[position + 1 :], MAX_CHARACTERS),
    )
    return page(
        request, "market.html", HTTPStatus.BAD_REQUEST, found=None, form=form_of(Filter()), chips=[],
        filter=filter[: 2 * MAX_CHARACTERS], sort=sort[:100], first_key=SortKey(SORT), after="",
        error=pointed, at="", choices=CHOICES, facets=FACETS,
    )  # fmt: skip
