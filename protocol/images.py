"""Where an image is already: the short tags that offers carry, and how soon a job could start. Pure.

An offer names what is on its machine by 8 bytes each: of the SHA-256 of an image's name, and of the
digests of its layers. A caller whose own engine has the image knows its layers and its size, and so how
much of it a provider lacks. One who knows only the name can tell whether it must be fetched, and a usual
size is assumed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final

from protocol.image_needs import NOTHING, Need
from protocol.messages import Offer
from protocol.units import Seconds

MAX_TAGS: Final = 48
"""As many as an offer carries."""
MAX_NAME_TAGS: Final = 24
TAG_BYTES: Final = 8
READY_SECONDS: Final = Seconds(5)
"""To a job's start where its image is on the machine."""
USUAL_IMAGE_MIB: Final = 3_072
"""What an image is taken to weigh: CUDA with a framework in it, compressed."""
USUAL_PULL_MIB_PER_S: Final = 10
"""Where a provider does not know how fast images come."""
COMPRESSED_SHARE: Final = 0.4
"""Of a layer's unpacked size, what is fetched."""
NO_IMAGES: Final = "process"
"""The runner that needs none."""
_HUB: Final = ("docker.io/library/", "docker.io/", "index.docker.io/library/", "index.docker.io/")


def full_name(image: str) -> str:
    """One spelling for all: without the usual registry's name, and with the tag that is meant."""
    for prefix in _HUB:
        image = image.removeprefix(prefix)
    return image if "@" in image or re.search(r":[^/]*$", image) else f"{image}:latest"


def image_tag(image: str) -> bytes:
    """What stands for an image's name in `Offer.layers`."""
    return hashlib.sha256(full_name(image).encode()).digest()[:TAG_BYTES]


def layer_tag(digest: str) -> bytes:
    """What stands for a layer (`sha256:<64 hex>`) in `Offer.layers`."""
    return bytes.fromhex(digest.removeprefix("sha256:"))[:TAG_BYTES]


@dataclass(frozen=True)
class LocalImage:
    """An image as an engine that has it knows it."""

    names: tuple[str, ...]
    layers: tuple[bytes, ...]
    """Their tags, the base first."""
    mib: int
    """Unpacked."""
    need: Need = NOTHING


def tags_of(images: Iterable[LocalImage]) -> tuple[bytes, ...]:
    """What an offer says of the images of a machine, newest first: names before layers, since a caller who
    has never had an image knows nothing else of it. Bases that many images share are said once."""
    kept = list(images)
    names = dict.fromkeys(image_tag(name) for image in kept for name in image.names)
    layers = dict.fromkeys(layer for image in kept for layer in image.layers)
    return tuple(dict.fromkeys((*islice(names, MAX_NAME_TAGS), *layers)))[:MAX_TAGS]


def is_there(layers: Collection[bytes], image: str) -> bool:
    return image_tag(image) in layers


def estimated_start_s(offer: Offer, image: str, known: LocalImage | None = None) -> Seconds:
    """How long after the deposit a job with that image would start there. Nobody is billed for it.

    Assumed: 5 s where nothing is to be fetched; else at the provider's own pace, or 10 MiB/s where it has
    none to tell, what of the image it lacks. `known` is the image as the caller's engine has it; without it
    the image is a usual one of 3 GiB. Layers weigh alike, and 0.4 of their unpacked size on the way.
    """
    if offer.runner == NO_IMAGES or is_there(offer.layers, image):
        return READY_SECONDS
    mib = USUAL_IMAGE_MIB if known is None else _lacking_mib(offer.layers, known)
    return Seconds(READY_SECONDS + -(-mib // (offer.pull_mib_per_s or USUAL_PULL_MIB_PER_S)))


def _lacking_mib(there: Collection[bytes], image: LocalImage) -> int:
    """Compressed. An engine keeps a layer only upon those below it, so what follows a gap is fetched."""
    if not image.layers:
        return round(image.mib * COMPRESSED_SHARE)
    present = sum(1 for _ in takewhile(there.__contains__, image.layers))
    return round(image.mib * COMPRESSED_SHARE * (1 - present / len(image.layers)))
