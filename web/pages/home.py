"""/: the market at a glance, and how to begin."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from web.asked import Asked
from web.pages.render import page

router = APIRouter()


@router.get("/")
async def home(request: Request, store: Asked) -> Response:
    return page(request, "home.html", live=await store.live())
