"""/v1/docs: the description of /v1 as a page to read. In English, as the description is."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from web.api.reference import reference
from web.pages.render import page

router = APIRouter()


@router.get("/v1/docs")
async def docs(request: Request) -> Response:
    openapi = request.app.openapi()
    operations, shapes = reference(openapi)
    return page(request, "reference.html", info=openapi["info"], operations=operations, shapes=shapes)
