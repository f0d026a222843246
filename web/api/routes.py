"""All routes of /v1."""

from __future__ import annotations

from fastapi import APIRouter

from web.api import catalogue, events, network, offers, providers
from web.api.answers import KNOWN

router = APIRouter(prefix="/v1", dependencies=[KNOWN])
for part in (offers, providers, network, catalogue, events):
    router.include_router(part.router)
