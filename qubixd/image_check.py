"""Whether a job's image runs on this machine: before a quote where it is here, and after it was fetched."""

from __future__ import annotations

from protocol.errors import EngineUnreachable, ImageNotHere
from protocol.image_needs import NOTHING, Need, check, joined
from protocol.images import NO_IMAGES
from protocol.messages import Wish
from protocol.templates import is_local
from qubixd.runner import Runner


async def check_image(runner: Runner, name: str, wish: Wish, machine: Need) -> None:
    """Return if nothing known speaks against it. ImageUnavailable with its code otherwise.

    `machine`: its architecture and the newest CUDA of its driver. Without an engine that answers only the
    caller's word counts.
    """
    known = None
    if runner.name != NO_IMAGES:
        try:
            known = await runner.image(name)
        except EngineUnreachable:
            pass
        else:
            if known is None and is_local(name):
                raise ImageNotHere(f"the image {name} is built where it is used, and is not built here")
    needed = joined(known.need if known else NOTHING, Need(wish.arch, wish.cuda))
    check(needed, machine, gpus=wish.gpu_count)
