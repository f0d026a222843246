"""/v1/models, regions, stats, settlements, network: the market as a whole."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from protocol.errors import QueryInvalid
from web.api import shapes
from web.api.answers import (
    AskedAnswers,
    CursorText,
    FilterText,
    IfNoneMatch,
    Kept,
    PageSize,
    described,
    filter_of,
    plain,
)
from web.api.errors import ParameterInvalid
from web.api.offers import key_of
from web.api.views import hour_of, model_of, region_of, settlement_of
from web.asked import Asked
from web.live import at_of
from web.store import MAX_HOURS, now_ms
from web.views import HOUR_MS

router = APIRouter(tags=["Network"], route_class=Kept)

WEEK: Final = 7 * 24


@router.get("/models", **described(shapes.Models, "GPUs on offer"))
async def models(store: Asked, filter: FilterText = "") -> Response:
    """Classes of GPU among the offers that match, with what is free and the lowest price."""
    found = await store.models(filter_of(filter))
    return plain(shapes.Models([model_of(one) for one in found]))


@router.get("/regions", **described(shapes.Regions, "Where offers are"))
async def regions(store: Asked, filter: FilterText = "") -> Response:
    """As providers say it; nobody can check that."""
    found = await store.regions(filter_of(filter))
    return plain(shapes.Regions([region_of(one) for one in found]))


@router.get("/stats", **described(shapes.Stats, "The market now and by hour"))
async def stats(
    store: Asked,
    hours: Annotated[int, Query(ge=0, le=MAX_HOURS, description="So many hours back.")] = WEEK,
) -> Response:
    """Offers, GPUs, peers and what was settled."""
    now = await store.live()
    since = now_ms() // HOUR_MS - hours + 1
    told = shapes.Now(now.offers, now.gpus, now.free_gpus, now.models, now.cheapest)
    return plain(shapes.Stats(told, [hour_of(one) for one in await store.stats(since)] if hours else []))


@router.get("/settlements", **described(shapes.Settlements, "Leases that are over", etag=True, missing=True))
async def settlements(
    request: Request,
    store: Asked,
    answers: AskedAnswers,
    provider: Annotated[str, Query(max_length=64, description="Only of this provider (its peer id).")] = "",
    after: CursorText = "",
    limit: PageSize = 50,
    if_none_match: IfNoneMatch = "",
) -> Response:
    """The newest first, with the transactions that settled them; nothing of callers is known here."""
    peer = key_of(provider) if provider else None

    async def make(at: str) -> shapes.Settlements:
        try:
            page = await store.settlements(after, limit, peer)
        except QueryInvalid as error:
            raise ParameterInvalid("after", error) from error
        return shapes.Settlements([settlement_of(one) for one in page.settlements], page.next or None, at)

    return await answers.give(request, make)


@router.get("/network", **described(shapes.Network, "The network and this mirror of it"))
async def network(store: Asked) -> Response:
    """Which chain, whose mirror, how old it is, and what its node is connected to."""
    status = await store.status()
    return plain(
        shapes.Network(
            network=status.network,
            contract_index=status.contract_index,
            node=status.node,
            peers=status.peers,
            directories=status.directories,
            tick=status.tick,
            at=at_of(status.book, status.change),
            updated_ms=status.updated_ms,
        )
    )
