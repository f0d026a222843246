"""The one place where the parts of the web become one application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from web import api, assets, pages
from web.database import open_mirror
from web.headers import Headers
from web.health import router as health
from web.pages import trouble
from web.settings import Settings
from web.store import Store


def create_app(settings: Settings) -> FastAPI:
    """All of one web process. What it holds is opened when it starts to serve: app.state.store."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_mirror(settings.mirror) as mirror:
            app.state.store = Store(mirror)
            yield

    app = FastAPI(
        title="qubix market",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from foreign hosts
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.settings = settings
    app.include_router(health)
    app.include_router(assets.router)
    app.include_router(api.router)
    app.include_router(pages.router)
    trouble.install(app)
    app.add_middleware(Headers)
    return app


def _version() -> str:
    try:
        return version("qubix")
    except PackageNotFoundError:  # run from a directory that was never installed
        return "0"
