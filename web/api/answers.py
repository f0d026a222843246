"""How answers of /v1 are made: once for each state of the mirror, and not at all for whoever has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Final

import msgspec
from fastapi import Depends, Header, Query, Request, Response
from fastapi.routing import APIRoute

from protocol.errors import QueryInvalid, UsageError
from protocol.query import MAX_CHARACTERS, Filter, SortKey, parse_filter, parse_sort
from web.api.errors import ParameterInvalid
from web.cursors import MAX_CHARACTERS as LONGEST_CURSOR
from web.live import Hub, at_of
from web.remember import Remembered
from web.store import MAX_PAGE

CHECK: Final = "/verify.py"
JSON: Final = "application/json"
REMEMBER_S: Final = 5.0
LATELY_S: Final = 10.0
"""So old may be what takes the database long."""
MANY: Final = 1_000
"""Answers made at a time: each of them is cheap."""
REMEMBERED_PAGE: Final = 100
"""Rows of an answer that is kept for others who ask the same."""


class Answers:
    """Of one application."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._remembered = Remembered[bytes](REMEMBER_S, at_once=MANY)
        self._lately = Remembered[bytes](LATELY_S)

    async def give(
        self, request: Request, make: Callable[[str], Awaitable[object]], *, keep: bool = True
    ) -> Response:
        """What `make` makes of the mirror's state (`at`), with an ETag; 304 if the asker has it."""
        at = await self.hub.at()
        if _has(request, at):
            return _answer(at, None)

        async def encoded() -> bytes:
            return msgspec.json.encode(await make(at))

        body = await (self._remembered.get(_question(request, at), encoded) if keep else encoded())
        return _answer(at, body)

    async def give_lately(self, request: Request, make: Callable[[], Awaitable[object]]) -> Response:
        """What `make` makes, or made for somebody up to LATELY_S ago; so without an ETag."""

        async def encoded() -> bytes:
            return msgspec.json.encode(await make())

        return Response(await self._lately.get(_question(request, ""), encoded), media_type=JSON)

    def known(self, request: Request) -> Response | None:
        """The answer that somebody got who asked the very same of the same state."""
        status = self.hub.status
        if status is None:
            return None
        at = at_of(status.book, status.change)
        body = self._remembered.have(_question(request, at))
        if body is None:
            return None
        return _answer(at, None if _has(request, at) else body)


class Kept(APIRoute):
    """A route whose answers hang on nothing but the mirror's state, the path and the query. What is known is
    answered before the request is taken apart: that takes several times as long as all the rest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        ask = super().get_route_handler()

        async def answer(request: Request) -> Response:
            answers: Answers = request.app.state.answers
            return answers.known(request) or await ask(request)

        return answer


def _question(request: Request, at: str) -> str:
    """A path may hold anything, once its %s are taken away; a query as it was sent has no end of a line."""
    scope = request.scope
    return f"{at} {scope['query_string'].decode('latin-1')}\n{scope['path']}"


def _answer(at: str, body: bytes | None) -> Response:
    """304 for None."""
    headers = {"etag": _tag(at), "cache-control": "no-cache"}
    return Response(body, 304 if body is None else 200, headers, None if body is None else JSON)


def _tag(at: str) -> str:
    return f'W/"{at}"'


def plain(body: object) -> Response:
    """An answer that is not a function of the mirror's changes."""
    return Response(msgspec.json.encode(body), media_type=JSON)


def _has(request: Request, at: str) -> bool:
    """Does the asker have this state already?"""
    told, tag = request.headers.get("if-none-match", ""), _tag(at)
    known = [one.strip() for one in told.split(",")] if told else []
    return "*" in known or tag in known or tag.removeprefix("W/") in known


async def _answers(request: Request) -> Answers:
    found: Answers = request.app.state.answers
    return found


async def _hub(request: Request) -> Hub:
    found: Hub = request.app.state.hub
    return found


async def only_known(request: Request) -> None:
    """UsageError for parameters that are not there or given twice: a misspelled filter is no empty one."""
    known = {param.alias for param in request.scope["route"].dependant.query_params}
    seen = set[str]()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            fits = f"; there are {', '.join(sorted(known))}" if known else ""
            raise UsageError(f"there is no parameter {name[:40]!r} here{fits}")
        if name in seen:
            raise UsageError(f"the parameter {name} is given twice")
        seen.add(name)


AskedAnswers = Annotated[Answers, Depends(_answers)]
AskedHub = Annotated[Hub, Depends(_hub)]
KNOWN: Final = Depends(only_known)

FilterText = Annotated[
    str,
    Query(
        max_length=MAX_CHARACTERS,
        description="Conditions that must all hold, as `qubix market --where` takes them.",
        json_schema_extra={"format": "market-filter"},
        examples=["gpu=RTX_4090 vram>=24 price<=500k region in (eu, us)"],
    ),
]
SortText = Annotated[
    str,
    Query(
        max_length=MAX_CHARACTERS,
        description="Numbers to sort by, separated by commas; `-` puts the largest first.",
        json_schema_extra={"format": "market-sort"},
        examples=["price,-score"],
    ),
]
CursorText = Annotated[
    str,
    Query(
        max_length=LONGEST_CURSOR,
        description="`next` of the page before; the other parameters stay the same.",
        json_schema_extra={"format": "market-cursor"},
    ),
]
PageSize = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Of a page, at most.")]
IfNoneMatch = Annotated[
    str, Header(alias="If-None-Match", description="An ETag: 304 if nothing has changed since.")
]


def filter_of(text: str) -> Filter:
    try:
        return parse_filter(text)
    except QueryInvalid as error:
        raise ParameterInvalid("filter", error) from error


def sort_of(text: str) -> tuple[SortKey, ...]:
    try:
        return parse_sort(text)
    except QueryInvalid as error:
        raise ParameterInvalid("sort", error) from error


def is_steady(where: Filter) -> bool:
    """Does the mirror alone decide what matches, and not the clock?"""
    return all(one.field != "age" for one in where.conditions)


def described(shape: Any, summary: str, *, etag: bool = False, missing: bool = False) -> dict[str, Any]:
    """What a route says of itself: its shape and what else may be answered (web/api/openapi.py)."""
    refused = {"schema": {"$ref": "#/components/schemas/Failure"}}
    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": summary, "content": {JSON: {"schema": {"$ref": ref_of(shape)}}}},
        400: {"description": "A parameter that cannot be", "content": {JSON: refused}},
        429: {"description": "Asked too often: wait for Retry-After", "content": {JSON: refused}},
        503: {"description": "No mirror can be read at the moment", "content": {JSON: refused}},
    }
    if etag:
        answers[304] = {"description": "As it was when the asker got its ETag"}
    if missing:
        answers[404] = {"description": "Not known here", "content": {JSON: refused}}
    return {"summary": summary, "responses": answers, "response_class": Response}


def ref_of(shape: Any) -> str:
    return f"#/components/schemas/{shape.__name__}"
