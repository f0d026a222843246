"""/v1/offers: the live market, filtered, sorted and page by page."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response

from protocol.query import parse_filter, parse_sort
from web.asked import Asked
from web.store import MAX_PAGE
from web.views import OfferView

router = APIRouter()


@router.get("/offers")
async def offers(
    store: Asked,
    filter: Annotated[str, Query()] = "",
    sort: Annotated[str, Query()] = "price",
    after: Annotated[str, Query()] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> Response:
    """Live offers that match `filter`, in the order `sort`, after the cursor `after`."""
    page = await store.offers(parse_filter(filter), parse_sort(sort), after, limit, count=True)
    body = {"offers": [as_json(offer) for offer in page.offers], "next": page.next, "total": page.total}
    return Response(msgspec.json.encode(body), media_type="application/json")


def as_json(offer: OfferView) -> dict[str, Any]:
    """Bytes in hexadecimal, the signed envelope in base64, the rest as it is."""
    fields: dict[str, Any] = {name: getattr(offer, name) for name in OfferView.__slots__}
    fields["peer"], fields["provider_id"] = offer.peer.hex(), offer.provider_id.hex()
    fields["record"] = base64.b64encode(offer.record).decode()
    return fields
