"""/healthz: the process answers. /readyz: it has a mirror, and the mirror is fresh. Both from memory."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from protocol.errors import MirrorUnavailable
from web.api.answers import AskedHub
from web.store import now_ms

STALE_MS: Final = 60_000
"""A node writes its mirror every second; one that has not for so long is not running."""

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz() -> JSONResponse:
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
async def readyz(hub: AskedHub) -> JSONResponse:
    """503 without a mirror or with a stale one."""
    if hub.status is None:
        raise MirrorUnavailable("the last look at the mirror found none")
    age_ms = max(0, now_ms() - hub.status.updated_ms)
    ready = age_ms <= STALE_MS
    return JSONResponse({"status": "ok" if ready else "stale", "age_ms": age_ms}, 200 if ready else 503)
