"""Style, scripts and pictures, by addresses that change with what they hold: they are kept for ever.

Read and packed at start; a page is given the address, `/static/<hash>/<name>`.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from protocol.errors import NotFound

FOLDER: Final = Path(__file__).parent / "static"
PREFIX: Final = "/static/"
"""What stands below it costs nothing to answer; no rate limit applies."""
FOREVER: Final = "public, max-age=31536000, immutable"
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".py": "text/plain; charset=utf-8",
}
LEAST_PACKED: Final = 512
"""Bytes; packing less saves nothing."""


@dataclass(frozen=True)
class Asset:
    path: str
    media_type: str
    plain: bytes
    packed: bytes


def _load(file: Path) -> Asset:
    data = file.read_bytes()
    mark = hashlib.sha256(data).hexdigest()[:12]
    packed = gzip.compress(data, 9, mtime=0) if len(data) >= LEAST_PACKED else b""
    return Asset(f"{PREFIX}{mark}/{file.name}", TYPES[file.suffix], data, packed)


_BY_NAME: Final = {file.name: _load(file) for file in sorted(FOLDER.iterdir()) if file.suffix in TYPES}
_BY_PATH: Final = {asset.path: asset for asset in _BY_NAME.values()}

router = APIRouter(include_in_schema=False)


def asset(name: str) -> str:
    """The address of a file of web/static."""
    return _BY_NAME[name].path


@router.get(PREFIX + "{mark}/{name}")
async def static(request: Request) -> Response:
    found = _BY_PATH.get(request.url.path)
    if found is None:
        raise NotFound("there is no such file; reload the page that named it")
    headers = {"cache-control": FOREVER, "vary": "accept-encoding"}
    if found.packed and takes_gzip(request):
        return Response(
            found.packed, headers=headers | {"content-encoding": "gzip"}, media_type=found.media_type
        )
    return Response(found.plain, headers=headers, media_type=found.media_type)


@router.get("/favicon.ico")
async def favicon() -> Response:
    """For those who ask without having read a page."""
    return Response(_BY_NAME["mark.svg"].plain, media_type=TYPES[".svg"])


def takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")
