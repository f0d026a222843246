"""Runs the steps of a plan: each begins when the one before has failed or had its patience; one wins."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence

import trio

from protocol.errors import PeerUnreachable, QubixError
from qubixd.link import Carrier
from qubixd.paths.plan import Step

log = logging.getLogger("qubix.paths")


async def race(steps: Sequence[Step], attempt: Callable[[Step], Awaitable[Carrier]]) -> Carrier:
    """The first carrier that a step brings; the others are ended. PeerUnreachable with what each said if
    none does."""
    found: list[Carrier] = []
    failures: list[str] = []

    async def run(step: Step, over: trio.Event) -> None:
        try:
            carrier = await attempt(step)
        except (QubixError, OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
            failures.append(f"{step.way.value}: {str(error) or 'too slow'}")
            log.debug("no way by %s", failures[-1])
            over.set()
            return
        if found:
            await _drop(carrier)
            return
        found.append(carrier)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for step in steps:
            over = trio.Event()
            nursery.start_soon(run, step, over)
            with trio.move_on_after(step.patience or math.inf):
                await over.wait()
    if not found:
        raise PeerUnreachable(f"there is no way to the peer ({'; '.join(failures) or 'nothing to try'})")
    return found[0]


async def _drop(carrier: Carrier) -> None:
    """At once, and although this task is cancelled."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await carrier.aclose()
