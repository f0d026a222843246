"""The one place where the parts of the web become one application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from protocol.errors import MirrorUnavailable, NotFound, QubixError, UsageError
from web import api, pages
from web.database import open_mirror
from web.headers import Headers
from web.health import router as health
from web.settings import Settings
from web.store import Store

log = logging.getLogger("qubix.web")


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
    app.include_router(api.router)
    app.include_router(pages.router)
    app.add_exception_handler(QubixError, failed)
    app.add_middleware(Headers)
    return app


async def failed(request: Request, error: Exception) -> Response:
    """A QubixError as an answer."""
    assert isinstance(error, QubixError)
    body = {"error": {"code": error.code, "message": sentence_of(error)}}
    return JSONResponse(body, status_of(error))


def sentence_of(error: QubixError) -> str:
    """What strangers are told: where the mirror is concerns only whoever reads the log."""
    if not isinstance(error, MirrorUnavailable):
        return str(error)
    log.warning("%s", error)
    return "the market cannot be read at this moment; try again soon"


def status_of(error: QubixError) -> int:
    """The HTTP status that says what an error says."""
    match error:
        case UsageError():
            return HTTPStatus.BAD_REQUEST
        case NotFound():
            return HTTPStatus.NOT_FOUND
        case MirrorUnavailable():
            return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _version() -> str:
    try:
        return version("qubix")
    except PackageNotFoundError:  # run from a directory that was never installed
        return "0"
