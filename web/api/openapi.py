"""The description of /v1: what FastAPI reads from the routes, with the shapes that are really encoded."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from web.api import shapes

ANSWERS: Final = (
    shapes.Failure, shapes.Offers, shapes.OneOffer, shapes.Offer, shapes.Gone, shapes.Provider, shapes.Prices,
    shapes.Models, shapes.Regions, shapes.Stats, shapes.Network, shapes.Settlements, shapes.Catalogue,
    shapes.UseCases, shapes.Recommendation,
)  # fmt: skip
TAGS: Final = (
    ("Market", "Offers, who makes them, and what they cost."),
    ("Live", "Changes as they happen, as server-sent events."),
    ("Network", "The market as a whole, and what was settled."),
    ("Use cases", "What is rented for what."),
)
DESCRIPTION: Final = """\
The GPU market of the qubix network as one node sees it. Everything here is public and read-only; there is no
key and no login. An indexer only passes on: each offer comes with the bytes that its provider signed, and
`/verify.py` is a script that checks them itself. Every error is `{"error": {"code", "message"}}`, with
`position` where a filter goes wrong. An address may ask 50 times a minute (`RateLimit-*`, `Retry-After`).
"""
LIMIT_HEADERS: Final = {
    "RateLimit-Limit": "Requests of an address in a minute.",
    "RateLimit-Remaining": "Of these, left now.",
    "RateLimit-Reset": "Seconds until the minute is over.",
}
RETRY: Final = {"Retry-After": "Seconds to wait."}


def describe(app: FastAPI) -> dict[str, Any]:
    """Made once for each application; for `app.openapi`."""
    if app.openapi_schema is None:
        told = get_openapi(
            title=app.title,
            version=app.version,
            description=DESCRIPTION,
            routes=app.routes,
            tags=[{"name": name, "description": text} for name, text in TAGS],
        )
        _, components = msgspec.json.schema_components(ANSWERS, ref_template="#/components/schemas/{name}")
        told["components"] = {"schemas": components}
        for path in told["paths"].values():
            for operation in path.values():
                _complete(operation["responses"])
        app.openapi_schema = told
    return app.openapi_schema


def _complete(responses: dict[str, Any]) -> None:
    """422 is never answered here; the headers of limits are part of every answer."""
    responses.pop("422", None)
    for status, response in responses.items():
        said = LIMIT_HEADERS | (RETRY if status in ("429", "503") else {})
        response["headers"] = {
            name: {"description": text, "schema": {"type": "integer", "minimum": 0}}
            for name, text in said.items()
        }
        if "304" in responses and status in ("200", "304"):
            etag = {"description": "For If-None-Match.", "schema": {"type": "string"}}
            response["headers"]["ETag"] = etag
