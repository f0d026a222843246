"""Templates -> pages, in the reader's language and colours."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse

from protocol.query import FIELDS
from web import draw
from web.assets import LEAST_PACKED, asset, takes_gzip
from web.health import STALE_MS
from web.safe import shown, theirs
from web.store import now_ms
from web.words import LANGUAGES, UNKNOWN, Words, wanted, words_of

TEMPLATES: Final = Path(__file__).parents[1] / "templates"
THEMES: Final = ("light", "dark")
KEPT_S: Final = round(timedelta(days=365).total_seconds())
PACKING: Final = 5
"""Of gzip; a page takes a millisecond."""
HEADERS: Final = {"cache-control": "no-cache", "vary": "accept-encoding, accept-language, cookie"}


def page(request: Request, template: str, status: int = HTTPStatus.OK, /, **values: Any) -> Response:
    """A template with `values`. `?lang=` and `?theme=` are remembered in cookies from here on."""
    if request.query_params.get("theme") in THEMES and status == HTTPStatus.OK:
        return _kept_theme(request)
    words = words_for(request)
    text = (
        environment(words.language)
        .get_template(template)
        .render(
            {
                "theme": chosen_theme(request),
                "path": request.url.path,
                "here": functools.partial(here, request),
                "now_ms": now_ms(),
                "mirror": request.app.state.hub.status,
            },
            **values,
        )
    )
    response = _packed(request, text.encode(errors="replace"), status)
    if request.query_params.get("lang") in LANGUAGES:
        _keep(request, response, "lang", words.language)
    return response


def words_for(request: Request) -> Words:
    """By ?lang=, else by cookie, else as the browser likes it."""
    for language in (request.query_params.get("lang"), request.cookies.get("lang")):
        if language in LANGUAGES:
            return words_of(language)
    return words_of(wanted(request.headers.get("accept-language", "")))


def chosen_theme(request: Request) -> str:
    """light, dark, or "" for what the machine prefers."""
    theme = request.cookies.get("theme", "")
    return theme if theme in THEMES else ""


def here(request: Request, **changes: str) -> str:
    """This page's address with other parameters; "" takes one away."""
    params = {name: value for name, value in request.query_params.items() if name not in ("lang", "theme")}
    params = {name: value for name, value in (params | changes).items() if value}
    return own_path(request) + ("?" + urlencode(params) if params else "")


def own_path(request: Request) -> str:
    """Never the address of another host, which `//` would begin."""
    return quote("/" + request.url.path.lstrip("/\\"))


@functools.cache
def environment(language: str) -> Environment:
    """Of one language: its words are in reach of every template and macro."""
    words = words_of(language)
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    translations: Any = made  # the i18n extension puts its methods on
    translations.install_gettext_callables(words.say, words.form, newstyle=True)
    made.filters |= {
        "theirs": theirs, "shown": shown, "number": words.number, "short": words.short, "qu": words.qu,
        "share": words.share, "change": words.change, "memory": words.memory, "day": words.day,
        "date": words.date, "moment": words.moment, "duration": words.duration, "spaced": spaced,
    }  # fmt: skip
    made.globals |= {
        "asset": asset,
        "draw": draw,
        "languages": LANGUAGES,
        "unknown": UNKNOWN,
        "fields": FIELDS,
        "stale_ms": STALE_MS,
    }
    made.globals |= {"words": words, "many": words.many}
    return made


def spaced(label: str) -> str:
    """A GPU class as people read it: RTX_4090 -> RTX 4090."""
    return label.replace("_", " ")


def _packed(request: Request, body: bytes, status: int) -> Response:
    headers = dict(HEADERS)
    if len(body) >= LEAST_PACKED and takes_gzip(request):
        headers["content-encoding"] = "gzip"
        body = gzip.compress(body, PACKING, mtime=0)
    return HTMLResponse(body, status, headers)


def _kept_theme(request: Request) -> Response:
    response = RedirectResponse(here(request), HTTPStatus.SEE_OTHER, HEADERS)
    _keep(request, response, "theme", request.query_params["theme"])
    return response


def _keep(request: Request, response: Response, name: str, value: str) -> None:
    secure = request.url.scheme == "https"
    response.set_cookie(name, value, KEPT_S, httponly=True, samesite="lax", secure=secure)


def redirected(request: Request, params: Mapping[str, str]) -> Response:
    """The same page, asked for in another way."""
    chosen = {name: value for name, value in params.items() if value}
    return RedirectResponse(
        own_path(request) + ("?" + urlencode(chosen) if chosen else ""), HTTPStatus.SEE_OTHER
    )
