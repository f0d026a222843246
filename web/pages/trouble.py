"""Pages for when something is not as it should be: one sentence, and where to go on."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from protocol.errors import MirrorUnavailable, NotFound, QubixError, UsageError
from web.headers import ALWAYS
from web.pages.render import page

log = logging.getLogger("qubix.web")

RETRY_S: Final = 5
"""A mirror that is gone comes back when its node has started."""
PROGRAMS: Final = ("/v1/", "/healthz", "/readyz", "/metrics")
"""Whoever asks there reads JSON."""
CODES: Final = {
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "usage.error",
    HTTPStatus.TOO_MANY_REQUESTS: "busy",
}


def install(app: FastAPI) -> None:
    """Every error of `app` becomes an answer here."""
    app.add_exception_handler(QubixError, _qubix_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _mistake)


def trouble(request: Request, status: int, code: str, sentence: str = "", retry_s: int = 0) -> Response:
    """As JSON for programs, as a page for people. `sentence` is English and may be empty; `retry_s` becomes
    Retry-After."""
    if request.url.path.startswith(PROGRAMS):
        body = {"error": {"code": code, "message": sentence or HTTPStatus(status).phrase}}
        response: Response = JSONResponse(body, status)
    else:
        response = page(request, "trouble.html", status, status=status, sentence=sentence, retry_s=retry_s)
    if retry_s:
        response.headers["retry-after"] = str(retry_s)
    return response


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


def sentence_of(error: QubixError) -> str:
    """What strangers are told: where the mirror is concerns only whoever reads the log."""
    if not isinstance(error, MirrorUnavailable):
        return str(error)
    log.warning("%s", error)
    return "the market cannot be read at this moment; try again soon"


async def _qubix_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, QubixError)
    status = status_of(error)
    retry_s = RETRY_S if status == HTTPStatus.SERVICE_UNAVAILABLE else 0
    return trouble(request, status, error.code, sentence_of(error), retry_s)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = trouble(request, error.status_code, CODES.get(HTTPStatus(error.status_code), "internal.error"))
    response.headers.update(error.headers or {})
    return response


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return trouble(request, HTTPStatus.BAD_REQUEST, "usage.error", f"{where}: {first['msg']}")


async def _mistake(request: Request, error: Exception) -> Response:
    """Ours. Starlette calls this outside of all middleware, and writes the mistake to the log after it."""
    response = trouble(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal.error")
    response.headers.update(ALWAYS)
    return response
