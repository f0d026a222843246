"""Headers that every answer carries, and who may read /v1 from where. Plain ASGI: streams pass unbuffered."""

from __future__ import annotations

import secrets
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing comes from elsewhere and nothing stands inside a page that could run."""
ALWAYS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
SAME_ORIGIN: Final = {"cross-origin-resource-policy": "same-origin"}
OPEN: Final = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "etag, link, ratelimit-limit, ratelimit-remaining, ratelimit-reset,"
    " retry-after, x-request-id",
    "cross-origin-resource-policy": "cross-origin",
}
"""Of /v1: everything there is public, and no cookie is looked at."""
PREFLIGHT: Final = {
    "access-control-allow-methods": "GET, HEAD, OPTIONS",
    "access-control-allow-headers": "if-none-match, last-event-id",
    "access-control-max-age": "86400",
}
ENDLESS: Final = ("/v1/events",)
"""Of which nobody gets only the head."""
REQUEST_ID: Final = b"x-request-id"
OF_V1: Final = [(name.encode(), value.encode()) for name, value in (ALWAYS | OPEN).items()]
OF_PAGES: Final = [(name.encode(), value.encode()) for name, value in (ALWAYS | SAME_ORIGIN).items()]


class Headers:
    """Puts them on; answers preflights by itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        public = scope["path"].startswith("/v1/")
        fixed = OF_V1 if public else OF_PAGES
        request_id = scope.setdefault("state", {})["request_id"] = secrets.token_hex(8)

        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                said = {name for name, _ in headers}
                headers += [header for header in fixed if header[0] not in said]
                message["headers"] = [*headers, (REQUEST_ID, request_id.encode())]
            await send(message)

        if public and scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=PREFLIGHT)(scope, receive, send_with)
        else:
            if scope["method"] == "HEAD" and scope["path"] not in ENDLESS:
                scope = {**scope, "method": "GET"}  # the server leaves the body out
            await self._app(scope, receive, send_with)
