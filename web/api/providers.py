"""/v1/providers: one provider, with its score and all that it is made of. /v1/prices: what was asked when."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from protocol.errors import NotFound
from protocol.query import gpu_key
from web.api import shapes
from web.api.answers import CHECK, Answers, AskedAnswers, IfNoneMatch, Kept, described
from web.api.offers import PeerId, key_of, unknown
from web.api.views import candle_of, offer_of, score_of
from web.asked import Asked
from web.store import MAX_CANDLES, Store, now_ms
from web.views import HOUR_MS, Kind

router = APIRouter(tags=["Market"], route_class=Kept)

SPANS_MS: Final = {"hour": HOUR_MS, "day": 24 * HOUR_MS}
SHOWN_HOURS: Final = 14 * 24


@router.get("/providers/{peer_id}", **described(shapes.Provider, "One provider", etag=True, missing=True))
async def provider(
    request: Request, store: Asked, answers: AskedAnswers, peer_id: PeerId, if_none_match: IfNoneMatch = ""
) -> Response:
    """Its offer, its score with the evidence, the hours in which it was there, and what it asked."""
    peer = key_of(peer_id)

    async def make(at: str) -> shapes.Provider:
        found = await store.provider(peer)
        if found is None:
            raise unknown(peer_id)
        candles = await store.candles("provider", peer, HOUR_MS, _since_ms("hour", SHOWN_HOURS))
        return shapes.Provider(
            offer=offer_of(found.offer),
            score=score_of(found.score) if found.score else None,
            days=[shapes.Day(day, hours) for day, hours in found.days],
            prices=[candle_of(one) for one in candles],
            at=at,
            check=CHECK,
        )

    return await answers.give(request, make)


Span = Annotated[Literal["hour", "day"], Query(description="Of one candle.")]
Spans = Annotated[int, Query(ge=1, le=MAX_CANDLES, description="Newest spans.")]


@router.get(
    "/providers/{peer_id}/prices", **described(shapes.Prices, "Prices of a provider", etag=True, missing=True)
)
async def provider_prices(
    request: Request,
    store: Asked,
    answers: AskedAnswers,
    peer_id: PeerId,
    span: Span = "hour",
    limit: Spans = 168,
    if_none_match: IfNoneMatch = "",
) -> Response:
    """What it asked for a GPU and hour, as candles; none if it is not known here."""
    return await _prices(request, store, answers, ("provider", key_of(peer_id)), span, limit)


@router.get("/prices/{gpu}", **described(shapes.Prices, "Prices of a GPU", etag=True, missing=True))
async def prices(
    request: Request,
    store: Asked,
    answers: AskedAnswers,
    gpu: Annotated[
        str, Path(max_length=200, description="A model of GPU, in any spelling.", examples=["RTX_4090"])
    ],
    span: Span = "hour",
    limit: Spans = 168,
    if_none_match: IfNoneMatch = "",
) -> Response:
    """What was asked for one and hour, as candles; none if it was not on offer."""
    try:
        subject = gpu_key(gpu).encode()
    except ValueError as error:
        raise NotFound(f"no GPU is called {gpu[:40]!r}") from error
    return await _prices(request, store, answers, ("gpu", subject), span, limit)


async def _prices(
    request: Request, store: Store, answers: Answers, of: tuple[Kind, bytes], span: str, limit: int
) -> Response:
    kind, subject = of

    async def make(at: str) -> shapes.Prices:
        found = await store.candles(kind, subject, SPANS_MS[span], _since_ms(span, limit), limit)
        named = subject.decode() if kind == "gpu" else subject.hex()
        return shapes.Prices(named, span, [candle_of(one) for one in found], at)

    return await answers.give(request, make)


def _since_ms(span: str, spans: int) -> int:
    return now_ms() - spans * SPANS_MS[span]
