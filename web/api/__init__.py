"""/v1: the market for programs."""

from __future__ import annotations

from fastapi import APIRouter

from web.api import offers

router = APIRouter(prefix="/v1")
router.include_router(offers.router)
