"""What programs are told when something is wrong: always {"error": {"code", "message", ...}}.

`position` is where a filter or sort keys go wrong (from 0, in characters), `parameter` which one of the
request's it is about.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final

import msgspec
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from protocol.errors import MirrorUnavailable, NotFound, QubixError, QueryInvalid, UsageError
from web.api.shapes import Error, Failure

log = logging.getLogger("qubix.web")

RETRY_S: Final = 5
"""A mirror that is gone comes back when its node has started."""
CODES: Final = {
    HTTPStatus.NOT_FOUND: "web.not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "web.method_not_allowed",
    HTTPStatus.SERVICE_UNAVAILABLE: "web.busy",
}


class ParameterInvalid(QueryInvalid):
    """A filter or sort keys that cannot be read, and which parameter they are."""

    def __init__(self, parameter: str, error: QueryInvalid) -> None:
        super().__init__(sentence(error))
        self.parameter = parameter
        self.position = error.position


def failure(
    status: int,
    code: str,
    message: str,
    parameter: str | None = None,
    position: int | None = None,
    retry_s: int = 0,
) -> Response:
    body = Failure(Error(code, message, parameter, position))
    headers = {"cache-control": "no-store"} | ({"retry-after": str(retry_s)} if retry_s else {})
    return Response(msgspec.json.encode(body), status, headers, "application/json")


async def failed(request: Request, error: Exception) -> Response:
    """Any error as an answer."""
    match error:
        case ParameterInvalid():
            return failure(status_of(error), error.code, str(error), error.parameter, error.position)
        case QubixError():
            status = status_of(error)
            retry_s = RETRY_S if status == HTTPStatus.SERVICE_UNAVAILABLE else 0
            return failure(status, error.code, sentence(error), retry_s=retry_s)
        case RequestValidationError():
            parameter, message = _first(error)
            return failure(HTTPStatus.BAD_REQUEST, UsageError.code, message, parameter)
        case HTTPException():
            answer = failure(
                error.status_code, CODES.get(HTTPStatus(error.status_code), UsageError.code), error.detail
            )
            answer.headers.update(error.headers or {})
            return answer
    return failure(HTTPStatus.INTERNAL_SERVER_ERROR, QubixError.code, "a mistake of ours; it is in the log")


def sentence(error: QubixError) -> str:
    """What strangers are told: where the mirror is concerns only whoever reads the log."""
    if isinstance(error, MirrorUnavailable):
        log.warning("%s", error)
        return "the market cannot be read at this moment; try again soon"
    return str(error).partition("\n")[0]  # pictures of where it is are for terminals


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


def _first(error: RequestValidationError) -> tuple[str, str]:
    """(parameter, sentence) of the first thing that was wrong."""
    first = error.errors()[0]
    parameter = ".".join(str(part) for part in first["loc"][1:])[:64]
    return parameter, f"{parameter}: {first['msg']}"
