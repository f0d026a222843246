"""/v1/offers: the live market, filtered, sorted and page by page, and single offers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from protocol.errors import NotFound, QueryInvalid
from protocol.query import provider_key
from web.api import shapes
from web.api.answers import (
    CHECK,
    REMEMBERED_PAGE,
    AskedAnswers,
    CursorText,
    FilterText,
    IfNoneMatch,
    Kept,
    PageSize,
    SortText,
    described,
    filter_of,
    is_steady,
    plain,
    sort_of,
)
from web.api.errors import ParameterInvalid
from web.api.views import offer_of
from web.asked import Asked

router = APIRouter(tags=["Market"], route_class=Kept)

PeerId = Annotated[
    str,
    Path(
        pattern=shapes.PEER_ID,
        description="A provider's peer id, or its key in hexadecimal.",
        examples=["12D3KooWGRUJ6n4a2Zxb3c5FhFYBLDFzMFcpbZCbGDsx6VuVAZJ6"],
    ),
]


@router.get("/offers", **described(shapes.Offers, "Live offers", etag=True))
async def offers(
    request: Request,
    store: Asked,
    answers: AskedAnswers,
    filter: FilterText = "",
    sort: SortText = "price",
    after: CursorText = "",
    limit: PageSize = 50,
    count: Annotated[bool, Query(description="Say how many match, exactly up to 1,000.")] = True,
    if_none_match: IfNoneMatch = "",
) -> Response:
    """Those that match `filter`, in the order `sort`, from behind the cursor `after`. Each comes with the
    bytes that its provider signed (`signed`), so that nobody has to trust who answers: /verify.py checks."""
    where, keys = filter_of(filter), sort_of(sort)

    async def make(at: str) -> shapes.Offers:
        try:
            page = await store.offers(where, keys, after, limit, count)
        except QueryInvalid as error:
            raise ParameterInvalid("after", error) from error
        total = shapes.Total(page.total.number, page.total.exact) if page.total else None
        return shapes.Offers([offer_of(one) for one in page.offers], page.next or None, total, at, CHECK)

    if not is_steady(where):
        return plain(await make(await answers.hub.at()))
    return await answers.give(request, make, keep=limit <= REMEMBERED_PAGE)


@router.get("/offers/{peer_id}", **described(shapes.OneOffer, "One offer", etag=True, missing=True))
async def offer(
    request: Request, store: Asked, answers: AskedAnswers, peer_id: PeerId, if_none_match: IfNoneMatch = ""
) -> Response:
    """Of one provider: live, or ended within the last hour (`live` is false and `signed` empty then)."""
    peer = key_of(peer_id)

    async def make(at: str) -> shapes.OneOffer:
        found = await store.offer(peer)
        if found is None:
            raise unknown(peer_id)
        return shapes.OneOffer(offer_of(found), at, CHECK)

    return await answers.give(request, make)


def key_of(peer_id: str) -> bytes:
    """The 32 bytes of a provider's name. NotFound if it is none."""
    try:
        return bytes.fromhex(provider_key(peer_id))
    except ValueError as error:
        raise unknown(peer_id) from error


def unknown(peer_id: str) -> NotFound:
    return NotFound(f"no offer of {peer_id[:64]} is known here")
