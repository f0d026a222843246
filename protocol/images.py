"""Where an image is already: the short tags that offers carry, and how soon a job could start. Pure.

An offer names what is on its machine by 8 bytes each: of the SHA-256 of an image's name, and of the
digests of its layers. A caller who knows only the name can tell whether it must be fetched; its size is
nowhere told before that, so a usual one is assumed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Final

from protocol.units import Seconds

TAG_BYTES: Final = 8
READY_SECONDS: Final = Seconds(5)
"""To a job's start where its image is on the machine."""
USUAL_IMAGE_MIB: Final = 3_072
"""What an image is taken to weigh: CUDA with a framework in it, compressed."""
USUAL_PULL_MIB_PER_S: Final = 10
"""Where a provider does not know how fast images come."""
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


def is_there(layers: Collection[bytes], image: str) -> bool:
    return image_tag(image) in layers


def start_seconds(layers: Collection[bytes], pull_mib_per_s: int, image: str) -> Seconds:
    """Estimate of how long after the deposit a job with that image starts. Not billed."""
    if is_there(layers, image):
        return READY_SECONDS
    return Seconds(READY_SECONDS + USUAL_IMAGE_MIB // (pull_mib_per_s or USUAL_PULL_MIB_PER_S))
