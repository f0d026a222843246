"""/v1/docs: the description of /v1 as a page to read. In English, as the description is."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from markupsafe import Markup, escape

from web.api.reference import reference
from web.pages.render import page

router = APIRouter()


@router.get("/v1/docs")
async def docs(request: Request) -> Response:
    openapi = request.app.openapi()
    operations, shapes = reference(openapi)
    return page(
        request, "reference.html", info=openapi["info"], operations=operations, shapes=shapes,
        coded=coded,
    )  # fmt: skip


def coded(text: str) -> Markup:
    """What stands between backticks as code."""
    parts = str(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 and number < len(parts) - 1 else escape(part)
        for number, part in enumerate(parts)
    )
