"""The pages for people."""

from __future__ import annotations

from fastapi import APIRouter

from web.pages import docs, gpus, home, market, network, providers, reference, start, verify

router = APIRouter(include_in_schema=False)
router.include_router(docs.router)
router.include_router(home.router)
router.include_router(market.router)
router.include_router(gpus.router)
router.include_router(providers.router)
router.include_router(reference.router)
router.include_router(start.router)
router.include_router(network.router)
router.include_router(verify.router)
