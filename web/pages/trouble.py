"""Pages for when something is not as it should be: one sentence, and where to go on."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from protocol.errors import QubixError, UsageError
from web.api import errors
from web.headers import ALWAYS
from web.pages.render import page

PROGRAMS: Final = ("/v1/", "/healthz", "/readyz", "/metrics")
"""Whoever asks there reads JSON."""


def install(app: FastAPI) -> None:
    """Every error of `app` becomes an answer here."""
    for kind in (QubixError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, failed)
    app.add_exception_handler(Exception, _mistake)


async def failed(request: Request, error: Exception) -> Response:
    """As JSON for programs, as a page for people."""
    if request.url.path.startswith(PROGRAMS):
        return await errors.failed(request, error)
    match error:
        case QubixError():
            status = errors.status_of(error)
            retry_s = errors.RETRY_S if status == HTTPStatus.SERVICE_UNAVAILABLE else 0
            return trouble(request, status, error.code, errors.sentence(error), retry_s)
        case HTTPException():
            response = trouble(request, error.status_code, UsageError.code)
            response.headers.update(error.headers or {})
            return response
        case RequestValidationError():
            return trouble(request, HTTPStatus.BAD_REQUEST, UsageError.code)
    return trouble(request, HTTPStatus.INTERNAL_SERVER_ERROR, QubixError.code)


def trouble(request: Request, status: int, code: str, sentence: str = "", retry_s: int = 0) -> Response:
    """`sentence` is English, and may be empty for a page; `retry_s` becomes Retry-After."""
    if request.url.path.startswith(PROGRAMS):
        return errors.failure(status, code, sentence, retry_s=retry_s)
    response = page(request, "trouble.html", status, status=status, sentence=sentence, retry_s=retry_s)
    if retry_s:
        response.headers["retry-after"] = str(retry_s)
    return response


async def _mistake(request: Request, error: Exception) -> Response:
    """Ours. Starlette calls this outside of all middleware, and writes the mistake to the log after it."""
    response = await failed(request, error)
    response.headers.update(ALWAYS)
    return response
