"""The pages for people."""

from __future__ import annotations

from fastapi import APIRouter

from web.pages import home

router = APIRouter(include_in_schema=False)
router.include_router(home.router)
