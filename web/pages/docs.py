"""The guides and the reference, as pages: /docs, and /docs/NAME for docs/NAME.md."""

from __future__ import annotations

import functools
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from protocol.errors import NotFound
from web.manual_text import Manual, names, rendered
from web.pages.render import environment, page, words_for
from web.words import words_of

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "Guides": ("caller", "provider", "troubleshooting", "faq", "web"),
    "Every day": ("cli", "tui", "job-file", "hiring", "connect", "images", "import", "errors", "doctor"),
    "For programs": ("web-api", "api", "mirror", "wire"),
    "The machine": ("hardware", "gpus", "isolation", "meters", "proof"),
    "Money and trust": ("money", "lease", "chains", "score", "limits"),
    "The network": ("market", "paths", "relays"),
    "Why it is so": ("adr",),
}
"""What stands on /docs, in order; pages of folders stand on their folder's own."""

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def index(request: Request) -> Response:
    words = words_for(request)
    groups = [
        (words.say(title), [manual(name, words.language) for name in group])
        for title, group in GROUPS.items()
    ]
    return page(request, "docs.html", groups=groups, area="docs")


@router.get("/docs/{name:path}")
async def one(request: Request, name: str) -> Response:
    if name not in names():
        raise NotFound("there is no such page in the documentation")
    words = words_for(request)
    shown = manual(name, words.language)
    trail = [(words.say("Docs"), "/docs")]
    folder = name.rpartition("/")[0]
    if folder in names():
        trail.append((manual(folder, words.language).title, f"/docs/{folder}"))
    trail.append((shown.title, f"/docs/{name}"))
    return page(request, "docs_page.html", shown=shown, area="docs", trail=trail)


@functools.cache
def manual(name: str, language: str) -> Manual:
    """One of `names()`, rendered once."""
    macros: Any = environment(language).get_template("macros.html").make_module()
    label = words_of(language).say("Code")
    return rendered(name, language, lambda text: str(macros.command(text, label)))
