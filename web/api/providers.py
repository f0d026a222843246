"""/v1/providers: one provider, with its score and all that it is made of. /v1/prices: what was asked when."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from protocol.errors import UsageError
from protocol.query import gpu_key
from web.api import shapes
from web.api.answers import CHECK, AskedAnswers, IfNoneMatch, described
from web.api.offers import PeerId, key_of, unknown
from web.api.views import candle_of, offer_of, score_of
from web.asked import Asked
from web.store import MAX_CANDLES, now_ms
from web.views import HOUR_MS, Kind

router = APIRouter(tags=["Market"])

SPANS_MS: Final = {"hour": HOUR_MS, "day": 24 * HOUR_MS}
SHOWN_HOURS: Final = 14 * 24
KEY: Final = "^[0-9a-zA-Z]{1,64}$"


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


@router.get("/prices", **described(shapes.Prices, "Prices over time", etag=True))
async def prices(
    request: Request,
    store: Asked,
    answers: AskedAnswers,
    gpu: Annotated[
        str,
        Query(max_length=200, description="A model of GPU, in any spelling.", examples=["RTX 4090"]),
    ] = "",
    provider: Annotated[str, Query(max_length=64, description="Or a provider's peer id.")] = "",
    span: Annotated[Literal["hour", "day"], Query(description="Of one candle.")] = "hour",
    limit: Annotated[int, Query(ge=1, le=MAX_CANDLES, description="Newest spans.")] = 168,
    if_none_match: IfNoneMatch = "",
) -> Response:
    """What was asked for a GPU and hour, as candles, of one model (`gpu`) or by one provider."""
    kind, subject = _subject(gpu, provider)

    async def make(at: str) -> shapes.Prices:
        found = await store.candles(kind, subject, SPANS_MS[span], _since_ms(span, limit), limit)
        named = subject.decode() if kind == "gpu" else subject.hex()
        return shapes.Prices(named, span, [candle_of(one) for one in found], at)

    return await answers.give(request, make)


def _since_ms(span: str, spans: int) -> int:
    return now_ms() - spans * SPANS_MS[span]


def _subject(gpu: str, provider: str) -> tuple[Kind, bytes]:
    if bool(gpu) == bool(provider):
        raise UsageError("say either gpu= or provider=: prices are of one of them")
    if provider:
        return "provider", key_of(provider)
    try:
        return "gpu", gpu_key(gpu).encode()
    except ValueError as error:
        raise UsageError(f"gpu: {error}") from error
