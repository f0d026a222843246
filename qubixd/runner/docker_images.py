"""The images of a Docker engine: which it has, the newest first, and at what pace they came."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from docker.errors import NotFound

from protocol.image_needs import Need, need_of
from protocol.images import LocalImage, layer_tag
from protocol.units import UnixMs
from qubixd.runner.docker_config import Info, unix_ms
from qubixd.runner.docker_engine import Client

MIB: Final = 1 << 20
MAX_IMAGES: Final = 128
"""Looked at, of those built last; each is one call to the engine."""
PULLS_KEPT: Final = 5
LEAST_BYTES: Final = MIB
"""A smaller pull tells more of the way to the registry than of its width."""
MAX_MIB_PER_S: Final = 100_000
NEVER: Final = UnixMs(0)
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Pace:
    """How fast the last pulls were, unpacking included."""

    def __init__(self) -> None:
        self._pulls: deque[tuple[int, float]] = deque(maxlen=PULLS_KEPT)

    def add(self, fetched_bytes: int, seconds: float) -> None:
        if fetched_bytes >= LEAST_BYTES and seconds > 0:
            self._pulls.append((fetched_bytes, seconds))

    @property
    def mib_per_s(self) -> int:
        """At least 1; 0 as long as nothing is known."""
        if not self._pulls:
            return 0
        fetched = sum(size for size, _ in self._pulls)
        seconds = sum(taken for _, taken in self._pulls)
        return min(MAX_MIB_PER_S, max(1, round(fetched / seconds / MIB)))


def newest_images(client: Client, wanted: Sequence[str]) -> list[LocalImage]:
    """The images that have a name: those that jobs `wanted` (ids, the last first), then the others, the one
    named or made last first. An engine does not tell when it fetched an image."""
    places = {image_id: place for place, image_id in enumerate(wanted)}
    named = [each for each in client.images() if each.get("RepoTags") or each.get("RepoDigests")]
    named.sort(key=lambda each: places.get(each["Id"], len(places)))
    found = [_inspected(client, each["Id"]) for each in named[:MAX_IMAGES]]
    infos = sorted((info for info in found if info), key=_made_at, reverse=True)
    infos.sort(key=lambda info: places.get(info["Id"], len(places)))
    return [local_image(info) for info in infos]


def local_image(info: Info) -> LocalImage:
    """What the engine says of an image, in our words."""
    layers = (info.get("RootFS") or {}).get("Layers") or ()
    names = (*(info.get("RepoTags") or ()), *(info.get("RepoDigests") or ()))
    return LocalImage(
        names=tuple(name for name in names if "<none>" not in name),
        layers=tuple(layer_tag(digest) for digest in layers if _SHA256.fullmatch(digest)),
        mib=-(-int(info.get("Size") or 0) // MIB),
        need=needs(info),
    )


def needs(info: Info) -> Need:
    """What an image asks of a machine."""
    config = info.get("Config") or {}
    return need_of(str(info.get("Architecture") or ""), config.get("Env") or (), config.get("Labels") or {})


def _inspected(client: Client, image_id: str) -> Info | None:
    """None if it was removed meanwhile."""
    try:
        info: Info = client.inspect_image(image_id)
    except NotFound:
        return None
    return info


def _made_at(info: Info) -> UnixMs:
    """NEVER where an engine tells the time in a way of its own."""
    times = ((info.get("Metadata") or {}).get("LastTagTime"), info.get("Created"))
    with suppress(ValueError):
        return max((unix_ms(at) for at in times if at), default=NEVER)
    return NEVER
