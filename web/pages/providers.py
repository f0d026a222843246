"""/providers/{peer_id}: its machine, its score with what that is made of, its jobs, when it was there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from protocol.errors import NotFound, QubixError
from protocol.job_draft import Draft
from protocol.messages import Offer
from protocol.query import provider_key
from protocol.signing import Signed, verify
from web import draw
from web.asked import Asked
from web.commands import command
from web.identity import identity_of, peer_id_of, transaction_hash
from web.pages.history import SPANS, history_of, span_of, when
from web.pages.render import page, words_for
from web.pages.score_words import sentence
from web.store import Store, now_ms
from web.suit import CARD_MODELS
from web.views import DAY_MS, HOUR_MS, OfferView, ScoreView
from web.words import Words

router = APIRouter()

JOBS: Final = 20
EXPLORER: Final = "https://explorer.qubic.org/network/tx/"
"""Of the network "mainnet"; other networks have none that everybody can reach. The path is a route of the
explorer's own source (github.com/qubic/explorer-frontend, src/router/routes.ts: NETWORK.TX)."""
Days = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Evidence:
    """What a score was made of, as a mirror tells it."""

    leases: int
    counters: dict[str, int] | None


@router.get("/providers/{name}")
async def provider(
    request: Request, name: str, store: Asked, span: str = "days", after: str = ""
) -> Response:
    peer = _peer(name)
    if name != peer_id_of(peer):
        return RedirectResponse(f"/providers/{peer_id_of(peer)}", HTTPStatus.PERMANENT_REDIRECT)
    found = await store.provider(peer)
    jobs = await store.settlements(after, JOBS, peer)
    days = found.days if found else await store.days(peer)
    if not (found or days or jobs.settlements):
        raise NotFound("this node has never heard of such a provider, or it has been gone for two months")
    words = words_for(request)
    status = await store.status()
    offer = found.offer if found else None
    signed = checked(offer) if offer else None
    return page(
        request,
        "provider.html",
        peer_id=name,
        offer=offer,
        wallet=identity_of(offer.provider_id) if offer else "",
        signed=signed,
        machine=signed.message if signed else None,
        score=found.score if found else None,
        reasons=[sentence(reason, words) for reason in found.score.reasons] if found and found.score else [],
        evidence=_evidence(found.score if found else None),
        jobs=jobs,
        after=after,
        transaction_hash=transaction_hash,
        explorer=EXPLORER if status.network == "mainnet" else "",
        uptime=_uptime(days, now_ms(), words),
        present=presence(days, now_ms()) if days else None,
        last_seen_ms=_last_seen(offer, days),
        history=await _history(store, peer, span, words),
        span=span_of(span),
        spans=list(SPANS),
        say_when=lambda one: when(one, words),
        hire=_hire(offer) if offer else "",
    )


@router.get("/providers/{name}/offer")
async def envelope(name: str, store: Asked) -> Response:
    """The signed bytes, exactly as they were gossiped."""
    offer = await store.offer(_peer(name))
    if offer is None or not offer.record:
        raise NotFound("this provider has no offer now; what it had signed has ended with it")
    headers = {"content-disposition": f'attachment; filename="{offer.peer_id}.offer"'}
    return Response(offer.record, headers=headers, media_type="application/octet-stream")


def checked(offer: OfferView) -> Signed | None:
    """What the provider has signed, if its signature is right and it is by this provider."""
    try:
        signed = verify(offer.record)
    except QubixError:
        return None
    return signed if signed.signer == offer.peer and isinstance(signed.message, Offer) else None


def _peer(name: str) -> bytes:
    try:
        return bytes.fromhex(provider_key(name))
    except ValueError as error:
        raise NotFound(str(error)) from error


def _hire(offer: OfferView) -> str:
    """A command that works as it stands, and has nothing in it that the provider wrote."""
    if not offer.gpus:
        return command(Draft(hours="1", command="uname -a"), offer.peer_id)
    model = CARD_MODELS.get(offer.gpu)
    return command(Draft(gpu=model.name if model else "1", hours="1", command="nvidia-smi"), offer.peer_id)


async def _history(store: Store, peer: bytes, span: str, words: Words) -> Any:
    return await history_of(store, "provider", peer, span_of(span), now_ms(), words)


def _evidence(score: ScoreView | None) -> Evidence:
    told: dict[str, Any] = json.loads(score.evidence) if score else {}
    return Evidence(len(told.get("leases", ())), told.get("counters"))


def presence(days: Days, now: int) -> float:
    """Part of the hours since its first one in which it was there, 0 to 1."""
    if not days:
        return 0.0
    day, mask = days[0]
    first = day * draw.HOURS + max(0, (mask & -mask).bit_length() - 1)
    seen = sum(hours.bit_count() for _, hours in days)
    return min(1.0, seen / max(1, now // HOUR_MS - first + 1))


def _uptime(days: Days, now: int, words: Words) -> Any:
    """The strip, with a hint for each day."""
    today = now // DAY_MS
    hours = {day: mask.bit_count() for day, mask in days}
    told = words.say(
        "Seen in %(share)s of the hours since it was first heard.", share=words.share(presence(days, now))
    )
    hints = []
    for day in range(today - draw.DAYS + 1, today + 1):
        seen = hours.get(day, 0)
        said = words.say("%(hours)s of 24 hours", hours=seen) if seen else words.say("not seen")
        hints.append(f"{words.day(day * DAY_MS)}: {said}")
    return draw.strip(days, today, hints, told)


def _last_seen(offer: OfferView | None, days: Days) -> int:
    """When it was last alive, to the hour where only its days are known. 0: nobody knows."""
    if offer is not None:
        return offer.seen_ms if offer.live else offer.expires_ms
    if not days:
        return 0
    day, mask = days[-1]
    return day * DAY_MS + max(0, mask.bit_length() - 1) * HOUR_MS
