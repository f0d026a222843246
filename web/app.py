"""The one place where the parts of the web become one application."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request, Response

from web import assets, pages
from web.api import openapi, reference, routes
from web.api.answers import Answers
from web.database import open_mirror
from web.headers import Headers
from web.health import router as health
from web.limits import Limits
from web.live import Hub
from web.metrics import Measured, Meter, exposed
from web.pages import trouble
from web.settings import Settings
from web.store import Store


def create_app(settings: Settings) -> FastAPI:
    """All of one web process. What it holds is opened when it starts to serve: app.state.store."""

    meter = Meter()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_mirror(settings.mirror) as mirror:
            app.state.store = store = Store(mirror)
            app.state.hub = hub = Hub(store, settings.streams, settings.streams_each)
            app.state.answers = Answers(hub)
            meter.watch(hub)
            await hub.try_look()
            looking = asyncio.create_task(hub.run())
            try:
                with exposed(meter, settings.metrics, settings.workers):
                    yield
            finally:
                looking.cancel()

    app = FastAPI(
        title="qubix market",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from foreign hosts
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.openapi = functools.partial(openapi.describe, app)  # type: ignore[method-assign]  # FastAPI's way
    app.include_router(health)
    app.include_router(assets.router)
    app.include_router(routes.router)
    app.include_router(reference.script)
    app.include_router(pages.router)
    trouble.install(app)
    app.add_middleware(
        Limits,
        each=settings.requests_per_minute,
        proxies=settings.behind_proxy,
        refuse=functools.partial(_refused, meter),
    )
    app.add_middleware(Measured, meter=meter)
    app.add_middleware(Headers)
    return app


def _refused(meter: Meter, request: Request, wait_s: int) -> Response:
    meter.limited.inc()
    sentence = f"this address asks too often; wait {wait_s} seconds"
    return trouble.trouble(request, 429, "web.too_many_requests", sentence, wait_s)


def _version() -> str:
    try:
        return version("qubix")
    except PackageNotFoundError:  # run from a directory that was never installed
        return "0"
