"""/v1/events: live changes as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from protocol.query import Filter
from web.api import shapes
from web.api.answers import AskedHub, FilterText, described, filter_of
from web.live import CUT, Hub, TooMany

router = APIRouter(tags=["Live"])

STREAM: Final = "text/event-stream"
RETRY_S: Final = 30
EXAMPLE: Final = 'event: gone\nid: 9f2c51a07be4d813-1000043\ndata: {"peer_id":"12D3KooW...","live":false}\n\n'


def _described() -> dict[str, Any]:
    said = described(shapes.Offer, "Live changes")
    said["responses"][200]["content"] = {STREAM: {"schema": {"type": "string"}, "example": EXAMPLE}}
    said["responses"][503]["description"] = "Too many streams are open, or no mirror can be read"
    return said


@router.get("/events", **_described())
async def events(
    request: Request,
    hub: AskedHub,
    filter: FilterText = "",
    since: Annotated[
        str, Query(pattern=f"({shapes.AT})|^$", max_length=100, description="`at` of what is known already.")
    ] = "",
    last_event_id: Annotated[
        str, Header(alias="Last-Event-ID", description="As browsers send it; comes before `since`.")
    ] = "",
) -> Response:
    """`offer` (an object as in /v1/offers) when an offer is new or has changed, `gone` when it has ended or
    does not match `filter` any more. Every event has an id to go on from: read /v1/offers, then follow with
    its `at` as `since`. `ready` says that nothing is missing up to its id; `reset` that this cannot be said,
    and the list has to be read anew. Comments come every 15 seconds. A reader that is too slow is cut off."""
    where = filter_of(filter)
    await hub.at()
    address = request.scope.get("state", {}).get("address", "")
    return EventStream(hub, where, address, last_event_id or since)


class EventStream(Response):
    """Goes on until the reader leaves, or is cut off."""

    def __init__(self, hub: Hub, where: Filter, address: str, since: str) -> None:
        super().__init__(None, 200, {"cache-control": "no-cache", "x-accel-buffering": "no"}, STREAM)
        del self.headers["content-length"]
        self._hub, self._where, self._address, self._since = hub, where, address, since

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cut = scope.get("state", {}).get(CUT, lambda: None)
        try:
            with self._hub.joined(self._where, self._address, cut) as (one, at):
                pieces = self._hub.stream(self._where, one, self._since, at)
                await _first_to_end(self._send(pieces, send), _left(receive))
        except TooMany as error:
            raise HTTPException(503, str(error), {"retry-after": str(RETRY_S)}) from error

    async def _send(self, pieces: AsyncIterator[bytes], send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first_to_end(*doing: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(one) for one in doing]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for one in ended:
        if isinstance(one, Exception):
            raise one
